//! A line of a transaction file as an instruction.

use std::borrow::Cow;

use deltran_api::common::v1 as common;
use deltran_api::token::v1::{Party, SettlementModel, TransactionInstruction};
use deltran_kernel::{Currency, Money, ParticipantId, TransactionId};

use super::csv::{BadHeader, Columns};
use super::xml::shortened;

/// The columns of a transaction file; the first five must be there.
pub const COLUMNS: [&str; 11] = [
    "end_to_end_id",
    "payer",
    "payee",
    "amount",
    "currency",
    "payer_account",
    "payee_account",
    "transaction_id",
    "originator_name",
    "beneficiary_name",
    "model",
];
const REQUIRED: usize = 5;
/// As the contract says for the end-to-end id.
pub const MAX_END_TO_END_ID: usize = 35;
/// As the contract says for a party's account.
pub const MAX_ACCOUNT: usize = 35;
/// As the contract says for a party's name.
pub const MAX_NAME: usize = 140;

/// The header of a transaction file.
pub type Header = Columns<11>;

/// Reads the header.
///
/// # Errors
/// [`BadHeader`], naming the column.
pub fn header(line: &[u8]) -> Result<Header, BadHeader> {
    Columns::read(line, COLUMNS, REQUIRED)
}

/// What a line asks for, or the end-to-end id (as far as it could be read) and what is wrong with it.
///
/// Ids are derived from payer and end-to-end id where the file has none, so that a second import is harmless. A party goes
/// along where the file names it.
///
/// # Errors
/// The first thing that is wrong.
pub fn instruction(
    header: &Header,
    line: &[u8],
    model: SettlementModel,
) -> Result<TransactionInstruction, (String, String)> {
    // The id of a line that is no record is shown as far as it can be told.
    let fields = header.fields(line).map_err(|e| (header.first_guess(line), e.to_string()))?;
    let end_to_end_id: String = fields[0].chars().take(MAX_END_TO_END_ID).collect();
    read(fields, model).map_err(|what| (end_to_end_id, what))
}

