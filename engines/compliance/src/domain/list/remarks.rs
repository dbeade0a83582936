//! What OFAC writes into the remarks of an entry: dates of birth, nationalities, identifiers, weak aliases. Free
//! text: what is not understood is left alone, for it can only make a match less certain, never hide one.

use super::{BirthDate, Entry, IdKind, Identifier, Quality};

/// What an identifier is called, longest first where one begins like another, and how it counts.
const IDENTIFIERS: &[(&str, IdKind)] = &[
    ("Vessel Registration Identification IMO ", IdKind::Imo),
    ("Digital Currency Address - ", IdKind::Wallet),
    ("SWIFT/BIC ", IdKind::Bic),
    ("LEI ", IdKind::Lei),
    ("Legal Entity Number ", IdKind::Registration),
    ("Legal Entity Identifier ", IdKind::Lei),
    ("Diplomatic Passport ", IdKind::Passport),
    ("Stateless Person Passport ", IdKind::Passport),
    ("Passport ", IdKind::Passport),
    ("National ID No. ", IdKind::NationalId),
    ("National Foreign ID Number ", IdKind::NationalId),
    ("Personal ID Card ", IdKind::NationalId),
    ("Identification Number ", IdKind::NationalId),
    ("Cedula No. ", IdKind::NationalId),
    ("Cedula Extranjera No. ", IdKind::NationalId),
    ("Citizen's Card Number ", IdKind::NationalId),
    ("D.N.I. ", IdKind::NationalId),
    ("C.U.R.P. ", IdKind::NationalId),
    ("SSN ", IdKind::NationalId),
    ("Kenyan ID No. ", IdKind::NationalId),
    ("Tarjeta de Identidad ", IdKind::NationalId),
    ("Tax ID No. ", IdKind::TaxId),
    ("NIT # ", IdKind::TaxId),
    ("NIE ", IdKind::TaxId),
    ("RUC # ", IdKind::TaxId),
    ("RIF # ", IdKind::TaxId),
    ("RTN ", IdKind::TaxId),
    ("RFC ", IdKind::TaxId),
    ("R.F.C. ", IdKind::TaxId),
    ("C.U.I.T. ", IdKind::TaxId),
    ("C.I.F. ", IdKind::TaxId),
    ("C.R. No. ", IdKind::Registration),
    ("V.A.T. Number ", IdKind::TaxId),
    ("Fiscal Code ", IdKind::TaxId),
    ("Italian Fiscal Code ", IdKind::TaxId),
    ("Registration ID ", IdKind::Registration),
    ("Registration Number ", IdKind::Registration),
    ("Public Registration Number ", IdKind::Registration),
    ("Company Number IMO ", IdKind::Imo),
    ("Company Number ", IdKind::Registration),
    ("UK Company Number ", IdKind::Registration),
    ("Company ID: No. ", IdKind::Registration),
    ("Business Registration Document # ", IdKind::Registration),
    ("Business Registration Number ", IdKind::Registration),
    ("Business Number ", IdKind::Registration),
    ("Commercial Registry Number ", IdKind::Registration),
    ("Trade License No. ", IdKind::Registration),
    ("Matricula Mercantil No ", IdKind::Registration),
    ("Folio Mercantil No. ", IdKind::Registration),
    ("Unified Social Credit Code (USCC) ", IdKind::Registration),
    ("Government Gazette Number ", IdKind::Registration),
    ("D-U-N-S Number ", IdKind::Registration),
    ("LE Number ", IdKind::NationalId),
];

/// Reads the remarks into the entry.
pub fn read_remarks(entry: &mut Entry, remarks: &str) {
    let mut dates_are_whole = true;
    for part in remarks.split(';') {
        let part = part.trim();
        let part = part.strip_suffix('.').unwrap_or(part).trim();
        let part = part.strip_prefix("alt. ").unwrap_or(part);
        if let Some(date) = part.strip_prefix("DOB ") {
            match BirthDate::remark(date) {
                Some(date) => entry.born_on(date),
                None => dates_are_whole = false,
            }
        } else if let Some(country) = part.strip_prefix("nationality ").or_else(|| part.strip_prefix("citizen ")) {
            entry.of_country(country);
        } else if let Some(name) = quoted(part) {
            entry.also(name, Quality::Weak);
        } else if let Some(identifier) = identifier(part) {
            entry.identified_by(identifier);
        }
    }
    // A date that cannot be read might be the one that fits: then none may count against a match.
    if !dates_are_whole {
        entry.born.clear();
    }
}

