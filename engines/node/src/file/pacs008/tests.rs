//! Messages of every version and dress; what is wrong with one, at which line and element; flat memory; and that a
//! message asks for the same as a CSV file.

use std::io::{Cursor, Read, Seek, Write};

use deltran_api::common::v1::Money;
use deltran_api::token::v1::{Party, Priority, SettlementModel, TransactionInstruction};
use proptest::prelude::*;

use super::fixtures::{AFTER, CSV_HEADER, Row, VERSIONS, before, message};
use super::{Checked, Message, transaction_path};
use crate::file::lane::Item;
use crate::file::line;
use crate::file::report::RefusedLine;
use crate::file::source::{Parsed, Source, Unusable};

const MODEL: SettlementModel = SettlementModel::NetMultilateral;

fn file(text: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text).unwrap();
    file
}

/// Every item of a file, in two passes as in earnest.
fn read(text: impl AsRef<[u8]>) -> Result<Vec<Parsed>, String> {
    let opened = Checked::open(file(text.as_ref()), MODEL, &mut |_| true).map_err(|e| e.to_string())?;
    let mut source = opened.unwrap();
    let mut all = Vec::new();
    while let Some(item) = source.next_item().map_err(|e| e.to_string())? {
        all.push(item);
    }
    assert_eq!(source.bytes(), text.as_ref().len() as u64);
    Ok(all)
}

fn good(text: &str) -> Vec<TransactionInstruction> {
    read(text).unwrap().into_iter().map(|item| item.unwrap().instruction).collect()
}

fn plain() -> &'static str {
    VERSIONS[0].1
}

fn usd(amount: &str) -> Option<Money> {
    Some(Money { amount: amount.into(), currency: "USD".into() })
}

#[test]
fn every_version_in_every_dress_asks_for_the_same() {
    let uetr = "7f1c8f4e-2d1b-4b2a-9d55-0e6a3a1f0001";
    let first = TransactionInstruction {
        transaction_id: uetr.into(),
        payer: "ALFAAEXX".into(),
        payee: "BRAVINXX".into(),
        amount: usd("1250.00"),
        model: MODEL.into(),
        priority: Priority::Urgent.into(),
        end_to_end_id: "E2E-1".into(),
        uetr: uetr.into(),
        purpose: "SUPP".into(),
        originator: Some(Party {
            name: "Alpha Trading LLC".into(),
            account: "AE070331234567890123456".into(),
            country: "AE".into(),
            ..Party::default()
        }),
        beneficiary: Some(Party { name: "Müller & Söhne".into(), ..Party::default() }),
        ..TransactionInstruction::default()
    };
    let second = TransactionInstruction {
        // For ever: this is what makes a second submission of the same file harmless.
        transaction_id: "5019ada2-380b-5ba3-bfc0-ecbb6f8b24cd".into(),
        payer: "BRAVINXX".into(),
        payee: "ALFAAEXX".into(),
        amount: usd("0.99"),
        model: MODEL.into(),
        end_to_end_id: "E2E-2".into(),
        ..TransactionInstruction::default()
    };
    for (name, text) in VERSIONS {
        assert_eq!(good(text), [first.clone(), second.clone()], "{name}");
    }
}

#[test]
fn the_example_of_the_day_is_taken() {
    let example = good(include_str!("../../../../../examples/day/pacs008.xml"));
    assert_eq!(example.iter().map(|t| t.payer.as_str()).collect::<Vec<_>>(), ["ALFAAEXX", "BRAVINXX", "DELTFRXX"]);
}

#[test]
fn positions_are_lines_and_numbers() {
    let positions = |text: &str| -> Vec<_> {
        read(text).unwrap().into_iter().map(|item| item.unwrap().position).map(|p| (p.line, p.transaction)).collect()
    };
    assert_eq!(positions(plain()), [(15, Some(1)), (55, Some(2))]);
    assert_eq!(positions(VERSIONS[4].1), [(1, Some(1)), (1, Some(2))]);
}

/// The plain message with one part replaced.
fn with(from: &str, to: &str) -> String {
    assert!(plain().contains(from), "{from}");
    plain().replacen(from, to, 1)
}

