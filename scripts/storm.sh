#!/usr/bin/env bash
# The storm: `make storm SEED=1 KILLS=200 EVENTS=2000000`. Loads a topic while loaders, connections, Postgres and Kafka
# are killed, then compares. Exit 0 only if nothing was lost or doubled; the last line says what was found.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
use_postgres
if [ -z "${TIDEMARK_BIN:-}" ]; then
    step "release" "$ROOT/scripts/build.sh"
    "$ROOT/scripts/install.sh" --no-build
fi
TIDEMARK_BIN=${TIDEMARK_BIN:-$(target_dir)/release/tidemark}
TIDEMARK_KAFKA_LIBS=$("$ROOT/scripts/kafka.sh" libs)
export TIDEMARK_BIN TIDEMARK_KAFKA_LIBS SEED=${SEED:-1} KILLS=${KILLS:-200} EVENTS=${EVENTS:-2000000}
# MINUTES=60 spreads both over an hour and says each minute what memory and tables have become.
quietly storm-build "read the first error above" cargo build --locked -p tidemark-tests --bin storm
exec "$(target_dir)/debug/storm"
