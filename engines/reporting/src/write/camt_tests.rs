//! What is written is read back: structure as in the schema of camt.053.001.08, sums, ids, texts.

use std::collections::BTreeSet;

use deltran_kernel::Money;
use quick_xml::events::Event;
use quick_xml::reader::Reader;

use super::super::samples::{head_of, lines, scoped, write};
use super::*;
use crate::domain::position::Position;
use crate::domain::statement::tests::minor;

/// An element: its name, its text, its attributes, its children.
#[derive(Debug, Default)]
struct Element {
    name: String,
    text: String,
    currency: Option<String>,
    children: Vec<Element>,
}

impl Element {
    fn all<'a>(&'a self, path: &str) -> Vec<&'a Element> {
        path.split('/').fold(vec![self], |here, name| {
            here.iter().flat_map(|e| e.children.iter().filter(|c| c.name == name)).collect()
        })
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.all(path).first().map(|e| e.text.as_str())
    }
}

fn parse(xml: &str) -> Element {
    let mut reader = Reader::from_str(xml);
    let mut open = vec![Element::default()];
    loop {
        match reader.read_event().unwrap() {
            Event::Start(start) => {
                let name = start.name().as_ref().to_owned();
                let attributes: Vec<(String, String)> = start
                    .attributes()
                    .map(|a| a.unwrap())
                    .map(|a| (a.key.as_ref().to_owned(), a.value.into_owned()))
                    .collect();
                if name == "Document" {
                    assert_eq!(attributes, [("xmlns".to_owned(), NAMESPACE.to_owned())]);
                } else {
                    assert!(attributes.iter().all(|(key, _)| name == "Amt" && key == "Ccy"), "{name}: {attributes:?}");
                }
                let currency = attributes.into_iter().find(|(key, _)| key == "Ccy").map(|(_, value)| value);
                open.push(Element { name, currency, ..Element::default() });
            }
            Event::End(_) => {
                let done = open.pop().unwrap();
                open.last_mut().unwrap().children.push(done);
            }
            Event::Text(text) => open.last_mut().unwrap().text.push_str(&text),
            Event::GeneralRef(reference) => {
                let c = match &*reference {
                    "amp" => '&',
                    "lt" => '<',
                    "gt" => '>',
                    "quot" => '"',
                    "#39" => '\'',
                    other => panic!("entity {other}"),
                };
                open.last_mut().unwrap().text.push(c);
            }
            Event::Decl(_) => {}
            Event::Eof => break,
            other => panic!("{other:?}"),
        }
    }
    let mut root = open.pop().unwrap();
    assert!(open.is_empty());
    root.children.pop().unwrap()
}

/// Elements of the schema that are used here: the path's last two names, then what may stand in them, in order.
/// `!` must stand there, `*` may stand there often.
const STRUCTURE: &[(&str, &str)] = &[
    ("Document", "!BkToCstmrStmt"),
    ("BkToCstmrStmt", "!GrpHdr !*Stmt"),
    ("GrpHdr", "!MsgId !CreDtTm MsgRcpt MsgPgntn OrgnlBizQry AddtlInf"),
    (
        "Stmt",
        "!Id StmtPgntn ElctrncSeqNb RptgSeq LglSeqNb CreDtTm FrToDt CpyDplctInd RptgSrc !Acct RltdAcct *Intrst !*Bal \
         TxsSummry *Ntry AddtlStmtInf",
    ),
    ("FrToDt", "!FrDtTm !ToDtTm"),
    ("Acct", "!Id Tp Ccy Nm Prxy Ownr Svcr"),
    ("Acct/Id", "!Othr"),
    ("Id/Othr", "!Id SchmeNm Issr"),
    ("Ownr", "Nm PstlAdr Id"),
    ("Ownr/Id", "!OrgId"),
    ("OrgId", "AnyBIC LEI *Othr"),
    ("Svcr", "!FinInstnId BrnchId"),
    ("FinInstnId", "BICFI ClrSysMmbId LEI Nm PstlAdr Othr"),
    ("Bal", "!Tp *CdtLine !Amt !CdtDbtInd !Dt *Avlbty"),
    ("Bal/Tp", "!CdOrPrtry SubTp"),
    ("Bal/Dt", "!Dt"),
    ("TxsSummry", "TtlNtries TtlCdtNtries TtlDbtNtries *TtlNtriesPerBkTxCd"),
    ("TtlNtries", "NbOfNtries Sum TtlNetNtry"),
    ("TtlCdtNtries", "NbOfNtries Sum"),
    ("TtlDbtNtries", "NbOfNtries Sum"),
    ("TtlNetNtry", "!Amt !CdtDbtInd"),
    (
        "Ntry",
        "NtryRef !Amt !CdtDbtInd RvslInd !Sts BookgDt ValDt AcctSvcrRef *Avlbty !BkTxCd ComssnWvrInd AddtlInfInd \
         AmtDtls Chrgs TechInptChanl Intrst CardTx *NtryDtls AddtlNtryInf",
    ),
    ("Sts", "!Cd"),
    ("BookgDt", "!DtTm"),
    ("ValDt", "!DtTm"),
    ("BkTxCd", "Domn Prtry"),
    ("Domn", "!Cd !Fmly"),
    ("Fmly", "!Cd !SubFmlyCd"),
    ("BkTxCd/Prtry", "!Cd Issr"),
    ("NtryDtls", "Btch *TxDtls"),
    (
        "TxDtls",
        "Refs Amt CdtDbtInd AmtDtls *Avlbty BkTxCd Chrgs Intrst RltdPties RltdAgts LclInstrm Purp *RltdRmtInf RmtInf \
         RltdDts AddtlTxInf",
    ),
    (
        "Refs",
        "MsgId AcctSvcrRef PmtInfId InstrId EndToEndId UETR TxId MndtId ChqNb ClrSysRef AcctOwnrTxId AcctSvcrTxId \
         MktInfrstrctrTxId PrcgId *Prtry",
    ),
    ("Refs/Prtry", "!Tp !Ref"),
    ("RltdAgts", "InstgAgt InstdAgt DbtrAgt CdtrAgt"),
    ("DbtrAgt", "!FinInstnId BrnchId"),
    ("CdtrAgt", "!FinInstnId BrnchId"),
    ("RmtInf", "*Ustrd *Strd"),
    ("RltdDts", "AccptncDtTm TradActvtyCtrctlSttlmDt TradDt IntrBkSttlmDt StartDt EndDt TxDtTm *Prtry"),
];

