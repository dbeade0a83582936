//! A `CdtTrfTxInf` as an instruction.
//!
//! | of the message | becomes |
//! |---|---|
//! | `PmtId/UETR` | transaction id and UETR; without it the id is derived, see [`id`] |
//! | `PmtId/EndToEndId` | end-to-end id |
//! | `IntrBkSttlmAmt`, `@Ccy` | amount, with exactly the currency's minor digits |
//! | `DbtrAgt`, `CdtrAgt`: `FinInstnId/BICFI` | payer, payee; a branch `XXX`, the head office, is the BIC without it |
//! | `Dbtr`, `Cdtr`: `Nm`, `PstlAdr/Ctry`, birth date; `DbtrAcct`, `CdtrAcct` | originator, beneficiary, if named |
//! | `Purp` | purpose |
//! | `SttlmPrty`, else `PmtTpInf/InstrPrty`, else that of the header | priority: `HIGH` urgent, `URGT` highly urgent |
//!
//! Parties that would not be screened, and agents that would not take part, are refused. Everything else is passed over:
//! charges, remittance information, dates (the open window decides).

use deltran_api::common::v1 as common;
use deltran_api::token::v1::{Party, Priority, SettlementModel, TransactionInstruction};
use deltran_kernel::{Currency, Money, ParticipantId, TransactionId};
use uuid::{Uuid, Variant};

use super::elements::{Elements, Finding, Known};
use super::header::{Header, currency};
use super::shortened;
use crate::file::line::{MAX_ACCOUNT, MAX_END_TO_END_ID, MAX_NAME, within};

const INSTRUCTION_ID: &str = "PmtId/InstrId";
const END_TO_END_ID: &str = "PmtId/EndToEndId";
const TRANSACTION_ID: &str = "PmtId/TxId";
const UETR: &str = "PmtId/UETR";
const INSTRUCTION_PRIORITY: &str = "PmtTpInf/InstrPrty";
const SETTLEMENT_PRIORITY: &str = "SttlmPrty";
/// The amount and its currency.
pub const AMOUNT: [&str; 2] = ["IntrBkSttlmAmt", "IntrBkSttlmAmt/@Ccy"];
const DEBTOR_AGENT: &str = "DbtrAgt/FinInstnId/BICFI";
const CREDITOR_AGENT: &str = "CdtrAgt/FinInstnId/BICFI";
/// Name, country, date of birth, and the account in two forms.
const DEBTOR: [&str; 5] = [
    "Dbtr/Nm",
    "Dbtr/PstlAdr/Ctry",
    "Dbtr/Id/PrvtId/DtAndPlcOfBirth/BirthDt",
    "DbtrAcct/Id/IBAN",
    "DbtrAcct/Id/Othr/Id",
];
const CREDITOR: [&str; 5] = [
    "Cdtr/Nm",
    "Cdtr/PstlAdr/Ctry",
    "Cdtr/Id/PrvtId/DtAndPlcOfBirth/BirthDt",
    "CdtrAcct/Id/IBAN",
    "CdtrAcct/Id/Othr/Id",
];
const PURPOSES: [&str; 2] = ["Purp/Cd", "Purp/Prtry"];

const UNSCREENED: &str = "is refused: only debtor and creditor are screened; send the payment without this party";
const BYPASSED: &str = "is refused: the creditor agent is paid directly; send the payment without this agent";

/// What is read of a transaction.
pub const KNOWN: Known = Known {
    read: &[
        INSTRUCTION_ID,
        END_TO_END_ID,
        TRANSACTION_ID,
        UETR,
        INSTRUCTION_PRIORITY,
        SETTLEMENT_PRIORITY,
        AMOUNT[0],
        AMOUNT[1],
        DEBTOR_AGENT,
        CREDITOR_AGENT,
        DEBTOR[0],
        DEBTOR[1],
        DEBTOR[2],
        DEBTOR[3],
        DEBTOR[4],
        CREDITOR[0],
        CREDITOR[1],
        CREDITOR[2],
        CREDITOR[3],
        CREDITOR[4],
        PURPOSES[0],
        PURPOSES[1],
    ],
    refused: &[
        ("UltmtDbtr", UNSCREENED),
        ("InitgPty", UNSCREENED),
        ("UltmtCdtr", UNSCREENED),
        ("IntrmyAgt1", BYPASSED),
        ("IntrmyAgt2", BYPASSED),
        ("IntrmyAgt3", BYPASSED),
    ],
};

/// As the contract says for countries and dates.
const COUNTRY: usize = 2;
const DATE: usize = 10;
/// What stands for an end-to-end id that there is not.
const NOT_PROVIDED: &str = "NOTPROVIDED";

/// The end-to-end id as far as a report shows it.
pub fn shown_id(transaction: &Elements) -> String {
    transaction.text(END_TO_END_ID).chars().filter(|c| !c.is_control()).take(MAX_END_TO_END_ID).collect()
}

