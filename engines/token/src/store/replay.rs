//! The log of postings once more from the first: balances, and cap and cover at every prefix.

use std::collections::BTreeMap;

use deltran_kernel::{Currency, Minor, ParticipantId};
use deltran_runtime::DbError;
use futures::TryStreamExt;
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use super::rows::{minor, text};
use crate::domain::account::Sides;

type Key = (ParticipantId, Currency);

/// What a participant has at stake in a currency, as the log goes by.
#[derive(Debug, Clone, Default)]
struct Stake {
    cap: Minor,
    collateral: Minor,
    tokens: Minor,
    /// Position and earmark by window.
    windows: BTreeMap<String, (Minor, Minor)>,
}

impl Stake {
    fn debit(&self) -> Result<Minor, deltran_kernel::MoneyError> {
        Minor::sum(self.windows.values().map(|(position, _)| position.neg().or_zero()))
    }

    /// What cover lacks; negative where something is left.
    fn lacking(&self) -> Result<Minor, deltran_kernel::MoneyError> {
        let mut used = Minor::ZERO;
        for (position, earmarked) in self.windows.values() {
            used = used.add(position.neg().or_zero().sub(*earmarked)?.or_zero())?;
        }
        used.sub(self.tokens)?.sub(self.collateral)
    }
}

/// The log, replayed.
#[derive(Debug, Default)]
pub struct Replay {
    sides: BTreeMap<String, Sides>,
    stakes: BTreeMap<Key, Stake>,
    last: u64,
    /// The first posting that is not what a posting must be.
    pub posting_breach: Option<String>,
    /// The first posting that increased a debit beyond cap or cover.
    pub limit_breach: Option<String>,
}

/// Terms by the number of the last posting before them.
type History = BTreeMap<u64, Vec<(Key, Minor, Minor)>>;

type PostingRow = (i64, Option<Uuid>, String, String, Decimal);

impl Replay {
    /// Replays the whole log within a snapshot. Memory grows with the accounts, not with the log.
    pub async fn run(tx: &mut PgConnection) -> Result<Self, DbError> {
        let history = history(&mut *tx).await?;
        let windows: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM ledger_window").fetch_all(&mut *tx).await?;
        let windows: std::collections::BTreeSet<String> = windows.into_iter().map(|w| w.to_string()).collect();
        let mut replay = Self::default();
        replay.terms(&history, 0);
        let mut rows =
            sqlx::query_as::<_, PostingRow>("SELECT seq, group_id, debit, credit, amount FROM posting ORDER BY seq")
                .fetch(&mut *tx);
        while let Some((seq, group, debit, credit, amount)) = rows.try_next().await? {
            let seq = seq as u64;
            let amount = minor(amount)?;
            replay.dense(seq);
            let (from, to) = (Account::parse(&debit)?, Account::parse(&credit)?);
            if (from.currency != to.currency || (from.kind == "POSITION") != (to.kind == "POSITION"))
                && replay.posting_breach.is_none()
            {
                replay.posting_breach = Some(format!("posting {seq} mixes {debit} with {credit}"));
            }
            replay.apply(seq, group.is_some(), &from, &to, amount, &windows).map_err(DbError::corrupt)?;
            replay.book(debit, credit, amount).map_err(DbError::corrupt)?;
            replay.terms(&history, seq);
        }
        Ok(replay)
    }

    fn dense(&mut self, seq: u64) {
        if seq != self.last + 1 && self.posting_breach.is_none() {
            self.posting_breach = Some(format!("posting {seq} follows {}: the log has a gap", self.last));
        }
        self.last = seq;
    }

    fn terms(&mut self, history: &History, seq: u64) {
        for (key, cap, collateral) in history.get(&seq).into_iter().flatten() {
            let stake = self.stakes.entry(*key).or_default();
            stake.cap = *cap;
            stake.collateral = *collateral;
        }
    }

    fn book(&mut self, debit: String, credit: String, amount: Minor) -> Result<(), deltran_kernel::MoneyError> {
        let entry = self.sides.entry(debit).or_default();
        *entry = entry.debited(amount)?;
        let entry = self.sides.entry(credit).or_default();
        *entry = entry.credited(amount)?;
        Ok(())
    }

