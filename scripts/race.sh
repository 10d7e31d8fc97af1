#!/usr/bin/env bash
# The race test for as long as wanted: `make race MINUTES=10 SEED=1`, or with OF=identity that of who everybody is, in
# the warehouse, for which the CLI is built as well. Writers, refreshers that get killed, and judges,
# on a private Postgres that goes away with it. A line every ten seconds; ends with 1 when anything differed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
MINUTES=${MINUTES:-10} SEED=${SEED:-1} OF=${OF:-}
"$ROOT/scripts/deps.sh"
use_postgres
cd "$ROOT"
step "build the extension" "$ROOT/scripts/build.sh"
step "install it into $("$PG_CONFIG" --version)" "$ROOT/scripts/install.sh" --no-build
step "build the race" quietly race-build "read the first error above" cargo build --locked -p tidemark-tests --bin race
say "race of $MINUTES minutes, seed $SEED"
TIDEMARK_BIN=$(target_dir)/release/tidemark exec "$(target_dir)/debug/race" "$MINUTES" "$SEED" ${OF:+"$OF"}
