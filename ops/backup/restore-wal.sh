#!/usr/bin/env bash
# Postgres' restore_command: fetches a WAL file out of the archive.
set -euo pipefail
export LC_ALL=C

usage() {
  cat <<'TEXT'
Usage: restore-wal.sh NAME PATH ARCHIVE
Copies NAME (%f) out of the folder ARCHIVE to PATH (%p). Exit code 1 where the archive does not have it, which ends the replay;
200 where the archive cannot be read, which stops the server: a replay must not end early without a word.

Examples:
  restore_command = '/usr/local/lib/deltran/restore-wal.sh %f %p /srv/deltran/wal'
TEXT
}

case "${1:-}" in -h | --help) usage && exit 0 ;; esac
[ $# = 3 ] || { usage >&2 && exit 2; }
name=$1 path=$2 archive=$3
if [ ! -d "$archive" ] || [ ! -r "$archive" ] || [ ! -x "$archive" ]; then
  printf 'restore-wal: the archive %s cannot be read: mount it\n' "$archive" >&2
  exit 200
fi
[ -e "$archive/$name" ] || exit 1
cp -- "$archive/$name" "$path" || exit 200
