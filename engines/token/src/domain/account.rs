//! Accounts of the double-entry ledger, and their balances.

use std::fmt;

use deltran_kernel::{Currency, Minor, MoneyError, ParticipantId, WindowId};
use uuid::Uuid;

/// Which account. Token legs and position legs each balance to zero on their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccountKey {
    /// Fiat held at the safeguarding bank. Debit side.
    Safeguard(Currency),
    /// Counterparty of settlement legs; zero when no settlement is being posted.
    Multilateral(Currency),
    /// Income. Credit side.
    Fees(Currency),
    /// Tokens that a participant owns and may spend. Credit side.
    Settlement(ParticipantId, Currency),
    /// Tokens locked for a purpose: a hold, a window or a withdrawal. Credit side.
    Reserved(ParticipantId, Currency, Uuid),
    /// What a participant owes (debit) or is owed (credit) in a window.
    Position(ParticipantId, Currency, WindowId),
}

/// The kind of an account, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of AccountKey")]
pub enum AccountKind {
    Safeguard,
    Multilateral,
    Fees,
    Settlement,
    Reserved,
    Position,
}

impl AccountKind {
    /// The stored word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safeguard => "SAFEGUARD",
            Self::Multilateral => "MULTILATERAL",
            Self::Fees => "FEES",
            Self::Settlement => "SETTLEMENT",
            Self::Reserved => "RESERVED",
            Self::Position => "POSITION",
        }
    }

    /// The kind of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Safeguard, Self::Multilateral, Self::Fees, Self::Settlement, Self::Reserved, Self::Position]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

impl AccountKey {
    /// Its kind.
    pub const fn kind(&self) -> AccountKind {
        match self {
            Self::Safeguard(_) => AccountKind::Safeguard,
            Self::Multilateral(_) => AccountKind::Multilateral,
            Self::Fees(_) => AccountKind::Fees,
            Self::Settlement(..) => AccountKind::Settlement,
            Self::Reserved(..) => AccountKind::Reserved,
            Self::Position(..) => AccountKind::Position,
        }
    }

    /// Its currency.
    pub const fn currency(&self) -> Currency {
        match *self {
            Self::Safeguard(c) | Self::Multilateral(c) | Self::Fees(c) => c,
            Self::Settlement(_, c) | Self::Reserved(_, c, _) | Self::Position(_, c, _) => c,
        }
    }

    /// Its participant, unless it is the hub's.
    pub const fn participant(&self) -> Option<ParticipantId> {
        match *self {
            Self::Safeguard(_) | Self::Multilateral(_) | Self::Fees(_) => None,
            Self::Settlement(p, _) | Self::Reserved(p, _, _) | Self::Position(p, _, _) => Some(p),
        }
    }

    /// The purpose of RESERVED, the window of POSITION.
    pub const fn purpose(&self) -> Option<Uuid> {
        match *self {
            Self::Reserved(_, _, purpose) => Some(purpose),
            Self::Position(_, _, window) => Some(window.uuid()),
            _ => None,
        }
    }

    /// From its stored parts; `None` where they do not fit together.
    pub fn from_parts(
        kind: AccountKind,
        currency: Currency,
        participant: Option<ParticipantId>,
        purpose: Option<Uuid>,
    ) -> Option<Self> {
        Some(match (kind, participant, purpose) {
            (AccountKind::Safeguard, None, None) => Self::Safeguard(currency),
            (AccountKind::Multilateral, None, None) => Self::Multilateral(currency),
            (AccountKind::Fees, None, None) => Self::Fees(currency),
            (AccountKind::Settlement, Some(p), None) => Self::Settlement(p, currency),
            (AccountKind::Reserved, Some(p), Some(purpose)) => Self::Reserved(p, currency, purpose),
            (AccountKind::Position, Some(p), Some(window)) => Self::Position(p, currency, WindowId::new(window)),
            _ => return None,
        })
    }
}

impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().as_str())?;
        if let Some(participant) = self.participant() {
            write!(f, ":{participant}")?;
        }
        write!(f, ":{}", self.currency())?;
        if let Some(purpose) = self.purpose() {
            write!(f, ":{purpose}")?;
        }
        Ok(())
    }
}

/// An account's two sides. Both only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sides {
    /// Sum of debits.
    pub debits: Minor,
    /// Sum of credits.
    pub credits: Minor,
}

impl Sides {
    /// Credits − debits.
    pub fn balance(&self) -> Minor {
        // Both are within ±10^27, so the difference is far within i128 and within twice the range;
        // a balance beyond the range is refused when it is posted.
        self.credits.sub(self.debits).unwrap_or(Minor::ZERO)
    }

    /// With a further debit.
    pub fn debited(&self, amount: Minor) -> Result<Self, MoneyError> {
        Ok(Self { debits: self.debits.add(amount)?, ..*self })
    }

    /// With a further credit.
    pub fn credited(&self, amount: Minor) -> Result<Self, MoneyError> {
        Ok(Self { credits: self.credits.add(amount)?, ..*self })
    }
}
