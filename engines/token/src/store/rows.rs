//! Stored text and numbers, read strictly: what cannot be is an error, never a default.

use std::collections::BTreeMap;

use deltran_events::data::transactions::{SettlementModel, TransactionState};
use deltran_kernel::{Currency, Minor, Money, Timestamp, TransactionId, WindowId};
use deltran_runtime::DbError;
use rust_decimal::Decimal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::domain::account::{AccountKey, AccountKind};
use crate::domain::command::{BodyHash, Instruction, Priority};
use crate::domain::effects::Record;
use crate::domain::refusal::{Refusal, RefusalCode};

pub(super) fn text<T: std::str::FromStr>(what: &str, value: &str) -> Result<T, DbError>
where
    T::Err: std::fmt::Display,
{
    value.parse().map_err(|e: T::Err| DbError::corrupt(format!("{what}: {e}")))
}

pub(super) fn word<T>(what: &str, value: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, DbError> {
    read(value).ok_or_else(|| DbError::corrupt(format!("{what} {value:?} is no known word")))
}

pub(super) fn minor(value: Decimal) -> Result<Minor, DbError> {
    Minor::from_decimal(value).map_err(DbError::corrupt)
}

pub(super) fn hash(value: Vec<u8>) -> Result<BodyHash, DbError> {
    value.try_into().map_err(|_| DbError::corrupt("a body hash has not 32 bytes"))
}

pub(super) fn count(value: i64) -> Result<u64, DbError> {
    u64::try_from(value).map_err(|_| DbError::corrupt(format!("{value} is below zero")))
}

pub(super) fn json<T: DeserializeOwned>(what: &str, value: &str) -> Result<T, DbError> {
    serde_json::from_str(value).map_err(|e| DbError::corrupt(format!("{what}: {e}")))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|e| DbError::Other(format!("cannot be stored: {e}")))
}

pub(super) fn account(
    kind: &str,
    currency: &str,
    participant: Option<String>,
    purpose: Option<Uuid>,
) -> Result<AccountKey, DbError> {
    let kind = word("account kind", kind, AccountKind::from_word)?;
    let participant = participant.map(|p| text("participant", &p)).transpose()?;
    AccountKey::from_parts(kind, text("currency", currency)?, participant, purpose)
        .ok_or_else(|| DbError::corrupt("the parts of an account do not fit together"))
}

/// A row of `transaction`, as selected by `COLUMNS`.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct StoredTransaction {
    pub id: Uuid,
    pub position: i64,
    payer: String,
    payee: String,
    currency: String,
    amount: Decimal,
    model: String,
    priority: i16,
    end_to_end_id: String,
    uetr: Option<Uuid>,
    purpose: String,
    reserve_for: Option<i64>,
    return_of: Option<Uuid>,
    body_hash: Vec<u8>,
    outcome_state: String,
    decided_at: i64,
    state: String,
    updated_at: i64,
    window_id: Option<Uuid>,
    window_seq: Option<i64>,
    expires_at: Option<i64>,
    refusal_code: Option<String>,
    refusal_message: Option<String>,
    refusal_details: Option<String>,
    returned: Decimal,
}

impl StoredTransaction {
    pub fn record(self) -> Result<Record, DbError> {
        let currency: Currency = text("currency", &self.currency)?;
        let instruction = Instruction {
            id: TransactionId::new(self.id),
            payer: text("payer", &self.payer)?,
            payee: text("payee", &self.payee)?,
            amount: Money::new(minor(self.amount)?, currency),
            model: word("model", &self.model, SettlementModel::from_word)?,
            priority: Priority::from_number(self.priority)
                .ok_or_else(|| DbError::corrupt(format!("priority {} is unknown", self.priority)))?,
            end_to_end_id: self.end_to_end_id,
            uetr: self.uetr,
            purpose: self.purpose,
            reserve_for: self.reserve_for,
            return_of: self.return_of.map(TransactionId::new),
            body_hash: hash(self.body_hash)?,
        };
        let refusal = match self.refusal_code {
            None => None,
            Some(code) => Some(Refusal {
                code: word("refusal", &code, RefusalCode::from_word)?,
                message: self.refusal_message.unwrap_or_default(),
                details: match self.refusal_details {
                    None => BTreeMap::new(),
                    Some(details) => json("refusal details", &details)?,
                },
            }),
        };
        Ok(Record {
            instruction,
            outcome_state: word("state", &self.outcome_state, TransactionState::from_word)?,
            decided_at: Timestamp::from_micros(self.decided_at),
            state: word("state", &self.state, TransactionState::from_word)?,
            updated_at: Timestamp::from_micros(self.updated_at),
            window: match (self.window_id, self.window_seq) {
                (Some(id), Some(seq)) => Some((WindowId::new(id), count(seq)?)),
                _ => None,
            },
            expires_at: self.expires_at.map(Timestamp::from_micros),
            refusal,
            returned: minor(self.returned)?,
        })
    }
}
