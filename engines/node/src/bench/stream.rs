//! Events of payments as the ledger publishes them, from a seed.

use std::sync::Arc;

use deltran_events::data::transactions::{Evidence, SettlementModel, TransactionCreated, TransactionState};
use deltran_events::{Amount, Context, Domain, Event};
use deltran_kernel::{
    Clock, Currency, IdSource, Minor, Money, ParticipantId, SeededIds, SystemClock, TransactionId, WindowId,
};
use deltran_messaging::Outbox;
use deltran_messaging::outbox::Row;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::load::CURRENCY;
use crate::problem::Problem;

/// Banks that pay each other.
const BANKS: usize = 200;
/// The epoch of the producer that the events name.
const EPOCH: i64 = 1;

/// Where the events come from.
pub struct Events {
    outbox: Outbox,
    ids: SeededIds,
    rng: StdRng,
    banks: Vec<ParticipantId>,
    window: WindowId,
    currency: Currency,
    next: u64,
}

impl Events {
    /// The events of a seed.
    ///
    /// # Errors
    /// Where a constant of this file is not valid: a defect.
    pub fn new(seed: u64) -> Result<Self, Problem> {
        let defect = |e: &dyn std::fmt::Display| Problem::refused(e.to_string());
        let banks = (0..BANKS).map(bank).collect::<Result<_, _>>().map_err(|e| defect(&e))?;
        let clock = Arc::new(SystemClock);
        let ids = SeededIds::new(seed);
        Ok(Self {
            window: WindowId::new(ids.next_id(clock.now())),
            outbox: Outbox::new(Domain::Transactions, clock, Arc::new(SeededIds::new(seed.wrapping_add(1)))),
            ids,
            rng: StdRng::seed_from_u64(seed),
            banks,
            currency: Currency::new(CURRENCY).map_err(|e| defect(&e))?,
            next: 1,
        })
    }

    /// The next so many, as rows of the ledger's outbox.
    ///
    /// # Errors
    /// Where an event does not conform to its schema: a defect.
    pub fn take(&mut self, count: usize) -> Result<Vec<Row>, Problem> {
        let events = (0..count).map(|_| self.event()).collect::<Result<Vec<(Event, Context)>, _>>()?;
        let said = events.iter().map(|(event, context)| (event, context, None));
        let first = self.next - count as u64;
        Ok(self.outbox.encode(EPOCH, first, SystemClock.now(), said)?)
    }

    fn event(&mut self) -> Result<(Event, Context), Problem> {
        let number = self.next;
        self.next += 1;
        let payer = self.rng.random_range(0..BANKS);
        let payee = (payer + self.rng.random_range(1..BANKS)) % BANKS;
        let amount = |minor: i128| -> Result<Amount, Problem> {
            let minor = Minor::new(minor).map_err(|e| Problem::refused(e.to_string()))?;
            Ok(Money::new(minor, self.currency).into())
        };
        let id = TransactionId::new(self.ids.next_id(SystemClock.now()));
        let event = TransactionCreated {
            transaction_id: id,
            payer: self.banks[payer],
            payee: self.banks[payee],
            amount: amount(self.rng.random_range(1..100_000_000))?,
            currency: self.currency,
            settlement_model: SettlementModel::NetMultilateral,
            state: TransactionState::Committed,
            window_id: Some(self.window),
            window_seq: Some(number),
            end_to_end_id: Some(format!("BENCH-{number:012}")),
            uetr: None,
            return_of: None,
            expires_at: None,
            evidence: Evidence {
                screening: "APPROVE".into(),
                screening_evidence: "no_match".into(),
                list_versions: vec!["bundled@1".into()],
                rule_version: "1".into(),
                screening_score: Some(4_200),
                risk_version: 1,
                cap_headroom: Some(amount(50_000_000_000)?),
                cover_headroom: Some(amount(90_000_000_000)?),
            },
        };
        let context = Context {
            correlation_id: Some(id.to_string()),
            user_id: Some(self.banks[payer].to_string()),
            causation_id: None,
            participant_id: Some(self.banks[payer]),
        };
        Ok((event.into(), context))
    }
}

/// The bank of a number below 17,576.
///
/// # Errors
/// None: what is made here is a BIC.
pub fn bank(number: usize) -> Result<ParticipantId, deltran_kernel::InvalidId> {
    let letter = |n: usize| char::from(b'A' + (n % 26) as u8);
    format!("B{}{}{}DEFF", letter(number / 676), letter(number / 26), letter(number)).parse()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use deltran_events::Envelope;

    use super::*;

    #[test]
    fn events_are_valid_and_numbered() {
        let mut events = Events::new(7).unwrap();
        let rows: Vec<Row> = [events.take(3).unwrap(), events.take(2).unwrap()].concat();
        assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        for row in &rows {
            Envelope::decode(&row.subject, &row.envelope).unwrap();
        }
    }

    #[test]
    fn banks_differ() {
        let banks: BTreeSet<_> = (0..2000).map(|n| bank(n).unwrap()).collect();
        assert_eq!(banks.len(), 2000);
    }
}
