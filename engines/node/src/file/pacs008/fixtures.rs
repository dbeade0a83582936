//! Messages for tests: one of each version with the same two transactions, and a writer.

use std::fmt::Write;

/// A message of each version, each in another dress.
pub const VERSIONS: [(&str, &str); 5] = [
    ("08-plain", include_str!("fixtures/08-plain.xml")),
    ("09-prefix", include_str!("fixtures/09-prefix.xml")),
    ("10-envelope", include_str!("fixtures/10-envelope.xml")),
    ("11-all-of-xml", include_str!("fixtures/11-all-of-xml.xml")),
    ("12-one-line", include_str!("fixtures/12-one-line.xml")),
];

/// A transaction to write; what is empty is left out.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub uetr: String,
    pub end_to_end_id: String,
    pub payer: String,
    pub payee: String,
    pub amount: String,
    pub currency: String,
    /// Name and account.
    pub debtor: [String; 2],
    pub creditor: [String; 2],
}

/// A text as it stands in XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn element(name: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<{name}>{}</{name}>", escaped(text)) }
}

impl Row {
    /// As a `CdtTrfTxInf`, on a line of its own.
    pub fn xml(&self) -> String {
        let agent = |bic: &str| format!("<FinInstnId>{}</FinInstnId>", element("BICFI", bic));
        let account = |name: &str, id: &str| match id {
            "" => String::new(),
            id => format!("<{name}><Id><Othr>{}</Othr></Id></{name}>", element("Id", id)),
        };
        format!(
            "<CdtTrfTxInf><PmtId>{}{}</PmtId><IntrBkSttlmAmt Ccy=\"{}\">{}</IntrBkSttlmAmt><ChrgBr>SHAR</ChrgBr>\
             <Dbtr>{}</Dbtr>{}<DbtrAgt>{}</DbtrAgt><CdtrAgt>{}</CdtrAgt><Cdtr>{}</Cdtr>{}</CdtTrfTxInf>\n",
            element("EndToEndId", &self.end_to_end_id),
            element("UETR", &self.uetr),
            escaped(&self.currency),
            escaped(&self.amount),
            element("Nm", &self.debtor[0]),
            account("DbtrAcct", &self.debtor[1]),
            agent(&self.payer),
            agent(&self.payee),
            element("Nm", &self.creditor[0]),
            account("CdtrAcct", &self.creditor[1]),
        )
    }

    /// As a line of CSV under [`CSV_HEADER`].
    pub fn csv(&self) -> String {
        let fields = [
            &self.uetr,
            &self.end_to_end_id,
            &self.payer,
            &self.payee,
            &self.amount,
            &self.currency,
            &self.debtor[0],
            &self.debtor[1],
            &self.creditor[0],
            &self.creditor[1],
        ];
        let quoted: Vec<String> = fields.map(|field| format!("\"{}\"", field.replace('"', "\"\""))).into();
        quoted.join(",") + "\n"
    }
}

/// The columns of [`Row::csv`].
pub const CSV_HEADER: &str = "transaction_id,end_to_end_id,payer,payee,amount,currency,originator_name,payer_account,\
                              beneficiary_name,payee_account\n";

/// What stands before the transactions.
pub fn before(version: &str, transactions: u64) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Document xmlns=\"urn:iso:std:iso:20022:tech:xsd:pacs.008.001.{version}\"><FIToFICstmrCdtTrf><GrpHdr><MsgId>MSG-1</MsgId><CreDtTm>2026-11-20T08:30:00Z</CreDtTm>\
         <NbOfTxs>{transactions}</NbOfTxs><SttlmInf><SttlmMtd>CLRG</SttlmMtd></SttlmInf></GrpHdr>\n"
    )
}

/// What stands after them.
pub const AFTER: &str = "</FIToFICstmrCdtTrf></Document>\n";

/// A message of these transactions.
pub fn message(version: &str, rows: &[Row]) -> String {
    let mut text = before(version, rows.len() as u64);
    for row in rows {
        write!(text, "{}", row.xml()).unwrap();
    }
    text + AFTER
}
