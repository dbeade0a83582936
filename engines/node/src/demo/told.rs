//! A bank that is told by webhook what concerns it.

use std::collections::BTreeSet;

use super::check::Checks;
use super::node::Node;
use super::sink::Sink;
use super::wait;
use crate::output::{count, say, table};
use crate::problem::Problem;

/// What it asks for.
const KINDS: [&str; 4] = ["payment.received", "position.changed", "settlement.completed", "alert.raised"];

/// A bank with a subscription, and an endpoint at a receiver in this process.
pub struct Told {
    bank: String,
    sink: Sink,
}

impl Told {
    /// Subscribes a bank and registers its endpoint.
    ///
    /// # Errors
    /// Where the platform does not take it.
    pub async fn begin(node: &Node, bank: &str) -> Result<Self, Problem> {
        let sink = Sink::start().await?;
        let mut subscribe = vec!["subscription", "add", "--participant", bank];
        for kind in KINDS {
            subscribe.extend(["--kind", kind]);
        }
        node.must(&subscribe).await?;
        let created = node.must(&["endpoint", "create", "--participant", bank, "--url", &sink.url()]).await?;
        let key = |name: &str| created["secret"][name].as_str().unwrap_or_default().to_owned();
        sink.expect(&key("secret"), &key("public_key"))?;
        say(&format!("{bank} is told by webhook at {}.", sink.url()));
        Ok(Self { bank: bank.to_owned(), sink })
    }

    /// Waits until everything in the bank's feed has come, and checks signatures and ids.
    ///
    /// # Errors
    /// Where it does not come in time.
    pub async fn end(self, node: &Node, checks: &mut Checks) -> Result<(), Problem> {
        let list = ["notification", "list", "--participant", self.bank.as_str(), "--limit", "0"];
        let (feed, received) = wait("every webhook", async || {
            let answer = node.must(&list).await?;
            let notifications = answer["notifications"].as_array().cloned().unwrap_or_default();
            let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let feed: BTreeSet<(String, String)> =
                notifications.iter().map(|n| (word(&n["notification_id"]), word(&n["kind"]))).collect();
            let settled = feed.iter().filter(|(_, kind)| kind == "settlement.completed").count();
            let received = self.sink.received();
            let all = settled >= super::CURRENCIES.len() && feed.iter().all(|(id, _)| received.contains_key(id));
            Ok(all.then_some((feed, received)))
        })
        .await?;
        let rows =
            KINDS.map(|kind| [kind.to_owned(), count(received.values().filter(|r| r.kind == kind).count() as u64)]);
        say(&format!("\nWebhooks to {}\n{}", self.bank, table(["kind", "received"], rows)));
        let ids = |which: &dyn Fn(&super::sink::Received) -> bool| received.values().filter(|r| which(r)).count();
        checks.same("every notification of the bank came by webhook, and nothing else", received.len(), feed.len());
        checks.same("every webhook's HMAC signature (v1) was right", ids(&|r| r.v1), feed.len());
        checks.same("every webhook's Ed25519 signature (v1a) was right", ids(&|r| r.v1a), feed.len());
        let same = feed.iter().all(|(id, kind)| received.get(id).is_some_and(|r| r.kind == *kind));
        let again: u32 = received.values().map(|r| r.times - 1).sum();
        checks.check("the webhook's id and kind are those of the feed", same, format!("{again} came more than once"));
        Ok(())
    }
}
