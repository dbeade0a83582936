//! Statements: what a participant had, received and paid in one currency.
//!
//! A statement of a business day is about tokens: those that may be spent and those that are locked, together. A
//! payment that settles with its window is an entry of the day on which its window was settled; others are entries
//! of the day on which tokens moved. A statement of a window is about the position in it, from zero to the net.

use deltran_kernel::{Currency, Minor, Money, ParticipantId, Timestamp, TransactionId, WindowId};
use uuid::Uuid;

use super::Contradiction;
use super::book::{Entry, EntryKind, Flow};
use super::day::Day;
use super::position::Position;

/// What a statement covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A business day; with a position, the day so far.
    Day {
        /// The day.
        day: Day,
        /// The last event that counts, where the day is not over.
        until: Option<Position>,
    },
    /// A settled window.
    Window(WindowId),
}

impl Scope {
    /// Whether more entries may come.
    pub const fn interim(&self) -> bool {
        matches!(self, Self::Day { until: Some(_), .. })
    }
}

/// What a statement says before its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The report, which is the statement's id.
    pub id: Uuid,
    /// Whose.
    pub participant: ParticipantId,
    /// Of which currency.
    pub currency: Currency,
    /// What it covers.
    pub scope: Scope,
    /// Where it begins.
    pub from: Timestamp,
    /// Where it ends.
    pub to: Timestamp,
    /// The business day by whose date balances are dated.
    pub day: Day,
    /// What was there before.
    pub opening: Minor,
    /// What will be there after: opening and change, from totals that were kept apart from the entries.
    pub closing: Minor,
    /// Payments in and out, from totals that were kept apart from the entries.
    pub flow: Flow,
    /// When it was made.
    pub made_at: Timestamp,
    /// The deployment that made it.
    pub deployment: String,
}

impl Head {
    /// An amount of the statement's currency, as text.
    pub fn text(&self, minor: Minor) -> String {
        Money::new(minor, self.currency).amount()
    }
}

/// An entry as one of its sides sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number in the statement, from 1.
    pub number: u64,
    /// What it is.
    pub kind: EntryKind,
    /// The transaction, the withdrawal, or the event of a deposit.
    pub id: Uuid,
    /// The other side; none is the safeguarding bank.
    pub counterparty: Option<ParticipantId>,
    /// Plus was received, minus was paid.
    pub amount: Minor,
    /// When it was booked: for a payment of a window, the window's finality.
    pub booked_at: Timestamp,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// Its window and place there.
    pub window: Option<(WindowId, u64)>,
    /// The payer's reference.
    pub end_to_end_id: String,
    /// The unique end-to-end transaction reference.
    pub uetr: Option<String>,
    /// The transaction that it returns.
    pub return_of: Option<TransactionId>,
    /// The reference of a deposit or withdrawal.
    pub reference: String,
}

impl Line {
    /// An entry as `participant` sees it.
    ///
    /// # Errors
    /// Where the entry is not the participant's.
    pub fn of(
        number: u64,
        entry: Entry,
        participant: ParticipantId,
        booked_at: Option<Timestamp>,
    ) -> Result<Self, Contradiction> {
        let (amount, counterparty) = if entry.payer == Some(participant) {
            (entry.amount.neg(), entry.payee)
        } else if entry.payee == Some(participant) {
            (entry.amount, entry.payer)
        } else {
            return Err(Contradiction(format!("entry {} is not of {participant}", entry.id)));
        };
        Ok(Self {
            number,
            kind: entry.kind,
            id: entry.id,
            counterparty,
            amount,
            booked_at: booked_at.unwrap_or(entry.at),
            committed_at: entry.at,
            window: entry.window,
            end_to_end_id: entry.end_to_end_id,
            uetr: entry.uetr,
            return_of: entry.return_of,
            reference: entry.reference,
        })
    }
}

/// Adds up the lines of a statement as they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum(Flow);

impl Sum {
    /// Counts a line.
    ///
    /// # Errors
    /// Where a sum is out of range.
    pub fn take(&mut self, line: &Line) -> Result<(), Contradiction> {
        let more = if line.amount.is_negative() {
            Flow { paid_count: 1, paid: line.amount.neg(), ..Flow::default() }
        } else {
            Flow { received_count: 1, received: line.amount, ..Flow::default() }
        };
        self.0 = self.0.add(&more)?;
        Ok(())
    }

    /// Lines so far.
    pub fn count(&self) -> u64 {
        self.0.paid_count + self.0.received_count
    }

