#!/usr/bin/env bash
# The race test for as long as wanted: `make race MINUTES=10 SEED=1`. Writers, refreshers that get killed, and judges,
# on a private Postgres that goes away with it. A line every ten seconds; ends with 1 when anything differed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
MINUTES=${MINUTES:-10} SEED=${SEED:-1}
"$ROOT/scripts/deps.sh"
use_postgres
cd "$ROOT"
step "build the extension" "$ROOT/scripts/build.sh" extension
step "install it into $("$PG_CONFIG" --version)" "$ROOT/scripts/install.sh" --no-build
step "build the race" quietly race-build "read the first error above" cargo build --locked -p tidemark-tests --bin race
say "race of $MINUTES minutes, seed $SEED"
exec "$(target_dir)/debug/race" "$MINUTES" "$SEED"
