#!/usr/bin/env python3
"""Checks an export of a DelTran audit ledger by its files alone.

Formats: RFC 6962 (tree), c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-proof, c2sp.org/tlog-witness.
"""
import argparse
import base64
import hashlib
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Wrong(Exception):
    """Something is not as it must be."""


def sha256(*parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def node(left, right):
    return sha256(b"\x01", left, right)


# --- signed notes -----------------------------------------------------------------------------------------------------

def read_key(text):
    """`name+key hash+base64(1 ‖ public key)` as (name, key hash, key)."""
    name, key_hash, key = text.strip().split("+", 2)
    raw = base64.b64decode(key)
    if len(raw) != 33 or raw[0] != 1:
        raise Wrong("a key is no Ed25519 verifier key")
    if sha256(name.encode(), b"\n", raw)[:4].hex() != key_hash:
        raise Wrong("the hash in a key is not that of the key")
    return name, bytes.fromhex(key_hash), Ed25519PublicKey.from_public_bytes(raw[1:])


def open_note(note, keys):
    """The text of a signed note, once one of the keys signed it."""
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    for line in signatures.splitlines():
        if not line.startswith("\u2014 "):
            raise Wrong("a line of signatures is none")
        name, _, encoded = line[2:].partition(" ")
        raw = base64.b64decode(encoded)
        for key_name, key_hash, key in keys:
            if (name, raw[:4]) == (key_name, key_hash):
                try:
                    key.verify(raw[4:], text.encode())
                except InvalidSignature:
                    raise Wrong("a signature does not verify") from None
                return text
    raise Wrong("none of the keys signed it")


def read_checkpoint(note, origin, keys):
    lines = open_note(note, [key for key in keys if key[0] == origin]).split("\n")
    if lines[0] != origin:
        raise Wrong(f"it is of the ledger {lines[0]!r}, not {origin!r}")
    return int(lines[1]), base64.b64decode(lines[2], validate=True)


# --- the tree -----------------------------------------------------------------------------------------------------------

class Tree:
    """The right edge of a growing tree: hashes of full subtrees, largest first."""

    def __init__(self, size=0, hashes=()):
        if bin(size).count("1") != len(hashes):
            raise Wrong(f"a tree of {size} leaves does not have {len(hashes)} full subtrees")
        self.size, self.hashes = size, list(hashes)

    def append(self, leaf):
        at, size = leaf, self.size
        while size & 1:
            at, size = node(self.hashes.pop(), at), size >> 1
        self.hashes.append(at)
        self.size += 1

    def root(self):
        if not self.hashes:
            return sha256()
        at = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            at = node(left, at)
        return at


def root_of_inclusion(index, size, leaf, proof):
    """RFC 9162, section 2.1.3.2."""
    at, last, root = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise Wrong("the proof is too long")
        if at & 1 or at == last:
            root = node(sibling, root)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            root = node(root, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise Wrong("the proof is too short")
    return root


def check_consistency(old, old_root, new, new_root, proof):
    """RFC 9162, section 2.1.4.2."""
    if old == new:
        if old_root != new_root or proof:
            raise Wrong("the root is another")
        return
    if old == 0:
        if proof or old_root != sha256():
            raise Wrong("the empty ledger has another root")
        return
    path = ([old_root] if old & (old - 1) == 0 else []) + proof
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    if not path:
        raise Wrong("the proof is too short")
    was = now = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise Wrong("the proof is too long")
        if at & 1 or at == last:
            was, now = node(sibling, was), node(sibling, now)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            now = node(now, sibling)
        at, last = at >> 1, last >> 1
    if last or was != old_root or now != new_root:
        raise Wrong(f"the ledger of {new} leaves does not begin with that of {old}: one of them was rebuilt")


def read_proof(text, first_line):
    head, _, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if first_line and lines.pop(0) != first_line:
        raise Wrong("its first line is another")
    if lines[0].startswith("extra "):
        lines.pop(0)
    number = int(lines.pop(0).split(" ")[1])
    return number, [base64.b64decode(line, validate=True) for line in lines], checkpoint


# --- counts and totals --------------------------------------------------------------------------------------------------

# ISO 4217: how many digits the minor unit has, where it is not two.
DIGITS = {c: 0 for c in "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split()}
DIGITS |= {c: 3 for c in "BHD IQD JOD KWD LYD OMR TND".split()} | {"CLF": 4, "UYW": 4}
TOTALS = {
    "transaction.created": "committed", "transaction.committed": "committed", "transaction.rejected": "rejected",
    "transaction.cancelled": "cancelled", "transaction.expired": "expired", "deposit.confirmed": "minted",
    "withdrawal.confirmed": "burnt",
}


def minor(amount, currency):
    digits = DIGITS.get(currency, 2)
    whole, _, fraction = str(amount).partition(".")
    if len(fraction.rstrip("0")) > digits:
        raise Wrong(f"{amount} {currency} is no number of minor units")
    return int(whole + fraction[:digits].ljust(digits, "0"))


class Tally:
    def __init__(self):
        self.events = self.invalid = self.tied = 0
        self.types = Counter()
        self.totals = defaultdict(lambda: defaultdict(lambda: [0, 0]))
        self.windows = defaultdict(lambda: [0, 0, None, None])
        self.producers = defaultdict(list)

    def number(self, producer, number):
        ranges = self.producers[producer]
        if ranges and ranges[-1][1] + 1 == number:
            ranges[-1][1] = number
        elif not any(low <= number <= high for low, high in ranges):
            ranges.append([number, number])
            ranges.sort()
            joined = [ranges[0]]
            for low, high in ranges[1:]:
                if joined[-1][1] + 1 == low:
                    joined[-1][1] = high
                else:
                    joined.append([low, high])
            self.producers[producer] = joined

    def add(self, line, beside):
        self.events += 1
        if "invalid" in beside:
            self.invalid += 1
            if "number" in beside:
                self.number(*beside["number"])
            return
        event = json.loads(line)
        self.types[event["event_type"]] += 1
        metadata, data = event.get("metadata", {}), event["data"]
        if "producer" in metadata:
            self.number(metadata["producer"], metadata["producer_seq"])
        if event["source"] != "token-engine":
            return
        kind = event["event_type"]
        if kind == "window.sealed":
            self.windows[data["window_id"]][3] = (data["count"], minor(data["gross"], data["currency"]))
            self.tie(data["window_id"])
        elif kind in TOTALS and (kind != "transaction.created" or data["state"] == "COMMITTED"):
            amount = minor(data["amount"], data["currency"])
            total = self.totals[data["currency"]][TOTALS[kind]]
            total[0] += 1
            total[1] += amount
            if TOTALS[kind] == "committed" and "window_id" in data:
                window = self.windows[data["window_id"]]
                window[0] += 1
                window[1] += amount
                window[2] = min(window[2] or data["window_seq"], data["window_seq"])
                self.tie(data["window_id"])

    def tie(self, name):
        window = self.windows[name]
        if window[3] == (window[0], window[1]):
            del self.windows[name]
            self.tied += 1

    def summary(self, start, whole):
        summary = {
            "events": self.events, "invalid": self.invalid, "types": dict(self.types),
            "totals": {c: {n: {"count": k, "minor": str(m)} for n, (k, m) in sums.items()} for c, sums in self.totals.items()},
            "producers": dict(self.producers),
        }
        if whole:
            before = sum(1 for count, gross, first, sealed in self.windows.values()
                         if sealed and count < sealed[0] and gross <= sealed[1] and start > 0 and first != 1)
            sealed = sum(1 for window in self.windows.values() if window[3])
            if sealed != before:
                raise Wrong("a window does not add up to its seal")
            summary["windows"] = {"tied": self.tied, "begun_before": before, "open": len(self.windows) - sealed, "differences": []}
        return summary


# --- the export -----------------------------------------------------------------------------------------------------------

class Export:
    def __init__(self, folder, keys, since):
        self.folder, self.keys, self.since = folder, keys, since
        self.manifest = json.loads(self.bytes("manifest.json"))
        if self.manifest["version"] != 1:
            raise Wrong(f"the manifest has version {self.manifest['version']}, this program reads version 1")
        self.origin, self.range = self.manifest["origin"], self.manifest["range"]
        self.whole = "filter" not in self.manifest

    def bytes(self, name):
        return (self.folder / name).read_bytes()

    def text(self, name):
        return self.bytes(name).decode()

    def signature(self):
        own = [key for key in self.keys if key[0] == self.origin]
        if not own:
            raise Wrong(f"the export is of the ledger {self.origin!r}, which is not that of the key")
        text = open_note(self.text("manifest.json.sig"), own)
        if text != f"{self.origin}\nexport {sha256(self.bytes('manifest.json')).hex()}\n":
            raise Wrong("it signs another manifest")

    def files(self):
        listed = {"manifest.json", "manifest.json.sig"}
        for entry in self.manifest["files"]:
            listed.add(entry["name"])
            digest = hashlib.sha256()
            with open(self.folder / entry["name"], "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                if (file.tell(), digest.hexdigest()) != (entry["size"], entry["sha256"]):
                    raise Wrong(f"{entry['name']} is not what it was")
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and name not in listed and not name.startswith(("raw/", "proofs/")):
                raise Wrong(f"{name} is not in the manifest")

    def checkpoints(self):
        self.start = read_checkpoint(self.text("checkpoint.start"), self.origin, self.keys)
        self.end = read_checkpoint(self.text("checkpoint.end"), self.origin, self.keys)
        if (self.start[0], self.end[0]) != (self.range["from_leaf"], self.range["to_leaf"]):
            raise Wrong("their sizes are not those of the range")

    def leaves(self):
        size, root = self.start
        tree = Tree(size, [bytes.fromhex(line) for line in self.text("frontier.start").split()])
        if tree.root() != root:
            raise Wrong("frontier.start does not lead to checkpoint.start")
        self.tally, raw, expected = Tally(), 0, size
        with open(self.folder / "events.jsonl", "rb") as events, open(self.folder / "leaves.jsonl", "rb") as besides:
            for line in events:
                beside = json.loads(besides.readline() or b'{"leaf_index": -1}')
                index = beside["leaf_index"]
                if not line.endswith(b"\n") or index < expected or (self.whole and index != expected):
                    raise Wrong(f"leaf {expected}: the files do not go together there")
                expected, line = index + 1, line[:-1]
                leaf = sha256(b"\x00", line)
                if leaf.hex() != beside["leaf_hash"]:
                    raise Wrong(f"leaf {index}: its hash is another")
                tree.append(leaf)
                if beside.get("wrapped"):
                    raw += 1
                    stands, content = json.loads(line)["data"], self.bytes(f"raw/{index}")
                    if (stands["sha256"], stands["size"]) != (sha256(content).hex(), len(content)):
                        raise Wrong(f"leaf {index}: raw/{index} is not what its line says")
                self.tally.add(line, beside)
                if not self.whole:
                    self.proof(index, leaf)
            if besides.read(1):
                raise Wrong("leaves.jsonl has more lines than events.jsonl")
        if len(list(self.folder.glob("raw/*"))) != raw:
            raise Wrong("raw has files that belong to no leaf")
        if self.whole and (tree.size, tree.root()) != self.end:
            raise Wrong("the leaves do not lead to checkpoint.end")

    def proof(self, index, leaf):
        at, hashes, checkpoint = read_proof(self.text(f"proofs/{index}.tlog-proof"), "c2sp.org/tlog-proof@v1")
        if at != index or read_checkpoint(checkpoint, self.origin, self.keys) != self.end:
            raise Wrong(f"leaf {index}: its proof is that of another leaf or ledger")
        if root_of_inclusion(index, self.end[0], leaf, hashes) != self.end[1]:
            raise Wrong(f"leaf {index}: its proof does not lead to the root")

    def totals(self):
        found = self.tally.summary(self.range["from_leaf"], self.whole)
        for name, value in found.items():
            if self.manifest["summary"].get(name) != value:
                raise Wrong(f"{name}: the files give {value}, the manifest says {self.manifest['summary'].get(name)}")

    def completeness(self):
        if not self.whole:
            return
        for producer, ranges in self.tally.producers.items():
            if len(ranges) > 1:
                raise Wrong(f"{producer}: numbers are missing between {ranges}")

    def consistency(self):
        if self.since is None:
            if "since" in self.manifest:
                raise Wrong("since.proof needs the checkpoint that you held: give --since")
            return
        held = read_checkpoint(self.since, self.origin, self.keys)
        for own in (self.start, self.end):
            if own[0] == held[0]:
                return check_consistency(*held, *own, [])
        old, hashes, checkpoint = read_proof(self.text("since.proof"), None)
        if old != held[0] or read_checkpoint(checkpoint, self.origin, self.keys) != self.end:
            raise Wrong("since.proof is of other checkpoints")
        check_consistency(*held, *self.end, hashes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--key", action="append", required=True, help="verifier key, or a file with some, a line each")
    parser.add_argument("--since", type=Path, help="a checkpoint that you hold")
    args = parser.parse_args()
    failed = 0
    try:
        lines = []
        for key in args.key:
            lines += Path(key).read_text().split() if Path(key).is_file() else [key]
        export = Export(args.folder, [read_key(line) for line in lines], args.since and args.since.read_text())
    except (Wrong, OSError, ValueError, KeyError) as error:
        print(f"{args.folder}: {error}", file=sys.stderr)
        return 1
    for name in ("signature", "files", "checkpoints", "leaves", "totals", "completeness", "consistency"):
        try:
            getattr(export, name)()
            print(f"{name:<13} ok")
        except (Wrong, OSError, ValueError, KeyError, AttributeError) as error:
            failed = 1
            print(f"{name:<13} FAILED: {error}")
    print("NOT verified" if failed else f"verified: {export.manifest['proves']}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