/// Choices and leaves: what stands in them is one element, or text of at most so many characters.
fn leaf(parent: &str, element: &Element) {
    let (name, text) = (element.name.as_str(), element.text.as_str());
    let length = text.chars().count();
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let date_time = || text.parse::<Timestamp>().is_ok();
    let fits = match (parent, name) {
        (_, "Amt" | "Sum") => is_decimal(text, if element.currency.is_some() { 5 } else { 17 }),
        (_, "CdtDbtInd") => ["CRDT", "DBIT"].contains(&text),
        (_, "CreDtTm" | "FrDtTm" | "ToDtTm" | "DtTm" | "AccptncDtTm") => date_time(),
        (_, "Dt") => text.len() == 10 && text.parse::<crate::domain::day::Day>().is_ok(),
        (_, "UETR") => is_uetr(text),
        (_, "NbOfNtries") => digits == length && (1..=15).contains(&length),
        (_, "Ccy") => length == 3 && text.bytes().all(|b| b.is_ascii_uppercase()),
        (_, "Cd") if parent != "Prtry" => (1..=4).contains(&length),
        (_, "SubFmlyCd") => (1..=4).contains(&length),
        (_, "BICFI" | "AnyBIC") => is_bic(text),
        ("Othr", "Id") => (1..=34).contains(&length),
        (_, "Ustrd" | "Nm") => (1..=140).contains(&length),
        (_, "AddtlStmtInf") => (1..=500).contains(&length),
        _ => (1..=35).contains(&length),
    };
    assert!(fits, "{parent}/{name}: {text:?}");
}

/// Not below zero, at most 18 digits in all and so many after the point.
fn is_decimal(text: &str, most: usize) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    digits(whole) && digits(fraction) && fraction.len() <= most && whole.len() + fraction.len() <= 18
}

/// `[a-f0-9]{8}-[a-f0-9]{4}-4[a-f0-9]{3}-[89ab][a-f0-9]{3}-[a-f0-9]{12}`
fn is_uetr(text: &str) -> bool {
    let fits = |(pattern, c): (char, char)| match pattern {
        'x' => matches!(c, '0'..='9' | 'a'..='f'),
        'v' => matches!(c, '8' | '9' | 'a' | 'b'),
        fixed => fixed == c,
    };
    text.len() == 36 && "xxxxxxxx-xxxx-4xxx-vxxx-xxxxxxxxxxxx".chars().zip(text.chars()).all(fits)
}

/// `[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?`
fn is_bic(text: &str) -> bool {
    let fits = |(place, b): (usize, u8)| b.is_ascii_uppercase() || (b.is_ascii_digit() && !matches!(place, 4 | 5));
    matches!(text.len(), 8 | 11) && text.bytes().enumerate().all(fits)
}

