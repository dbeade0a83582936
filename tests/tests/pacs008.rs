//! An ISO 20022 pacs.008 on its way into a running platform: accepted, refused and unusable transactions, the same file
//! again, and files of which nothing may come in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::fs::File;

use deltran_api::token::v1::TransactionState;
use deltran_tests::node::{Deltran, Ran, id, run};
use serde_json::{Value, json};

const UETR: &str = "7f1c8f4e-2d1b-4b2a-9d55-0e6a3a1f0001";

fn transaction(ids: &str, payer: &str, payee: &str, amount: &str) -> String {
    format!(
        "<CdtTrfTxInf><PmtId>{ids}</PmtId><IntrBkSttlmAmt Ccy=\"USD\">{amount}</IntrBkSttlmAmt>\
         <ChrgBr>SHAR</ChrgBr><Dbtr><Nm>Sample Stationery LLC</Nm></Dbtr>\
         <DbtrAgt><FinInstnId><BICFI>{payer}</BICFI></FinInstnId></DbtrAgt>\
         <CdtrAgt><FinInstnId><BICFI>{payee}</BICFI></FinInstnId></CdtrAgt>\
         <Cdtr><Nm>Sample Paper Mills</Nm></Cdtr></CdtTrfTxInf>\n"
    )
}

/// Four transactions on lines 3 to 6: two good ones, one above its payer's cap, one with a digit too few.
fn message(id: &str, count: u32, sum: &str) -> String {
    let header = format!(
        "<GrpHdr><MsgId>{id}</MsgId><CreDtTm>2026-11-20T08:30:00Z</CreDtTm><NbOfTxs>{count}</NbOfTxs><CtrlSum>{sum}</CtrlSum>\
         <SttlmInf><SttlmMtd>CLRG</SttlmMtd></SttlmInf></GrpHdr>\n"
    );
    let transactions = [
        transaction(&format!("<EndToEndId>P-1</EndToEndId><UETR>{UETR}</UETR>"), "ALFAAEXX", "BRAVINXXXXX", "10.00"),
        transaction("<EndToEndId>P-2</EndToEndId>", "HOTEUSXX", "BRAVINXX", "150.00"),
        transaction("<EndToEndId>NOTPROVIDED</EndToEndId><TxId>P-3</TxId>", "BRAVINXX", "ALFAAEXX", "5.00"),
        transaction("<EndToEndId>P-4</EndToEndId>", "ALFAAEXX", "BRAVINXX", "7.5"),
    ];
    format!(
        "<Envelope><AppHdr xmlns=\"urn:iso:std:iso:20022:tech:xsd:head.001.001.02\"/>\n\
         <p:Document xmlns:p=\"urn:iso:std:iso:20022:tech:xsd:pacs.008.001.10\">{}</p:Document></Envelope>\n",
        format!("<FIToFICstmrCdtTrf>{header}{}</FIToFICstmrCdtTrf>", transactions.concat())
            .replace("</", "</p:")
            .replace('<', "<p:")
            .replace("<p:/p:", "</p:")
    )
}

async fn from_standard_input(node: &Deltran, file: &str) -> Ran {
    run(|command| {
        command.args(["--json", "transaction", "submit", "--file", "-", "--endpoint", node.told("grpc")]);
        command.current_dir(node.path()).stdin(File::open(file).unwrap());
    })
    .await
}

fn counts(json: &Value) -> Value {
    json!([json["lines"], json["accepted"], json["refused_by_reason"], json["malformed"], json["replayed"]])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_taken_once_and_each_refusal_names_its_element() {
    let node = Deltran::start("").await;
    let plenty = ("1000000.00", "500000.00");
    node.banks(&[
        ("ALFAAEXX", plenty.0, plenty.1),
        ("BRAVINXX", plenty.0, plenty.1),
        ("HOTEUSXX", "1000.00", "100.00"),
    ])
    .await;
    node.open_window(id("the window")).await;

    // Nothing comes of a file that is cut off, has other totals, or is another message.
    let good = message("MSG-1", 4, "172.5");
    for (name, text, why) in [
        ("count.xml", message("MSG-1", 5, "172.5"), "NbOfTxs says 5 and there are 4"),
        ("sum.xml", message("MSG-1", 4, "172.50001"), "CtrlSum says 172.50001 and the amounts come to 172.50"),
        ("cut.xml", good[..good.len() - 60].to_owned(), "it was cut off"),
        ("entity.xml", format!("<!DOCTYPE p [<!ENTITY a 'b'>]>{good}"), "a DOCTYPE is refused"),
        ("version.xml", good.replace("001.10", "001.13"), "\\\"pacs.008.001.13\\\" is not understood"),
    ] {
        let file = node.write(name, text);
        let ran = node.run(&["transaction", "submit", "--file", &file]).await;
        assert_eq!((ran.code, ran.error.trim().lines().count()), (1, 1), "{name}: {}", ran.error);
        assert!(ran.error.contains(why) && ran.error.contains(name), "{name}: {}", ran.error);
    }
    assert!(node.transactions().await.is_empty());

    let file = node.write("pacs008.xml", &good);
    for (round, replayed) in [(1, 0), (2, 3)] {
        let report = node.path().join(format!("report{round}.csv")).display().to_string();
        let ran = node.run(&["transaction", "submit", "--file", &file, "--report", &report]).await;
        assert_eq!(ran.code, 1, "{}", ran.error);
        assert!(ran.error.contains("1 transactions were refused and 1 could not be used; 2 were accepted"));
        assert_eq!(counts(&ran.json), json!([4, 2, {"cap": 1}, 1, replayed]), "{:#}", ran.json);
        let report = std::fs::read_to_string(report).unwrap();
        let mut lines: Vec<&str> = report.lines().skip(1).collect();
        // The ledger's refusals come when they come.
        lines.sort_unstable();
        let within = "/Document/FIToFICstmrCdtTrf/CdtTrfTxInf";
        assert!(lines[0].starts_with("4,P-2,cap,") && lines[0].contains(&format!("{within}[2]: ")), "{report}");
        assert!(lines[1].starts_with("6,P-4,malformed,"), "{report}");
        assert!(lines[1].contains(&format!("{within}[4]/IntrBkSttlmAmt: ")), "{report}");
        assert_eq!(lines.len(), 2, "{report}");
    }
    let ran = from_standard_input(&node, &file).await;
    assert_eq!((ran.code, counts(&ran.json)), (1, json!([4, 2, {"cap": 1}, 1, 3])), "{}", ran.error);

    let transactions = node.transactions().await;
    assert_eq!(transactions.len(), 3);
    let known = &transactions[UETR];
    assert_eq!(
        (known.state(), known.payee.as_str(), known.uetr.as_str()),
        (TransactionState::Committed, "BRAVINXX", UETR)
    );
    node.must(&["window", "close", "--all", "--wait"]).await;
    node.verify().await;
}
