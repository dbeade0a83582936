//! Faults, as they are really made.

use std::time::Duration;

use deltran_kernel::{Clock, SystemClock};
use deltran_messaging::stored;
use deltran_tests::node::PATIENCE;
use deltran_tests::{Flow, Proxy, Way, api, within};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::World;
use crate::plan::{Fault, Kind};
use crate::random::Random;
use crate::rig::{Rig, signal};

/// How long a process is stopped, and how long in the short form: beyond the lease of five seconds.
const FROZEN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(7));

/// Streams that something is published to all the time.
const BUSY: &[&str] = &["TRANSACTIONS", "CLEARING", "SETTLEMENT", "NOTIFICATIONS", "AUDIT"];

/// How long a part may say that it is not ready while everything works.
const UNREADY: Duration = Duration::from_secs(30);

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// In words.
    pub what: String,
    /// Streams that must come back, with the highest sequence that was known of each.
    pub lost: Vec<(&'static str, u64)>,
}

/// Makes a fault and ends it.
pub async fn make(world: &World, fault: &mut Fault, long: bool) -> Made {
    let rig = &world.rig;
    let random = &mut fault.random;
    let frozen = if long { FROZEN.0 } else { FROZEN.1 };
    let mut lost = Vec::new();
    let what = match fault.kind {
        Kind::NodeKilled => {
            rig.kill_node();
            let away = random.time(0, 2_000);
            sleep(away).await;
            rig.start_node();
            format!("started again after {}", text(away))
        }
        Kind::NodeRestarted => {
            let status = rig.stop_node().await;
            if !status.is_some_and(|status| status.success()) {
                world.journal.breach(format!("the node, told to stop, ended with {status:?}"));
            }
            rig.start_node();
            "ended in order, started again".to_owned()
        }
        Kind::NodeFrozen => freeze(&[rig.node_pid()], frozen).await,
        Kind::BrokerKilled => {
            let away = random.time(0, 5_000);
            let mut nats = rig.nats.lock().await;
            nats.kill();
            sleep(away).await;
            nats.restart().await;
            format!("started again after {}", text(away))
        }
        Kind::BrokerFrozen => {
            let pid = rig.nats.lock().await.pid().expect("it runs");
            freeze(&[pid], frozen).await
        }
        Kind::BrokerWiped => {
            lost = last_of(rig, &["TRANSACTIONS", "AUDIT"]).await;
            rig.nats.lock().await.wipe().await;
            "started again on nothing".to_owned()
        }
        Kind::BrokerRolledBack => {
            rig.nats.lock().await.keep().await;
            let kept = last_of(rig, BUSY).await;
            // What was on its way when the broker went is published again ten seconds later only.
            let after = random.time(12_000, 16_000);
            sleep(after).await;
            lost = last_of(rig, BUSY).await;
            rig.nats.lock().await.roll_back().await;
            // A stream that nothing was published to meanwhile has lost nothing.
            lost.retain(|stream| !kept.contains(stream));
            let streams: Vec<_> = lost.iter().map(|(stream, _)| *stream).collect();
            format!("started again on what it had {} before; lost something: {}", text(after), streams.join(", "))
        }
        Kind::StreamDeleted | Kind::StreamRecreated | Kind::StreamPurged | Kind::StreamEmptied => {
            let (stream, what) = lose_stream(rig, fault.kind, random).await;
            lost = stream;
            what
        }
        Kind::PostgresKilled => {
            let head = rig.postgres_pids().first().copied().expect("it runs");
            signal(head, Signal::SIGKILL);
            within(PATIENCE, "another Postgres", async || {
                rig.postgres_pids().first().copied().filter(|pid| *pid != head)
            })
            .await;
            "started again by its supervisor".to_owned()
        }
        Kind::BackendKilled => {
            let pids = rig.postgres_pids();
            let victim = random.pick(&pids[1..]);
            let line = std::fs::read(format!("/proc/{victim}/cmdline")).unwrap_or_default();
            signal(victim, Signal::SIGKILL);
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.trim().to_owned()
        }
        Kind::PostgresFrozen => freeze(&rig.postgres_pids(), frozen).await,
        Kind::ClientsCut => cut(&rig.to_node, random).await,
        Kind::BrokerCut => cut(&rig.to_broker, random).await,
        Kind::PostgresCut => cut(&rig.to_postgres, random).await,
        Kind::ClientAnswersLost => lose_answers(&rig.to_node, random).await,
        Kind::BrokerAnswersLost => lose_answers(&rig.to_broker, random).await,
        Kind::PostgresAnswersLost => lose_answers(&rig.to_postgres, random).await,
        Kind::ClientsSlow => delay(&rig.to_node, random).await,
        Kind::BrokerSlow => delay(&rig.to_broker, random).await,
        Kind::PostgresSlow => delay(&rig.to_postgres, random).await,
        Kind::ClientsSilent => silence(&rig.to_node, random).await,
        Kind::BrokerSilent => silence(&rig.to_broker, random).await,
        Kind::PostgresSilent => silence(&rig.to_postgres, random).await,
        Kind::ClockForward => jump(world, random, 1).await,
        Kind::ClockBack => jump(world, random, -1).await,
        Kind::BrokerDiskFull => {
            let what = fill(&rig.broker_disk, random).await;
            // Out of space, it stores nothing until somebody starts it again ("JetStream out of space, will be DISABLED").
            rig.nats.lock().await.restart().await;
            format!("{what}, then started again")
        }
        Kind::PostgresDiskFull => fill(&rig.postgres_disk, random).await,
    };
    Made { what, lost }
}

