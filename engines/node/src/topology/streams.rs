//! `deltran streams`: every stream of a broker, with its consumers, to files and back, through JetStream's own snapshots.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use deltran_kernel::{Clock, SystemClock};
use deltran_messaging::Broker;
use deltran_runtime::files::{hash_of_file, write_whole};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::boot;
use crate::endpoint::{DEFAULT_DATA, Endpoint};
use crate::output::Output;
use crate::problem::Problem;

const DEFAULT_URL: &str = "nats://127.0.0.1:4222";
const MANIFEST: &str = "manifest.json";
/// Bytes of a message of a snapshot.
const CHUNK: usize = 128 * 1024;
/// The next part may take so long.
const NEXT: Duration = Duration::from_secs(60);

/// Streams of the broker: back up, restore
#[derive(Debug, Args)]
#[command(
    after_help = "The broker is the one of DELTRAN_NATS_URL or nats.url in deltran.toml, else the one that ./data/endpoint.json \
names, else nats://127.0.0.1:4222. ops/runbooks/backup-restore.md has the order of steps.

Examples:
  deltran streams backup /var/backups/deltran/streams-2026-01-31
  DELTRAN_NATS_URL=nats://10.0.0.8:4222 deltran streams restore /var/backups/deltran/streams-2026-01-31"
)]
pub struct StreamsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes a snapshot of every stream and its consumers, while everything runs
    #[command(
        after_help = "The folder is there whole or not at all. Streams that copy others come first, so that none is ahead of what it \
copies.

Examples:
  deltran streams backup /var/backups/deltran/streams-2026-01-31"
    )]
    Backup(Folder),
    /// Creates the streams and consumers of a backup on a broker that has none of them
    #[command(after_help = "Every file is checked against the manifest first. Engines must not run.

Examples:
  DELTRAN_NATS_URL=nats://10.0.0.8:4222 deltran streams restore /var/backups/deltran/streams-2026-01-31")]
    Restore(Folder),
}

#[derive(Debug, Args)]
struct Folder {
    /// The folder of the backup
    folder: PathBuf,
    /// The configuration file [default: ./deltran.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What a backup holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    made_at: String,
    streams: Vec<Kept>,
}

/// A stream in a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    stream: String,
    file: String,
    size: u64,
    sha256: String,
    /// In the broker's words.
    config: Value,
    state: Value,
}

impl Kept {
    fn copies_others(&self) -> bool {
        copies_others(&self.config)
    }

    fn number(&self, key: &str) -> u64 {
        self.state[key].as_u64().unwrap_or(0)
    }
}

/// Runs the command.
///
/// # Errors
/// Where the broker does not answer or refuses, and where files are not what they should be.
pub async fn run(args: StreamsArgs, out: Output) -> Result<(), Problem> {
    let (Command::Backup(wanted) | Command::Restore(wanted)) = &args.command;
    let config = boot::load(wanted.config.as_deref())?;
    let url = match config.nats.url.as_str() {
        "" => Endpoint::find(Path::new(DEFAULT_DATA)).map_or_else(|| DEFAULT_URL.to_owned(), |endpoint| endpoint.nats),
        url => url.to_owned(),
    };
    let broker = boot::connect(&url, "deltran-streams").await?;
    let started = Instant::now();
    let (word, manifest) = match &args.command {
        Command::Backup(wanted) => ("backed up", backup(&broker, &wanted.folder).await?),
        Command::Restore(wanted) => ("restored", restore(&broker, &wanted.folder).await?),
    };
    let messages: u64 = manifest.streams.iter().map(|s| s.number("messages")).sum();
    let consumers: u64 = manifest.streams.iter().map(|s| s.number("consumer_count")).sum();
    let bytes: u64 = manifest.streams.iter().map(|s| s.size).sum();
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let streams: Vec<Value> = manifest
        .streams
        .iter()
        .map(|s| {
            json!({"stream": s.stream, "messages": s.number("messages"), "last_sequence": s.number("last_seq"),
            "consumers": s.number("consumer_count"), "bytes": s.size})
        })
        .collect();
    let answer = json!({"streams": streams, "messages": messages, "consumers": consumers, "bytes": bytes, "elapsed_ms": elapsed_ms});
    out.value_or(&answer, || {
        let count = manifest.streams.len();
        format!(
            "{word}: {count} streams, {messages} messages, {consumers} consumers, {bytes} bytes, in {elapsed_ms} ms"
        )
    });
    Ok(())
}

