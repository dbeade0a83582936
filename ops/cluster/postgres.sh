#!/usr/bin/env bash
# Primary and synchronous standby: makes them, promotes, fences, joins again. Starting and stopping the servers is left to
# whoever runs services on the host: the server is `postgres -D FOLDER`.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

help() {
  cat <<'TEXT'
postgres.sh COMMAND --data FOLDER [OPTIONS]     as the user that Postgres runs as; `ops/runbooks/cluster.md` says when

  init    --name NAME --port PORT [--host ADDRESS] [--network CIDR]
            A new primary. Asks for no password: PGPASSFILE has those of `postgres` and `deltran_replication`.
  join    --name NAME --port PORT --primary HOST:PORT [--host ADDRESS] [--rewind]
            Makes FOLDER the standby of a primary that runs: by a base backup into a folder that is not there; with
            --rewind by pg_rewind of an old primary, which keeps its files and is much quicker.
  fence     The old primary, before anything is promoted: stops it, and lets it never start as a primary again.
  promote --fenced [--alone]
            Makes the standby the primary. --fenced is your word that the old primary cannot come back as a second one;
            --alone lets it acknowledge without a second copy until there is a standby again.
  alone     Acknowledge without a second copy from now on.
  pair      Acknowledge with a second copy only, from now on: once the standby has joined.
  status    One line: primary or standby, timeline, who follows and how far.

Options: --data FOLDER, the data folder of the server. PG_BIN, the folder of the Postgres programs [default: those on PATH].
Exit codes: 0 done, 1 refused or failed, 2 wrong usage.

Examples:
  PGPASSFILE=/etc/deltran/pgpass postgres.sh init --data /srv/pg --name a --port 5432 --host 10.0.0.4 --network 10.0.0.0/24
  PGPASSFILE=/etc/deltran/pgpass postgres.sh join --data /srv/pg --name b --port 5432 --host 10.0.0.5 --primary 10.0.0.4:5432
  postgres.sh fence --data /srv/pg                                # on the old primary, or cut its power
  postgres.sh promote --data /srv/pg --fenced --alone             # on the standby
  PGPASSFILE=/etc/deltran/pgpass postgres.sh join --data /srv/pg --name a --port 5432 --primary 10.0.0.5:5432 --rewind
  postgres.sh pair --data /srv/pg                                 # on the new primary
TEXT
}

refuse() { printf 'postgres.sh: %s\n' "$*" >&2; exit 1; }
usage() { printf 'postgres.sh: %s; see --help\n' "$*" >&2; exit 2; }

program() {
  local found=${PG_BIN:+$PG_BIN/}$1
  command -v "$found" >/dev/null || refuse "$found is not there: PG_BIN names the folder of the Postgres programs"
  printf '%s' "$found"
}

# The servers' own words go to standard error; nothing but results to standard output.
pg() { local it; it=$(program "$1"); shift; "$it" "$@" >&2; }

setting() { sed -n "s/^$1 = '\(.*\)'\$/\1/p" "$data/node.conf"; }

sql() { # a statement on the server of the data folder; from standard input, since it may hold a password
  local psql
  [ -r "$data/node.conf" ] || refuse "$data was not made by postgres.sh: it has no node.conf"
  psql=$(program psql)
  "$psql" -X -q -A -t -w -v ON_ERROR_STOP=1 -h "$(setting listen_addresses)" -p "$(setting port)" -U postgres -d postgres <<<"$1"
}

running() { "$(program pg_ctl)" status -D "$data" >/dev/null 2>&1; }

# What differs between the two: name, addresses, and whom to follow when this one is a standby.
settings() {
  local conninfo=
  if [ -n "$primary" ]; then
    # The password comes from PGPASSFILE: neither a command line nor a setting shows it.
    conninfo="host=${primary%:*} port=${primary##*:} user=deltran_replication passfile=$PGPASSFILE connect_timeout=3"
  fi
  cp "$here/postgresql.conf" "$data/deltran.conf"
  cat >"$data/node.conf" <<TEXT
# Written by postgres.sh.
cluster_name = '$name'
listen_addresses = '$host'
port = '$port'
unix_socket_directories = ''
primary_conninfo = '$conninfo'
TEXT
  if ! grep -q '^include .deltran.conf.$' "$data/postgresql.conf"; then
    printf "\ninclude 'deltran.conf'\ninclude 'node.conf'\n" >>"$data/postgresql.conf"
  fi
}

init() {
  [ ! -e "$data" ] || refuse "$data is there already: nothing is made over it"
  local secret password
  password=$(awk -F: '$4 == "postgres" { print $5; exit }' "$PGPASSFILE")
  secret=$(awk -F: '$4 == "deltran_replication" { print $5; exit }' "$PGPASSFILE")
  [ -n "$password" ] && [ -n "$secret" ] || refuse "$PGPASSFILE has no line for postgres, or none for deltran_replication"
  pg initdb -D "$data" -U postgres --auth=scram-sha-256 --encoding=UTF8 --locale=C --data-checksums \
    --pwfile=<(printf '%s\n' "$password")
  settings
  if [ -n "$network" ]; then
    printf 'host all all %s scram-sha-256\nhost replication deltran_replication %s scram-sha-256\n' "$network" "$network" \
      >>"$data/pg_hba.conf"
  fi
  pg pg_ctl start -w -D "$data" -l "$data/init.log" -o "-c synchronous_standby_names=''"
  # What pg_rewind reads with, besides the replication itself.
  sql "DO \$\$ BEGIN EXECUTE format('CREATE ROLE deltran_replication LOGIN REPLICATION PASSWORD %L', '$secret'); END \$\$;
    GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), pg_read_binary_file(text),
      pg_read_binary_file(text, bigint, bigint, boolean) TO deltran_replication;" ||
    { pg pg_ctl stop -D "$data" -m fast; refuse "the role deltran_replication was not made"; }
  sql 'CREATE DATABASE deltran'
  pg pg_ctl stop -w -D "$data" -m fast
}

