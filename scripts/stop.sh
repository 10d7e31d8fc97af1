#!/usr/bin/env bash
# Stops the private servers of the demo; with --delete, also removes everything they kept.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
DEMO_DIR=${DEMO_DIR:-$RUN/demo}
verb=stop
[ "${1:-}" != --delete ] || verb=destroy

if [ -e "$DEMO_DIR/kafka" ]; then
    say "Kafka in $DEMO_DIR/kafka: $verb"
    "$ROOT/scripts/kafka.sh" $verb "$DEMO_DIR/kafka"
fi
if [ -e "$DEMO_DIR/pg" ]; then
    say "Postgres in $DEMO_DIR/pg: $verb"
    "$ROOT/scripts/pg.sh" $verb "$DEMO_DIR/pg"
fi
if [ $verb = destroy ]; then rm -rf "$DEMO_DIR"; fi
