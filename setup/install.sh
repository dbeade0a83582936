#!/usr/bin/env bash
# Finds what DelTran needs, installs what is missing, and says in one line each where it is: a broker (nats-server), the
# programs of a Postgres server, cargo and a C compiler. Runs as root and as an ordinary user, as often as you like.
# It writes into .tools/ of the project only, except that as root it may install Postgres with apt-get.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
tools=$root/.tools

nats_version=2.15.2      # built where no adequate one is found
go_version=1.26          # at least, to build it
postgres_major=15        # at least
rust_version=1.95        # at least
missing=0

found() { printf 'found      %s\n' "$*"; }
installed() { printf 'installed  %s\n' "$*"; }
wanting() {
  printf 'missing    %s\n' "$*" >&2
  missing=1
}

# The first number with dots in the arguments.
number() { sed -n 's/^[^0-9]*\([0-9][0-9.]*\).*/\1/p' <<<"$*" | head -n 1; }

# at_least 1.96.0 1.95
at_least() {
  local have=() want=() i
  IFS=. read -r -a have <<<"$1"
  IFS=. read -r -a want <<<"$2"
  for ((i = 0; i < ${#want[@]}; i++)); do
    ((10#${have[i]:-0} > 10#${want[i]})) && return 0
    ((10#${have[i]:-0} < 10#${want[i]})) && return 1
  done
  return 0
}

# --- the broker ------------------------------------------------------------------------------------------------------

# 2.12.7 or a later 2.12, or 2.14 or later: earlier ones let a user pass over the permissions of its account.
nats_adequate() { at_least "$1" 2.14 || { at_least "$1" 2.12.7 && ! at_least "$1" 2.13; }; }

nats_candidates() {
  if [ -n "${DELTRAN_NATS_SERVER:-}" ]; then
    echo "$DELTRAN_NATS_SERVER"
  else
    type -aP nats-server || true
    printf '%s/nats-server\n' /usr/local/bin /usr/sbin /usr/bin /opt/homebrew/bin "${HOME:-/nonexistent}/go/bin" "$tools/bin"
  fi
}

find_nats() {
  local candidate version
  while read -r candidate; do
    [ -x "$candidate" ] || continue
    version=$(number "$("$candidate" --version 2>/dev/null || true)")
    if [ -n "$version" ] && nats_adequate "$version"; then
      echo "$version at $candidate"
      return 0
    fi
  done < <(nats_candidates)
  return 1
}

# With caches and counters of its own, so that nothing is written into the home folder; what the usual module cache holds
# is used first. The sources are checked against Go's checksum database, so the version pins their content.
build_nats() {
  command -v go >/dev/null || return 1
  local log=$tools/nats-build.log
  mkdir -p "$tools/bin"
  if ! (
    # Go counts its own use below the configuration folder; the user's settings stay in force.
    if [ "$(uname)" = Linux ]; then
      export GOENV=${GOENV:-${XDG_CONFIG_HOME:-${HOME:-/nonexistent}/.config}/go/env} XDG_CONFIG_HOME=$tools/go/config
    fi
    cache=$(go env GOMODCACHE)
    GOPROXY=file://$cache/cache/download,$(go env GOPROXY)
    export GOPROXY GOBIN=$tools/bin GOPATH=$tools/go GOMODCACHE=$tools/go/mod GOCACHE=$tools/go/cache
    export CGO_ENABLED=0 GOFLAGS='-modcacherw -trimpath'
    unset GOOS GOARCH
    go install "github.com/nats-io/nats-server/v2@v$nats_version"
  ) >"$log" 2>&1; then
    printf 'go could not build nats-server %s: %s\n' "$nats_version" "$(tail -n 1 "$log")" >&2
    return 1
  fi
  rm -rf "$tools/go" "$log"
}

broker() {
  local where
  if where=$(find_nats); then
    found "nats-server $where"
  elif [ -n "${DELTRAN_NATS_SERVER:-}" ]; then
    wanting "DELTRAN_NATS_SERVER=$DELTRAN_NATS_SERVER is no adequate nats-server: unset it, or name 2.12.7+ or 2.14+"
  elif build_nats && where=$(find_nats); then
    installed "nats-server $where"
  else
    wanting "nats-server: install Go $go_version+ (https://go.dev/dl) and run this again, or put nats-server 2.12.7+ or 2.14+ on PATH (no release is downloaded here: its digest is not pinned)"
  fi
}

# --- Postgres --------------------------------------------------------------------------------------------------------

postgres_folders() {
  if [ -n "${DELTRAN_POSTGRES_BIN:-}" ]; then
    echo "$DELTRAN_POSTGRES_BIN"
  else
    type -aP initdb | sed 's|/initdb$||' || true
    local folder
    for folder in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin \
      /Applications/Postgres.app/Contents/Versions/*/bin /usr/local/pgsql/bin; do
      echo "$folder"
    done
  fi
}

find_postgres() {
  local folder version
  while read -r folder; do
    [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ] && [ -x "$folder/pg_ctl" ] || continue
    version=$(number "$("$folder/postgres" --version 2>/dev/null || true)")
    if [ -n "$version" ] && at_least "$version" "$postgres_major"; then
      echo "$version in $folder"
      return 0
    fi
  done < <(postgres_folders)
  return 1
}

apt_postgres() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  local log=$tools/apt.log
  mkdir -p "$tools"
  if ! apt_install >"$log" 2>&1; then
    printf 'apt-get could not install postgresql: %s\n' "$(tail -n 1 "$log")" >&2
    return 1
  fi
  rm -f "$log"
}

# The server's package would make and start a cluster of the system's, which would take the usual port. A setting of the
# common part, installed first, prevents it; it is set for this time only and put back whatever happens.
apt_install() (
  export DEBIAN_FRONTEND=noninteractive
  setting=/etc/postgresql-common/createcluster.conf
  apt-get update && apt-get install -y --no-install-recommends postgresql-common || return 1
  if [ -f "$setting" ]; then
    before=$(cat "$setting" && echo .) || return 1
    trap 'printf %s "${before%.}" >"$setting"' EXIT
    printf '\ncreate_main_cluster = false\n' >>"$setting" || return 1
  fi
  apt-get install -y --no-install-recommends postgresql
)

database() {
  local where
  if where=$(find_postgres); then
    found "Postgres $where"
  elif [ -n "${DELTRAN_POSTGRES_BIN:-}" ]; then
    wanting "DELTRAN_POSTGRES_BIN=$DELTRAN_POSTGRES_BIN holds no Postgres $postgres_major+: unset it, or name the folder of initdb"
  elif apt_postgres && where=$(find_postgres); then
    installed "Postgres $where"
  else
    wanting "Postgres $postgres_major+ server: 'apt-get install postgresql' as root, 'dnf install postgresql-server', or 'brew install postgresql@17'"
  fi
}

# --- the compilers ---------------------------------------------------------------------------------------------------

compilers() {
  local cargo version
  cargo=$(command -v cargo || true)
  version=$(number "$(cargo --version 2>/dev/null || true)")
  if [ -n "$version" ] && at_least "$version" "$rust_version"; then
    found "cargo $version at $cargo"
  elif [ -n "$version" ]; then
    wanting "Rust $rust_version+ (cargo is $version): rustup update stable"
  elif [ -x "${HOME:-/nonexistent}/.cargo/bin/cargo" ]; then
    wanting "cargo is in ~/.cargo/bin, which is not on PATH: export PATH=\"\$HOME/.cargo/bin:\$PATH\""
  else
    wanting "cargo $rust_version+: https://rustup.rs"
  fi
  local compiler
  if compiler=$(type -P "${CC:-cc}" || type -P gcc || type -P clang); then
    found "C compiler at $compiler"
  else
    wanting "a C compiler, for the cryptography: 'apt-get install build-essential', 'dnf install gcc', or 'xcode-select --install'"
  fi
}

broker
database
compilers
exit "$missing"