/// A request to the broker's API that must succeed.
async fn api(broker: &Broker, subject: &str, body: &Value) -> Result<Value, Problem> {
    let request = broker.client().request(format!("$JS.API.{subject}"), body.to_string().into());
    let answer = timeout(NEXT, request).await.map_err(|_| late(subject))?.map_err(|e| away(subject, &e))?;
    succeeded(subject, &answer.payload)
}

fn succeeded(subject: &str, payload: &[u8]) -> Result<Value, Problem> {
    let answer: Value = serde_json::from_slice(payload).map_err(|e| Problem::refused(format!("{subject}: {e}")))?;
    match answer.get("error") {
        None => Ok(answer),
        Some(error) => {
            let why = error["description"].as_str().unwrap_or("no description");
            Err(Problem::refused(format!("the broker refused {subject}: {why}")))
        }
    }
}

fn away(subject: &str, error: &dyn std::fmt::Display) -> Problem {
    Problem::unavailable(format!("the broker did not take {subject}: {error}; try again"))
}

fn late(subject: &str) -> Problem {
    Problem::unavailable(format!("the broker did not answer {subject} within {} s; try again", NEXT.as_secs()))
}

fn of_file(path: &Path) -> impl Fn(std::io::Error) -> Problem + '_ {
    move |error| Problem::refused(format!("{}: {error}", path.display()))
}

fn copies_others(config: &Value) -> bool {
    config["sources"].as_array().is_some_and(|sources| !sources.is_empty()) || config["mirror"].is_object()
}

/// Every stream; those that copy others first.
async fn streams(broker: &Broker) -> Result<Vec<String>, Problem> {
    let mut found: Vec<(bool, String)> = Vec::new();
    loop {
        let page = api(broker, "STREAM.LIST", &json!({"offset": found.len()})).await?;
        let streams = page["streams"].as_array().cloned().unwrap_or_default();
        for stream in &streams {
            let name = stream["config"]["name"].as_str().unwrap_or_default().to_owned();
            found.push((!copies_others(&stream["config"]), name));
        }
        if streams.is_empty() || found.len() as u64 >= page["total"].as_u64().unwrap_or(0) {
            break;
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

async fn backup(broker: &Broker, folder: &Path) -> Result<Manifest, Problem> {
    if folder.exists() {
        return Err(Problem::refused(format!("{} is there already: name a folder that is not", folder.display())));
    }
    let names = streams(broker).await?;
    if names.is_empty() {
        return Err(Problem::refused("the broker has no stream: is it the right one?"));
    }
    let mut unfinished = folder.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(of_file(&unfinished))?;
    }
    fs::create_dir_all(&unfinished).map_err(of_file(&unfinished))?;
    let mut manifest = Manifest { made_at: SystemClock.now().to_string(), streams: Vec::new() };
    for name in names {
        manifest.streams.push(keep(broker, &name, &unfinished).await?);
    }
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| Problem::refused(e.to_string()))?;
    let file = unfinished.join(MANIFEST);
    write_whole(&file, &text, 0o600).map_err(of_file(&file))?;
    fs::rename(&unfinished, folder).map_err(of_file(folder))?;
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|f| f.sync_all()).map_err(of_file(parent))?;
    Ok(manifest)
}

async fn keep(broker: &Broker, stream: &str, folder: &Path) -> Result<Kept, Problem> {
    let subject = format!("STREAM.SNAPSHOT.{stream}");
    let inbox = broker.client().new_inbox();
    let mut parts = broker.client().subscribe(inbox.clone()).await.map_err(|e| away(&subject, &e))?;
    let asked = json!({"deliver_subject": inbox, "no_consumers": false, "chunk_size": CHUNK, "jsck": true});
    let begun = api(broker, &subject, &asked).await?;
    let name = format!("{stream}.snapshot");
    let path = folder.join(&name);
    let mut file = File::create_new(&path).map_err(of_file(&path))?;
    loop {
        let part = timeout(NEXT, parts.next()).await.map_err(|_| late(&subject))?;
        let part = part.ok_or_else(|| away(&subject, &"the connection ended"))?;
        if part.payload.is_empty() {
            // The end, with a status where it is none.
            match part.status {
                Some(status) if ![200, 204].contains(&status.as_u16()) => {
                    let why = part.description.unwrap_or_default();
                    return Err(Problem::refused(format!("the broker broke {subject} off: {status} {why}")));
                }
                _ => break,
            }
        }
        file.write_all(&part.payload).map_err(of_file(&path))?;
        if let Some(reply) = part.reply {
            broker.client().publish(reply, "".into()).await.map_err(|e| away(&subject, &e))?;
        }
    }
    file.sync_all().map_err(of_file(&path))?;
    let (size, sha256) = hash_of_file(&path).map_err(of_file(&path))?;
    let (config, state) = (begun["config"].clone(), begun["state"].clone());
    Ok(Kept { stream: stream.to_owned(), file: name, size, sha256, config, state })
}

