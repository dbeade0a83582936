//! What the settlement engine's events mean for windows.

use deltran_events::data::clearing::{WindowFailed, WindowSettled, WindowSettling};
use deltran_kernel::{NettingSetId, Timestamp};

use super::window::{Change, Decision, Refusal, Window, WindowState};

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Batch {
    /// It was created: settlement works on the set.
    Created,
    /// All legs are posted.
    Settled(Timestamp),
    /// It was given up, for this reason.
    Aborted(String),
}

/// Applies a batch's event to one window of its set.
///
/// An event may come late, when a broker that lost messages got them back: what a later event already
/// implied is done. Settlement of another set than the window's present one is a contradiction.
///
/// # Errors
/// [`Refusal::Contradiction`] or [`Refusal::NotDrawn`]: nothing of the event may be applied then.
pub fn apply(window: &Window, set: NettingSetId, batch: &Batch) -> Result<Decision, Refusal> {
    use WindowState::{Failed, Netted, Settled, Settling};
    let Some(present) = window.netting_set else {
        let what = format!("window {} is {} and not in netting set {set}", window.id, window.state);
        return Err(Refusal::Contradiction(what));
    };
    let mut change = Change::default();
    let mut step = window.clone();
    let (id, currency) = (window.id, window.currency);
    match (batch, window.state) {
        (Batch::Created | Batch::Aborted(_), _) if present != set => return Ok(Decision::AlreadyApplied),
        (Batch::Settled(_), _) if present != set => {
            let what = format!("netting set {set} was settled, but window {id} is in set {present}");
            return Err(Refusal::Contradiction(what));
        }
        (Batch::Created, Settling | Settled | Failed) | (Batch::Settled(_), Settled) | (Batch::Aborted(_), Failed) => {
            return Ok(Decision::AlreadyApplied);
        }
        (Batch::Created, _) => {
            step = step.to(Settling)?;
            change.event(id, WindowSettling { window_id: id, currency, netting_set_id: set });
        }
        (Batch::Settled(final_at), _) => {
            if step.state == Netted {
                step = step.to(Settling)?;
                change.event(id, WindowSettling { window_id: id, currency, netting_set_id: set });
            }
            step = Window { settled_at: Some(*final_at), note: None, ..step.to(Settled)? };
            change.event(id, WindowSettled { window_id: id, currency, netting_set_id: set, final_at: *final_at });
        }
        (Batch::Aborted(reason), _) => {
            step = Window { note: Some(reason.clone()), ..step.to(Failed)? };
            change.event(id, WindowFailed { window_id: id, currency, netting_set_id: set, reason: reason.clone() });
        }
    }
    change.update(window.state, step);
    Ok(Decision::Executed(change))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::window::Write;
    use deltran_kernel::{Currency, Minor, WindowId};
    use uuid::Uuid;

    fn set(n: u128) -> NettingSetId {
        NettingSetId::new(Uuid::from_u128(n))
    }

    fn window(state: WindowState) -> Window {
        let id = WindowId::new(Uuid::from_u128(1));
        let planned = Window::scheduled(id, "manual", Currency::new("USD").unwrap(), Timestamp::from_micros(0), None);
        let seal = crate::domain::window::Seal { count: 1, gross: Minor::ZERO, digest: [0; 32] };
        let netted =
            !matches!(state, WindowState::Scheduled | WindowState::Open | WindowState::Closing | WindowState::Closed);
        Window { state, netting_set: netted.then(|| set(1)), sealed: Some(seal), ..planned }
    }

    /// Every event in every state: the state it leads to, done already, or refused.
    #[test]
    fn every_event_in_every_state() {
        use WindowState::*;
        let at = Timestamp::from_micros(9);
        let done = "done";
        let refused = "refused";
        let rows: [(WindowState, [&str; 3]); 9] = [
            (Scheduled, [refused; 3]),
            (Open, [refused; 3]),
            (Closing, [refused; 3]),
            (Closed, [refused; 3]),
            (Netted, ["SETTLING", "SETTLED", "FAILED"]),
            (Settling, [done, "SETTLED", "FAILED"]),
            (Settled, [done, done, refused]),
            (Failed, [done, refused, done]),
            (Aborted, [refused; 3]),
        ];
        for (state, expected) in rows {
            for (batch, expected) in
                [Batch::Created, Batch::Settled(at), Batch::Aborted("short".into())].iter().zip(expected)
            {
                let got = match apply(&window(state), set(1), batch) {
                    Err(_) => refused.to_owned(),
                    Ok(Decision::AlreadyApplied) => done.to_owned(),
                    Ok(Decision::Executed(change)) => match &change.writes[..] {
                        [Write::Update { from, window }] if *from == state => window.state.to_string(),
                        other => panic!("{other:?}"),
                    },
                };
                assert_eq!(got, expected, "{state} {batch:?}");
            }
        }
    }

    #[test]
    fn finality_before_the_creation_was_seen_names_both_steps() {
        let Ok(Decision::Executed(change)) =
            apply(&window(WindowState::Netted), set(1), &Batch::Settled(Timestamp::from_micros(9)))
        else {
            panic!("refused")
        };
        let types: Vec<String> = change.events.iter().map(|(_, e)| e.spec().event_type().to_owned()).collect();
        assert_eq!(types, ["window.settling", "window.settled"]);
    }

    #[test]
    fn only_the_present_set_may_settle() {
        let failed_again = window(WindowState::Netted);
        assert_eq!(apply(&failed_again, set(2), &Batch::Created), Ok(Decision::AlreadyApplied));
        assert_eq!(apply(&failed_again, set(2), &Batch::Aborted("x".into())), Ok(Decision::AlreadyApplied));
        assert!(apply(&failed_again, set(2), &Batch::Settled(Timestamp::from_micros(1))).is_err());
    }
}
