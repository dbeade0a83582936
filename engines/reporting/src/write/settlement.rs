//! Settlement reports as CSV and as a page.

use std::collections::BTreeMap;

use deltran_kernel::{Minor, Money, ParticipantId, WindowId};

use super::html::{self, Cell};
use crate::domain::Contradiction;
use crate::domain::book::Flow;
use crate::domain::settled::Settled;
use deltran_runtime::csv::{Row, header};

fn text(settled: &Settled, minor: Minor) -> String {
    Money::new(minor, settled.set.currency).amount()
}

/// What everyone paid and received over the windows.
fn flows(settled: &Settled) -> Result<BTreeMap<ParticipantId, Flow>, Contradiction> {
    let mut all: BTreeMap<ParticipantId, Flow> = BTreeMap::new();
    for facts in settled.windows.values() {
        for (participant, more) in &facts.flows {
            let flow = all.entry(*participant).or_default();
            *flow = flow.add(more)?;
        }
    }
    Ok(all)
}

/// A row per window and participant: what it paid and received there, and its net. Rows come back counted.
///
/// # Errors
/// Where a sum is out of range.
pub fn settlement_csv(out: &mut String, settled: &Settled) -> Result<u64, Contradiction> {
    header(
        out,
        &[
            "netting_set_id",
            "window_id",
            "currency",
            "participant",
            "received_count",
            "received",
            "paid_count",
            "paid",
            "net",
            "final_at",
        ],
    );
    let mut rows = 0;
    for (window, facts) in &settled.windows {
        for (participant, flow) in &facts.flows {
            Row::new(out)
                .plain(settled.set.id)
                .plain(window)
                .plain(settled.set.currency)
                .plain(participant)
                .plain(flow.received_count)
                .plain(text(settled, flow.received))
                .plain(flow.paid_count)
                .plain(text(settled, flow.paid))
                .plain(text(settled, flow.net()?))
                .plain(settled.batch.final_at)
                .end();
            rows += 1;
        }
    }
    Ok(rows)
}

/// A row per leg: what each participant received or paid with finality. Rows come back counted.
pub fn summary_csv(out: &mut String, settled: &Settled) -> u64 {
    header(out, &["netting_set_id", "batch_id", "currency", "participant", "leg", "locked_given_back", "final_at"]);
    for (participant, leg) in &settled.legs {
        Row::new(out)
            .plain(settled.set.id)
            .plain(settled.batch.id)
            .plain(settled.set.currency)
            .plain(participant)
            .plain(text(settled, leg.net))
            .plain(text(settled, leg.given_back))
            .plain(settled.batch.final_at)
            .end();
    }
    settled.legs.len() as u64
}

/// Ten-thousandths as a percentage with two digits.
fn percent(ten_thousandths: u32) -> String {
    format!("{}.{:02} %", ten_thousandths / 100, ten_thousandths % 100)
}

/// The settlement as a page: totals, windows, and everyone's net and leg. `asked` is the window that was asked for.
///
/// # Errors
/// Where a sum is out of range.
pub fn settlement_html(
    out: &mut String,
    settled: &Settled,
    asked: Option<WindowId>,
    made: &str,
) -> Result<u64, Contradiction> {
    let (set, batch) = (&settled.set, &settled.batch);
    let title = match asked {
        Some(window) => format!("Settlement of window {window}"),
        None => format!("Settlement of netting set {}", set.id),
    };
    html::begin(out, &title);
    html::note(out, made);
    html::facts(
        out,
        &[
            ("final at", batch.final_at.to_string()),
            ("currency", set.currency.to_string()),
            ("payments", set.count.to_string()),
            ("gross", text(settled, set.gross)),
            ("value moved", text(settled, set.moved)),
            ("efficiency", percent(set.efficiency)),
            ("participants", set.participants.to_string()),
            ("largest debtor", set.largest_debtor.map(|d| d.to_string()).unwrap_or_default()),
            ("netted at", set.netted_at.to_string()),
            ("netting set", set.id.to_string()),
            ("batch", batch.id.to_string()),
            ("digest of the netting set", set.digest.clone()),
        ],
    );
    html::section(out, "Windows");
    html::table(out, &["window", "sealed at", "#payments", "#gross", "digest of the payments"]);
    for (id, facts) in &settled.windows {
        let sealed = facts.sealed.as_ref();
        let cells = [
            Cell::Text(id.to_string()),
            Cell::Text(sealed.map(|s| s.at.to_string()).unwrap_or_default()),
            Cell::Number(facts.count.to_string()),
            Cell::Number(text(settled, facts.gross)),
            Cell::Text(sealed.map(|s| s.digest.clone()).unwrap_or_default()),
        ];
        html::row(out, "", &cells);
    }
    html::end_table(out);
    html::section(out, "Net positions and legs");
    html::table(out, &["participant", "#received", "#in", "#paid", "#in", "#net", "#leg", "#locked, given back"]);
    let (mut total, mut legs) = (Flow::default(), Minor::ZERO);
    let flows = flows(settled)?;
    for (participant, flow) in &flows {
        let leg = settled.legs.get(participant).copied();
        let (net, back) = leg.map_or((Minor::ZERO, Minor::ZERO), |leg| (leg.net, leg.given_back));
        let number = |minor| Cell::Number(text(settled, minor));
        let cells = [
            Cell::Text(participant.to_string()),
            number(flow.received),
            Cell::Number(flow.received_count.to_string()),
            number(flow.paid),
            Cell::Number(flow.paid_count.to_string()),
            number(flow.net()?),
            number(net),
            number(back),
        ];
        html::row(out, "", &cells);
        total = total.add(flow)?;
        legs = legs.add(net).map_err(Contradiction::of)?;
    }
    let number = |minor| Cell::Number(text(settled, minor));
    let cells = [
        Cell::Text("all".to_owned()),
        number(total.received),
        Cell::Number(total.received_count.to_string()),
        number(total.paid),
        Cell::Number(total.paid_count.to_string()),
        number(total.net()?),
        number(legs),
        Cell::Text(String::new()),
    ];
    html::row(out, "total", &cells);
    html::end_table(out);
    html::end(out);
    Ok(flows.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::settled::tests::settlement;

    #[test]
    fn every_window_and_leg_has_its_row_and_nets_sum_to_zero() {
        let settled = settlement(2);
        let mut out = String::new();
        assert_eq!(settlement_csv(&mut out, &settled).unwrap(), 6);
        let units = |text: &str| Money::parse(text, settled.set.currency).unwrap().minor().units();
        let mut reader = csv::Reader::from_reader(out.as_bytes());
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.iter().map(|row| units(&row[8])).sum::<i128>(), 0);
        assert!(rows.iter().all(|row| units(&row[5]) - units(&row[7]) == units(&row[8])));
        let mut out = String::new();
        assert_eq!(summary_csv(&mut out, &settled), 3);
        let mut reader = csv::Reader::from_reader(out.as_bytes());
        let legs: i128 = reader.records().map(|row| units(&row.unwrap()[4])).sum();
        assert_eq!(legs, 0);
    }

    #[test]
    fn the_page_has_the_totals() {
        let settled = settlement(2);
        let mut out = String::new();
        settlement_html(&mut out, &settled, None, "made").unwrap();
        for part in ["2.60", "2.00", "23.07 %", "ALFAAEXX", "2026-03-31T11:00:05.000000Z", "-2.00"] {
            assert!(out.contains(part), "{part}: {out}");
        }
        assert_eq!(percent(9_905), "99.05 %");
    }
}
