#!/usr/bin/env bash
# Builds everything, then runs every test program beside a private Postgres and with a real broker, several programs at once,
# and leaves nothing behind. What a program says is printed whole when it ends; what failed is named once more at the end.
#
#   setup/test.sh                    everything
#   setup/test.sh standby audit      programs by their names, or all of a crate's by the name of its folder
#
# DELTRAN_TEST_JOBS says how many at once (3). Those that took longest begin first: by the last run, which is kept in the
# target folder, else by setup/test-times.txt. That file also says which of them cannot run beside others.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$root/$target ;; esac
tab=$(printf '\t')

# --- one after the other, beside a Postgres: `setup/test.sh --work STATE LIST` -------------------------------------------

# Several work on one list: whoever makes the folder of a line runs it.
work() {
  local state=$1 list=$2 number=0 label folder program log code begun
  while IFS=$tab read -r label folder program <&3; do
    number=$((number + 1))
    mkdir "$list.$number" 2>/dev/null || continue
    log=$list.$number/log
    code=0
    begun=$SECONDS
    # From the crate's folder, as cargo does.
    if [ "$program" = - ]; then
      (cd "$folder" && exec cargo test --workspace --locked --doc) >"$log" 2>&1 </dev/null 3<&- || code=$?
    else
      (cd "$folder" && CARGO_MANIFEST_DIR=$folder exec "$program") >"$log" 2>&1 </dev/null 3<&- || code=$?
    fi
    until mkdir "$state/printing" 2>/dev/null; do sleep 0.1; done
    printf '\n== %s: exit code %s after %s s\n' "$label" "$code" "$((SECONDS - begun))"
    cat "$log"
    printf '%s\t%s\t%s\n' "$label" "$((SECONDS - begun))" "$code" >>"$state/done"
    rmdir "$state/printing"
    rm "$log"
  done 3<"$list"
}

if [ "${1:-}" = --work ]; then
  work "$2" "$3"
  exit 0
fi

# --- what there is -------------------------------------------------------------------------------------------------------

# Out of cargo's messages, one JSON document a line: name, folder of the crate, and program of each that holds tests.
programs() {
  awk '
    function text(key) {
      if (!match($0, "\"" key "\":\"[^\"]*\"")) return ""
      return substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 5)
    }
    /"reason":"compiler-artifact"/ && /"overflow_checks":[a-z]+,"test":true/ && !/"kind":\["bench"\]/ {
      program = text("executable")
      if (program == "") next
      folder = text("manifest_path")
      sub(/\/[^\/]*$/, "", folder)
      crate = folder
      sub(/.*\//, "", crate)
      printf "%s/%s\t%s\t%s\n", crate, ($0 ~ /"kind":\["test"\]/ ? text("name") : "unit"), folder, program
    }'
}

# The lines of standard input that one of the arguments names; all of them where there is none.
chosen() {
  awk -F '\t' -v names="$*" '
    BEGIN { all = split(names, wanted, " ") == 0 }
    {
      split($1, part, "/")
      take = all
      for (i in wanted) if (wanted[i] == $1 || wanted[i] == part[1] || wanted[i] == part[2]) take = 1
      if (take) print
    }'
}

# Those of standard input that run alone (1) or beside others (0), the longest first.
in_order() {
  awk -F '\t' -v alone="$1" -v times="$root/setup/test-times.txt" -v last="$target/test-times" '
    BEGIN {
      while ((getline line < times) > 0) {
        if (line ~ /^#/ || split(line, word, " ") < 2) continue
        seconds[word[1]] = word[2]
        apart[word[1]] = word[3] == "alone"
      }
      while ((getline line < last) > 0) if (split(line, word, "\t") >= 2) seconds[word[1]] = word[2]
    }
    (apart[$1] ? 1 : 0) == alone { printf "%d\t%s\n", ($1 in seconds ? seconds[$1] : 30), $0 }' |
    sort -s -t "$tab" -k 1,1nr | cut -f 2-
}

# --- all of it -----------------------------------------------------------------------------------------------------------

# With all targets at once, so that the tests find everything built, `deltran` as well.
cargo build --workspace --all-targets --locked

state=$(mktemp -d "${TMPDIR:-/tmp}/deltran-test.XXXXXX")
slots=
trap 'rm -rf "$state"' EXIT
# A terminal tells everybody that is under way; a signal to this process alone is handed on.
trap 'wait; exit 130' INT
trap 'kill $slots 2>/dev/null || true; wait; exit 143' TERM
# As root, Postgres runs as another user, who must be able to pass through.
chmod 755 "$state"

cargo test --workspace --locked --no-run --message-format=json-render-diagnostics >"$state/messages"
programs <"$state/messages" >"$state/all"
if [ ! -s "$state/all" ]; then
  echo 'error: cargo named no test program: see its messages above' >&2
  exit 1
fi
printf 'doctests\t%s\t-\n' "$root" >>"$state/all"
for name in "$@"; do
  if [ -z "$(chosen "$name" <"$state/all")" ]; then
    printf 'error: no test program and no crate is named %s; there are: %s\n' "$name" "$(cut -f 1 "$state/all" | paste -s -d ' ' -)" >&2
    exit 2
  fi
done
chosen "$@" <"$state/all" >"$state/chosen"
in_order 0 <"$state/chosen" >"$state/beside"
in_order 1 <"$state/chosen" >"$state/alone"
: >"$state/done"

# Each has a Postgres of its own, so that no other takes of its connections.
start() {
  "$target/debug/deltran" services --data "$state/postgres-$1" -- "$BASH" "$root/setup/test.sh" --work "$state" "$2" &
  slots="$slots $!"
}
broken=0
finish() {
  local slot
  for slot in $slots; do
    wait "$slot" || broken=1
  done
  slots=
}

if [ -s "$state/beside" ]; then
  count=$(wc -l <"$state/beside")
  jobs=${DELTRAN_TEST_JOBS:-3}
  for ((slot = 1; slot <= jobs && slot <= count; slot++)); do
    start "$slot" "$state/beside"
  done
  finish
fi
if [ -s "$state/alone" ]; then
  start 1 "$state/alone"
  finish
fi

# What was not run to a good end this time keeps its time.
touch "$target/test-times"
awk -F '\t' 'NF < 3 || $3 == 0 { seconds[$1] = $2 } END { for (name in seconds) printf "%s\t%s\n", name, seconds[name] }' \
  "$target/test-times" "$state/done" | sort >"$state/times"
mv "$state/times" "$target/test-times"

failed=$(awk -F '\t' '$3 != 0' "$state/done" | wc -l)
missing=$(($(wc -l <"$state/chosen") - $(wc -l <"$state/done")))
printf '\n== %d programs in %d s, %d failed\n' "$(wc -l <"$state/done")" "$SECONDS" "$failed"
awk -F '\t' '$3 != 0 { printf "FAILED %s (exit code %s)\n", $1, $3 }' "$state/done"
if [ "$missing" -ne 0 ] || [ "$broken" -ne 0 ]; then
  printf 'error: %d programs were not run to their end: see above why\n' "$missing" >&2
  exit 1
fi
[ "$failed" -eq 0 ]
