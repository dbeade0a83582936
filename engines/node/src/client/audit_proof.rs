//! `deltran audit checkpoint|checkpoints|prove|tiles|key`: what an outsider checks the ledger with.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use deltran_api::audit::v1::{
    GetCheckpointRequest, GetConsistencyProofRequest, GetInclusionProofRequest, GetTilesRequest,
    ListCheckpointsRequest, get_consistency_proof_request::From, get_inclusion_proof_request::Leaf,
};
use deltran_audit::domain::checkpoint::{Checkpoint, ConsistencyProof};
use deltran_audit::domain::note::{Kind, Signer};
use deltran_notification::webhook::random::{Random, SystemRandom};
use deltran_runtime::config::Config;
use deltran_runtime::files::write_whole;
use serde_json::json;

use super::{Caller, Rows, Session, pages};
use crate::output::{Output, count, json_of, say, shown, table, time};
use crate::problem::Problem;

/// What `checkpoint` takes.
#[derive(Debug, Args)]
#[command(
    after_help = "A signed note (C2SP tlog-checkpoint): keep it, and nobody can rebuild the ledger below it unseen. It is kept
by the platform for ever from then on.

Examples:
  deltran audit checkpoint
  deltran audit checkpoint --size 113352 --out checkpoint"
)]
pub struct CheckpointArgs {
    /// Of exactly so many leaves instead of the latest
    #[arg(long, value_name = "LEAVES", value_parser = clap::value_parser!(u64).range(1..))]
    size: Option<u64>,
    /// Into a file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What `checkpoints` takes.
#[derive(Debug, Args)]
#[command(after_help = "Newest first, and below them the verifier keys of the log.

Examples:
  deltran audit checkpoints --published
  deltran audit checkpoints --limit 0 --json")]
pub struct CheckpointsArgs {
    /// Only those that have left the system
    #[arg(long)]
    published: bool,
    #[command(flatten)]
    rows: Rows,
}

/// What `prove` takes.
#[derive(Debug, Args)]
#[command(
    after_help = "With an event: that it stands in the ledger, as a C2SP tlog-proof, which carries its checkpoint.
With --since: that the ledger begins with an earlier one, given as a file with its checkpoint or as its size; in the form
that witnesses take (C2SP tlog-witness, add-checkpoint).

Examples:
  deltran audit prove 17
  deltran audit prove 0190c3d5-0000-7000-8000-000000000001 --out event.tlog-proof
  deltran audit prove --since checkpoint"
)]
pub struct ProveArgs {
    /// Leaf index or event id
    #[arg(required_unless_present = "since", conflicts_with = "since")]
    event: Option<String>,
    /// A file with a checkpoint that you hold, or a number of leaves
    #[arg(long, value_name = "FILE|LEAVES")]
    since: Option<String>,
    /// In the ledger of exactly so many leaves instead of that of the latest checkpoint
    #[arg(long, value_name = "LEAVES")]
    size: Option<u64>,
    /// Into a file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What `tiles` takes.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes the log as static files (C2SP tlog-tiles), which transparency-log clients, monitors and witnesses
read: `tile/…` with the hashes, `tile/entries/…` with the events, and `checkpoint` last. Full tiles that are there already are
left alone, so that the same command brings a copy up to date. What left the database comes out of the archive, as the same
bytes; nothing is written that does not lead to the signed checkpoint.

Examples:
  deltran audit tiles --out log
  deltran audit tiles --out log --hashes-only"
)]
pub struct TilesArgs {
    /// The folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Of exactly so many leaves instead of those of the latest checkpoint
    #[arg(long, value_name = "LEAVES")]
    size: Option<u64>,
    /// Without the events
    #[arg(long)]
    hashes_only: bool,
}

/// What `key` takes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  deltran audit key new --out audit.key\n  deltran audit key show audit.key")]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Makes a key that signs checkpoints, and shows its verifier key
    #[command(
        after_help = "The file is for audit.key_files and stays with the operator; the verifier key is for everybody who checks.
A file that exists is never written over.

Examples:
  deltran audit key new --out audit.key
  deltran audit key new --out audit-2027.key --deployment frankfurt-1"
    )]
    New {
        /// The file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The deployment whose ledger it signs, as in the configuration
        #[arg(long, value_name = "NAME")]
        deployment: Option<String>,
    },
    /// Shows the verifier key of a key file
    #[command(after_help = "Examples:\n  deltran audit key show audit.key")]
    Show {
        /// The file
        file: PathBuf,
    },
}

