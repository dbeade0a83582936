#!/usr/bin/env bash
# Builds everything, then runs every test beside a private Postgres and with a real broker, and leaves nothing behind.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}

# With all targets at once, so that the tests below find everything built, `deltran` as well.
cargo build --workspace --all-targets --locked

data=$(mktemp -d "${TMPDIR:-/tmp}/deltran-test.XXXXXX")
trap 'rm -rf "$data"' EXIT
# As root, Postgres runs as another user, who must be able to pass through.
chmod 755 "$data"

"$target/debug/deltran" services --data "$data" -- cargo test --workspace --locked
