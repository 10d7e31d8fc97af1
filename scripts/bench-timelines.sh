#!/usr/bin/env bash
# Reports over a timeline beside the aggregates over rows, embedded ClickHouse and DuckDB: `make bench-timelines`.
#
#   scripts/bench-timelines.sh [--events N] [--persons N] [--slices N] [--rounds N] [--cases funnel,sessions,...]
#                              [--onto N] [--no-rivals]
#
# Prints Markdown on standard output, progress on standard error. Private server, deleted at the end; needs the
# installed extension and python3-venv.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
use_postgres

[ -e "$("$PG_CONFIG" --sharedir)/extension/tidemark.control" ] ||
    die "tidemark is not installed in the server of $PG_CONFIG" "scripts/build.sh && scripts/install.sh --no-build"
use_venv bench-analytics 'chdb==4.4.0 duckdb==1.* psycopg[binary]==3.* numpy==2.*'

DIR=$(mktemp -d "${TMPDIR:-/tmp}/tidemark-bench.XXXXXX")
chmod 755 "$DIR"
trap '"$ROOT/scripts/pg.sh" destroy "$DIR/pg"; rm -rf "$DIR"' EXIT
"$ROOT/scripts/pg.sh" start "$DIR/pg" "" shared_buffers=2GB max_wal_size=8GB fsync=off synchronous_commit=off >/dev/null
URL=$("$ROOT/scripts/pg.sh" url "$DIR/pg")
"$PGBIN/psql" -Xq -v ON_ERROR_STOP=1 "$URL" -c 'CREATE EXTENSION tidemark'
PYTHONDONTWRITEBYTECODE=1 "$VENV/bin/python" "$ROOT/bench/timelines" --url "$URL" --directory "$DIR" --pg-bin "$PGBIN" "$@"
