#!/usr/bin/env bash
# Postgres' archive_command: keeps a finished WAL file in the archive, durably, and never overwrites one.
set -euo pipefail
export LC_ALL=C

usage() {
  cat <<'TEXT'
Usage: archive-wal.sh PATH NAME ARCHIVE
Copies the WAL file PATH (%p) as NAME (%f) into the folder ARCHIVE. Done means: file and folder are on the disk.
A file that is there already with the same content is fine; with other content it is refused, for ever.

Examples:
  archive_command = '/usr/local/lib/deltran/archive-wal.sh %p %f /srv/deltran/wal'
  archive-wal.sh pg_wal/000000010000000000000003 000000010000000000000003 /srv/deltran/wal
TEXT
}

die() {
  printf 'archive-wal: %s\n' "$*" >&2
  exit 1
}

case "${1:-}" in -h | --help) usage && exit 0 ;; esac
[ $# = 3 ] || { usage >&2 && exit 2; }
source=$1 name=$2 archive=$3
[ -f "$source" ] || die "$source is no file"
[ -d "$archive" ] || die "the archive $archive is no folder: create or mount it"
case "$name" in */* | .* | '') die "$name is no name of a WAL file" ;; esac
target=$archive/$name

same() {
  cmp -s -- "$source" "$target" || die "$target is there already with other content: does another server write into this archive?"
  # Whoever wrote it may not have come so far as to make it durable.
  sync -- "$target" "$archive"
}

if [ -e "$target" ]; then
  same
  exit 0
fi
unfinished=$(mktemp -- "$archive/.$name.XXXXXX")
trap 'rm -f -- "$unfinished"' EXIT
cp -- "$source" "$unfinished"
chmod 0640 "$unfinished"
sync -- "$unfinished"
# A link is refused where the name was taken meanwhile: nothing is ever overwritten.
ln -T -- "$unfinished" "$target" 2>/dev/null || { [ -e "$target" ] || die "$target cannot be made" && same; }
sync -- "$archive"
