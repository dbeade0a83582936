//! Answers in the words of the contract.

use deltran_api::common::v1::Refusal;
use deltran_api::risk::v1 as pb;
use deltran_events::data::risk::LimitKind;
use deltran_kernel::{Minor, Money, ParticipantId};
use deltran_runtime::wire;

use crate::domain::assess::{Stop, Subject, Verdict};
use crate::domain::breaker::{Breaker, BreakerState};
use crate::domain::limit::{Limit, Proposal, Value};
use crate::store::{DayRow, Exposure, StepRow};

pub(super) fn verdict(subject: &Subject, verdict: Verdict, version: u64) -> pb::Verdict {
    let mut answer = pb::Verdict { transaction_id: subject.id.to_string(), version, ..pb::Verdict::default() };
    match verdict {
        Verdict::Pass { window } => answer.window_id = window.map(|w| w.to_string()).unwrap_or_default(),
        Verdict::Refused(stop) => answer.refusal = Some(refusal(subject, stop)),
        Verdict::Undecided(why) => answer.undecided = why,
    }
    answer
}

/// The word of a limit in the details of a refusal.
fn word(kind: LimitKind) -> String {
    kind.as_str().to_ascii_lowercase()
}

fn refusal(subject: &Subject, stop: Stop) -> Refusal {
    let (code, message, details) = match stop {
        Stop::Breaker { scope, state, reason } => {
            let how = match state {
                BreakerState::Reducing => "lets only pass what lowers positions",
                BreakerState::HalfOpen => "has let enough pass to try",
                BreakerState::Open | BreakerState::Closed => "is open",
            };
            let details = vec![("scope", scope.to_string()), ("state", state.as_str().to_owned())];
            let message = format!("the breaker of {scope} {how}: {reason}");
            ("breaker_open", message, [details, vec![("reason", reason)]].concat())
        }
        Stop::Amount { kind, maximum, headroom, counterparty, corridor } => {
            let what = match (kind, counterparty, corridor) {
                (LimitKind::Bilateral, Some(payee), _) => {
                    format!("the net debit of {} towards {payee} may grow by", subject.payer)
                }
                (LimitKind::CorridorMaximum, _, Some(corridor)) => {
                    format!("a single transaction of corridor {corridor} may be")
                }
                (LimitKind::CorridorGross, _, Some(corridor)) => {
                    format!("what goes through corridor {corridor} in 24 hours may grow by")
                }
                _ => "a single transaction may be".to_owned(),
            };
            let left = if headroom == maximum { String::new() } else { format!(", {headroom} is left") };
            let message = format!("{} is more than {what}: the limit is {maximum}{left}", subject.amount);
            let mut details =
                vec![("limit", word(kind)), ("maximum", maximum.amount()), ("headroom", headroom.amount())];
            details.extend(counterparty.map(|payee| ("counterparty", payee.to_string())));
            details.extend(corridor.map(|corridor| ("corridor", corridor.to_string())));
            ("limit", message, details)
        }
        Stop::Rate { rate } => {
            let (most, seconds) = (rate.transactions, rate.window_seconds);
            let message = format!(
                "{} may pay {most} transactions within {seconds} s, and has: pay later under another id",
                subject.payer
            );
            let details = vec![
                ("limit", word(LimitKind::Rate)),
                ("maximum", most.to_string()),
                ("window_seconds", seconds.to_string()),
                ("headroom", "0".to_owned()),
            ];
            ("limit", message, details)
        }
    };
    let details = details.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Refusal { code: code.to_owned(), message, details }
}

fn kind(kind: LimitKind) -> pb::LimitKind {
    match kind {
        LimitKind::NetDebitCap => pb::LimitKind::NetDebitCap,
        LimitKind::SingleTransactionMaximum => pb::LimitKind::SingleTransactionMaximum,
        LimitKind::Bilateral => pb::LimitKind::Bilateral,
        LimitKind::CorridorMaximum => pb::LimitKind::CorridorMaximum,
        LimitKind::CorridorGross => pb::LimitKind::CorridorGross,
        LimitKind::Rate => pb::LimitKind::Rate,
    }
}

