//! ISO 20022 camt.053.001.08, bank to customer statement, with one statement.
//!
//! A business day: OPBD, the entries, CLBD, on the participant's settlement account. A day that is not over ends in
//! an interim balance, ITBD. A window: the position in it, from zero.

use std::fmt::Write;

use deltran_kernel::{Minor, Timestamp};
use uuid::{Uuid, Variant};

use super::StatementWriter;
use super::html::escape;
use crate::domain::Contradiction;
use crate::domain::book::EntryKind;
use crate::domain::statement::{Head, Line, Scope};

/// The namespace of the message.
pub const NAMESPACE: &str = "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08";

/// Digits that an amount may have in all.
const MOST_DIGITS: usize = 18;

/// Writes the message.
#[derive(Debug, Default)]
pub struct Camt053;

/// `Max35Text` has no room for a UUID with its hyphens.
fn short(id: Uuid) -> String {
    id.simple().to_string()
}

fn element(out: &mut String, name: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = write!(out, "<{name}>");
    escape(out, value);
    let _ = write!(out, "</{name}>");
}

fn sign(minor: Minor) -> &'static str {
    if minor.is_negative() { "DBIT" } else { "CRDT" }
}

fn magnitude(head: &Head, minor: Minor) -> Result<String, Contradiction> {
    let text = head.text(if minor.is_negative() { minor.neg() } else { minor });
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if digits > MOST_DIGITS {
        return Err(Contradiction(format!(
            "camt.053 has no room for {text}: an amount has at most {MOST_DIGITS} digits"
        )));
    }
    Ok(text)
}

fn amount(out: &mut String, head: &Head, minor: Minor) -> Result<(), Contradiction> {
    let text = magnitude(head, minor)?;
    let _ = write!(out, "<Amt Ccy=\"{}\">{text}</Amt><CdtDbtInd>{}</CdtDbtInd>", head.currency, sign(minor));
    Ok(())
}

fn balance(out: &mut String, head: &Head, code: &str, minor: Minor) -> Result<(), Contradiction> {
    let _ = write!(out, "<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>");
    amount(out, head, minor)?;
    let _ = writeln!(out, "<Dt><Dt>{}</Dt></Dt></Bal>", head.day);
    Ok(())
}

fn moment(out: &mut String, name: &str, at: Timestamp) {
    let _ = write!(out, "<{name}><DtTm>{at}</DtTm></{name}>");
}

/// The bank transaction code: the ISO domain for payments, and the platform's own word for every entry.
fn code(out: &mut String, line: &Line) {
    out.push_str("<BkTxCd>");
    if matches!(line.kind, EntryKind::Net | EntryKind::Gross) {
        let family = if line.amount.is_negative() { "ICDT" } else { "RCDT" };
        let _ = write!(out, "<Domn><Cd>PMNT</Cd><Fmly><Cd>{family}</Cd><SubFmlyCd>OTHR</SubFmlyCd></Fmly></Domn>");
    }
    let _ = write!(out, "<Prtry><Cd>{}</Cd><Issr>DELTRAN</Issr></Prtry></BkTxCd>", line.kind.as_str());
}

/// `UUIDv4Identifier`; the platform takes other UUIDs as well, which the message cannot carry there.
fn is_uuid_v4(text: &str) -> bool {
    Uuid::try_parse(text)
        .is_ok_and(|id| id.get_version_num() == 4 && id.get_variant() == Variant::RFC4122 && id.to_string() == text)
}

fn references(out: &mut String, line: &Line) {
    out.push_str("<Refs>");
    if !line.end_to_end_id.is_empty() {
        element(out, "EndToEndId", &line.end_to_end_id);
    }
    if let Some(uetr) = line.uetr.as_deref().filter(|uetr| is_uuid_v4(uetr)) {
        element(out, "UETR", uetr);
    }
    element(out, "TxId", &short(line.id));
    if let Some((window, _)) = line.window {
        element(out, "ClrSysRef", &short(window.uuid()));
    }
    if let Some(original) = line.return_of {
        out.push_str("<Prtry><Tp>RETURN-OF</Tp>");
        element(out, "Ref", &short(original.uuid()));
        out.push_str("</Prtry>");
    }
    out.push_str("</Refs>");
}

fn agents(out: &mut String, head: &Head, line: &Line) {
    let Some(counterparty) = line.counterparty else { return };
    let (debtor, creditor) =
        if line.amount.is_negative() { (head.participant, counterparty) } else { (counterparty, head.participant) };
    let agent = |name: &str, who| format!("<{name}><FinInstnId><BICFI>{who}</BICFI></FinInstnId></{name}>");
    let _ = write!(out, "<RltdAgts>{}{}</RltdAgts>", agent("DbtrAgt", debtor), agent("CdtrAgt", creditor));
}