async fn freeze(pids: &[i32], time: Duration) -> String {
    for pid in pids {
        signal(*pid, Signal::SIGSTOP);
    }
    sleep(time).await;
    for pid in pids {
        signal(*pid, Signal::SIGCONT);
    }
    format!("{} processes stopped for {}", pids.len(), text(time))
}

async fn cut(proxy: &Proxy, random: &mut Random) -> String {
    let times = 3 + random.below(4);
    let mut connections = 0;
    for _ in 0..times {
        connections += proxy.connections();
        proxy.cut();
        sleep(random.time(100, 1_000)).await;
    }
    format!("{times} times, {connections} connections in all")
}

/// What was asked arrives and takes effect; the answer does not come, and the connection breaks.
async fn lose_answers(proxy: &Proxy, random: &mut Random) -> String {
    let times = 3 + random.below(3);
    for _ in 0..times {
        proxy.set(Way::Back, Flow::Held);
        sleep(random.time(100, 1_200)).await;
        proxy.cut();
        proxy.set(Way::Back, Flow::Open);
        sleep(random.time(300, 1_500)).await;
    }
    format!("{times} times")
}

async fn delay(proxy: &Proxy, random: &mut Random) -> String {
    let (there, back) = (random.time(10, 250), random.time(10, 250));
    proxy.set(Way::There, Flow::Late(there));
    proxy.set(Way::Back, Flow::Late(back));
    sleep(Duration::from_secs(10)).await;
    proxy.set_both(Flow::Open);
    format!("{} there and {} back", text(there), text(back))
}

async fn silence(proxy: &Proxy, random: &mut Random) -> String {
    let (way, time) = (random.below(3), random.time(6_000, 14_000));
    let words = match way {
        0 => "there",
        1 => "back",
        _ => "there and back",
    };
    if way != 1 {
        proxy.set(Way::There, Flow::Held);
    }
    if way != 0 {
        proxy.set(Way::Back, Flow::Held);
    }
    sleep(time).await;
    proxy.set_both(Flow::Open);
    format!("{words} for {}", text(time))
}

async fn jump(world: &World, random: &mut Random, direction: i64) -> String {
    let clock = world.rig.clock.as_ref().expect("a clock that can be moved");
    let seconds = direction * i64::try_from(60 + random.below(120)).expect("minutes");
    clock.by(seconds);
    sleep(Duration::from_secs(10)).await;
    let ahead = (world.journal.decided() - SystemClock.now().micros()) / 1_000_000;
    clock.by(0);
    if direction > 0 && ahead < seconds - 30 {
        world.journal.breach(format!("a clock moved by {seconds} s, and the ledger is ahead by {ahead} s"));
    }
    format!("by {seconds} s for 10 s; the ledger's last decision was {ahead} s ahead")
}

async fn fill(disk: &tokio::sync::Mutex<Option<crate::means::Disk>>, random: &mut Random) -> String {
    let mut disk = disk.lock().await;
    let disk = disk.as_mut().expect("a disk that can be filled");
    let time = random.time(8_000, 14_000);
    disk.fill();
    sleep(time).await;
    let written = disk.free().await;
    format!("filled with {} MB, full for about {}", written >> 20, text(time))
}