#[test]
fn a_file_that_cannot_be_used_says_where_and_why() {
    let cut = &plain()[..plain().find("<TxId>TX-2").unwrap()];
    let twice = plain().replace("</Document>\n", "</Document>") + plain().split_once('\n').unwrap().1;
    let second = with("</FIToFICstmrCdtTrf>", "</FIToFICstmrCdtTrf><FIToFICstmrCdtTrf/>");
    let envelope = format!("<E>{}{0}</E>", plain().split_once('\n').unwrap().1);
    let bomb = with("<Document", "<!DOCTYPE d [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><Document");
    let external = with("<Document", "<!DOCTYPE d [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><Document");
    let deep = with("<ChrgBr>SHAR</ChrgBr>", &"<Ustrd>".repeat(100));
    let header = "line 4: /Document/FIToFICstmrCdtTrf/GrpHdr: the control totals do not agree";
    let rows: &[(&str, &[&str])] = &[
        ("", &["line 1: the file ends before its first element"]),
        ("<html/>", &["no element Document"]),
        (
            &with("pacs.008.001.08", "pacs.008.001.07"),
            &["line 2: /Document: message \"pacs.008.001.07\"", "pacs.008.001.12"],
        ),
        (&with("pacs.008.001.08", "pacs.008.001.13"), &["message \"pacs.008.001.13\" is not understood"]),
        (&with("pacs.008.001.08", "pacs.009.001.08"), &["message \"pacs.009.001.08\" is not understood"]),
        (&with("urn:iso:std:iso:20022:tech:xsd:pacs", "urn:other"), &["message \"urn:other.008.001.08\" is not"]),
        (&plain().replace("FIToFICstmrCdtTrf", "FICdtTrf"), &["line 3: /Document/FICdtTrf: FICdtTrf of namespace"]),
        (&plain().replace("GrpHdr", "Header"), &["/Document/FIToFICstmrCdtTrf/Header: Header of", "GrpHdr is due"]),
        (&twice, &["second root element"]),
        (&second, &["/Document/FIToFICstmrCdtTrf: stands after the message"]),
        (&envelope, &["/Document: stands after the message: put each message into a file of its own"]),
        (&with("    <CdtTrfTxInf>", "<GrpHdr/><CdtTrfTxInf>"), &["/Document/FIToFICstmrCdtTrf/GrpHdr: stands twice"]),
        (cut, &["line 58: /Document/FIToFICstmrCdtTrf/CdtTrfTxInf[2]/PmtId: the file ends before </PmtId>"]),
        (&plain()[..plain().len() - 12], &["the file ends before </Document>"]),
        (&bomb, &["line 2: a DOCTYPE is refused"]),
        (&external, &["line 2: a DOCTYPE is refused"]),
        (
            &with("Alpha Trading LLC", "&alpha;"),
            &["line 28: /Document/FIToFICstmrCdtTrf/CdtTrfTxInf[1]/Dbtr/Nm: entity"],
        ),
        (&deep, &["CdtTrfTxInf[1]/Ustrd/", "nested deeper than 64"]),
        (&with("UTF-8", "ISO-8859-1"), &["line 1: the encoding is ISO-8859-1: only UTF-8"]),
        (&with("UTF-8", "UTF-16"), &["line 1: the encoding is UTF-16"]),
        (&with("<MsgId>MSG-1</MsgId>", ""), &["line 4: /Document/FIToFICstmrCdtTrf/GrpHdr/MsgId: is missing"]),
        (&with("MSG-1", ""), &["line 5: /Document/FIToFICstmrCdtTrf/GrpHdr/MsgId: is empty"]),
        (&with("<NbOfTxs>2</NbOfTxs>", ""), &["GrpHdr/NbOfTxs: is missing"]),
        (&with("<NbOfTxs>2<", "<NbOfTxs>two<"), &["line 7: /Document/FIToFICstmrCdtTrf/GrpHdr/NbOfTxs: \"two\""]),
        (&with("<NbOfTxs>2</NbOfTxs>", "<NbOfTxs>2</NbOfTxs><NbOfTxs>2</NbOfTxs>"), &["NbOfTxs: stands twice"]),
        (&with("<CtrlSum>1250.99<", "<CtrlSum>1e3<"), &["GrpHdr/CtrlSum: \"1e3\" is not a plain decimal"]),
        (&with("<TtlIntrBkSttlmAmt Ccy=\"USD\">", "<TtlIntrBkSttlmAmt>"), &["TtlIntrBkSttlmAmt/@Ccy: is missing"]),
        (&with("<TtlIntrBkSttlmAmt Ccy=\"USD\">", "<TtlIntrBkSttlmAmt Ccy=\"USX\">"), &["unknown currency \"USX\""]),
        (
            &with("CLRG", "COVE"),
            &["line 12: /Document/FIToFICstmrCdtTrf/GrpHdr/SttlmInf/SttlmMtd: \"COVE\" is not done here"],
        ),
        (&with("<SttlmMtd>CLRG</SttlmMtd>", ""), &["SttlmInf/SttlmMtd: is missing"]),
        (&with("<NbOfTxs>2<", "<NbOfTxs>3<"), &[header, "nothing was submitted: NbOfTxs says 3 and there are 2"]),
        (
            &with("<CtrlSum>1250.99<", "<CtrlSum>1250.98<"),
            &[header, "CtrlSum says 1250.98 and the amounts come to 1250.99"],
        ),
        (&with("\"USD\">1250.99<", "\"USD\">1251.99<"), &[header, "TtlIntrBkSttlmAmt says 1251.99"]),
        (&with("\"USD\">1250.99<", "\"EUR\">1250.99<"), &[header, "is in EUR and there are amounts in \"USD\""]),
        (&with(">0.99<", ">x<"), &[header, "come to 1250.00", "1 amounts could not be read"]),
        (&message("08", &[]), &["there is no CdtTrfTxInf"]),
    ];
    for (text, parts) in rows {
        let bad = read(text).unwrap_err();
        assert!(parts.iter().all(|part| bad.contains(part)), "{parts:?} in {bad}");
        assert_eq!(bad.lines().count(), 1, "{bad}");
    }
    let latin1: Vec<u8> = plain().chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let bad = read(latin1).unwrap_err();
    assert!(bad.contains("line 49: /Document/FIToFICstmrCdtTrf/CdtTrfTxInf[1]/Cdtr/Nm: there are bytes"), "{bad}");
    let utf16: Vec<u8> = plain().encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(read(utf16).unwrap_err().contains("line 1: the encoding is UTF-16"));
}

