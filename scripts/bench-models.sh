#!/usr/bin/env bash
# Models: dashboards over rollups of 100 million events, what a refresh costs beside a plain INSERT ... SELECT, and how
# aggregates grow from 1 to 100 million events, what partitions cost: `make bench-models`.
#
#   scripts/bench-models.sh [--events N] [--days N] [--users N] [--refresh-events N] [--warehouse-events N] [--warehouse-days N]
#                           [--parts dashboards,growth,refresh,warehouse,partitions] [--partitions N]
#                           [--new-partitions N] [--runs N] [--raw-runs N] [--rounds N] [--questions W,W] [--seed N]
#
# Prints Markdown on standard output, progress on standard error. Private server, deleted at the end; needs the installed
# extension, the release binary (for the warehouse) and python3-venv. 100 million events take 8 GB of disk and an hour.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
case " $* " in *" --help "* | *" -h "*) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "$0" && exit ;; esac
use_postgres
TIDEMARK=${TIDEMARK_BIN:-$(target_dir)/release/tidemark}
[ -e "$("$PG_CONFIG" --sharedir)/extension/tidemark.control" ] ||
    die "tidemark is not installed in the server of $PG_CONFIG" "scripts/build.sh && scripts/install.sh --no-build"
[ -x "$TIDEMARK" ] || die "the loader is not built" "scripts/build.sh"
use_venv bench 'confluent-kafka==2.* psycopg[binary]==3.*'

DIR=$(mktemp -d "${TMPDIR:-/tmp}/tidemark-bench.XXXXXX")
chmod 755 "$DIR"
trap '"$ROOT/scripts/pg.sh" destroy "$DIR/pg"; rm -rf "$DIR"' EXIT
# wal_level=minimal: what is written into a table of the same transaction, as the generated events are, is not logged.
"$ROOT/scripts/pg.sh" start "$DIR/pg" "" shared_buffers=2GB max_wal_size=4GB checkpoint_timeout=15min wal_level=minimal \
    max_wal_senders=0 fsync=off synchronous_commit=off >/dev/null
URL=$("$ROOT/scripts/pg.sh" url "$DIR/pg" postgres)
PYTHONDONTWRITEBYTECODE=1 "$VENV/bin/python" "$ROOT/bench/models" --url "${URL%/postgres}" --tidemark "$TIDEMARK" "$@"