async fn restore(broker: &Broker, folder: &Path) -> Result<Manifest, Problem> {
    let path = folder.join(MANIFEST);
    let text = fs::read(&path).map_err(of_file(&path))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|e| Problem::refused(format!("{}: {e}", path.display())))?;
    for kept in &manifest.streams {
        check(folder, kept)?;
    }
    let there = streams(broker).await?;
    if let Some(kept) = manifest.streams.iter().find(|kept| there.contains(&kept.stream)) {
        return Err(Problem::refused(format!(
            "the broker has a stream {} already: restore to one with an empty store",
            kept.stream
        )));
    }
    let mut order: Vec<&Kept> = manifest.streams.iter().collect();
    order.sort_by_key(|kept| kept.copies_others());
    for kept in order {
        put_back(broker, folder, kept).await?;
    }
    Ok(manifest)
}

/// Whether a file is what the manifest says.
fn check(folder: &Path, kept: &Kept) -> Result<(), Problem> {
    let path = folder.join(&kept.file);
    let (size, sha256) = hash_of_file(&path).map_err(of_file(&path))?;
    if (size, &sha256) == (kept.size, &kept.sha256) {
        return Ok(());
    }
    Err(Problem::refused(format!(
        "{} is not what the manifest says: {size} bytes and SHA-256 {sha256}, not {} bytes and {}",
        path.display(),
        kept.size,
        kept.sha256
    )))
}

async fn put_back(broker: &Broker, folder: &Path, kept: &Kept) -> Result<(), Problem> {
    let subject = format!("STREAM.RESTORE.{}", kept.stream);
    let begun = api(broker, &subject, &json!({"config": kept.config, "state": kept.state})).await?;
    let to = begun["deliver_subject"].as_str().unwrap_or_default().to_owned();
    let path = folder.join(&kept.file);
    let mut file = File::open(&path).map_err(of_file(&path))?;
    let mut block = vec![0; CHUNK];
    let restored = loop {
        let n = file.read(&mut block).map_err(of_file(&path))?;
        let part = block.get(..n).unwrap_or_default().to_vec();
        let sent = broker.client().request(to.clone(), part.into());
        let answer = timeout(NEXT, sent).await.map_err(|_| late(&subject))?.map_err(|e| away(&subject, &e))?;
        if n == 0 {
            break succeeded(&subject, &answer.payload)?;
        }
        if !answer.payload.is_empty() {
            succeeded(&subject, &answer.payload)?;
        }
    };
    let state = &restored["state"];
    for key in ["messages", "last_seq", "first_seq"] {
        if key == "first_seq" && kept.number("messages") == 0 {
            // That of a stream without a message is a matter of taste.
            continue;
        }
        let (is, was) = (state[key].as_u64().unwrap_or(0), kept.number(key));
        if is != was {
            let stream = &kept.stream;
            return Err(Problem::refused(format!(
                "stream {stream} was restored with {key} {is}, not {was}: the backup is of no use"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_what_the_manifest_says_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("RISK.snapshot");
        fs::write(&path, b"abc").unwrap();
        let (size, sha256) = hash_of_file(&path).unwrap();
        let kept = Kept {
            stream: "RISK".into(),
            file: "RISK.snapshot".into(),
            size,
            sha256,
            config: json!({}),
            state: json!({}),
        };
        check(folder.path(), &kept).unwrap();
        fs::write(&path, b"abd").unwrap();
        let problem = check(folder.path(), &kept).unwrap_err();
        assert!(problem.message.contains("RISK.snapshot is not what the manifest says"), "{problem}");
        fs::remove_file(&path).unwrap();
        assert!(check(folder.path(), &kept).is_err());
    }

    #[test]
    fn what_copies_others_is_known() {
        assert!(copies_others(&json!({"sources": [{"name": "RISK"}]})));
        assert!(copies_others(&json!({"mirror": {"name": "RISK"}})));
        assert!(!copies_others(&json!({"sources": []})) && !copies_others(&json!({})));
    }
}
