//! From the domain's words to the contract's.

use deltran_api::common::v1 as common;
use deltran_api::token::v1 as pb;
use deltran_events::data::transactions::{CoverPolicy, SettlementModel, TransactionState};
use deltran_kernel::{Currency, Minor, Money, MoneyError};
use deltran_runtime::wire::{minor_to_money, to_money, to_timestamp};
use deltran_runtime::{DbError, Failure};

use crate::domain::account::AccountKey;
use crate::domain::command::{Funding, Outcome, ParticipantState, Priority, SealTotals};
use crate::domain::refusal::Refusal;
use crate::store::{BalanceRow, Check, PostingRow, Total, TransactionRow};

pub(super) fn state(state: TransactionState) -> pb::TransactionState {
    match state {
        TransactionState::Held => pb::TransactionState::Held,
        TransactionState::Reserved => pb::TransactionState::Reserved,
        TransactionState::Committed => pb::TransactionState::Committed,
        TransactionState::Rejected => pb::TransactionState::Rejected,
        TransactionState::Cancelled => pb::TransactionState::Cancelled,
        TransactionState::Expired => pb::TransactionState::Expired,
    }
}

pub(super) fn model(model: SettlementModel) -> pb::SettlementModel {
    match model {
        SettlementModel::NetMultilateral => pb::SettlementModel::NetMultilateral,
        SettlementModel::NetBilateral => pb::SettlementModel::NetBilateral,
        SettlementModel::Gross => pb::SettlementModel::Gross,
    }
}

pub(super) fn policy(policy: CoverPolicy) -> pb::CoverPolicy {
    match policy {
        CoverPolicy::Prefunded => pb::CoverPolicy::Prefunded,
        CoverPolicy::Collateral => pb::CoverPolicy::Collateral,
        CoverPolicy::CreditLine => pb::CoverPolicy::CreditLine,
    }
}

pub(super) fn participant_state(state: ParticipantState) -> pb::ParticipantState {
    match state {
        ParticipantState::Onboarding => pb::ParticipantState::Onboarding,
        ParticipantState::Active => pb::ParticipantState::Active,
        ParticipantState::Suspended => pb::ParticipantState::Suspended,
        ParticipantState::Defaulted => pb::ParticipantState::Defaulted,
        ParticipantState::Exited => pb::ParticipantState::Exited,
    }
}

fn priority(priority: Priority) -> pb::Priority {
    match priority {
        Priority::Normal => pb::Priority::Normal,
        Priority::Urgent => pb::Priority::Urgent,
        Priority::HighlyUrgent => pb::Priority::HighlyUrgent,
    }
}

pub(super) fn refusal(refusal: &Refusal) -> common::Refusal {
    common::Refusal {
        code: refusal.code.as_str().to_owned(),
        message: refusal.message.clone(),
        details: refusal.details.clone(),
    }
}

pub(super) fn outcome(outcome: &Outcome) -> pb::TransactionOutcome {
    pb::TransactionOutcome {
        transaction_id: outcome.id.to_string(),
        state: state(outcome.state).into(),
        window_id: outcome.window.map(|w| w.0.to_string()).unwrap_or_default(),
        window_seq: outcome.window.map(|w| w.1).unwrap_or_default(),
        decided_at: Some(to_timestamp(outcome.decided_at)),
        refusal: outcome.refusal.as_ref().map(refusal),
        expires_at: outcome.expires_at.map(to_timestamp),
    }
}

pub(super) fn view(row: &TransactionRow) -> pb::TransactionView {
    let (record, i) = (&row.record, &row.record.instruction);
    pb::TransactionView {
        transaction_id: i.id.to_string(),
        payer: i.payer.to_string(),
        payee: i.payee.to_string(),
        amount: Some(to_money(i.amount)),
        model: model(i.model).into(),
        state: state(record.state).into(),
        end_to_end_id: i.end_to_end_id.clone(),
        window_id: record.window.map(|w| w.0.to_string()).unwrap_or_default(),
        window_seq: record.window.map(|w| w.1).unwrap_or_default(),
        created_at: Some(to_timestamp(record.decided_at)),
        updated_at: Some(to_timestamp(record.updated_at)),
        expires_at: record.expires_at.map(to_timestamp),
        refusal: record.refusal.as_ref().map(refusal),
        return_of: i.return_of.map(|r| r.to_string()).unwrap_or_default(),
        returned: Some(minor_to_money(record.returned, i.amount.currency())),
        settled: row.settled,
        uetr: i.uetr.map(|u| u.to_string()).unwrap_or_default(),
        purpose: i.purpose.clone(),
        priority: priority(i.priority).into(),
    }
}

pub(super) fn totals(totals: &SealTotals) -> pb::WindowTotals {
    pb::WindowTotals {
        window_id: totals.window.to_string(),
        count: totals.count,
        gross: Some(minor_to_money(totals.gross, totals.currency)),
        net: totals
            .net
            .iter()
            .map(|(participant, net)| common::NetPosition {
                participant: participant.to_string(),
                net: Some(minor_to_money(*net, totals.currency)),
            })
            .collect(),
        digest: totals.digest.to_vec(),
        opened_at: Some(to_timestamp(totals.opened_at)),
        sealed_at: Some(to_timestamp(totals.sealed_at)),
    }
}

