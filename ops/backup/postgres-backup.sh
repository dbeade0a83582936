#!/usr/bin/env bash
# A base backup of the whole Postgres cluster, verified, in a folder that is there whole or not at all.
set -euo pipefail
export LC_ALL=C

usage() {
  cat <<'TEXT'
Usage: postgres-backup.sh --to FOLDER [--label TEXT] [--bin FOLDER]
Makes FOLDER/base-<UTC time> with pg_basebackup while everything runs, with the WAL that makes it whole, and checks every file with
pg_verifybackup. The server is that of PGHOST, PGPORT, PGUSER, the password that of PGPASSFILE, ~/.pgpass or PGPASSWORD: never an
argument. The user needs the right REPLICATION. The last line of the output is the folder.

  --to FOLDER     where backups are kept; on another disk than the database
  --label TEXT    a note in the backup [deltran]
  --bin FOLDER    the programs of Postgres [$DELTRAN_POSTGRES_BIN, else PATH, else the newest under /usr/lib/postgresql]

Examples:
  PGHOST=db1 PGUSER=backup postgres-backup.sh --to /srv/deltran/backups
  PGHOST=127.0.0.1 PGPORT=5432 PGUSER=postgres PGPASSFILE=/etc/deltran/backup.pgpass postgres-backup.sh --to /srv/deltran/backups --label "before 2.0"
TEXT
}

die() {
  printf 'postgres-backup: %s\n' "$*" >&2
  exit 1
}
wrong() {
  printf 'postgres-backup: %s (see --help)\n' "$*" >&2
  exit 2
}

to='' label=deltran bin=${DELTRAN_POSTGRES_BIN:-}
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) usage && exit 0 ;;
    --to | --label | --bin)
      [ $# -ge 2 ] || wrong "$1 needs a value"
      case "$1" in --to) to=$2 ;; --label) label=$2 ;; --bin) bin=$2 ;; esac
      shift 2
      ;;
    *) wrong "$1 is not known" ;;
  esac
done
[ -n "$to" ] || wrong "name the folder of backups with --to"
[ -d "$to" ] || die "$to is no folder: create or mount it"

# pg_verifybackup is not among what distributions put on PATH.
if [ -z "$bin" ]; then
  for folder in $(type -aP pg_verifybackup | sed 's|/[^/]*$||') $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV); do
    [ -x "$folder/pg_verifybackup" ] && [ -x "$folder/pg_basebackup" ] && bin=$folder && break
  done
fi
[ -x "$bin/pg_basebackup" ] && [ -x "$bin/pg_verifybackup" ] || die "pg_basebackup and pg_verifybackup are not in ${bin:-PATH}: name their folder with --bin"

name=base-$(date -u +%Y%m%dT%H%M%SZ)
[ ! -e "$to/$name" ] || die "$to/$name is there already: try again in a second"
unfinished=$to/.$name.unfinished
trap 'rm -rf -- "$unfinished"' EXIT
started=$SECONDS
"$bin/pg_basebackup" --no-password --pgdata="$unfinished" --format=plain --wal-method=stream --checkpoint=fast \
  --manifest-checksums=SHA256 --label="$label" || die "pg_basebackup failed: is the server reachable, and may the user replicate?"
"$bin/pg_verifybackup" --quiet "$unfinished" || die "the backup is not what its manifest says: look at the disk of $to"
mv -T -- "$unfinished" "$to/$name"
trap - EXIT
sync -- "$to"
printf 'backed up and verified: %s in %s s\n' "$(du -sh -- "$to/$name" | cut -f 1)" "$((SECONDS - started))"
printf '%s\n' "$to/$name"