/// `a.k.a. 'NAME'`: the list's way to mark a weak alias.
fn quoted(part: &str) -> Option<&str> {
    let name = ["a.k.a. ", "f.k.a. ", "n.k.a. "].iter().find_map(|word| part.strip_prefix(word))?;
    let name = name.trim().strip_prefix('\'')?.strip_suffix('\'')?;
    super::check_name(name).is_ok().then_some(name)
}

fn identifier(part: &str) -> Option<Identifier> {
    let (rest, kind) = IDENTIFIERS.iter().find_map(|(word, kind)| Some((part.strip_prefix(word)?, *kind)))?;
    let rest = rest.trim();
    // After "Digital Currency Address - " comes the currency.
    let rest = if kind == IdKind::Wallet { rest.split_once(' ')?.1 } else { rest };
    let end = rest.find([' ', ';']).unwrap_or(rest.len());
    let value = rest[..end].trim_matches([',', '.', '#', ':']);
    let country = rest[end..]
        .split_once('(')
        .and_then(|(_, after)| after.split_once(')'))
        .and_then(|(country, _)| super::country::code_of(country));
    let identifier = Identifier { kind, value: value.to_owned(), country: country.map(str::to_owned) };
    // A word instead of a number, such as "Passport issued 1999".
    let has_digit = value.bytes().any(|b| b.is_ascii_digit()) || kind == IdKind::Bic;
    (has_digit && identifier.key().is_some()).then_some(identifier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::list::EntryKind;

    fn read(remarks: &str) -> Entry {
        let mut entry = Entry::new("1".into(), EntryKind::Person, "X".into());
        read_remarks(&mut entry, remarks);
        entry
    }

    #[test]
    fn identifiers_are_read() {
        for (remark, shown) in [
            ("Passport K459698 issued 06 Mar 1999 expires 05 Mar 2004", "passport K459698 -"),
            ("alt. Passport 381110042 (Korea, North) expires 25 Jan 2016", "passport 381110042 KP"),
            ("Passport C234897(0) (United Kingdom).", "passport C234897(0) GB"),
            ("SWIFT/BIC SBBARUMM", "bic SBBARUMM -"),
            ("Vessel Registration Identification IMO 9379636", "imo 9379636 -"),
            (
                "Digital Currency Address - XBT 1AjZPMsnmpdK2Rv9KQNfMurTXinscVro9V",
                "wallet 1AjZPMsnmpdK2Rv9KQNfMurTXinscVro9V -",
            ),
            (
                "alt. Digital Currency Address - ETH 0x1da5821544e25c636c1417ba96ade4cf6d2f9b5a",
                "wallet 0x1da5821544e25c636c1417ba96ade4cf6d2f9b5a -",
            ),
            ("NIT # 800123456-1 (Colombia)", "tax_id 800123456-1 CO"),
            ("Cedula No. 16596888 (Colombia)", "national_id 16596888 CO"),
            ("Company Number IMO 5826432", "imo 5826432 -"),
            ("Folio Mercantil No. 33,789", "registration 33,789 -"),
        ] {
            let id = &read(remark).identifiers[0];
            let country = id.country.as_deref().unwrap_or("-");
            assert_eq!(format!("{} {} {country}", id.kind.as_str(), id.value), shown, "{remark}");
        }
        for none in ["Passport issued 1999", "Passport 12", "Telephone 12345678", "Gender Male", "LEIPZIG 123456"] {
            assert!(read(none).identifiers.is_empty(), "{none}");
        }
    }

    #[test]
    fn a_date_that_is_not_understood_takes_the_others_with_it() {
        assert_eq!(read("DOB 1965; alt. DOB 1970").born.len(), 2);
        assert!(read("DOB 1965; alt. DOB sometime").born.is_empty());
    }

    #[test]
    fn weak_aliases_are_names() {
        let entry = read("POB X; a.k.a. 'EL GORDO'; f.k.a. 'OLD'; a.k.a. '***'");
        let names: Vec<_> = entry.names[1..].iter().map(|n| (n.name.as_str(), n.quality)).collect();
        assert_eq!(names, [("EL GORDO", Quality::Weak), ("OLD", Quality::Weak)]);
    }
}