#[test]
fn control_totals_are_compared_as_numbers() {
    for (from, to) in [
        ("<CtrlSum>1250.99<", "<CtrlSum>01250.990000<"),
        ("<NbOfTxs>2<", "<NbOfTxs> 002 <"),
        ("<CtrlSum>1250.99</CtrlSum>", ""),
    ] {
        assert_eq!(good(&with(from, to)).len(), 2, "{to}");
    }
}

#[test]
fn one_bad_transaction_says_where_and_why_and_the_others_go_on() {
    let long = "x".repeat(141);
    let rows: &[(&str, &str, u64, &str)] = &[
        ("<EndToEndId>E2E-1</EndToEndId>", "", 15, "PmtId/EndToEndId: is missing: it must be given"),
        ("E2E-1", " ", 18, "PmtId/EndToEndId: is empty"),
        ("E2E-1", "E2E-1-that-has-more-than-35-characters", 18, "has 38 characters: at most 35"),
        ("E2E-1", "E2E&#10;1", 18, "PmtId/EndToEndId: \"E2E1\" contains control characters"),
        ("E2E-1", "E2E<b/>1", 18, "PmtId/EndToEndId: has elements inside"),
        ("E2E-1", "E2E<b xmlns=''>7</b>1", 18, "PmtId/EndToEndId: has elements inside"),
        (
            "<EndToEndId>E2E-1</EndToEndId>",
            "<EndToEndId>E2E-1</EndToEndId><EndToEndId>E2E-2</EndToEndId>",
            18,
            "stands twice",
        ),
        (
            "7f1c8f4e-2d1b-4b2a-",
            "7f1c8f4e-2d1b-1b2a-",
            20,
            "PmtId/UETR: \"7f1c8f4e-2d1b-1b2a-9d55-0e6a3a1f0001\" is not a UUID of version 4",
        ),
        ("7f1c8f4e", "7F1C8F4E", 20, "in small letters"),
        ("7f1c8f4e-2d1b", "7f1c8f4e2d1b", 20, "is not a UUID"),
        ("<InstrPrty>HIGH", "<InstrPrty>FAST", 23, "PmtTpInf/InstrPrty: \"FAST\" is neither HIGH nor NORM"),
        ("<ChrgBr>SHAR</ChrgBr>", "<SttlmPrty>NOW</SttlmPrty>", 26, "SttlmPrty: \"NOW\" is none of URGT, HIGH, NORM"),
        ("<IntrBkSttlmAmt Ccy=\"USD\">1250.00", "<IntrBkSttlmAmt>1250.00", 15, "IntrBkSttlmAmt/@Ccy: is missing"),
        (
            ">1250.00<",
            ">1250.0<",
            25,
            "IntrBkSttlmAmt: amount \"1250.0\" has 1 digits after the point: USD takes exactly 2",
        ),
        (">1250.00<", ">1250<", 25, "IntrBkSttlmAmt: amount \"1250\" has 0 digits"),
        (
            "<BICFI>ALFAAEXXXXX</BICFI>",
            "<ClrSysMmbId><MmbId>1</MmbId></ClrSysMmbId>",
            15,
            "DbtrAgt/FinInstnId/BICFI: is missing",
        ),
        ("<BICFI>BRAVINXX<", "<BICFI>bravinxx<", 44, "CdtrAgt/FinInstnId/BICFI: participant id \"bravinxx\""),
        ("Alpha Trading LLC", &long, 28, "has 141 characters: at most 140"),
        ("<Ctry>AE<", "<Ctry>ARE<", 30, "Dbtr/PstlAdr/Ctry: \"ARE\" has 3 characters: at most 2"),
        ("<Cd>SUPP<", "<Prtry>a purpose of more than 35 characters</Prtry><Cd>SUPP<", 52, "Purp/Prtry"),
        (
            "<Dbtr>",
            "<UltmtDbtr><Nm>Other</Nm></UltmtDbtr><Dbtr>",
            27,
            "UltmtDbtr: is refused: only debtor and creditor",
        ),
        ("<CdtrAgt>", "<IntrmyAgt1/><CdtrAgt>", 42, "IntrmyAgt1: is refused: the creditor agent is paid"),
    ];
    for (from, to, line, why) in rows {
        let items = read(with(from, to)).unwrap();
        let refused = items[0].as_ref().unwrap_err();
        assert_eq!(refused.reason, "malformed");
        let path = "/Document/FIToFICstmrCdtTrf/CdtTrfTxInf[1]/";
        assert!(refused.message.starts_with(path) && refused.message.contains(why), "{why}: {}", refused.message);
        // The line as an editor counts it, give or take where the element itself was put.
        assert!(refused.line.abs_diff(*line) <= 1, "{why}: line {} and not {line}", refused.line);
        assert_eq!(items[1].as_ref().unwrap().position.transaction, Some(2), "{to}");
    }
    let zero = read(with(">0.99<", ">0.00<").replace("1250.99", "1250.00")).unwrap();
    let RefusedLine { line, end_to_end_id, message, .. } = zero[1].as_ref().unwrap_err();
    assert_eq!((*line, end_to_end_id.as_str()), (60, "E2E-2"));
    assert_eq!(message, &format!("{}/IntrBkSttlmAmt: amount \"0.00\" is not above zero", transaction_path(2)));
    let unknown = read(with("IntrBkSttlmAmt Ccy=\"USD\">1250.00", "IntrBkSttlmAmt Ccy=\"ZZZ\">1250.00"));
    assert!(unknown.unwrap_err().contains("amounts in \"ZZZ\""), "a total in one currency covers no other");
    let total = "<TtlIntrBkSttlmAmt Ccy=\"USD\">1250.99</TtlIntrBkSttlmAmt>";
    let unknown = with("IntrBkSttlmAmt Ccy=\"USD\">1250.00", "IntrBkSttlmAmt Ccy=\"ZZZ\">1250.00").replace(total, "");
    let refused = read(unknown).unwrap()[0].clone().unwrap_err();
    assert!(refused.message.contains("CdtTrfTxInf[1]/IntrBkSttlmAmt/@Ccy: unknown currency \"ZZZ\""));
}