    /// Compares the lines with what the head says.
    ///
    /// # Errors
    /// P2: opening and entries are not the closing, or the entries are not those that were counted.
    pub fn check(&self, head: &Head) -> Result<(), Contradiction> {
        let closing = head.opening.add(self.0.net()?).map_err(Contradiction::of)?;
        if closing != head.closing {
            return Err(Contradiction(format!(
                "opening {} and {} entries give {}, the totals say {}",
                head.text(head.opening),
                self.count(),
                head.text(closing),
                head.text(head.closing)
            )));
        }
        if self.0 != head.flow {
            return Err(Contradiction(format!("the entries are {:?}, the totals say {:?}", self.0, head.flow)));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn who(bic: &str) -> ParticipantId {
        bic.parse().unwrap()
    }

    pub fn minor(units: i128) -> Minor {
        Minor::new(units).unwrap()
    }

    pub fn head(opening: i128, closing: i128, flow: Flow) -> Head {
        Head {
            id: Uuid::from_u128(7),
            participant: who("ALFAAEXX"),
            currency: Currency::new("USD").unwrap(),
            scope: Scope::Day { day: "2026-03-31".parse().unwrap(), until: None },
            from: "2026-03-31T00:00:00Z".parse().unwrap(),
            to: "2026-04-01T00:00:00Z".parse().unwrap(),
            day: "2026-03-31".parse().unwrap(),
            opening: minor(opening),
            closing: minor(closing),
            flow,
            made_at: "2026-04-01T00:15:00Z".parse().unwrap(),
            deployment: "local".into(),
        }
    }

    pub fn entry(payer: Option<&str>, payee: Option<&str>, units: i128) -> Entry {
        Entry {
            position: Position { epoch: 1, seq: 1 },
            kind: EntryKind::Gross,
            id: Uuid::from_u128(units as u128),
            currency: Currency::new("USD").unwrap(),
            payer: payer.map(who),
            payee: payee.map(who),
            amount: minor(units),
            window: None,
            at: "2026-03-31T12:00:00Z".parse().unwrap(),
            day: "2026-03-31".parse().unwrap(),
            end_to_end_id: "E2E-1".into(),
            uetr: None,
            return_of: None,
            reference: String::new(),
        }
    }

    #[test]
    fn a_line_is_seen_from_its_side() {
        let paid = Line::of(1, entry(Some("ALFAAEXX"), Some("BRAVINXX"), 500), who("ALFAAEXX"), None).unwrap();
        assert_eq!((paid.amount, paid.counterparty), (minor(-500), Some(who("BRAVINXX"))));
        let received = Line::of(1, entry(Some("ALFAAEXX"), Some("BRAVINXX"), 500), who("BRAVINXX"), None).unwrap();
        assert_eq!((received.amount, received.counterparty), (minor(500), Some(who("ALFAAEXX"))));
        let deposit = Line::of(1, entry(None, Some("ALFAAEXX"), 500), who("ALFAAEXX"), None).unwrap();
        assert_eq!((deposit.amount, deposit.counterparty), (minor(500), None));
        assert!(Line::of(1, entry(Some("ALFAAEXX"), Some("BRAVINXX"), 5), who("CHARGB2L"), None).is_err());
    }

    #[test]
    fn opening_and_entries_must_be_the_closing_and_the_entries_those_counted() {
        let lines = [("ALFAAEXX", "BRAVINXX", 500), ("BRAVINXX", "ALFAAEXX", 200)];
        let mut sum = Sum::default();
        for (payer, payee, units) in lines {
            sum.take(&Line::of(1, entry(Some(payer), Some(payee), units), who("ALFAAEXX"), None).unwrap()).unwrap();
        }
        let flow = Flow { paid_count: 1, paid: minor(500), received_count: 1, received: minor(200) };
        assert_eq!(sum.check(&head(1000, 700, flow)), Ok(()));
        for (opening, closing) in [(1000, 701), (999, 700), (0, 300)] {
            assert!(sum.check(&head(opening, closing, flow)).is_err(), "{opening} {closing}");
        }
        // Another pair of payments with the same net is another statement.
        for other in [
            Flow { paid: minor(501), received: minor(201), ..flow },
            Flow { paid_count: 2, ..flow },
            Flow { received_count: 0, ..flow },
        ] {
            assert!(sum.check(&head(1000, 700, other)).is_err(), "{other:?}");
        }
        assert_eq!(Sum::default().check(&head(5, 5, Flow::default())), Ok(()), "a day without entries");
    }
}
