#!/usr/bin/env bash
# The committed install script is what `make install` copies; the source of truth is the Rust code. This regenerates it
# and fails on a difference. With --write it replaces the committed one instead (`make schema`).
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
use_postgres
cd "$ROOT"

golden=extension/install/tidemark--$(crate_version).sql
fresh=$RUN/install.sql
mkdir -p "$RUN"
export RUST_BACKTRACE=0 # a failure here is told by its message, not by the frames of cargo-pgrx
"$ROOT/scripts/pgrx.sh" ensure
quietly schema "read the first error above; the extension must build before its SQL can be written" \
    "$ROOT/scripts/pgrx.sh" schema --package tidemark --no-default-features --features "$PGFEATURE" --out "$fresh" "$PGFEATURE"
[ -s "$fresh" ] || die "cargo pgrx schema wrote nothing" "read $LOGS/schema.log"

if [ "${1:-}" = --write ]; then
    mkdir -p extension/install
    if grep -qF "  install/${golden##*/}" extension/released.sha256 && ! cmp -s "$golden" "$fresh"; then
        die "$golden was released and cannot change" \
            "begin the next version (docs/versions.md, Releasing): its number in Cargo.toml and an upgrade script"
    fi
    cp "$fresh" "$golden"
    say "wrote $golden ($(wc -l <"$golden") lines)"
elif ! diff -u "$golden" "$fresh" >"$LOGS/schema.diff"; then
    head -n 60 "$LOGS/schema.diff" >&2
    die "$golden is not what the code says (- committed, + code)" "make schema, read the diff, commit it"
else
    say "    $golden is what the code says"
fi