impl StatementWriter for Camt053 {
    fn begin(&mut self, out: &mut String, head: &Head) -> Result<(), Contradiction> {
        let (id, made_at) = (short(head.id), head.made_at);
        let _ = writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Document xmlns=\"{NAMESPACE}\">");
        let _ = writeln!(out, "<BkToCstmrStmt>\n<GrpHdr><MsgId>{id}</MsgId><CreDtTm>{made_at}</CreDtTm></GrpHdr>");
        let _ = write!(out, "<Stmt><Id>{id}</Id><CreDtTm>{made_at}</CreDtTm>");
        let _ = writeln!(out, "<FrToDt><FrDtTm>{}</FrDtTm><ToDtTm>{}</ToDtTm></FrToDt>", head.from, head.to);
        let (account, kind) = match head.scope {
            Scope::Day { .. } => ("", "<Cd>SACC</Cd>"),
            Scope::Window(_) => ("-POSITION", "<Prtry>POSITION</Prtry>"),
        };
        let _ = write!(
            out,
            "<Acct><Id><Othr><Id>{}-{}{account}</Id></Othr></Id><Tp>{kind}</Tp><Ccy>{}</Ccy>",
            head.participant, head.currency, head.currency
        );
        let _ = write!(out, "<Ownr><Id><OrgId><AnyBIC>{}</AnyBIC></OrgId></Id></Ownr>", head.participant);
        out.push_str("<Svcr><FinInstnId>");
        element(out, "Nm", &head.deployment.chars().take(140).collect::<String>());
        out.push_str("</FinInstnId></Svcr></Acct>\n");
        balance(out, head, "OPBD", head.opening)?;
        balance(out, head, if head.scope.interim() { "ITBD" } else { "CLBD" }, head.closing)?;
        let flow = &head.flow;
        let (net, all) = (flow.net()?, flow.received.add(flow.paid).map_err(Contradiction::of)?);
        let sums = [
            ("TtlNtries", flow.received_count + flow.paid_count, all, Some(net)),
            ("TtlCdtNtries", flow.received_count, flow.received, None),
            ("TtlDbtNtries", flow.paid_count, flow.paid, None),
        ];
        out.push_str("<TxsSummry>");
        for (name, count, sum, net) in sums {
            let _ = write!(out, "<{name}><NbOfNtries>{count}</NbOfNtries><Sum>{}</Sum>", magnitude(head, sum)?);
            if let Some(net) = net {
                let net_text = magnitude(head, net)?;
                let _ =
                    write!(out, "<TtlNetNtry><Amt>{net_text}</Amt><CdtDbtInd>{}</CdtDbtInd></TtlNetNtry>", sign(net));
            }
            let _ = write!(out, "</{name}>");
        }
        out.push_str("</TxsSummry>\n");
        Ok(())
    }

    fn line(&mut self, out: &mut String, head: &Head, line: &Line) -> Result<(), Contradiction> {
        let _ = write!(out, "<Ntry><NtryRef>{}</NtryRef>", line.number);
        amount(out, head, line.amount)?;
        out.push_str("<Sts><Cd>BOOK</Cd></Sts>");
        moment(out, "BookgDt", line.booked_at);
        moment(out, "ValDt", line.booked_at);
        element(out, "AcctSvcrRef", &short(line.id));
        code(out, line);
        out.push_str("<NtryDtls><TxDtls>");
        references(out, line);
        amount(out, head, line.amount)?;
        agents(out, head, line);
        if !line.reference.is_empty() {
            out.push_str("<RmtInf>");
            element(out, "Ustrd", &line.reference.chars().take(140).collect::<String>());
            out.push_str("</RmtInf>");
        }
        out.push_str("<RltdDts>");
        let _ = write!(out, "<AccptncDtTm>{}</AccptncDtTm>", line.committed_at);
        out.push_str("</RltdDts></TxDtls></NtryDtls></Ntry>\n");
        Ok(())
    }

    fn end(&mut self, out: &mut String, head: &Head) {
        if head.scope.interim() {
            element(out, "AddtlStmtInf", "The day is not over: the last balance is an interim one.");
        }
        out.push_str("</Stmt>\n</BkToCstmrStmt>\n</Document>\n");
    }
}

#[cfg(test)]
#[path = "camt_tests.rs"]
mod tests;