/// Makes or shows keys, without the platform.
///
/// # Errors
/// Where the file exists already, cannot be written, or is none.
pub fn key(args: KeyArgs, out: Output) -> Result<(), Problem> {
    let (file, signer) = match args.command {
        KeyCommand::New { out: file, deployment } => {
            let deployment = deployment.unwrap_or_else(|| Config::default().deployment);
            let signer = new_key(&file, &deployment)?;
            (file, signer)
        }
        KeyCommand::Show { file } => {
            let text = std::fs::read_to_string(&file).map_err(|e| in_file(&file, &e))?;
            let signer = Signer::parse(&text).map_err(|e| in_file(&file, &e))?;
            (file, signer)
        }
    };
    let verifier = signer.verifier().to_string();
    let value = json!({ "file": file.display().to_string(), "verifier": verifier, "name": signer.verifier().name() });
    out.value_or(&value, || verifier);
    Ok(())
}

/// Makes a key for a deployment's ledger in a file that only its owner may read.
///
/// # Errors
/// Where the file exists already or cannot be written.
pub fn new_key(file: &Path, deployment: &str) -> Result<Signer, Problem> {
    if file.exists() {
        let message = format!("{} exists already, and what it signed needs it: choose another name", file.display());
        return Err(Problem::refused(message));
    }
    let mut seed = [0; 32];
    SystemRandom::default().fill(&mut seed).map_err(|e| in_file(file, &e))?;
    let name = Checkpoint::origin_of(deployment);
    let signer = Signer::new(&name, Kind::Ed25519, &seed).map_err(|e| Problem::usage(format!("{name:?}: {e}")))?;
    write_whole(file, format!("{}\n", signer.secret_text()).as_bytes(), 0o600).map_err(|e| in_file(file, &e))?;
    Ok(signer)
}

fn in_file(file: &Path, cause: &dyn std::fmt::Display) -> Problem {
    Problem::refused(format!("{}: {cause}", file.display()))
}

/// Writes a text to the file or, exactly, to standard output.
fn give(text: &str, file: Option<&Path>, session: &Session, value: &serde_json::Value) -> Result<(), Problem> {
    if let Some(file) = file {
        write_whole(file, text.as_bytes(), 0o644).map_err(|e| in_file(file, &e))?;
    }
    session.out.value_or(value, || match file {
        Some(file) => format!("written to {}", file.display()),
        None => text.trim_end_matches('\n').to_owned(),
    });
    Ok(())
}

/// Runs `checkpoint`.
///
/// # Errors
/// What the platform answers, and a file that cannot be written.
pub async fn checkpoint(session: &Session, caller: Caller, args: CheckpointArgs) -> Result<(), Problem> {
    let request = GetCheckpointRequest { size: args.size.unwrap_or(0) };
    let answer = session.audit(caller).get_checkpoint(request).await?.into_inner();
    let value = json_of("deltran.audit.v1.GetCheckpointResponse", &answer);
    give(&answer.checkpoint.unwrap_or_default().note, args.out.as_deref(), session, &value)
}

/// Runs `checkpoints`.
///
/// # Errors
/// What the platform answers.
pub async fn checkpoints(session: &Session, caller: Caller, args: CheckpointsArgs) -> Result<(), Problem> {
    let client = session.audit(caller);
    let mut keys = Vec::new();
    let (checkpoints, more) = pages(&args.rows, async |page| {
        let request = ListCheckpointsRequest { page, published_only: args.published };
        let answer = client.clone().list_checkpoints(request).await?.into_inner();
        keys = answer.keys;
        Ok((answer.checkpoints, answer.next_page_token))
    })
    .await?;
    if session.out.json {
        let all: Vec<_> = checkpoints.iter().map(|c| json_of("deltran.audit.v1.Checkpoint", c)).collect();
        session.out.value(&json!({ "checkpoints": all, "keys": keys }));
        return Ok(());
    }
    let rows = checkpoints.iter().map(|c| {
        [count(c.size), hex::encode(&c.root), time(&c.signed_at), if c.published { "published" } else { "" }.to_owned()]
    });
    let listed = table(["size", "root", "signed at", ""], rows);
    let keys: String = keys.iter().map(|key| format!("\nkey {key}")).collect();
    say(&format!("{listed}\n{}{keys}", shown(checkpoints.len(), "checkpoints", more)));
    Ok(())
}

