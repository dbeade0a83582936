//! `README.txt`: how to check an export with standard tools.

use super::manifest::Manifest;

/// Its text.
pub fn readme(manifest: &Manifest) -> String {
    let range = &manifest.range;
    let head = format!(
        "Export of the audit ledger {}, leaves {} up to but without {}. It proves: {}.\n\n",
        manifest.origin, range.from_leaf, range.to_leaf, manifest.proves
    );
    let files = concat!(
        " 1. Every file is in manifest.json with its SHA-256 (`sha256sum FILE`); manifest.json.sig is a signed note (c2sp.org/signed-note) over its SHA-256.\n",
        " 2. Check signatures with the ledger's public key, obtained from the operator by another way: `deltran audit checkpoints` prints it.\n",
        " 3. events.jsonl holds the exact bytes of each event, one line each; leaves.jsonl its index, hash, subject, and time of recording beside it.\n",
        " 4. A leaf's hash is SHA-256 of a zero byte and the line without its line feed; an inner node's is SHA-256 of a byte of one and both hashes (RFC 6962).\n",
    );
    let whole = concat!(
        " 5. frontier.start holds the hashes of the full subtrees before the range, largest first; hashed together from the right they are the root in checkpoint.start.\n",
        " 6. Append the hash of each line of events.jsonl to them as RFC 6962 does: the root at the end is the one in checkpoint.end, or something was changed.\n",
        " 7. The checkpoints are signed notes too (c2sp.org/tlog-checkpoint): ledger, size, root in base64, and signatures. Keep checkpoint.end for the next time.\n",
    );
    let filtered = concat!(
        " 5. proofs/<leaf_index>.tlog-proof shows for each line that it stands in the ledger of checkpoint.end (c2sp.org/tlog-proof). This proves inclusion,\n",
        " 6. not completeness: `left_out` in manifest.json has the numbers of the producers' events in this range that are not in these files.\n",
        " 7. The checkpoint is a signed note too (c2sp.org/tlog-checkpoint): ledger, size, root in base64, and signatures. Keep it for the next time.\n",
    );
    let end = concat!(
        " 8. since.proof, if there, shows that checkpoint.end continues the checkpoint that you held (RFC 6962, 2.1.2; form of c2sp.org/tlog-witness).\n",
        " 9. Producers number their events 1, 2, 3, …: `producers` in manifest.json has no gap, a window's seal is the sum of its transactions, and `totals` of every leaf from 0 on are the token ledger's own at the last number of `token-engine`.\n",
        "10. `deltran audit verify DIR --key KEY` does all this, and so does examples/verify_export/verify_export.py, which is short enough to read.\n",
    );
    head + files + if manifest.filter.is_some() { filtered } else { whole } + end
}
