//! A file of participants: one line per participant and currency.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead};

use deltran_kernel::{Currency, Money, ParticipantId};

use super::csv::{BadHeader, Columns, Lines};
use super::report::RefusedLine;

/// The columns; all must be there.
pub const COLUMNS: [&str; 5] = ["participant", "name", "currency", "opening_deposit", "net_debit_cap"];
const MAX_NAME: usize = 140;

/// What a participant gets in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InCurrency {
    /// The line that says so.
    pub line: u64,
    /// Tokens minted at the start; may be zero.
    pub opening_deposit: Money,
    /// Its net debit cap; may be zero.
    pub net_debit_cap: Money,
}

/// A participant with its currencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// By currency.
    pub currencies: BTreeMap<Currency, InCurrency>,
}

/// What a file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Participants {
    /// Participants in order.
    pub entries: BTreeMap<ParticipantId, Entry>,
    /// Lines that cannot be used.
    pub refused: Vec<RefusedLine>,
}

/// Why a file cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum BadFile {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Its header does not fit.
    #[error("{0}")]
    Header(#[from] BadHeader),
}

/// Reads a file of participants. A line that cannot be used is reported; the rest goes on.
///
/// # Errors
/// [`BadFile`] where it cannot be read or its header does not fit.
pub fn read(reader: impl BufRead) -> Result<Participants, BadFile> {
    let mut lines = Lines::new(reader);
    let header = match lines.next_line()? {
        None => return Err(BadHeader::Empty.into()),
        Some((_, Err(bad))) => return Err(BadHeader::Line(bad).into()),
        Some((_, Ok(line))) => Columns::read(line, COLUMNS, COLUMNS.len())?,
    };
    let mut all = Participants::default();
    let mut seen = BTreeSet::new();
    while let Some((number, line)) = lines.next_line()? {
        let read = line.and_then(|line| header.fields(line)).map_err(|e| (String::new(), e.to_string()));
        let added = read.and_then(|fields| {
            let who = fields[0].chars().take(35).collect::<String>();
            one(number, &fields.map(|f| f.trim().to_owned()), &mut seen, &mut all.entries).map_err(|why| (who, why))
        });
        if let Err((who, message)) = added {
            all.refused.push(RefusedLine { line: number, end_to_end_id: who, reason: "malformed".into(), message });
        }
    }
    Ok(all)
}

fn one(
    number: u64,
    [participant, name, currency, deposit, cap]: &[String; 5],
    seen: &mut BTreeSet<(ParticipantId, Currency)>,
    entries: &mut BTreeMap<ParticipantId, Entry>,
) -> Result<(), String> {
    let participant: ParticipantId = participant.parse().map_err(|e| format!("{e}"))?;
    let currency: Currency = currency.parse().map_err(|e| format!("{e}"))?;
    if name.is_empty() || name.chars().count() > MAX_NAME {
        return Err(format!("name has {} characters: 1 to {MAX_NAME} are allowed", name.chars().count()));
    }
    let not_negative = |column: &str, text: &str| {
        let money = Money::parse(text, currency).map_err(|e| format!("{column}: {e}"))?;
        if money.minor().is_negative() { Err(format!("{column} {text:?} is below zero")) } else { Ok(money) }
    };
    let opening_deposit = not_negative("opening_deposit", deposit)?;
    let net_debit_cap = not_negative("net_debit_cap", cap)?;
    if let Some(known) = entries.get(&participant).filter(|known| known.name != *name) {
        return Err(format!("{participant} is named {name:?} here and {:?} before", known.name));
    }
    if !seen.insert((participant, currency)) {
        return Err(format!("{participant} {currency} stands twice"));
    }
    let entry = entries.entry(participant).or_insert_with(|| Entry { name: name.clone(), currencies: BTreeMap::new() });
    entry.currencies.insert(currency, InCurrency { line: number, opening_deposit, net_debit_cap });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_lines_are_gathered_and_bad_ones_reported() {
        let file = "participant,name,currency,opening_deposit,net_debit_cap\n\
                    ALFAAEXX,Alfa Bank,USD,250000.00,200000.00\n\
                    ALFAAEXX,Alfa Bank,JPY,0,10\n\
                    alfa,Alfa Bank,USD,1.00,1.00\n\
                    BRAVINXX,Brav Bank,USD,-1.00,1.00\n\
                    BRAVINXX,Brav Bank,USD,1.0,1.00\n\
                    ALFAAEXX,Other,EUR,1.00,1.00\n\
                    ALFAAEXX,Alfa Bank,USD,1.00,1.00\n\
                    BRAVINXX,,USD,1.00,1.00\n\
                    BRAVINXX,Brav Bank,USD\n";
        let all = read(file.as_bytes()).unwrap();
        assert_eq!(all.entries.len(), 1);
        let alfa = &all.entries[&"ALFAAEXX".parse().unwrap()];
        assert_eq!(alfa.currencies.len(), 2);
        let lines: Vec<_> = all.refused.iter().map(|r| (r.line, r.message.as_str())).collect();
        assert_eq!(lines.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9, 10]);
        for ((_, message), why) in lines.iter().zip([
            "participant id",
            "below zero",
            "exactly 2",
            "is named",
            "stands twice",
            "name has 0",
            "3 columns where the header has 5",
        ]) {
            assert!(message.contains(why), "{message}");
        }
    }

    #[test]
    fn a_header_that_does_not_fit_ends_it() {
        assert!(read("participant,name".as_bytes()).unwrap_err().to_string().contains("\"currency\" is missing"));
        assert!(read("".as_bytes()).unwrap_err().to_string().contains("empty"));
    }
}
