#!/usr/bin/env bash
# Builds the platform and makes faults of every kind under load; the table goes to tests/RESULTS.md.
# DELTRAN_CHAOS_MINUTES and DELTRAN_CHAOS_SEED say how long and which; tests/tests/chaos/main.rs has the others.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export DELTRAN_CHAOS_MINUTES=${DELTRAN_CHAOS_MINUTES:-20} DELTRAN_CHAOS_SEED=${DELTRAN_CHAOS_SEED:-2026}
export DELTRAN_CHAOS_RESULTS=${DELTRAN_CHAOS_RESULTS:-$PWD/tests/RESULTS.md}

# Small file systems are mounted to be filled: an ordinary user does so in a namespace of his own.
inside=()
if [ "$(id -u)" != 0 ] && unshare --user --map-current-user --mount --keep-caps true 2>/dev/null; then
  inside=(unshare --user --map-current-user --mount --keep-caps)
fi

cargo build --workspace --locked --bin deltran
"${inside[@]}" cargo test --workspace --locked --test chaos -- --exact nothing_is_lost_or_doubled_whatever_dies --nocapture
