#!/usr/bin/env bash
# Everything that CI runs: `make test`. Stops at the first stage that fails and names it.
#
#   scripts/test.sh                all stages
#   scripts/test.sh STAGE...       only these, in the order given (see `stages` below)
#
# Real servers on private ports: the pgrx tests and the client tests start their own Postgres and Kafka.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
# A clean clone is built once: bookkeeping for the next build would only cost time and disk.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0

stages=(deps fmt clippy unit pgrx release client dbt)
broken_build="read the first error above"

stage_deps() {
    "$ROOT/scripts/deps.sh" test
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        quietly components "rustup component add rustfmt clippy" rustup component add rustfmt clippy
    fi
    "$ROOT/scripts/kafka.sh" libs >/dev/null
    "$ROOT/scripts/bi-check.sh" libs >/dev/null
    "$ROOT/scripts/enrich-data.sh" >/dev/null
    use_postgres
    "$ROOT/scripts/pgrx.sh" ensure
}

stage_fmt() {
    cargo fmt --all --check || die "the formatting differs from rustfmt's" "make fmt"
    LC_ALL=C.UTF-8 git grep -nE '.{121}' -- '*.sql' >&2 || [ $? != 1 ] || return 0
    die "lines of SQL have more than 120 characters" "break those above where a clause begins"
}

stage_clippy() {
    quietly clippy "$broken_build; cargo clippy shows them all" cargo clippy --locked --workspace --all-targets \
        --no-default-features --features "tidemark/$PGFEATURE,tidemark/pg_test,tidemark-cli/default,tidemark-shop/default" -- -D warnings
    quietly clippy-demo "$broken_build" cargo clippy --locked -p tidemark-cli -p tidemark-shop --no-default-features -- -D warnings
}

# tested LOG COMMAND...: cargo's output, shown and kept; the kept one is counted at the end.
tested() {
    local log=$LOGS/test-$1.log
    shift
    "$@" 2>&1 </dev/null | tee "$log"
}

stage_unit() { tested unit cargo test --locked -p tidemark-core -p tidemark-loader -p tidemark-cli -p tidemark-shop; }

# The tests inside Postgres. pgrx installs a test build of the extension; the release stage puts the real one back.
stage_pgrx() {
    local data as=()
    data=$(mktemp -d)
    if [ "$(id -u)" = 0 ]; then
        chown "$SERVER_USER:" "$data"
        as=(--runas "$SERVER_USER")
    fi
    # shellcheck disable=SC2064
    trap "rm -rf '$data'" EXIT
    tested pgrx "$ROOT/scripts/pgrx.sh" test --package tidemark --no-default-features --features "$PGFEATURE" \
        "${as[@]}" --pgdata "$data" "$PGFEATURE"
}

stage_release() {
    "$ROOT/scripts/build.sh"
    "$ROOT/scripts/install.sh" --no-build
}

# Against the release build. More threads than cores, since most of them wait.
stage_client() {
    TIDEMARK_BIN=$(target_dir)/release/tidemark TIDEMARK_KAFKA_LIBS=$("$ROOT/scripts/kafka.sh" libs) \
        RUST_TEST_THREADS=${RUST_TEST_THREADS:-4} tested client cargo test --locked -p tidemark-tests
}

# The dbt package with the real dbt, against the same binaries.
stage_dbt() { TIDEMARK_BIN=$(target_dir)/release/tidemark "$ROOT/scripts/dbt.sh"; }
# --- stages of `make test-matrix` --------------------------------------------------------------------------------

# The way a user installs.
stage_install() { "$ROOT/scripts/make-install.sh"; }

stage_deb() { "$ROOT/scripts/test-deb.sh"; }

# The client tests from programs that were built before, in $TIDEMARK_PREBUILT.
stage_prebuilt() {
    local program name rc=0
    [ -d "${TIDEMARK_PREBUILT:-}" ] || die "there are no programs in TIDEMARK_PREBUILT" "make test-matrix"
    for program in "$TIDEMARK_PREBUILT"/test-*; do
        name=$(basename "$program")
        say "    $name"
        (cd "$ROOT/tests" && TIDEMARK_BIN=$TIDEMARK_PREBUILT/tidemark TIDEMARK_KAFKA_LIBS=$("$ROOT/scripts/kafka.sh" libs) \
            RUST_TEST_THREADS=${RUST_TEST_THREADS:-4} tested "$name" "$program") || rc=1
    done
    return "$rc"
}

# Adds up cargo's own result lines, if a stage has any.
count() {
    { cat "$LOGS"/test-*.log 2>/dev/null || true; } |
        sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored.*/\1 \2 \3/p' |
        awk '{ p += $1; f += $2; s += $3 } END { printf "tests: %d passed, %d failed, %d skipped\n", p, f, s }'
}

[ $# = 0 ] || stages=("$@")
for stage in "${stages[@]}"; do
    declare -F "stage_$stage" >/dev/null ||
        die "there is no test stage \"$stage\"" "scripts/test.sh [deps|fmt|clippy|unit|pgrx|release|client|dbt]"
done
mkdir -p "$LOGS" && rm -f "$LOGS"/test-*.log
STARTED=$EPOCHSECONDS
FINISHED=()
finish() {
    local rc=$?
    say
    if [ $rc = 0 ]; then say "make test: every stage passed in $((EPOCHSECONDS - STARTED)) s"; else
        say "${RED}make test: stage \"$stage\" failed${RESET} after $((EPOCHSECONDS - STARTED)) s in all; logs are in $LOGS"
    fi
    [ ${#FINISHED[@]} = 0 ] || say "  $(printf '%s  ' "${FINISHED[@]}")"
    count
}
trap finish EXIT

say "plan: ${stages[*]}"
for stage in "${stages[@]}"; do
    [ "$stage" = deps ] || use_postgres
    began=$EPOCHSECONDS
    step "$stage" "stage_$stage"
    FINISHED+=("$stage $((EPOCHSECONDS - began)) s")
done
