#!/usr/bin/env bash
# Throughput and latency of the loader beside a server-side COPY and a Python consumer: `make bench-loader`.
#
#   scripts/bench-loader.sh [--events N] [--rounds N] [--cases v7,v4,...] [--rate N] [--seconds N]
#
# Private Postgres and Kafka, deleted at the end; needs the release binary, the installed extension and python3-venv.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
use_postgres
TIDEMARK=$(target_dir)/release/tidemark
[ -x "$TIDEMARK" ] || die "the loader is not built" "scripts/build.sh && scripts/install.sh --no-build"

use_venv bench 'confluent-kafka==2.* psycopg[binary]==3.*'

DIR=$(mktemp -d "${TMPDIR:-/tmp}/tidemark-bench.XXXXXX")
chmod 755 "$DIR"
mkdir "$DIR/scratch"
if [ "$(id -u)" = 0 ]; then chown "$SERVER_USER:" "$DIR/scratch"; fi
trap '"$ROOT/scripts/kafka.sh" destroy "$DIR/kafka"; "$ROOT/scripts/pg.sh" destroy "$DIR/pg"; rm -rf "$DIR"' EXIT
"$ROOT/scripts/pg.sh" start "$DIR/pg" "" shared_buffers=2GB max_wal_size=8GB wal_compression=lz4 >/dev/null
BROKERS=$("$ROOT/scripts/kafka.sh" start "$DIR/kafka")
URL=$("$ROOT/scripts/pg.sh" url "$DIR/pg" postgres)
PYTHONDONTWRITEBYTECODE=1 "$VENV/bin/python" "$ROOT/bench/loader" --url "${URL%/postgres}" --brokers "$BROKERS" \
    --tidemark "$TIDEMARK" --postmaster "$(head -n 1 "$(readlink -f "$DIR/pg/data")/postmaster.pid")" \
    --broker-pid "$(cat "$DIR/kafka/pid")" --scratch "$DIR/scratch" "$@"
