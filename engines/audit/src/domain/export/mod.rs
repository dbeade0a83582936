//! What an export is: its files, what they say in sum, and how they are written. Exporter and verifier share all of it,
//! so that what one claims is what the other computes.

pub mod beside;
pub mod cells;
pub mod columnar;
pub mod line;
pub mod manifest;
pub mod readme;
pub mod tally;
pub mod windows;

/// Range, counts, totals, and every other file with its size and hash.
pub const MANIFEST: &str = "manifest.json";
/// A signed note over the manifest's hash.
pub const SIGNATURE: &str = "manifest.json.sig";
/// The signed checkpoint of the size at which the range begins.
pub const START: &str = "checkpoint.start";
/// The signed checkpoint of the size at which the range ends.
pub const END: &str = "checkpoint.end";
/// The subtree hashes of the first checkpoint.
pub const FRONTIER: &str = "frontier.start";
/// The exact bytes, a line each.
pub const EVENTS: &str = "events.jsonl";
/// What no envelope says: index, hash, subject, time and place of recording, and why an event is not valid; a line each.
pub const BESIDE: &str = "leaves.jsonl";
/// Flattened for people.
pub const CSV: &str = "events.csv";
/// Flattened for analysis.
pub const PARQUET: &str = "events.parquet";
/// How to check it.
pub const README: &str = "README.txt";
/// The consistency with a checkpoint that the receiver held.
pub const SINCE: &str = "since.proof";
/// Folder of the bytes of messages that wrappers stand for, by leaf index.
pub const RAW: &str = "raw";
/// Folder of inclusion proofs of a filtered export, by leaf index.
pub const PROOFS: &str = "proofs";

/// The file of a wrapped message's bytes.
pub fn raw_file(leaf: u64) -> String {
    format!("{RAW}/{leaf}")
}

/// The file of a leaf's inclusion proof.
pub fn proof_file(leaf: u64) -> String {
    format!("{PROOFS}/{leaf}.tlog-proof")
}

/// Whether a name is one that an export can have: nothing that a sender names may lead out of a folder.
pub fn is_export_file(name: &str) -> bool {
    let leaf = |text: &str| text.parse::<u64>().is_ok_and(|n| n.to_string() == text);
    let named = [MANIFEST, SIGNATURE, START, END, FRONTIER, EVENTS, BESIDE, CSV, PARQUET, README, SINCE];
    named.contains(&name)
        || name.strip_prefix("raw/").is_some_and(leaf)
        || name.strip_prefix("proofs/").and_then(|rest| rest.strip_suffix(".tlog-proof")).is_some_and(leaf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_folder() {
        for good in [MANIFEST, EVENTS, &raw_file(0), &proof_file(17)] {
            assert!(is_export_file(good), "{good}");
        }
        for bad in [
            "",
            "../events.jsonl",
            "raw/../x",
            "raw/",
            "raw/01",
            "raw/+1",
            "proofs/1",
            "proofs/1.tlog-proof/x",
            "/etc/passwd",
        ] {
            assert!(!is_export_file(bad), "{bad}");
        }
    }
}
