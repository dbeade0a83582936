//! Trial balance: every account of a currency as the events give it, compared with what the ledger says it is.

use std::collections::BTreeMap;
use std::fmt;

use deltran_kernel::{Currency, Minor, Money, ParticipantId, WindowId};

use super::Contradiction;
use super::position::Position;

/// An account of a currency. The order is that of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ledger {
    /// Fiat at the safeguarding bank.
    Safeguard,
    /// Counterparty of settlement legs.
    Multilateral,
    /// Income.
    Fees,
    /// Tokens that a participant may spend.
    Settlement(ParticipantId),
    /// Tokens of a participant that are locked, for whatever.
    Reserved(ParticipantId),
    /// What a participant owes or is owed in a window that is not settled.
    Position(ParticipantId, WindowId),
}

impl Ledger {
    /// The ledger's word for it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Safeguard => "SAFEGUARD",
            Self::Multilateral => "MULTILATERAL",
            Self::Fees => "FEES",
            Self::Settlement(_) => "SETTLEMENT",
            Self::Reserved(_) => "RESERVED",
            Self::Position(..) => "POSITION",
        }
    }

    /// Its participant; none where it is the hub's.
    pub const fn participant(&self) -> Option<ParticipantId> {
        match *self {
            Self::Safeguard | Self::Multilateral | Self::Fees => None,
            Self::Settlement(who) | Self::Reserved(who) | Self::Position(who, _) => Some(who),
        }
    }

    /// Its window.
    pub const fn window(&self) -> Option<WindowId> {
        match *self {
            Self::Position(_, window) => Some(window),
            _ => None,
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        if let Some(participant) = self.participant() {
            write!(f, " of {participant}")?;
        }
        if let Some(window) = self.window() {
            write!(f, " in window {window}")?;
        }
        Ok(())
    }
}

/// How a verdict tells a difference.
pub const DIFFERS: &str = "differs from the ledger";
/// How a note tells an invariant of the ledger that is broken.
pub const BROKEN: &str = "does not hold";

/// Whether the note of a trial balance tells that something is wrong.
pub fn tells_of_trouble(note: &str) -> bool {
    note.contains(DIFFERS) || note.contains(BROKEN)
}

/// Balances of accounts, credits − debits. An account that is absent stands at zero.
pub type Balances = BTreeMap<Ledger, Minor>;

/// A difference between what was applied and what the ledger says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The first account that differs.
    pub account: Ledger,
    /// What the events give.
    pub events: Minor,
    /// What the ledger says.
    pub ledger: Minor,
}

/// The trial balance of a currency at a position of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The currency.
    pub currency: Currency,
    /// The ledger's last event when it was asked; events up to this one count.
    pub position: Position,
    /// What the events give.
    pub accounts: Balances,
    /// The first difference from what the ledger said; none is a tie.
    pub difference: Option<Difference>,
}

impl Trial {
    /// Compares balances with those of the ledger at the same position.
    ///
    /// # Errors
    /// P5: debits are not credits. Nothing may be reported then.
    pub fn new(
        currency: Currency,
        position: Position,
        mut accounts: Balances,
        ledger: &Balances,
    ) -> Result<Self, Contradiction> {
        accounts.retain(|_, balance| !balance.is_zero());
        let of = |all: &Balances, account: &Ledger| all.get(account).copied().unwrap_or(Minor::ZERO);
        let differs = |account: &&Ledger| of(&accounts, account) != of(ledger, account);
        let first = accounts.keys().filter(differs).chain(ledger.keys().filter(differs)).min().copied();
        let difference =
            first.map(|account| Difference { account, events: of(&accounts, &account), ledger: of(ledger, &account) });
        let trial = Self { currency, position, accounts, difference };
        let tokens = |account: &Ledger| account.window().is_none();
        for (what, part) in [("tokens", trial.sum(tokens)?), ("positions", trial.sum(|a| !tokens(a))?)] {
            if !part.is_zero() {
                let part = Money::new(part, currency);
                return Err(Contradiction(format!("debits and credits of {what} of {currency} differ by {part}")));
            }
        }
        Ok(trial)
    }

