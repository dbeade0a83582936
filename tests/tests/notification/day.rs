//! A small day on the whole platform: banks are told of their payments, positions, settlement and limits.

use deltran_api::clearing::v1::{CloseWindowRequest, WindowState};
use deltran_api::token::v1::{SubmitTransactionRequest, TransactionState};
use deltran_tests::node::{Deltran, PATIENCE, id, pay};
use deltran_tests::within;
use serde_json::Value;

use crate::support::{ALFA, BRAV};

fn told(listed: &Value) -> Vec<(String, Value)> {
    let mut told: Vec<(String, Value)> = Vec::new();
    for notification in listed["notifications"].as_array().unwrap().iter().rev() {
        let body: Value = serde_json::from_str(notification["body"].as_str().unwrap()).unwrap();
        assert_eq!(notification["position"], told.len() + 1, "{listed}");
        told.push((notification["kind"].as_str().unwrap().to_owned(), body["data"].clone()));
    }
    told
}

fn one<'a>(told: &'a [(String, Value)], kind: &str) -> &'a Value {
    let found: Vec<&Value> = told.iter().filter(|(k, _)| k == kind).map(|(_, data)| data).collect();
    assert_eq!(found.len(), 1, "{kind} in {told:?}");
    found[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn banks_are_told_of_their_day() {
    let node = Deltran::start("").await;
    node.banks(&[(ALFA, "1000.00", "500.00"), (BRAV, "1000.00", "500.00")]).await;
    let kinds = ["payment.received", "payment.sent", "window.closed", "position.changed", "settlement.completed"];
    for who in [ALFA, BRAV] {
        let (first, others) = (kinds[..3].join(","), &kinds[3..]);
        let mut add = vec!["subscription", "add", "--participant", who, "--kind", &first];
        add.extend(others.iter().flat_map(|kind| ["--kind", *kind]));
        let made = node.must(&add).await;
        assert_eq!(made["subscription"]["participant"], who);
        assert_eq!(made["subscription"]["kinds"].as_array().unwrap().len(), kinds.len(), "{made}");
    }
    let window = id("the window");
    node.open_window(window).await;
    for (name, payer, payee, amount) in [("there", ALFA, BRAV, "100.00"), ("back", BRAV, ALFA, "40.00")] {
        let request = SubmitTransactionRequest { transaction: Some(pay(name, payer, payee, amount)) };
        let outcome = node.bank(payer).submit_transaction(request).await.unwrap().into_inner().outcome.unwrap();
        assert_eq!(outcome.state(), TransactionState::Committed, "{outcome:?}");
    }
    let request = CloseWindowRequest { window_id: window.to_string(), next_window_id: String::new() };
    node.clearing().close_window(request).await.unwrap();
    within(PATIENCE, "the window to be settled", async || {
        let windows = node.windows().await;
        windows.iter().all(|w| w.state() == WindowState::Settled).then_some(())
    })
    .await;

    for (who, other, received, sent, net) in
        [(ALFA, BRAV, "40.00", "100.00", "-60.00"), (BRAV, ALFA, "100.00", "40.00", "60.00")]
    {
        let list = ["notification", "list", "--participant", who, "--limit", "0"];
        let listed = within(PATIENCE, "everything to be told", async || {
            let listed = node.must(&list).await;
            (listed["last_position"] == 5).then_some(listed)
        })
        .await;
        let told = told(&listed);
        assert_eq!(told.len(), 5, "{told:?}");
        let payment = one(&told, "payment.received");
        assert_eq!((&payment["amount"], &payment["payer"]), (&received.into(), &other.into()));
        assert_eq!(payment["window_id"], window.to_string());
        let payment = one(&told, "payment.sent");
        assert_eq!((&payment["amount"], &payment["payee"]), (&sent.into(), &other.into()));
        assert_eq!(one(&told, "window.closed")["window_id"], window.to_string());
        for kind in ["position.changed", "settlement.completed"] {
            let position = one(&told, kind);
            assert_eq!((&position["net"], &position["currency"]), (&net.into(), &"USD".into()), "{kind}");
            assert_eq!(position["window_ids"][0], window.to_string());
        }

        let stream =
            node.run(&["notification", "stream", "--participant", who, "--after", "3", "--until-caught-up"]).await;
        assert_eq!((stream.code, stream.out.lines().count()), (0, 2), "{}{}", stream.out, stream.error);
    }
    let listed = node.must(&["subscription", "list", "--kind", "position.changed"]).await;
    let id = listed["subscriptions"][0]["subscription_id"].as_str().unwrap().to_owned();
    let ended = node.must(&["subscription", "remove", &id]).await;
    assert_eq!(ended["subscription"]["ended_by"], "operator");
    node.verify().await;
}
