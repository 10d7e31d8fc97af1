#!/usr/bin/env bash
# cargo-pgrx of the version that the workspace pins, built once into .tools; only tests need it.
#
#   scripts/pgrx.sh ensure       builds it when it is not there
#   scripts/pgrx.sh ARGS...      cargo pgrx ARGS...
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
use_postgres
cd "$ROOT"

WANTED=$(sed -nE 's/^pgrx = "=(.*)"/\1/p' extension/Cargo.toml)
export PATH=$TOOLS/bin:$PATH

ensure() {
    if [ "$(cargo-pgrx pgrx --version 2>/dev/null)" = "cargo-pgrx $WANTED" ]; then return; fi
    say "    building cargo-pgrx $WANTED into .tools (some minutes, once)"
    # Unoptimized: it builds faster and has little to compute. Without TLS of its own: it downloads nothing here.
    quietly cargo-pgrx "read the first error above; a registry out of reach is the usual reason, then try again" \
        cargo install cargo-pgrx --version "$WANTED" --locked --debug --no-default-features --force --root "$TOOLS"
}

ensure
[ "${1:-}" = ensure ] || cargo pgrx "$@"
