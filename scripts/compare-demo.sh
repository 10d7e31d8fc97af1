#!/usr/bin/env bash
# Shows that the way in changes no answer: the demo from a file and through Kafka, reports compared line by line.
# Lines that hold the words "wall clock" are left out: they tell when the demo ran, not what it found.
# The settings of scripts/demo.sh apply (EVENTS, SEED ...).
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
export DEMO_DIR=${DEMO_DIR:-$RUN/demo}

run_demo() { # run_demo NAME [KAFKA]
    KAFKA=${2:-} "$ROOT/scripts/demo.sh" >/dev/null
    grep -v 'wall clock' "$DEMO_DIR/report.txt" >"$RUN/report-$1.txt"
    [ -s "$RUN/report-$1.txt" ] || die "the report of the $1 run is empty" "read sql/dashboards/demo.sql"
}
run_demo file
run_demo kafka 1
if ! diff -u "$RUN/report-file.txt" "$RUN/report-kafka.txt"; then
    die "the two reports differ (above: - from the file, + through Kafka)" \
        "keep .run/report-file.txt and .run/report-kafka.txt for whoever looks into it"
fi
say "same answers both ways: $(wc -l <"$RUN/report-file.txt") lines of report"
