#!/usr/bin/env bash
# From produce to bronze, to a refreshed model and to a live view, with a real Kafka: `make bench-freshness`.
#
#   scripts/bench-freshness.sh [--rate N] [--seconds N] [--preload N] [--maintain-every 30s] [--live-pause S] [--only refresh|live]
#
# Private Postgres and Kafka, deleted at the end; needs the release binary, the installed extension and python3-venv.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
case " $* " in *" --help "* | *" -h "*) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "$0" && exit ;; esac
use_postgres
TIDEMARK=${TIDEMARK_BIN:-$(target_dir)/release/tidemark}
[ -x "$TIDEMARK" ] || die "the loader is not built" "scripts/build.sh && scripts/install.sh --no-build"

use_venv bench 'confluent-kafka==2.* psycopg[binary]==3.*'

DIR=$(mktemp -d "${TMPDIR:-/tmp}/tidemark-bench.XXXXXX")
chmod 755 "$DIR"
trap '"$ROOT/scripts/kafka.sh" destroy "$DIR/kafka"; "$ROOT/scripts/pg.sh" destroy "$DIR/pg"; rm -rf "$DIR"' EXIT
"$ROOT/scripts/pg.sh" start "$DIR/pg" "" shared_buffers=2GB max_wal_size=8GB wal_compression=lz4 >/dev/null
BROKERS=$("$ROOT/scripts/kafka.sh" start "$DIR/kafka")
URL=$("$ROOT/scripts/pg.sh" url "$DIR/pg" postgres)
PYTHONDONTWRITEBYTECODE=1 "$VENV/bin/python" "$ROOT/bench/loader/freshness.py" --url "${URL%/postgres}" --brokers "$BROKERS" \
    --tidemark "$TIDEMARK" "$@"
