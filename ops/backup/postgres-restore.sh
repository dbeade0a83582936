#!/usr/bin/env bash
# Restores a base backup to a moment, into another folder, and leaves a stopped cluster there that is ready to be started.
set -euo pipefail
export LC_ALL=C

usage() {
  cat <<'TEXT'
Usage: postgres-restore.sh --from BACKUP --to FOLDER [--archive FOLDER] MOMENT [--owner USER] [--bin FOLDER] [--drill]
Verifies the backup, copies it, replays WAL out of the archive up to the moment, lets the cluster begin a timeline of its own, and
stops it. FOLDER is there whole or not at all; what is there already is never touched. The replay listens on no port.

  --from BACKUP     a folder that postgres-backup.sh made
  --to FOLDER       the new data folder of Postgres; must not exist. Files that postgresql.conf includes must stand beside it already
  --archive FOLDER  where archive-wal.sh keeps WAL; needed for every moment but --immediate
  MOMENT            --latest, the end of the archive; --time 'YYYY-MM-DD HH:MM:SS+00', the last COMMIT up to then;
                    --name TEXT, a point of pg_create_restore_point; --immediate, the end of the backup
  --owner USER      who runs Postgres; needed as root [the user postgres, as root]
  --bin FOLDER      the programs of Postgres [$DELTRAN_POSTGRES_BIN, else the newest under /usr/lib/postgresql, else PATH]
  --drill           for a copy beside a server that lives on: it never writes into the archive

Examples:
  postgres-restore.sh --from /srv/deltran/backups/base-20260131T020000Z --archive /srv/deltran/wal --to /var/lib/postgresql/restored --latest
  postgres-restore.sh --from /srv/deltran/backups/base-20260131T020000Z --archive /srv/deltran/wal --to /tmp/drill --time '2026-01-31 11:59:00+00' --drill
TEXT
}

die() {
  printf 'postgres-restore: %s\n' "$*" >&2
  exit 1
}
wrong() {
  printf 'postgres-restore: %s (see --help)\n' "$*" >&2
  exit 2
}

from='' to='' archive='' owner='' drill='' bin=${DELTRAN_POSTGRES_BIN:-}
moments=0 target=()
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) usage && exit 0 ;;
    --latest) moments=$((moments + 1)) && shift ;;
    --immediate) moments=$((moments + 1)) target=(-c recovery_target=immediate) && shift ;;
    --drill) drill=yes && shift ;;
    --from | --to | --archive | --time | --name | --owner | --bin)
      [ $# -ge 2 ] && [ -n "$2" ] || wrong "$1 needs a value"
      case "$1" in
        --from) from=${2%/} ;;
        --to) to=${2%/} ;;
        --archive) archive=${2%/} ;;
        --time) moments=$((moments + 1)) target=(-c "recovery_target_time=$2") ;;
        --name) moments=$((moments + 1)) target=(-c "recovery_target_name=$2") ;;
        --owner) owner=$2 ;;
        --bin) bin=$2 ;;
      esac
      shift 2
      ;;
    *) wrong "$1 is not known" ;;
  esac
done
[ -n "$from" ] && [ -n "$to" ] || wrong "name the backup with --from and the new folder with --to"
[ "$moments" = 1 ] || wrong "name one moment: --latest, --time, --name or --immediate"
[ -f "$from/backup_manifest" ] || die "$from is no base backup: it has no backup_manifest"
[ ! -e "$to" ] || die "$to is there already: name a folder that is not"
case "$archive" in
  '') case "${target[*]}" in *=immediate) ;; *) wrong "name the archive with --archive: only --immediate does without" ;; esac ;;
  *\'* | *\"* | *\\* | *%*) die "the archive $archive has a quote, a backslash or a % in its name: mount it elsewhere" ;;
  *) [ -d "$archive" ] || die "the archive $archive is no folder: mount it" ;;
esac
if [ -z "$bin" ]; then
  for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) $(type -aP postgres | sed 's|/[^/]*$||'); do
    [ -x "$folder/postgres" ] && [ -x "$folder/pg_verifybackup" ] && bin=$folder && break
  done
fi
for program in postgres pg_verifybackup pg_controldata; do
  [ -x "$bin/$program" ] || die "$program is not in ${bin:-PATH}: name the folder of Postgres' programs with --bin"