/// What a transaction asks for.
///
/// # Errors
/// The first thing that is wrong.
pub fn instruction(t: &Elements, header: &Header, model: SettlementModel) -> Result<TransactionInstruction, Finding> {
    t.sound()?;
    let instruction_id = t.optional(INSTRUCTION_ID, reference)?;
    let end_to_end_id = t.required(END_TO_END_ID, reference)?;
    let transaction_id = t.optional(TRANSACTION_ID, reference)?;
    let uetr = t.optional(UETR, uetr)?;
    let settlement_priority = t.optional(SETTLEMENT_PRIORITY, priority)?;
    let instruction_priority = t.optional(INSTRUCTION_PRIORITY, instruction_priority)?;
    let currency: Currency = t.required(AMOUNT[1], currency)?;
    let money = t.required(AMOUNT[0], |text| amount(text, currency))?;
    let payer = t.required(DEBTOR_AGENT, participant)?;
    let payee = t.required(CREDITOR_AGENT, participant)?;
    let id = match uetr {
        Some(uetr) => TransactionId::new(uetr),
        None => {
            let own = [transaction_id, instruction_id].map(Option::unwrap_or_default);
            if end_to_end_id == NOT_PROVIDED && own.iter().all(String::is_empty) {
                return Err(Finding {
                    path: END_TO_END_ID,
                    line: t.line(),
                    why: format!("{NOT_PROVIDED:?} does not tell payments apart: give a UETR, TxId or InstrId as well"),
                });
            }
            id(&header.message_id, payer, &end_to_end_id, &own)
        }
    };
    Ok(TransactionInstruction {
        transaction_id: id.to_string(),
        payer: payer.to_string(),
        payee: payee.to_string(),
        amount: Some(common::Money { amount: money.amount(), currency: currency.to_string() }),
        model: model.into(),
        priority: settlement_priority.or(instruction_priority).or(header.priority).unwrap_or_default().into(),
        end_to_end_id,
        uetr: uetr.map(|uetr| uetr.to_string()).unwrap_or_default(),
        purpose: purpose(t)?,
        originator: party(t, DEBTOR)?,
        beneficiary: party(t, CREDITOR)?,
        ..TransactionInstruction::default()
    })
}

/// The id of a transaction without UETR: UUIDv5 of message id, payer, end-to-end id, `TxId` and `InstrId`, so that the
/// same message leads to the same ids whenever it is handed in. Transactions of a message that agree in all of them are
/// one.
fn id(message_id: &str, payer: ParticipantId, end_to_end_id: &str, own: &[String; 2]) -> TransactionId {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_OID, b"pacs.008");
    // None of them holds a control character.
    let name = [message_id, payer.as_str(), end_to_end_id, &own[0], &own[1]].join("\u{1f}");
    TransactionId::new(Uuid::new_v5(&namespace, name.as_bytes()))
}

/// An id of the standard: 1 to 35 characters.
pub fn reference(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("is empty: it must be given".into());
    }
    bounded(text, MAX_END_TO_END_ID)
}

fn bounded(text: &str, most: usize) -> Result<String, String> {
    within(&format!("{:?}", shortened(text)), text, most).map(|()| text.to_owned())
}

fn uetr(text: &str) -> Result<Uuid, String> {
    let text = text.trim_ascii();
    let lower = text.bytes().all(|b| b == b'-' || b.is_ascii_digit() || b.is_ascii_lowercase());
    Uuid::try_parse(text)
        .ok()
        .filter(|id| lower && text.len() == 36 && id.get_version_num() == 4 && id.get_variant() == Variant::RFC4122)
        .ok_or_else(|| format!("{:?} is not a UUID of version 4 in small letters, as a UETR is", shortened(text)))
}

fn amount(text: &str, currency: Currency) -> Result<Money, String> {
    let money = Money::parse(text.trim_ascii(), currency).map_err(|e| e.to_string())?;
    if money.minor().is_positive() { Ok(money) } else { Err(format!("amount {:?} is not above zero", shortened(text))) }
}

fn participant(text: &str) -> Result<ParticipantId, String> {
    text.trim_ascii().parse().map_err(|e: deltran_kernel::InvalidId| e.to_string())
}

/// `InstrPrty`: HIGH or NORM.
pub fn instruction_priority(text: &str) -> Result<Priority, String> {
    match text.trim_ascii() {
        "HIGH" => Ok(Priority::Urgent),
        "NORM" => Ok(Priority::Normal),
        other => Err(format!("{:?} is neither HIGH nor NORM", shortened(other))),
    }
}

/// `SttlmPrty`: URGT, HIGH or NORM.
fn priority(text: &str) -> Result<Priority, String> {
    match text.trim_ascii() {
        "URGT" => Ok(Priority::HighlyUrgent),
        other => instruction_priority(other).map_err(|_| format!("{:?} is none of URGT, HIGH, NORM", shortened(other))),
    }
}

fn purpose(t: &Elements) -> Result<String, Finding> {
    let [code, proprietary] = PURPOSES;
    let code = t.optional(code, |text| bounded(text, MAX_END_TO_END_ID))?;
    let proprietary = t.optional(proprietary, |text| bounded(text, MAX_END_TO_END_ID))?;
    Ok(code.or(proprietary).unwrap_or_default())
}

fn party(t: &Elements, [name, country, birth, iban, other]: [&'static str; 5]) -> Result<Option<Party>, Finding> {
    let text = |path, most| t.optional(path, |text| bounded(text, most)).map(Option::unwrap_or_default);
    let party = Party {
        name: text(name, MAX_NAME)?,
        country: text(country, COUNTRY)?,
        date_of_birth: text(birth, DATE)?,
        account: Some(text(iban, MAX_ACCOUNT)?)
            .filter(|iban| !iban.is_empty())
            .map_or_else(|| text(other, MAX_ACCOUNT), Ok)?,
        ..Party::default()
    };
    Ok(Some(party).filter(|party| !party.name.trim().is_empty()))
}