pub(super) fn limit(limit: Limit) -> pb::Limit {
    let Proposal { limit_id, participant, counterparty, corridor, value, effective_from, reason, .. } = limit.proposal;
    let (amount, rate) = match value {
        Value::Amount(amount) => (Some(wire::to_money(amount)), None),
        Value::Rate(rate) => {
            let (transactions, window_seconds) = (rate.transactions, rate.window_seconds);
            (None, Some(pb::Rate { transactions, window_seconds }))
        }
    };
    pb::Limit {
        limit_id: limit_id.to_string(),
        kind: kind(limit.proposal.kind).into(),
        participant: participant.map(|p| p.to_string()).unwrap_or_default(),
        amount,
        state: limit.state.as_str().to_owned(),
        proposed_by: limit.proposed_by,
        approved_by: limit.approved_by.unwrap_or_default(),
        proposed_at: Some(wire::to_timestamp(limit.proposed_at)),
        effective_at: limit.effective_at.map(wire::to_timestamp),
        reason,
        counterparty: counterparty.map(|p| p.to_string()).unwrap_or_default(),
        corridor: corridor.map(|c| c.to_string()).unwrap_or_default(),
        rate,
        effective_from: effective_from.map(wire::to_timestamp),
        refusal: limit.refusal.unwrap_or_default(),
    }
}

pub(super) fn step(row: StepRow) -> pb::LimitStep {
    pb::LimitStep {
        step: row.step,
        limit_id: row.limit_id.to_string(),
        state: row.state,
        by: row.by,
        note: row.note,
        at: Some(wire::to_timestamp(row.at)),
        kind: kind(row.kind).into(),
        participant: row.participant.unwrap_or_default(),
    }
}

pub(super) fn breaker(breaker: Breaker) -> pb::Breaker {
    pb::Breaker {
        scope: breaker.scope.to_string(),
        state: breaker.state.as_str().to_owned(),
        reason: breaker.reason,
        changed_by: breaker.changed_by,
        changed_at: Some(wire::to_timestamp(breaker.changed_at)),
        trigger: breaker.trigger.as_str().to_owned(),
        open_until: breaker.open_until.map(wire::to_timestamp),
    }
}

fn amount(units: i128, of: deltran_kernel::Currency) -> Option<deltran_api::common::v1::Money> {
    Minor::new(units).ok().map(|minor| wire::to_money(Money::new(minor, of)))
}

pub(super) fn exposure(row: &Exposure, largest: Vec<(ParticipantId, Money)>) -> pb::Exposure {
    let amount = |units| amount(units, row.currency);
    let largest = largest.into_iter().map(|(counterparty, owed)| pb::CounterpartyExposure {
        counterparty: counterparty.to_string(),
        owed: Some(wire::to_money(owed)),
    });
    pb::Exposure {
        participant: row.participant.to_string(),
        net: amount(row.member.received - row.member.sent),
        sent: amount(row.member.sent),
        received: amount(row.member.received),
        sent_count: row.member.sent_count,
        received_count: row.member.received_count,
        cap_used: Some(wire::to_money(row.cap_used)),
        cap: row.cap.map(wire::to_money),
        largest: largest.collect(),
    }
}

pub(super) fn liquidity(row: &DayRow) -> pb::Liquidity {
    let amount = |units| amount(units, row.currency);
    let peaks = row.day.largest();
    pb::Liquidity {
        participant: row.participant.to_string(),
        sent: amount(row.day.sent),
        received: amount(row.day.received),
        sent_count: row.day.sent_count,
        received_count: row.day.received_count,
        peaks: peaks.iter().map(|p| pb::Peak { usage: amount(p.usage), at: Some(wire::to_timestamp(p.at)) }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_there_is_room_for() {
        let usd = deltran_kernel::Currency::new("USD").unwrap();
        let money = |text| Money::parse(text, usd).unwrap();
        let subject = Subject {
            id: deltran_kernel::TransactionId::new(uuid::Uuid::from_u128(1)),
            payer: "ALFAAEXX".parse().unwrap(),
            payee: "BRAVINXX".parse().unwrap(),
            amount: money("8.00"),
            gross: false,
            two_phase: false,
            release: false,
        };
        let stop = |kind, headroom| Stop::Amount {
            kind,
            maximum: money("7.00"),
            headroom: money(headroom),
            counterparty: (kind == LimitKind::Bilateral).then_some(subject.payee),
            corridor: (kind == LimitKind::CorridorGross).then(|| "AE-IN".parse().unwrap()),
        };
        for (stop, message) in [
            (stop(LimitKind::SingleTransactionMaximum, "7.00"), "a single transaction may be: the limit is 7.00 USD"),
            (
                stop(LimitKind::Bilateral, "2.00"),
                "the net debit of ALFAAEXX towards BRAVINXX may grow by: the limit is 7.00 USD, 2.00 USD is left",
            ),
            (
                stop(LimitKind::CorridorGross, "0.00"),
                "what goes through corridor AE-IN in 24 hours may grow by: the limit is 7.00 USD, 0.00 USD is left",
            ),
        ] {
            let refusal = refusal(&subject, stop);
            assert_eq!((refusal.code.as_str(), refusal.message), ("limit", format!("8.00 USD is more than {message}")));
        }
    }
}