fn check(parent: &str, element: &Element) {
    let long = format!("{parent}/{}", element.name);
    let rule = STRUCTURE
        .iter()
        .find(|(path, _)| *path == long)
        .or_else(|| STRUCTURE.iter().find(|(path, _)| *path == element.name && !element.children.is_empty()));
    let Some((_, rule)) = rule else {
        // The other elements of the schema that are used are choices of Cd or Prtry, or hold text.
        if element.children.is_empty() {
            return leaf(parent, element);
        }
        assert!(["Tp", "CdOrPrtry"].contains(&element.name.as_str()), "{long} is not known");
        assert_eq!(element.children.len(), 1, "{long}");
        return check(&element.name, &element.children[0]);
    };
    assert!(element.text.trim().is_empty(), "{long} has text");
    let mut children = element.children.iter().peekable();
    for part in rule.split_whitespace() {
        let name = part.trim_start_matches(['!', '*']);
        let mut found = 0;
        while children.next_if(|child| child.name == name).is_some() {
            found += 1;
        }
        assert!(found > 0 || !part.starts_with('!'), "{long} lacks {name}");
        assert!(found <= 1 || part.contains('*'), "{long} has {name} {found} times");
    }
    assert!(children.peek().is_none(), "{long}: {} stands at the wrong place", children.peek().unwrap().name);
    element.children.iter().for_each(|child| check(&element.name, child));
}

fn signed(element: &Element, head: &Head) -> i128 {
    let amount = element.all("Amt")[0];
    assert_eq!(amount.currency.as_deref(), Some(head.currency.code()));
    let units = Money::parse(&amount.text, head.currency).unwrap().minor().units();
    if element.text("CdtDbtInd") == Some("DBIT") { -units } else { units }
}

fn balance_of(statement: &Element, code: &str, head: &Head) -> i128 {
    let of = |b: &&&Element| b.text("Tp/CdOrPrtry/Cd") == Some(code);
    let all = statement.all("Bal");
    let found: Vec<_> = all.iter().filter(of).collect();
    assert_eq!(found.len(), 1, "{code}");
    signed(found[0], head)
}

#[test]
fn the_opening_and_the_entries_are_the_closing() {
    let lines = lines();
    for opening in [0, 999, -250] {
        let head = head_of(&lines, opening);
        let xml = write(&mut Camt053, &head, &lines);
        let document = parse(&xml);
        check("", &document);
        let statement = document.all("BkToCstmrStmt/Stmt")[0];
        let entries = statement.all("Ntry");
        assert_eq!(entries.len(), lines.len());
        let sum: i128 = entries.iter().map(|e| signed(e, &head)).sum();
        assert_eq!(balance_of(statement, "OPBD", &head), opening);
        assert_eq!(balance_of(statement, "OPBD", &head) + sum, balance_of(statement, "CLBD", &head));
        let net = statement.all("TxsSummry/TtlNtries/TtlNetNtry")[0];
        let net_units = Money::parse(net.text("Amt").unwrap(), head.currency).unwrap().minor().units();
        assert_eq!(if net.text("CdtDbtInd") == Some("DBIT") { -net_units } else { net_units }, sum);
        assert_eq!(statement.text("TxsSummry/TtlCdtNtries/NbOfNtries"), Some("4"));
        assert_eq!(statement.text("TxsSummry/TtlDbtNtries/NbOfNtries"), Some("3"));
        for (entry, line) in entries.iter().zip(&lines) {
            assert_eq!(signed(entry, &head), line.amount.units());
            assert_eq!(signed(entry.all("NtryDtls/TxDtls")[0], &head), line.amount.units());
        }
    }
}

#[test]
fn references_are_unique_and_carried() {
    let lines = lines();
    let xml = write(&mut Camt053, &head_of(&lines, 0), &lines);
    let document = parse(&xml);
    let entries = document.all("BkToCstmrStmt/Stmt/Ntry");
    for path in ["NtryRef", "AcctSvcrRef", "NtryDtls/TxDtls/Refs/TxId"] {
        let ids: BTreeSet<&str> = entries.iter().map(|e| e.text(path).unwrap()).collect();
        assert_eq!(ids.len(), lines.len(), "{path}");
    }
    let refs = |n: usize| entries[n].all("NtryDtls/TxDtls/Refs")[0];
    assert_eq!(refs(1).text("EndToEndId"), Some("INV-1"));
    assert_eq!(refs(1).text("UETR"), Some("97ed4827-7b6f-4491-a06f-b548d5a7512d"));
    assert_eq!(refs(4).text("UETR"), None, "one that is no UUID of version 4 has no place there");
    assert_eq!(refs(6).text("Prtry/Ref"), Some("0190c3d5000070008000000000000009"));
    assert_eq!(refs(1).text("ClrSysRef"), Some("0190c3d50000700080000000000000ff"));
    assert_eq!(entries[0].text("BkTxCd/Prtry/Cd"), Some("DEPOSIT"));
    let agents = entries[1].all("NtryDtls/TxDtls/RltdAgts")[0];
    assert_eq!(agents.text("DbtrAgt/FinInstnId/BICFI"), Some("ALFAAEXX"));
    assert_eq!(agents.text("CdtrAgt/FinInstnId/BICFI"), Some("BRAVINXX"));
}

