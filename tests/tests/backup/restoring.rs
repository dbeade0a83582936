//! Restored to another place, and brought to go on.

use std::collections::BTreeSet;

use deltran_api::token::v1::submit_item::Result::Error;
use deltran_tests::node::{Deltran, PATIENCE, pay, submit_many};
use deltran_tests::{Nats, within};
use serde_json::Value;

use crate::support::{Vault, audited, begin, engines, ledger, load, on, owner, settle, sql, whole};

/// A named moment of the database.
const MOMENT: &[&str] = &["--name", "before"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_backed_up_is_restored_and_goes_on() {
    let nats = Nats::start().await;
    let mut node = Deltran::start(&on(&nats)).await;
    let vault = Vault::new(&node);
    archive(&mut node, &vault).await;
    begin(&node).await;
    let mut before = load(&node, 0).await;

    println!("backups under load");
    let (more, base) = tokio::join!(load(&node, 1), vault.base_backup(&node));
    before.extend(more);
    let (more, streams) = tokio::join!(load(&node, 2), vault.streams_backup(&nats));
    before.extend(more);
    audited(&node).await;
    node.must(&["audit", "checkpoint", "--out", "checkpoint-1"]).await;
    vault.keep_keys(&node, "keys");
    before.extend(load(&node, 3).await);
    sql(&node, "SELECT pg_create_restore_point('before')".into()).await;

    println!("what comes after the moment: {} transactions before it", before.len());
    let after = load(&node, 4).await;
    settle(&node).await;
    let all: BTreeSet<String> = before.union(&after).cloned().collect();
    whole(&node, &all).await;
    node.must(&["audit", "checkpoint", "--out", "checkpoint-2"]).await;
    vault.keep_keys(&node, "later-keys");
    assert_eq!(ledger(&node).await, ("token-engine/1".into(), false), "a start without a restore changes nothing");
    finish_archive(&mut node, &vault).await;

    println!("Postgres and streams, both to another place");
    let broker = vault.broker_from(&streams).await;
    let both = vault.restored(&base, &[MOMENT, &["--drill"]].concat(), "keys", &broker).await;
    assert_eq!(ledger(&both).await, ("token-engine/2".into(), false));
    whole(&both, &before).await;
    let more = load(&both, 5).await;
    settle(&both).await;
    whole(&both, &before.union(&more).cloned().collect()).await;
    drop(both);

    earlier_database(&vault, &base, &nats, &before, &after).await;

    println!("the broker to an earlier moment than Postgres");
    let broker = vault.broker_from(&streams).await;
    node.write("deltran.toml", on(&broker));
    node.start_again().await;
    assert_eq!(ledger(&node).await, ("token-engine/1".into(), false));
    whole(&node, &all).await;
    let more = load(&node, 6).await;
    settle(&node).await;
    whole(&node, &all.union(&more).cloned().collect()).await;
}

/// Postgres restored to an earlier moment than the broker.
async fn earlier_database(vault: &Vault, base: &str, nats: &Nats, before: &BTreeSet<String>, after: &BTreeSet<String>) {
    println!("Postgres to an earlier moment than the broker");
    let mut node = vault.restored(base, MOMENT, "later-keys", nats).await;
    for engine in engines(&node).await {
        assert!(engine.producer.ends_with("/2"), "{engine:?}");
        assert_eq!(engine.waits, engine.engine == "token", "{engine:?}");
    }

    // What the database does not know of is listed: each lost payment, and nothing that it has.
    let answer = node.must(&["restored", "list", "--limit", "0"]).await;
    let events = answer["events"].as_array().unwrap();
    let lost: BTreeSet<String> = events
        .iter()
        .filter(|event| event["subject"] == "events.transactions.transaction.created")
        .map(|event| event["correlation_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(lost.len(), after.len());
    assert!(lost == *after, "the lost payments");
    let engines_of = |event: &Value| event["engine"].as_str().unwrap().to_owned();
    println!("    listed: {} events of {:?}", events.len(), events.iter().map(engines_of).collect::<BTreeSet<_>>());

    // The ledger waits, for a payment that was lost as for a new one, and shows what it has.
    let mut bank = node.bank("ALFAAEXX");
    for name in ["4 0 0", "new"] {
        let items = submit_many(&mut bank, vec![pay(name, "ALFAAEXX", "BRAVINXX", "1.25")]).await.unwrap();
        let Some(Error(refusal)) = &items[0].result else { panic!("{items:?}") };
        assert_eq!(refusal.code, "unavailable");
        assert!(refusal.message.contains("deltran restored list"), "{refusal:?}");
    }
    assert!(node.transactions().await.into_keys().collect::<BTreeSet<_>>() == *before);

    // The audit ledger takes the old events in, in their old order: it continues what was signed before the restore.
    audited(&node).await;
    let anchor = node.write("anchor", std::fs::read(vault.path("later-keys/audit.key.checkpoint")).unwrap());
    within(PATIENCE, "a checkpoint that continues the last one", async || {
        let ran = node.run(&["audit", "prove", "--since", &anchor]).await;
        (ran.code == 0).then_some(())
    })
    .await;

    // Nobody but an operator ends the wait, and it is on record who did.
    let refused = node.run(&["restored", "resume", "--reason", "no", "--role", "auditor"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    node.must(&["restored", "resume", "--reason", "compared with the banks", "--user", "grace"]).await;
    assert_eq!(ledger(&node).await, ("token-engine/2".into(), false));
    let again = node.run(&["restored", "resume", "--reason", "once more"]).await;
    assert_eq!(again.code, 1, "{again:?}");

    // Clients send what they are missing again, under the same ids.
    assert!(load(&node, 4).await == *after);
    let more = load(&node, 7).await;
    settle(&node).await;
    let mut expected: BTreeSet<String> = before.union(after).cloned().collect();
    expected.extend(more);
    whole(&node, &expected).await;
    for (kind, part) in [("ledger.restored", "token-engine/2"), ("ledger.resumed", "grace")] {
        let told = node.must(&["audit", "events", "--type", kind]).await;
        let told = told["events"].as_array().unwrap();
        assert_eq!(told.len(), 1, "{told:#?}");
        assert!(told[0]["envelope"].as_str().unwrap().contains(part), "{told:#?}");
    }

    // The next start finds nothing.
    node.stop();
    node.start_again().await;
    assert_eq!(ledger(&node).await, ("token-engine/2".into(), false));
    whole(&node, &expected).await;
}

/// Turns archiving on.
async fn archive(node: &mut Deltran, vault: &Vault) {
    let command = format!("{} %p %f {}", vault.script("archive-wal.sh").display(), vault.path("wal"));
    sql(node, "ALTER SYSTEM SET archive_mode = 'on'".into()).await;
    sql(node, format!("ALTER SYSTEM SET archive_command = '{command}'")).await;
    node.stop();
    node.start_again().await;
}

/// Brings everything that was written into the archive, and stops.
async fn finish_archive(node: &mut Deltran, vault: &Vault) {
    let mut connection = owner(node).await;
    let switched: String =
        sqlx::query_scalar("SELECT pg_walfile_name(pg_switch_wal())").fetch_one(&mut connection).await.unwrap();
    within(PATIENCE, "the archive to have everything", async || {
        std::path::Path::new(&vault.path("wal")).join(&switched).exists().then_some(())
    })
    .await;
    println!("archived: {} files of WAL", vault.archived());
    drop(connection);
    node.stop();
}