/// Runs `prove`.
///
/// # Errors
/// What the platform answers, and files that cannot be read or written.
pub async fn prove(session: &Session, caller: Caller, args: ProveArgs) -> Result<(), Problem> {
    let size = args.size.unwrap_or(0);
    if let Some(event) = &args.event {
        let leaf = event.parse().map_or_else(|_| Leaf::EventId(event.clone()), Leaf::LeafIndex);
        let request = GetInclusionProofRequest { size, leaf: Some(leaf) };
        let answer = session.audit(caller).get_inclusion_proof(request).await?.into_inner();
        let value = json!({
            "leaf_index": answer.leaf_index, "leaf_hash": hex::encode(&answer.leaf_hash), "proof": answer.proof,
            "envelope": String::from_utf8_lossy(&answer.envelope),
        });
        return give(&answer.proof, args.out.as_deref(), session, &value);
    }
    let since = args.since.unwrap_or_default();
    let from = match since.parse() {
        Ok(size) => From::FromSize(size),
        Err(_) => {
            let file = Path::new(&since);
            From::FromCheckpoint(std::fs::read_to_string(file).map_err(|e| in_file(file, &e))?)
        }
    };
    let request = GetConsistencyProofRequest { to_size: size, from: Some(from) };
    let answer = session.audit(caller).get_consistency_proof(request).await?.into_inner();
    let mut hashes = Vec::new();
    for hash in &answer.hashes {
        hashes.push(hash.as_slice().try_into().map_err(|_| Problem::refused("the answer has a hash that is none"))?);
    }
    let old = match answer.from_checkpoint.as_str() {
        "" => 0,
        note => Checkpoint::unchecked(note).map_err(|e| Problem::refused(e.to_string()))?.size,
    };
    let proof = ConsistencyProof { old, hashes, checkpoint: answer.to_checkpoint.clone() };
    let value = json!({
        "from_checkpoint": answer.from_checkpoint, "to_checkpoint": answer.to_checkpoint,
        "hashes": proof.hashes.iter().map(hex::encode).collect::<Vec<_>>(),
    });
    give(&proof.text(), args.out.as_deref(), session, &value)
}

/// Runs `tiles`.
///
/// # Errors
/// What the platform answers, and files that cannot be written.
pub async fn tiles(session: &Session, caller: Caller, args: TilesArgs) -> Result<(), Problem> {
    // Full tiles never change: what a copy has up to its checkpoint is not asked for again.
    let there = std::fs::read_to_string(args.out.join("checkpoint")).ok();
    let from_leaf = there.and_then(|note| Checkpoint::unchecked(&note).ok()).map_or(0, |there| there.size);
    let size = args.size.unwrap_or(0);
    if size != 0 && from_leaf > size {
        let message =
            format!("{} is a copy of {from_leaf} leaves: leave --size out, or give another folder", args.out.display());
        return Err(Problem::refused(message));
    }
    let request = GetTilesRequest { size, from_leaf, hashes_only: args.hashes_only };
    let mut files = session.audit(caller.patient()).get_tiles(request).await?.into_inner();
    let bar = session.out.bar("leaves");
    let (mut written, mut leaves, mut last) = (0u64, 0, String::new());
    while let Some(file) = files.message().await? {
        if !is_log_path(&file.path) {
            return Err(Problem::refused(format!("the platform names a file {:?}, which is none of a log", file.path)));
        }
        let path = args.out.join(&file.path);
        let folder = path.parent().unwrap_or(&args.out);
        std::fs::create_dir_all(folder).map_err(|e| in_file(folder, &e))?;
        write_whole(&path, &file.content, 0o644).map_err(|e| in_file(&path, &e))?;
        bar.set_length(file.leaves_total);
        bar.set_position(file.leaves_done);
        (written, leaves, last) = (written + 1, file.leaves_total, file.path);
    }
    bar.finish_and_clear();
    if last != "checkpoint" {
        return Err(Problem::unavailable("the platform stopped in between: the same command goes on"));
    }
    let value = json!({ "directory": args.out.display().to_string(), "files": written, "leaves": leaves });
    session.out.value_or(&value, || {
        format!("{} files of a log of {} leaves in {}", count(written), count(leaves), args.out.display())
    });
    Ok(())
}

/// Whether a path is one of the files of a log: nothing that the platform answers may lead out of the folder.
fn is_log_path(path: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
    };
    path == "checkpoint" || path.strip_prefix("tile/").is_some_and(|rest| rest.split('/').all(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_folder() {
        for good in ["checkpoint", "tile/0/000", "tile/1/x001/234.p/17", "tile/entries/x001/x234/067"] {
            assert!(is_log_path(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "tile/../../x", "tile/0/.x", "tile//0", "checkpoint/x", "a", "tile/0/a\\b"] {
            assert!(!is_log_path(bad), "{bad}");
        }
    }

    #[test]
    fn a_key_is_made_once_and_only_for_its_owner() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.key");
        let signer = new_key(&file, "frankfurt-1").unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Signer::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(read.verifier(), signer.verifier());
        assert_eq!(read.verifier().name(), "deltran/frankfurt-1/audit");
        assert!(new_key(&file, "frankfurt-1").unwrap_err().message.contains("exists already"));
        assert!(new_key(&folder.path().join("b"), "no name").is_err());
    }
}