async fn last_of(rig: &Rig, streams: &[&'static str]) -> Vec<(&'static str, u64)> {
    let mut lost = Vec::new();
    for stream in streams {
        let state = within(PATIENCE, "a stream", async || stored::state(&rig.broker, stream).await.ok()?).await;
        lost.push((*stream, state.last_sequence));
    }
    lost
}

async fn lose_stream(rig: &Rig, kind: Kind, random: &mut Random) -> (Vec<(&'static str, u64)>, String) {
    let stream = random.pick(BUSY);
    let lost = last_of(rig, &[stream]).await;
    let broker = &rig.broker;
    match kind {
        Kind::StreamDeleted => {
            api(broker, &format!("STREAM.DELETE.{stream}"), &json!({})).await;
        }
        Kind::StreamRecreated => {
            let mut config = api(broker, &format!("STREAM.INFO.{stream}"), &json!({})).await["config"].take();
            config["first_seq"] = json!(0);
            api(broker, &format!("STREAM.DELETE.{stream}"), &json!({})).await;
            let answer: Result<Value, _> = broker.jetstream().request(format!("STREAM.CREATE.{stream}"), &config).await;
            // Refused where the platform was quicker to make it anew, which is as good.
            drop(answer);
        }
        Kind::StreamPurged => {
            let answer: Value =
                broker.jetstream().request(format!("STREAM.PURGE.{stream}"), &json!({})).await.expect("an answer");
            if answer.get("error").is_some() {
                // Made anew from the catalog since the run began: such streams refuse it.
                empty(rig, stream).await;
                return (lost, format!("{stream}: refused, as the catalog says; its message files lost instead"));
            }
        }
        _ => empty(rig, stream).await,
    }
    (lost, stream.to_owned())
}

/// Loses the files of a stream's messages while the broker is down.
async fn empty(rig: &Rig, stream: &str) {
    let mut nats = rig.nats.lock().await;
    nats.kill();
    let messages = nats.store().join("jetstream/$G/streams").join(stream).join("msgs");
    std::fs::remove_dir_all(&messages).unwrap_or_else(|e| panic!("{}: {e}", messages.display()));
    nats.restart().await;
}

/// Waits until what was lost has come back, payments are committed and everything that was written until then stands in
/// the audit ledger; the two times since `ended`.
pub async fn served_again(world: &World, made: &Made, ended: Instant) -> Result<(Duration, Duration), String> {
    let deadline = ended + Duration::from_secs(300);
    let mut served = None;
    let mut audited = None;
    let mut written: Option<Vec<(String, u64)>> = None;
    let mut missing = "nothing was committed".to_owned();
    while Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
        if let Some(how) = world.rig.ended_by_itself() {
            world.journal.breach(format!("the node ended by itself: {how}"));
        }
        if world.pulse.since(ended) < 5 {
            continue;
        }
        let served = *served.get_or_insert_with(|| ended.elapsed());
        let mut back = true;
        for (stream, known) in &made.lost {
            let state = stored::state(&world.rig.broker, stream).await.ok().flatten();
            back &= state.is_some_and(|state| state.begins_at > *known && state.mark.is_none());
        }
        if !back || !world.rig.streams_stand().await {
            missing = format!("streams did not come back: {:?}", made.lost);
            continue;
        }
        let Some(engines) = world.rig.status().await else { continue };
        let written = written
            .get_or_insert_with(|| engines.iter().map(|engine| (engine.engine.clone(), engine.assigned)).collect());
        let behind: Vec<_> = engines
            .iter()
            .filter(|engine| {
                let upto = written.iter().find(|(name, _)| *name == engine.engine).map_or(0, |(_, upto)| *upto);
                engine.confirmed < upto
            })
            .map(|engine| format!("{} {}/{}", engine.engine, engine.confirmed, engine.assigned))
            .collect();
        if !behind.is_empty() {
            missing = behind.join("; ");
            continue;
        }
        let audited = *audited.get_or_insert_with(|| ended.elapsed());
        let unready: Vec<String> = engines.into_iter().flat_map(|engine| engine.problems).collect();
        if unready.is_empty() || world.say_unready(&unready, ended.elapsed() > audited + UNREADY) {
            return Ok((served, audited));
        }
    }
    Err(missing)
}

/// A time in words.
pub fn text(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
