#!/usr/bin/env bash
# `make install PG_CONFIG=/path/to/pg_config`: plain cargo, three files copied, and what to type next.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
command -v cargo >/dev/null || die "there is no cargo on PATH" "install Rust 1.95 or later with rustup, then try again"
use_postgres
step "build the extension for $("$PG_CONFIG" --version) (some minutes the first time)" \
    "$ROOT/scripts/build.sh" extension
step "install it" "$ROOT/scripts/install.sh" --no-build
say "Next, in a database of that server, as superuser:"
say "  CREATE EXTENSION tidemark;"
say "or, with an older tidemark already in it:"
say "  ALTER EXTENSION tidemark UPDATE;"