    /// Moves stakes, and checks those of the debited participant. Postings of a group are steps of one
    /// whole that only ends debts, and are not checked one by one.
    fn apply(
        &mut self,
        seq: u64,
        grouped: bool,
        from: &Account<'_>,
        to: &Account<'_>,
        amount: Minor,
        windows: &std::collections::BTreeSet<String>,
    ) -> Result<(), deltran_kernel::MoneyError> {
        let payer = from.key();
        let before = match payer.and_then(|key| self.stakes.get(&key)) {
            Some(stake) if !grouped => Some((stake.debit()?, stake.lacking()?)),
            _ => None,
        };
        self.shift(from, amount.neg(), windows)?;
        self.shift(to, amount, windows)?;
        if let (Some(key), Some((debit, lacking))) = (payer, before)
            && let Some(stake) = self.stakes.get(&key)
            && self.limit_breach.is_none()
        {
            let (debit_after, lacking_after) = (stake.debit()?, stake.lacking()?);
            let (participant, currency) = key;
            if debit_after > debit && debit_after > stake.cap {
                self.limit_breach = Some(format!(
                    "posting {seq}: the net debit of {participant} in {currency} reaches {debit_after:?} minor units, its cap is {:?}",
                    stake.cap
                ));
            } else if lacking_after > lacking && lacking_after.is_positive() {
                self.limit_breach = Some(format!(
                    "posting {seq}: cover of {participant} in {currency} lacks {lacking_after:?} minor units"
                ));
            }
        }
        Ok(())
    }

    fn shift(
        &mut self,
        account: &Account<'_>,
        change: Minor,
        windows: &std::collections::BTreeSet<String>,
    ) -> Result<(), deltran_kernel::MoneyError> {
        let Some(key) = account.key() else { return Ok(()) };
        let stake = self.stakes.entry(key).or_default();
        match (account.kind, account.purpose) {
            ("SETTLEMENT", _) => stake.tokens = stake.tokens.add(change)?,
            ("POSITION", Some(window)) => {
                let entry = stake.windows.entry(window.to_owned()).or_default();
                entry.0 = entry.0.add(change)?;
            }
            ("RESERVED", Some(window)) if windows.contains(window) => {
                let entry = stake.windows.entry(window.to_owned()).or_default();
                entry.1 = entry.1.add(change)?;
            }
            _ => {}
        }
        stake.windows.retain(|_, (position, earmarked)| !position.is_zero() || !earmarked.is_zero());
        Ok(())
    }

    /// Names of every account in the log.
    pub fn accounts(&self) -> impl Iterator<Item = &str> {
        self.sides.keys().map(String::as_str)
    }

    /// An account's sides by the log.
    pub fn sides(&self, name: &str) -> Sides {
        self.sides.get(name).copied().unwrap_or_default()
    }
}

async fn history(tx: &mut PgConnection) -> Result<History, DbError> {
    let rows: Vec<(String, String, i64, Decimal, Decimal)> = sqlx::query_as(
        "SELECT participant, currency, after_posting, cap, collateral FROM membership_history ORDER BY after_posting, set_at",
    )
    .fetch_all(tx)
    .await?;
    let mut history = History::new();
    for (participant, currency, after, cap, collateral) in rows {
        let key = (text("participant", &participant)?, text("currency", &currency)?);
        history.entry(after as u64).or_default().push((key, minor(cap)?, minor(collateral)?));
    }
    Ok(history)
}

/// An account's name, taken apart.
struct Account<'a> {
    kind: &'a str,
    participant: Option<ParticipantId>,
    currency: Currency,
    purpose: Option<&'a str>,
}

impl<'a> Account<'a> {
    fn parse(name: &'a str) -> Result<Self, DbError> {
        let parts: Vec<&str> = name.split(':').collect();
        let (participant, currency, purpose) = match parts.as_slice() {
            ["SAFEGUARD" | "MULTILATERAL" | "FEES", currency] => (None, *currency, None),
            ["SETTLEMENT", participant, currency] => (Some(text("account", participant)?), *currency, None),
            ["RESERVED" | "POSITION", participant, currency, purpose] => {
                (Some(text("account", participant)?), *currency, Some(*purpose))
            }
            _ => return Err(DbError::corrupt(format!("{name:?} is no account"))),
        };
        Ok(Self { kind: parts[0], participant, currency: text("account", currency)?, purpose })
    }

    fn key(&self) -> Option<Key> {
        self.participant.map(|p| (p, self.currency))
    }
}