    fn sum(&self, which: impl Fn(&Ledger) -> bool) -> Result<Minor, Contradiction> {
        let chosen = self.accounts.iter().filter(|(account, _)| which(account)).map(|(_, balance)| *balance);
        Minor::sum(chosen).map_err(Contradiction::of)
    }

    /// The sum of debit balances, which is that of credit balances.
    ///
    /// # Errors
    /// Where the sum is out of range.
    pub fn total(&self) -> Result<Minor, Contradiction> {
        Minor::sum(self.accounts.values().map(|balance| balance.or_zero())).map_err(Contradiction::of)
    }

    /// An amount of its currency, as text.
    pub fn text(&self, minor: Minor) -> String {
        Money::new(minor, self.currency).amount()
    }

    /// In one line: tie or difference, and up to where.
    pub fn verdict(&self) -> String {
        let at = self.position;
        match &self.difference {
            None => format!("{} ties to the ledger at event {at}", self.currency),
            Some(Difference { account, events, ledger }) => format!(
                "{} {DIFFERS} at event {at}: {account} is {} by the events and {} in the ledger",
                self.currency,
                self.text(*events),
                self.text(*ledger)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::statement::tests::{minor, who};
    use super::*;

    fn balances(rows: &[(Ledger, i128)]) -> Balances {
        rows.iter().map(|(account, units)| (*account, minor(*units))).collect()
    }

    fn trial(rows: &[(Ledger, i128)], ledger: &[(Ledger, i128)]) -> Result<Trial, Contradiction> {
        let position = Position { epoch: 1, seq: 42 };
        Trial::new(Currency::new("USD").unwrap(), position, balances(rows), &balances(ledger))
    }

    fn rows() -> [(Ledger, i128); 6] {
        let window = WindowId::new(uuid::Uuid::from_u128(9));
        let (a, b) = (who("ALFAAEXX"), who("BRAVINXX"));
        [
            (Ledger::Safeguard, -1000),
            (Ledger::Settlement(a), 650),
            (Ledger::Reserved(a), 50),
            (Ledger::Settlement(b), 300),
            (Ledger::Position(a, window), -70),
            (Ledger::Position(b, window), 70),
        ]
    }

    #[test]
    fn a_tie_is_a_tie_of_every_account() {
        let tie = trial(&rows(), &rows()).unwrap();
        assert_eq!(tie.verdict(), "USD ties to the ledger at event 1/42");
        assert_eq!(tie.total().unwrap(), minor(1070));
        // Accounts that stand at zero need not be named.
        let mut more = rows().to_vec();
        more.extend([(Ledger::Fees, 0), (Ledger::Multilateral, 0)]);
        assert_eq!(trial(&rows(), &more).unwrap().difference, None);
    }

    #[test]
    fn the_first_difference_is_told_whichever_side_lacks_it() {
        for changed in 0..rows().len() {
            let (account, was) = rows()[changed];
            let mut ledger = rows().to_vec();
            ledger[changed].1 += 1;
            let found = trial(&rows(), &ledger).unwrap().difference.unwrap();
            assert_eq!((found.account, found.events, found.ledger), (account, minor(was), minor(was + 1)));
            let mut ledger = rows().to_vec();
            ledger.remove(changed);
            assert_eq!(trial(&rows(), &ledger).unwrap().difference.unwrap().ledger, minor(0));
        }
        let more = [&rows()[..], &[(Ledger::Settlement(who("CHARGB2L")), 5)]].concat();
        let told = trial(&rows(), &more).unwrap().verdict();
        assert!(told.contains("SETTLEMENT of CHARGB2L is 0.00 by the events and 0.05 in the ledger"), "{told}");
        assert!(tells_of_trouble(&told) && !tells_of_trouble(&trial(&rows(), &rows()).unwrap().verdict()));
    }

    #[test]
    fn tokens_and_positions_each_balance() {
        let mut wrong = rows();
        wrong[1].1 += 1;
        assert!(trial(&wrong, &wrong).unwrap_err().0.contains("tokens"));
        let mut wrong = rows();
        wrong[4].1 += 1;
        wrong[0].1 -= 1;
        assert!(trial(&wrong, &wrong).is_err(), "one kind does not make up for the other");
    }
}