#[test]
fn a_bic_of_a_head_office_is_the_short_one_and_a_branch_is_not() {
    let branch = good(&with("<BICFI>BRAVINXX<", "<BICFI>BRAVINXX001<"));
    assert_eq!((branch[0].payer.as_str(), branch[0].payee.as_str()), ("ALFAAEXX", "BRAVINXX001"));
}

#[test]
fn ids_come_from_what_a_transaction_says_of_itself() {
    let id = |text: &str| good(text)[1].transaction_id.clone();
    let usual = id(plain());
    assert_eq!(usual, id(&with(">0.99<", "> 0.99 <")));
    let instr = "<PmtId>\n        <InstrId>7</InstrId>\n        <EndToEndId>E2E-2";
    for other in [
        with("MSG-1", "MSG-2"),
        with("E2E-2", "E2E-3"),
        with("TX-2", "TX-3"),
        with("<PmtId>\n        <EndToEndId>E2E-2", instr),
        with(
            "<BICFI>BRAVINXX</BICFI>\n        </FinInstnId>\n      </DbtrAgt>",
            "<BICFI>CHARGBXX</BICFI></FinInstnId></DbtrAgt>",
        ),
    ] {
        assert_ne!(usual, id(&other), "{other}");
    }
    let nameless = with("E2E-2", "NOTPROVIDED");
    assert_ne!(usual, id(&nameless), "TxId tells it apart");
    let refused = read(nameless.replace("<TxId>TX-2</TxId>", "")).unwrap()[1].clone().unwrap_err();
    assert!(refused.message.contains("PmtId/EndToEndId: \"NOTPROVIDED\" does not tell payments apart"));
}