#[test]
fn texts_come_back_as_they_were() {
    let lines = lines();
    let xml = write(&mut Camt053, &head_of(&lines, 0), &lines);
    let document = parse(&xml);
    let entries = document.all("BkToCstmrStmt/Stmt/Ntry");
    let end_to_end = |n: usize| entries[n].text("NtryDtls/TxDtls/Refs/EndToEndId");
    assert_eq!(end_to_end(2), Some("<b>&\"'</b>"));
    assert_eq!(entries[5].text("NtryDtls/TxDtls/RmtInf/Ustrd"), Some("Zürich ⇒ 送金"));
}

#[test]
fn a_uetr_that_the_schema_does_not_take_is_left_out() {
    for (uetr, carried) in [
        ("97ed4827-7b6f-4491-a06f-b548d5a7512d", true),
        ("97ed4827-7b6f-4491-e06f-b548d5a7512d", false),
        ("97ed4827-7b6f-7491-a06f-b548d5a7512d", false),
        ("97ED4827-7B6F-4491-A06F-B548D5A7512D", false),
        ("97ed48277b6f4491a06fb548d5a7512d", false),
        ("x", false),
    ] {
        let line = Line { uetr: Some(uetr.into()), ..lines()[1].clone() };
        let lines = [line];
        let document = parse(&write(&mut Camt053, &head_of(&lines, 0), &lines));
        check("", &document);
        let found = document.text("BkToCstmrStmt/Stmt/Ntry/NtryDtls/TxDtls/Refs/UETR");
        assert_eq!(found, Some(uetr).filter(|_| carried), "{uetr}");
    }
}

/// `Char` of XML 1.0: a text that a bank chose may not make its counterparty's statement unreadable.
#[test]
fn every_character_is_one_that_xml_allows() {
    let text = "a\u{0}\u{1b}\u{7f}\u{85}\u{fffe}\u{ffff}\u{10ffff}b";
    let line = Line { end_to_end_id: text.into(), reference: text.into(), ..lines()[1].clone() };
    let lines = [line];
    let xml = write(&mut Camt053, &head_of(&lines, 0), &lines);
    check("", &parse(&xml));
    let allowed =
        |c: char| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    assert!(xml.chars().all(allowed), "{xml:?}");
}

/// Amounts have the digits of their currency.
#[test]
fn currencies_of_no_and_of_three_digits_are_carried() {
    for (code, closing) in [("JPY", "12345"), ("KWD", "12.345"), ("USD", "123.45")] {
        let head = Head { currency: code.parse().unwrap(), ..head_of(&[], 12_345) };
        let document = parse(&write(&mut Camt053, &head, &[]));
        check("", &document);
        let statement = document.all("BkToCstmrStmt/Stmt")[0];
        assert_eq!(statement.all("Bal")[1].text("Amt"), Some(closing));
        assert_eq!(balance_of(statement, "CLBD", &head), 12_345);
    }
}

#[test]
fn a_day_so_far_and_a_window_say_what_they_are() {
    let lines = lines();
    let day = "2026-03-31".parse().unwrap();
    let head = scoped(Scope::Day { day, until: Some(Position { epoch: 1, seq: 9 }) }, &lines, 5);
    let so_far = parse(&write(&mut Camt053, &head, &lines));
    check("", &so_far);
    let statement = so_far.all("BkToCstmrStmt/Stmt")[0];
    assert_eq!(balance_of(statement, "ITBD", &head), head.closing.units());
    assert!(statement.all("Bal").iter().all(|b| b.text("Tp/CdOrPrtry/Cd") != Some("CLBD")));
    let window = scoped(Scope::Window("0190c3d5-0000-7000-8000-0000000000ff".parse().unwrap()), &lines, 0);
    let document = parse(&write(&mut Camt053, &window, &lines));
    check("", &document);
    assert_eq!(document.text("BkToCstmrStmt/Stmt/Acct/Tp/Prtry"), Some("POSITION"));
    check("", &parse(&write(&mut Camt053, &head_of(&[], 7), &[])));
}

#[test]
fn an_amount_that_has_no_room_is_refused() {
    let too_much = 1_000_000_000_000_000_000;
    let head = head_of(&[], too_much);
    assert!(Camt053.begin(&mut String::new(), &head).is_err());
    let line = Line { amount: minor(too_much), ..lines()[0].clone() };
    assert!(Camt053.line(&mut String::new(), &head_of(&[], 0), &line).is_err());
}