done
version=$("$bin/postgres" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
[ "$(cat "$from/PG_VERSION")" = "$version" ] || die "the backup is of Postgres $(cat "$from/PG_VERSION"), $bin is $version: name another folder with --bin"

as_owner=()
if [ "$(id -u)" = 0 ]; then
  owner=${owner:-postgres}
  id -u "$owner" >/dev/null 2>&1 || die "there is no user $owner: name who runs Postgres with --owner"
  as_owner=(setpriv "--reuid=$(id -u "$owner")" "--regid=$(id -g "$owner")" --clear-groups --)
elif [ -n "$owner" ] && [ "$owner" != "$(id -un)" ]; then
  die "only root can hand files over to $owner"
fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
started=$SECONDS
"$bin/pg_verifybackup" --quiet "$from" || die "$from is not what its manifest says: take an earlier backup"

unfinished=$(dirname "$to")/.$(basename "$to").unfinished
rundir=$(mktemp -d)
server=''
clean() {
  if [ -n "$server" ] && kill -0 "$server" 2>/dev/null; then
    kill -QUIT "$server" && wait "$server" || true
  fi
  rm -rf -- "$unfinished" "$rundir"
}
trap clean EXIT
trap 'exit 1' HUP INT TERM
rm -rf -- "$unfinished"
cp -a -- "$from" "$unfinished"
chmod 0700 "$unfinished"
touch "$unfinished/recovery.signal"
rm -f "$unfinished/standby.signal"
if [ -n "$drill" ]; then
  printf "archive_mode = 'off'\n" >>"$unfinished/postgresql.auto.conf"
fi
cp -- "$here/restore-wal.sh" "$rundir/restore-wal.sh"
chmod 0755 "$rundir/restore-wal.sh"
log=$rundir/log
: >"$log"
if [ ${#as_owner[@]} -gt 0 ]; then
  chown -R "$owner:$(id -gn "$owner")" "$unfinished" "$rundir"
fi

fetch=false
[ -z "$archive" ] || fetch="\"$rundir/restore-wal.sh\" %f %p \"$archive\""
"${as_owner[@]}" "$bin/postgres" -D "$unfinished" -c listen_addresses= -c "unix_socket_directories=$rundir" \
  -c logging_collector=off -c log_destination=stderr -c hot_standby=off -c "restore_command=$fetch" "${target[@]}" \
  -c recovery_target_timeline=latest -c recovery_target_action=promote </dev/null >>"$log" 2>&1 &
server=$!

control() { "$bin/pg_controldata" "$unfinished" 2>/dev/null | sed -n "s/^$1: *//p"; }
# The control file of a backup says "in production" from the beginning. The server's own word counts, which is "ready" once the replay
# is over: without hot_standby it takes no reader before.
until [ "$(sed -n '8s/ *$//p' "$unfinished/postmaster.pid" 2>/dev/null)" = ready ]; do
  if ! kill -0 "$server" 2>/dev/null; then
    wait "$server" || true
    server=''
    die "the replay ended early: $(grep -E 'FATAL|PANIC' "$log" | tail -n 1 | sed 's/^.*\(FATAL\|PANIC\)/\1/'); $(grep -E 'restore-wal:' "$log" | tail -n 1)"
  fi
  sleep 0.2
done
while kill -INT "$server" 2>/dev/null; do
  sleep 0.5
done
wait "$server" || die "the restored server did not stop in order: $(tail -n 1 "$log")"
server=''
[ "$(control 'Database cluster state')" = "shut down" ] || die "the restored cluster is $(control 'Database cluster state'), not shut down"
timeline=$(control "Latest checkpoint's TimeLineID")
reached=$(grep -oE '(recovery stopping|last completed transaction was at log time|redo done).*' "$log" | tail -n 2 | paste -sd ';')
mv -T -- "$unfinished" "$to"
rm -rf -- "$rundir"
trap - EXIT HUP INT TERM
sync -- "$to" "$(dirname "$to")"
printf 'restored: %s in %s s, timeline %s; %s\n' "$(du -sh -- "$to" | cut -f 1)" "$((SECONDS - started))" "$timeline" "$reached"
printf '%s\n' "$to"
