//! Whether everything adds up that a fleet was asked to do.

use std::collections::{BTreeMap, BTreeSet};

use deltran_api::clearing::v1::clearing_service_client::ClearingServiceClient;
use deltran_api::clearing::v1::{ListWindowsRequest, Window, WindowState};
use deltran_api::common::v1::Page;
use deltran_api::platform::v1::GetStatusRequest;
use deltran_api::platform::v1::platform_service_client::PlatformServiceClient;
use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_api::token::v1::{TransactionOutcome, TransactionState, TransactionView};
use serde_json::Value;

use super::Fleet;
use crate::node::{PATIENCE, all_audited, transactions};
use crate::{As, within};

impl Fleet {
    /// Every transaction of the ledger, page by page.
    pub async fn transactions(&self, at: &str) -> BTreeMap<String, TransactionView> {
        transactions(&mut TokenServiceClient::new(self.to(at, As::role("operator", "ada")))).await
    }

    /// Waits until there are so many windows and all of them are settled.
    pub async fn settled(&self, at: &str, expected: usize) -> Vec<Window> {
        let mut clearing = ClearingServiceClient::new(self.to(at, As::role("operator", "ada")));
        within(PATIENCE, "every window to be settled", async || {
            let windows = clearing.list_windows(most()).await.ok()?.into_inner().windows;
            let done = windows.len() == expected && windows.iter().all(|w| w.state() == WindowState::Settled);
            done.then_some(windows)
        })
        .await
    }

    /// Waits until this window is settled.
    pub async fn settled_one(&self, at: &str, window_id: &str) {
        let mut clearing = ClearingServiceClient::new(self.to(at, As::role("operator", "ada")));
        within(PATIENCE, "the window to be settled", async || {
            let windows = clearing.list_windows(most()).await.ok()?.into_inner().windows;
            windows.iter().any(|w| w.window_id == window_id && w.state() == WindowState::Settled).then_some(())
        })
        .await;
    }

    /// Waits until every event of every engine that runs is published and stands in the audit ledger.
    pub async fn audited(&self) {
        for at in self.running.keys() {
            let mut platform = PlatformServiceClient::new(self.to(at, As::role("operator", "ada")));
            within(PATIENCE, "every event in the audit ledger", async || {
                let status = platform.get_status(GetStatusRequest {}).await.ok()?.into_inner();
                all_audited(&status.engines).then_some(())
            })
            .await;
        }
    }

    /// L1 to L8 hold, every event stands in the audit ledger, and that one agrees with producers and streams.
    pub async fn verified(&self, ledger: &str, audit: &str) {
        let verified = self.must(ledger, &["account", "verify"]).await;
        let holding = verified["results"].as_array().expect("results").iter().filter(|r| r["holds"] == true).count();
        assert_eq!(holding, 8, "{verified:#}");
        self.audited().await;
        self.must(audit, &["audit", "verify"]).await;
    }

    /// Everything that was told stands in the ledger as it was told, once, and nothing else does; every window is settled,
    /// and was opened, closed, netted and settled once; L1 to L8 hold, and the audit ledger agrees.
    pub async fn adds_up(&self, at: &str, told: &[TransactionOutcome], windows: usize) {
        let settled = self.settled(at, windows).await;
        compare(told, &self.transactions(at).await, &settled);
        self.verified(at, at).await;
        let pool = self.postgres.pool().await;
        for step in ["window.opened", "window.closed", "window.netted", "window.settled"] {
            let told: Vec<String> = sqlx::query_scalar(
                "SELECT convert_from(envelope, 'UTF8') FROM audit.leaf WHERE event_type = $1 AND domain = 'clearing'",
            )
            .bind(step)
            .fetch_all(&pool)
            .await
            .expect("leaves are read");
            let of = |line: &String| -> String {
                let event: Value = serde_json::from_str(line).expect("an envelope");
                event["data"]["window_id"].as_str().expect("a window").to_owned()
            };
            let ids: BTreeSet<String> = told.iter().map(of).collect();
            assert_eq!((told.len(), ids.len()), (windows, windows), "{step}: {told:?}");
        }
    }
}

/// What was told is what is listed, once, and every window has the places of its transactions without a gap.
pub fn compare(told: &[TransactionOutcome], listed: &BTreeMap<String, TransactionView>, windows: &[Window]) {
    let ids: BTreeSet<&str> = told.iter().map(|outcome| outcome.transaction_id.as_str()).collect();
    assert_eq!(ids.len(), told.len(), "each transaction is decided for one message");
    for outcome in told {
        let view = listed.get(&outcome.transaction_id).unwrap_or_else(|| panic!("{outcome:?} was lost"));
        assert_eq!((&view.window_id, view.window_seq), (&outcome.window_id, outcome.window_seq), "{view:?}");
    }
    assert_eq!(listed.len(), told.len(), "nothing stands there that nobody was told");
    let mut places: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for view in listed.values() {
        assert_eq!(view.state(), TransactionState::Committed, "{view:?}");
        assert!(places.entry(&view.window_id).or_default().insert(view.window_seq), "a place taken twice: {view:?}");
    }
    assert_eq!(windows.iter().map(|w| w.count).sum::<u64>(), listed.len() as u64);
    for window in windows {
        let dense: BTreeSet<u64> = (1..=window.count).collect();
        let there = places.remove(window.window_id.as_str()).unwrap_or_default();
        assert_eq!(there, dense, "{window:?}");
    }
}

/// A page that holds them all.
fn most() -> ListWindowsRequest {
    ListWindowsRequest { page: Some(Page { size: 1000, token: String::new() }), ..Default::default() }
}