join() {
  [ -n "$primary" ] || usage "join needs --primary HOST:PORT"
  if [ -n "$rewind" ]; then
    [ -e "$data/PG_VERSION" ] || refuse "$data holds no cluster to rewind: leave --rewind away"
    ! running || refuse "the server of $data runs: fence it first"
    program pg_rewind >/dev/null
    # pg_rewind ends the crash recovery itself, which it cannot under the mark.
    rm -f "$data/standby.signal"
    pg pg_rewind --target-pgdata="$data" \
      --source-server="host=${primary%:*} port=${primary##*:} user=deltran_replication dbname=postgres" ||
      { : >"$data/standby.signal"; refuse "$data was not rewound: remove it, and join without --rewind"; }
    # It has copied these of the primary, which may stand alone.
    rm -f "$data/postgresql.auto.conf"
    : >"$data/postgresql.auto.conf"
  else
    [ ! -e "$data" ] || refuse "$data is there already: remove it, or join with --rewind"
    pg pg_basebackup -D "$data" -X stream -c fast -w -h "${primary%:*}" -p "${primary##*:}" -U deltran_replication
    : >"$data/postgresql.auto.conf"
  fi
  settings
  : >"$data/standby.signal"
}

fence() {
  [ -e "$data/PG_VERSION" ] || refuse "$data holds no cluster"
  # First the mark: whoever starts it from now on starts a standby.
  : >"$data/standby.signal"
  sync "$data/standby.signal" "$data"
  if running; then pg pg_ctl stop -w -D "$data" -m immediate; fi
}

promote() {
  [ -n "$fenced" ] || refuse "say --fenced once the old primary cannot come back: two primaries are two ledgers"
  running || refuse "the server of $data does not run"
  [ "$(sql 'SELECT pg_is_in_recovery()')" = t ] || refuse "the server of $data is no standby"
  if [ -n "$alone" ]; then alone; fi
  pg pg_ctl promote -w -D "$data"
  # pg_rewind of the old primary looks for the new timeline where only a checkpoint writes it.
  sql CHECKPOINT
}

alone() {
  sql "ALTER SYSTEM SET synchronous_standby_names = ''"
  sql 'SELECT pg_reload_conf()' >/dev/null
}

pair() {
  [ "$(sql "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")" -gt 0 ] ||
    refuse "no standby follows: every COMMIT would wait"
  sql 'ALTER SYSTEM RESET synchronous_standby_names'
  sql 'SELECT pg_reload_conf()' >/dev/null
}

status() {
  if ! running; then printf '%s: does not run\n' "$data"; return; fi
  if [ "$(sql 'SELECT pg_is_in_recovery()')" = t ]; then
    sql "SELECT 'standby ' || current_setting('cluster_name') || ', replayed to ' || coalesce(pg_last_wal_replay_lsn()::text, '?')"
  else
    sql "SELECT 'primary ' || current_setting('cluster_name') || ', timeline ' || left(pg_walfile_name(pg_current_wal_lsn()), 8)
      || ', at ' || pg_current_wal_lsn() || ', followed by ' || coalesce((SELECT string_agg(application_name || ' (' ||
      sync_state || ', flushed ' || coalesce(flush_lsn::text, '?') || ')', ', ') FROM pg_stat_replication), 'nobody')"
  fi
}

[ $# -gt 0 ] || { help; exit 2; }
command=$1
shift
data= name= port= host=127.0.0.1 network= primary= rewind= fenced= alone=
while [ $# -gt 0 ]; do
  case $1 in
    --data | --name | --port | --host | --network | --primary)
      [ $# -gt 1 ] || usage "$1 needs a value"
      declare "${1#--}=$2"
      shift
      ;;
    --rewind | --fenced | --alone) declare "${1#--}=yes" ;;
    -h | --help) help; exit 0 ;;
    *) usage "$1 is no option" ;;
  esac
  shift
done

case $command in
  -h | --help | help) help; exit 0 ;;
  init | join)
    [ -n "$data" ] && [ -n "$name" ] && [ -n "$port" ] || usage "$command needs --data, --name and --port"
    [[ $name =~ ^[abc]$ ]] || usage "--name $name: a, b or c, the names that postgresql.conf waits for"
    [[ $port =~ ^[0-9]+$ ]] || usage "--port $port is no number"
    [ -z "$primary" ] || [[ $primary =~ ^[^:]+:[0-9]+$ ]] || usage "--primary $primary is not HOST:PORT"
    [ -r "${PGPASSFILE:-}" ] || refuse "PGPASSFILE=${PGPASSFILE:-} cannot be read: it has the passwords, in Postgres' own form"
    export PGPASSFILE
    "$command"
    ;;
  fence | promote | alone | pair | status)
    [ -n "$data" ] || usage "$command needs --data"
    "$command"
    ;;
  *) usage "$command is no command" ;;
esac
