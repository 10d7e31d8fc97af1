#!/usr/bin/env bash
# The extension's functions beside their rivals: plain SQL, postgresql-hll, embedded ClickHouse and DuckDB:
# `make bench`.
#
#   scripts/bench.sh [--events N,N] [--users N,N] [--ids text,bigint] [--rounds N] [--cases sessions,funnel,...]
#                    [--engines postgres,clickhouse,duckdb] [--work-mem 4MB,512MB] [--parallel N] [--memory]
#                    [--no-rivals] [--seed N]
#
# Prints Markdown on standard output, progress on standard error. Private server, deleted at the end; needs the
# installed extension and python3-venv. Without the package postgresql-NN-hll its comparison is refused, and says so.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
use_postgres
SHAREDIR=$("$PG_CONFIG" --sharedir)

[ -e "$SHAREDIR/extension/tidemark.control" ] ||
    die "tidemark is not installed in the server of $PG_CONFIG" "scripts/build.sh && scripts/install.sh --no-build"
[ -e "$SHAREDIR/extension/hll.control" ] ||
    die "postgresql-hll, a rival, is not installed" "apt-get install postgresql-${PGFEATURE#pg}-hll"
use_venv bench-analytics 'chdb==4.4.0 duckdb==1.* psycopg[binary]==3.* numpy==2.*'

DIR=$(mktemp -d "${TMPDIR:-/tmp}/tidemark-bench.XXXXXX")
chmod 755 "$DIR"
trap '"$ROOT/scripts/pg.sh" destroy "$DIR/pg"; rm -rf "$DIR"' EXIT
"$ROOT/scripts/pg.sh" start "$DIR/pg" "" shared_buffers=2GB max_wal_size=8GB fsync=off synchronous_commit=off >/dev/null
URL=$("$ROOT/scripts/pg.sh" url "$DIR/pg")
"$PGBIN/psql" -Xq -v ON_ERROR_STOP=1 "$URL" \
    -c 'CREATE EXTENSION tidemark' -c 'CREATE SCHEMA peer' -c 'CREATE EXTENSION hll SCHEMA peer'
PYTHONDONTWRITEBYTECODE=1 "$VENV/bin/python" "$ROOT/bench/analytics" --url "$URL" --directory "$DIR" "$@"
