#!/usr/bin/env bash
# Snapshots of every stream of the broker, with its consumers, in a folder that is there whole or not at all.
set -euo pipefail
export LC_ALL=C

usage() {
  cat <<'TEXT'
Usage: streams-backup.sh --to FOLDER
Makes FOLDER/streams-<UTC time> with `deltran streams backup` while everything runs. The broker is that of NATS_URL or
DELTRAN_NATS_URL, else the one that deltran.toml or ./data/endpoint.json names. DELTRAN names the program where it is not on PATH. The
last line of the output is the folder.

Examples:
  NATS_URL=nats://10.0.0.7:4222 streams-backup.sh --to /srv/deltran/backups
TEXT
}

die() {
  printf 'streams-backup: %s\n' "$*" >&2
  exit 1
}
wrong() {
  printf 'streams-backup: %s (see --help)\n' "$*" >&2
  exit 2
}

to=''
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) usage && exit 0 ;;
    --to)
      [ $# -ge 2 ] || wrong "$1 needs a value"
      to=$2 && shift 2
      ;;
    *) wrong "$1 is not known" ;;
  esac
done
[ -n "$to" ] || wrong "name the folder of backups with --to"
[ -d "$to" ] || die "$to is no folder: create or mount it"
program=${DELTRAN:-deltran}
type -P "$program" >/dev/null || die "$program is not on PATH: name the program in DELTRAN"
[ -z "${NATS_URL:-}" ] || export DELTRAN_NATS_URL=$NATS_URL
folder=$to/streams-$(date -u +%Y%m%dT%H%M%SZ)
"$program" streams backup "$folder" || die "no backup was made"
printf '%s\n' "$folder"