#[test]
fn priorities_of_transaction_and_header() {
    let first = |text: &str| good(text)[0].priority();
    let header = with("<SttlmInf>", "<PmtTpInf><InstrPrty>NORM</InstrPrty></PmtTpInf><SttlmInf>");
    assert_eq!(first(&header), Priority::Urgent);
    assert_eq!(good(&header)[1].priority(), Priority::Normal);
    assert_eq!(first(&with("<ChrgBr>", "<SttlmPrty>URGT</SttlmPrty><ChrgBr>")), Priority::HighlyUrgent);
    assert_eq!(first(&with("<ChrgBr>", "<SttlmPrty>NORM</SttlmPrty><ChrgBr>")), Priority::Normal);
}

#[test]
fn a_file_that_changes_between_the_passes_says_so() {
    let mut changing = file(plain().as_bytes());
    let mut source = Checked::open(changing.try_clone().unwrap(), MODEL, &mut |_| true).unwrap().unwrap();
    assert!(source.next_item().unwrap().is_some());
    // The second transaction again, after what the reader has read ahead: it sees the old one and the new end.
    assert!(source.next_item().unwrap().is_some());
    assert!(source.next_item().unwrap().is_none(), "all of it was read ahead");
    let long: Vec<Row> = (0..2000).map(row).collect();
    changing.rewind().unwrap();
    changing.set_len(0).unwrap();
    changing.write_all(message("08", &long).as_bytes()).unwrap();
    let mut source = Checked::open(changing.try_clone().unwrap(), MODEL, &mut |_| true).unwrap().unwrap();
    assert!(source.next_item().unwrap().is_some());
    let changed = message("08", &long).replace(">7.00<", ">8.00<");
    // Shared with the reader: put back where that was.
    let place = changing.stream_position().unwrap();
    changing.rewind().unwrap();
    changing.write_all(changed.as_bytes()).unwrap();
    changing.seek(std::io::SeekFrom::Start(place)).unwrap();
    let end = loop {
        match source.next_item() {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(matches!(&end, Err(Unusable::Message(bad)) if bad.why.contains("was changed")), "{end:?}");
}

#[test]
fn reading_stops_where_it_is_not_wanted_any_more() {
    let mut heard = 0;
    let stopped = Checked::open(file(plain().as_bytes()), MODEL, &mut |bytes| {
        assert!(bytes > 0);
        heard += 1;
        false
    });
    assert!(stopped.unwrap().is_none());
    assert_eq!(heard, 1);
}

fn row(n: u64) -> Row {
    let end_to_end_id = format!("E{n}");
    let [payer, payee, amount, currency] = ["ALFAAEXX", "BRAVINXX", "7.00", "USD"].map(str::to_owned);
    let debtor = [format!("Name of debtor {n}"), "1".to_owned()];
    Row { end_to_end_id, payer, payee, amount, currency, debtor, ..Row::default() }
}

/// Gives out transactions without end until so many are written.
struct Endless {
    next: u64,
    most: u64,
    part: Cursor<Vec<u8>>,
}

impl Read for Endless {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let read = self.part.read(out)?;
            if read > 0 || self.next > self.most {
                return Ok(read);
            }
            let part = if self.next == self.most { AFTER.to_owned() } else { row(self.next).xml() };
            self.part = Cursor::new(part.into_bytes());
            self.next += 1;
        }
    }
}

