//! What a line of the ledger says, as far as totals rest on it.

use std::borrow::Cow;

use deltran_events::Amount;
use deltran_kernel::{Currency, Minor};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The source whose events move money.
pub const TOKEN: &str = "token-engine";

/// The parts of an envelope that are looked at.
#[derive(Debug, Deserialize)]
pub struct Line<'a> {
    /// `<entity>.<action>`.
    #[serde(borrow)]
    pub event_type: Cow<'a, str>,
    /// Who published it.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// The event's own data, unread.
    #[serde(borrow)]
    pub data: &'a RawValue,
    /// Who caused it, and its number.
    #[serde(borrow, default)]
    pub metadata: Metadata<'a>,
}

/// The parts of an envelope's metadata that are looked at.
#[derive(Debug, Default, Deserialize)]
pub struct Metadata<'a> {
    /// The participant that it concerns first.
    #[serde(borrow, default)]
    pub participant_id: Option<Cow<'a, str>>,
    /// `<source>/<epoch>`.
    #[serde(borrow, default)]
    pub producer: Option<Cow<'a, str>>,
    /// The number within it.
    #[serde(default)]
    pub producer_seq: Option<u64>,
}

/// Money that an event says was moved, or was not.
#[derive(Debug, PartialEq, Eq)]
pub struct Moved<'a> {
    /// The total that it belongs to, such as `committed`.
    pub total: &'static str,
    /// The currency.
    pub currency: Currency,
    /// How much.
    pub amount: Minor,
    /// Window and place of a committed NET transaction.
    pub window: Option<(Cow<'a, str>, u64)>,
}

/// What the token ledger said when it sealed a window.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// The window.
    pub window: Cow<'a, str>,
    /// Its transactions.
    pub count: u64,
    /// The sum of their amounts.
    pub gross: Minor,
}

/// What a token event means for control totals.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// Nothing.
    None,
    /// A sum grows.
    Moved(Moved<'a>),
    /// A window was sealed.
    Sealed(Sealed<'a>),
}

#[derive(Deserialize)]
struct Payment<'a> {
    amount: Amount,
    currency: Currency,
    #[serde(borrow, default)]
    state: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    window_id: Option<Cow<'a, str>>,
    #[serde(default)]
    window_seq: Option<u64>,
}

#[derive(Deserialize)]
struct Seal<'a> {
    #[serde(borrow)]
    window_id: Cow<'a, str>,
    currency: Currency,
    count: u64,
    gross: Amount,
}

impl<'a> Line<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// Where it is no envelope.
    pub fn read(line: &'a [u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|e| format!("it is no envelope: {e}"))
    }

    /// What it means for control totals.
    ///
    /// # Errors
    /// Where an event of the token ledger does not say what its type must say.
    pub fn meaning(&self) -> Result<Meaning<'a>, String> {
        if self.source != TOKEN {
            return Ok(Meaning::None);
        }
        let total = match &*self.event_type {
            "transaction.created" | "transaction.committed" => "committed",
            "transaction.rejected" => "rejected",
            "transaction.cancelled" => "cancelled",
            "transaction.expired" => "expired",
            "deposit.confirmed" => "minted",
            "withdrawal.confirmed" => "burnt",
            "window.sealed" => return self.seal(),
            _ => return Ok(Meaning::None),
        };
        let payment: Payment<'a> = self.data()?;
        if self.event_type == "transaction.created" && payment.state.as_deref() != Some("COMMITTED") {
            return Ok(Meaning::None);
        }
        let amount = payment.amount.money(payment.currency).map_err(|e| e.to_string())?.minor();
        let window = payment.window_id.zip(payment.window_seq).filter(|_| total == "committed");
        Ok(Meaning::Moved(Moved { total, currency: payment.currency, amount, window }))
    }

    fn seal(&self) -> Result<Meaning<'a>, String> {
        let seal: Seal<'a> = self.data()?;
        let gross = seal.gross.money(seal.currency).map_err(|e| e.to_string())?.minor();
        Ok(Meaning::Sealed(Sealed { window: seal.window_id, count: seal.count, gross }))
    }

    fn data<T: Deserialize<'a>>(&self) -> Result<T, String> {
        serde_json::from_str(self.data.get()).map_err(|e| format!("{}: {e}", self.event_type))
    }
}