pub(super) fn funding(debtor: &Funding, currency: Currency) -> pb::DebtorFunding {
    pb::DebtorFunding {
        participant: debtor.participant.to_string(),
        required: Some(minor_to_money(debtor.required, currency)),
        reserved: Some(minor_to_money(debtor.reserved, currency)),
        cover_policy: policy(debtor.policy).into(),
    }
}

pub(super) fn posting(row: &PostingRow) -> Result<pb::Posting, DbError> {
    Ok(pb::Posting {
        posting_seq: row.number()?,
        group_id: row.group_id.map(|g| g.to_string()).unwrap_or_default(),
        debit_account: row.debit.clone(),
        credit_account: row.credit.clone(),
        amount: Some(to_money(row.money()?)),
        transaction_id: row.transaction_id.map(|t| t.to_string()).unwrap_or_default(),
        posted_at: Some(to_timestamp(deltran_kernel::Timestamp::from_micros(row.posted_at))),
    })
}

/// A participant's figures in a currency, with cap and cover as the ledger computes them.
pub(super) fn balance(row: &BalanceRow) -> Result<pb::Balance, Failure> {
    figures(row).map_err(Failure::internal)
}

fn figures(row: &BalanceRow) -> Result<pb::Balance, MoneyError> {
    let money = |minor: Minor| Some(minor_to_money(minor, row.currency));
    let mut available = Minor::ZERO;
    let mut reserved = Minor::ZERO;
    let mut windows = std::collections::BTreeMap::<_, (Minor, Minor)>::new();
    for (key, sides) in &row.accounts {
        match key {
            AccountKey::Settlement(..) => available = available.add(sides.balance())?,
            AccountKey::Reserved(_, _, purpose) => {
                reserved = reserved.add(sides.balance())?;
                windows.entry(*purpose).or_default().1 = sides.balance();
            }
            AccountKey::Position(_, _, window) => windows.entry(window.uuid()).or_default().0 = sides.balance(),
            _ => {}
        }
    }
    // What is locked for a hold or a withdrawal has no position and is no window.
    windows.retain(|_, (position, _)| !position.is_zero());
    let debits = Minor::sum(windows.values().map(|(p, _)| p.neg().or_zero()))?;
    let mut unfunded = Minor::ZERO;
    for (position, earmarked) in windows.values() {
        unfunded = unfunded.add(position.neg().or_zero().sub(*earmarked)?.or_zero())?;
    }
    let cap_used = debits.add(row.net_holds)?;
    let cover_used = unfunded.add(row.net_holds)?;
    let stands = available.add(row.terms.collateral)?;
    Ok(pb::Balance {
        participant: row.participant.to_string(),
        currency: row.currency.code().to_owned(),
        available: money(available),
        reserved: money(reserved),
        net_debit_cap: money(row.terms.cap),
        cap_used: money(cap_used),
        collateral: money(row.terms.collateral),
        cap_headroom: money(row.terms.cap.sub(cap_used)?.or_zero()),
        cover_headroom: money(stands.sub(cover_used)?.or_zero()),
        cover_policy: policy(row.terms.policy).into(),
        positions: windows
            .iter()
            .map(|(window, (net, earmarked))| pb::WindowPosition {
                window_id: window.to_string(),
                net: money(*net),
                earmarked: money(*earmarked),
            })
            .collect(),
    })
}

/// The hub's accounts, a row per currency; SAFEGUARD is shown on its debit side.
pub(super) fn hub(accounts: &[(AccountKey, crate::domain::account::Sides)]) -> Vec<pb::HubBalance> {
    let mut rows = std::collections::BTreeMap::<Currency, pb::HubBalance>::new();
    for (key, sides) in accounts {
        let currency = key.currency();
        let zero = || Some(to_money(Money::zero(currency)));
        let row = rows.entry(currency).or_insert_with(|| pb::HubBalance {
            currency: currency.code().to_owned(),
            safeguard: zero(),
            multilateral: zero(),
            fees: zero(),
        });
        let money = |minor| Some(minor_to_money(minor, currency));
        match key {
            AccountKey::Safeguard(_) => row.safeguard = money(sides.balance().neg()),
            AccountKey::Multilateral(_) => row.multilateral = money(sides.balance()),
            AccountKey::Fees(_) => row.fees = money(sides.balance()),
            _ => {}
        }
    }
    rows.into_values().collect()
}

pub(super) fn check(check: Check) -> pb::InvariantResult {
    pb::InvariantResult {
        invariant: check.invariant.to_owned(),
        statement: check.statement.to_owned(),
        holds: check.breach.is_none(),
        detail: check.breach.unwrap_or_default(),
    }
}

pub(super) fn total((currency, total): (Currency, Total)) -> pb::CurrencyTotal {
    pb::CurrencyTotal {
        currency: currency.code().to_owned(),
        committed: total.committed,
        committed_amount: Some(minor_to_money(total.committed_amount, currency)),
        minted: Some(minor_to_money(total.minted, currency)),
        burnt: Some(minor_to_money(total.burnt, currency)),
    }
}