/// The most memory that this process has held so far, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_large_file_takes_no_more_memory_than_a_small_one() {
    const ALONE: &str = "DELTRAN_TEST_ALONE";
    const MOST: u64 = 90_000;
    if std::env::var_os(ALONE).is_none() {
        // Memory is that of a process: in one of its own, no other test adds to it.
        let (_, module) = module_path!().split_once("::").unwrap();
        let name = format!("{module}::a_large_file_takes_no_more_memory_than_a_small_one");
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let ran = alone.args(["--exact", &name]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let part = Cursor::new(before("12", MOST).into_bytes());
    let mut message = Message::open(Endless { next: 0, most: MOST, part }).unwrap();
    let before = peak();
    let mut read = 0;
    while let Some(transaction) = message.next_transaction().unwrap() {
        read += u64::from(transaction.parsed(&message.header, MODEL).is_ok());
    }
    assert_eq!(read, MOST);
    assert!(message.bytes() > 32 << 20, "{}", message.bytes());
    assert!(message.xml.held() < 16 << 10, "{}", message.xml.held());
    // The file itself is eight times this.
    assert!(peak() - before < 4 << 10, "{} KiB more", peak() - before);
}

fn party() -> impl Strategy<Value = [String; 2]> {
    let name = prop_oneof![Just(String::new()), "[ -~äöüßЖ中]{1,40}"];
    (name, "[0-9A-Z]{0,34}").prop_map(|(name, account)| [name, account])
}

prop_compose! {
    fn rows()(
        random in any::<u128>(),
        end_to_end_id in "[!-~äß][ -~]{0,34}",
        payer in "[A-Z]{4}AE[A-Z0-9]{2}",
        payee in "[A-Z]{4}GB[A-Z0-9]{2}([0-9]{3})?",
        (amount, currency) in prop_oneof![
            ("[1-9][0-9]{0,9}\\.[0-9]{2}", Just("USD")),
            ("[1-9][0-9]{0,9}", Just("JPY")),
            ("[0-9]\\.[0-9]{2}[1-9]", Just("BHD")),
        ],
        debtor in party(),
        creditor in party(),
    ) -> Row {
        let uetr = uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid().to_string();
        Row { uetr, end_to_end_id, payer, payee, amount, currency: currency.to_owned(), debtor, creditor }
    }
}

proptest! {
    #[test]
    fn a_message_asks_for_the_same_as_a_csv_file(rows in proptest::collection::vec(rows(), 1..8), version in 8..13) {
        let header = line::header(CSV_HEADER.trim_end().as_bytes()).unwrap();
        let text = message(&format!("{version:02}"), &rows);
        let items = read(&text).unwrap();
        prop_assert_eq!(items.len(), rows.len());
        for (item, row) in items.into_iter().zip(rows) {
            let Item { instruction, .. } = item.unwrap();
            let csv = line::instruction(&header, row.csv().trim_end_matches('\n').as_bytes(), MODEL).unwrap();
            prop_assert_eq!(instruction, TransactionInstruction { uetr: csv.transaction_id.clone(), ..csv });
        }
    }

    #[test]
    fn no_message_breaks_it(at in 0..3000_usize, bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
        let mut text = plain().as_bytes().to_vec();
        let at = at.min(text.len());
        text.splice(at..(at + bytes.len()).min(plain().len()), bytes);
        let _items_or_finding = read(text);
    }
}