fn read(fields: [Cow<'_, str>; 11], model: SettlementModel) -> Result<TransactionInstruction, String> {
    let [end_to_end_id, payer, payee, amount, currency, payer_account, payee_account, id, originator, beneficiary, own] =
        fields;
    fits("end_to_end_id", &end_to_end_id, MAX_END_TO_END_ID)?;
    if end_to_end_id.trim().is_empty() {
        return Err("end_to_end_id is empty".into());
    }
    let payer_id: ParticipantId = payer.parse().map_err(|e| format!("payer: {e}"))?;
    let payee_id: ParticipantId = payee.parse().map_err(|e| format!("payee: {e}"))?;
    let currency: Currency = currency.parse().map_err(|e| format!("currency: {e}"))?;
    let money = Money::parse(&amount, currency).map_err(|e| e.to_string())?;
    if !money.minor().is_positive() {
        return Err(format!("amount {amount:?} is not above zero"));
    }
    let model = match own.as_ref() {
        "" => model,
        word => SettlementModel::from_str_name(word)
            .filter(|m| *m != SettlementModel::Unspecified)
            .ok_or_else(|| format!("model {word:?} is none of NET_MULTILATERAL, NET_BILATERAL, GROSS"))?,
    };
    let id = match id.as_ref() {
        "" => TransactionId::of_file_line(payer_id, &end_to_end_id),
        text => text.parse().map_err(|e: deltran_kernel::InvalidId| e.to_string())?,
    };
    Ok(TransactionInstruction {
        transaction_id: id.to_string(),
        payer: payer_id.to_string(),
        payee: payee_id.to_string(),
        amount: Some(common::Money { amount: money.amount(), currency: currency.to_string() }),
        model: model.into(),
        originator: party(("originator_name", originator), ("payer_account", payer_account))?,
        beneficiary: party(("beneficiary_name", beneficiary), ("payee_account", payee_account))?,
        end_to_end_id: end_to_end_id.into_owned(),
        ..TransactionInstruction::default()
    })
}

fn party(name: (&str, Cow<'_, str>), account: (&str, Cow<'_, str>)) -> Result<Option<Party>, String> {
    fits(name.0, &name.1, MAX_NAME)?;
    fits(account.0, &account.1, MAX_ACCOUNT)?;
    if name.1.trim().is_empty() {
        return Ok(None);
    }
    Ok(Some(Party { name: name.1.into_owned(), account: account.1.into_owned(), ..Party::default() }))
}

fn fits(column: &str, value: &str, most: usize) -> Result<(), String> {
    within(&format!("{column} {:?}", shortened(value)), value, most)
}

/// Checks a text: so many characters at most, and none that controls.
///
/// # Errors
/// What is wrong, with its name.
pub fn within(named: &str, value: &str, most: usize) -> Result<(), String> {
    let length = value.chars().count();
    if length > most {
        return Err(format!("{named} has {length} characters: at most {most} are allowed"));
    }
    if value.chars().any(char::is_control) {
        return Err(format!("{named} contains control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"end_to_end_id,payer,payee,payer_account,payee_account,amount,currency";

    fn read(line: &[u8]) -> Result<TransactionInstruction, (String, String)> {
        instruction(&header(HEADER).unwrap(), line, SettlementModel::NetMultilateral)
    }

    #[test]
    fn a_line_becomes_an_instruction_whose_id_repeats() {
        let line = b"E2E-1,ALFAAEXX,BRAVINXX,001,002,147.80,AED";
        let one = read(line).unwrap();
        assert_eq!(one, read(line).unwrap());
        assert_eq!((one.payer.as_str(), one.end_to_end_id.as_str()), ("ALFAAEXX", "E2E-1"));
        assert_eq!(one.model, i32::from(SettlementModel::NetMultilateral));
        let id = TransactionId::of_file_line("ALFAAEXX".parse().unwrap(), "E2E-1");
        assert_eq!(one.transaction_id, id.to_string());
        assert_eq!(one.originator, None, "an account without a name is no party");
        let head_office = read(b"E2E-1,ALFAAEXXXXX,BRAVINXXXXX,001,002,147.80,AED");
        assert_eq!(head_office, Ok(one), "a branch XXX is the head office, as in a message");
    }

    #[test]
    fn optional_columns_are_taken_where_the_header_has_them() {
        let header = header(
            b"transaction_id,end_to_end_id,payer,payee,amount,currency,originator_name,payer_account,beneficiary_name,model",
        )
        .unwrap();
        let line = b"0190c3d5-0000-7000-8000-000000000001,E1,ALFAAEXX,BRAVINXX,5,JPY,\"Doe, Jane\",77,,GROSS";
        let one = instruction(&header, line, SettlementModel::NetMultilateral).unwrap();
        assert_eq!(one.transaction_id, "0190c3d5-0000-7000-8000-000000000001");
        assert_eq!(one.model, i32::from(SettlementModel::Gross));
        let originator = one.originator.unwrap();
        assert_eq!((originator.name.as_str(), originator.account.as_str()), ("Doe, Jane", "77"));
        assert_eq!(one.beneficiary, None);
    }

    #[test]
    fn every_bad_line_says_why() {
        let far = [b"E1,ALFAAEXX,BRAVINXX,1,".as_slice(), &b"7".repeat(36), b",1.00,USD"].concat();
        let long = [b"E".repeat(36).as_slice(), b",ALFAAEXX,BRAVINXX,1,2,1.00,USD"].concat();
        let rows: &[(&[u8], &str)] = &[
            (b"E1,ALFAAEXX,BRAVINXX,1,2,147.8", "6 columns where the header has 7"),
            (b"E1,ALFAAEXX,BRAVINXX,1,2,1.00,USD,x", "8 columns"),
            (b"E1,ALFAAEXX,BRAV\xc4NXX,1,2,1.00,USD", "not UTF-8"),
            (&long, "end_to_end_id \"EEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEE\" has 36 characters: at most 35"),
            (&far, "payee_account \"777777777777777777777777777777777777\" has 36 characters: at most 35"),
            (b",ALFAAEXX,BRAVINXX,1,2,1.00,USD", "end_to_end_id is empty"),
            (b"E1,alfa,BRAVINXX,1,2,1.00,USD", "payer: participant id \"alfa\""),
            (b"E1,ALFAAEXX,B,1,2,1.00,USD", "payee: participant id \"B\""),
            (b"E1,ALFAAEXX,BRAVINXX,1,2,1.0,USD", "takes exactly 2"),
            (b"E1,ALFAAEXX,BRAVINXX,1,2,1e3,USD", "not a plain decimal"),
            (b"E1,ALFAAEXX,BRAVINXX,1,2,0.00,USD", "not above zero"),
            (b"E1,ALFAAEXX,BRAVINXX,1,2,-1.00,USD", "not above zero"),
            (b"E1,ALFAAEXX,BRAVINXX,1,2,1.00,US", "currency"),
            (b"E1,ALFAAEXX,BRAVINXX,1,2,9999999999999999999999999999.00,USD", "out of range"),
        ];
        for (line, why) in rows {
            let (_, what) = read(line).unwrap_err();
            assert!(what.contains(why), "{}: {what}", String::from_utf8_lossy(line));
        }
        assert_eq!(read(b"E1,alfa,BRAVINXX,1,2,1.00,USD").unwrap_err().0, "E1", "the report names the line's id");
    }
}
