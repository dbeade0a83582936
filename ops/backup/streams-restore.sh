#!/usr/bin/env bash
# Creates the streams and consumers of a backup on a broker that has none.
set -euo pipefail
export LC_ALL=C

usage() {
  cat <<'TEXT'
Usage: streams-restore.sh --from BACKUP
Checks every file of the backup, then creates its streams and consumers with `deltran streams restore` on the broker of NATS_URL or
DELTRAN_NATS_URL, whose store must be empty. Engines must not run. DELTRAN names the program where it is not on PATH.

Examples:
  NATS_URL=nats://10.0.0.8:4222 streams-restore.sh --from /srv/deltran/backups/streams-20260131T020000Z
TEXT
}

die() {
  printf 'streams-restore: %s\n' "$*" >&2
  exit 1
}
wrong() {
  printf 'streams-restore: %s (see --help)\n' "$*" >&2
  exit 2
}

from=''
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) usage && exit 0 ;;
    --from)
      [ $# -ge 2 ] || wrong "$1 needs a value"
      from=$2 && shift 2
      ;;
    *) wrong "$1 is not known" ;;
  esac
done
[ -n "$from" ] || wrong "name the backup with --from"
[ -f "$from/manifest.json" ] || die "$from is no backup of streams: it has no manifest.json"
[ -n "${NATS_URL:-}${DELTRAN_NATS_URL:-}" ] || die "name the broker in NATS_URL: it is not guessed where streams are created"
program=${DELTRAN:-deltran}
type -P "$program" >/dev/null || die "$program is not on PATH: name the program in DELTRAN"
[ -z "${NATS_URL:-}" ] || export DELTRAN_NATS_URL=$NATS_URL
"$program" streams restore "$from" || die "not everything was restored: empty the broker's store and try again"
