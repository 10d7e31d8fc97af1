#!/usr/bin/env bash
# Compares the installed extension, through SQL, with embedded ClickHouse (PyPI chdb) and with postgresql-hll.
#
#   scripts/differential.sh [--quick] [--groups N] [--seed N] [--only PART,...]
#
# Exit 1 on any difference. Needs python3 with venv, and tidemark installed (`make install`) into the server of
# PG_CONFIG. Without the package postgresql-NN-hll the comparisons with it are left out, and a line says so.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
use_postgres
VENV=$TOOLS/differential
WANTED='chdb==4.4.0 psycopg[binary]==3.* numpy'

[ -e "$("$PG_CONFIG" --sharedir)/extension/tidemark.control" ] ||
    die "tidemark is not installed in the server of $PG_CONFIG" "make install PG_CONFIG=$PG_CONFIG"
command -v python3 >/dev/null || die "there is no python3" "install it (Debian: apt-get install python3-venv)"

if [ "$(cat "$VENV/wanted" 2>/dev/null)" != "$WANTED" ]; then
    say "    setting up Python with embedded ClickHouse (150 MB the first time)"
    quietly differential-venv "install python3-venv, check that pip can reach its index" python3 -m venv "$VENV"
    # shellcheck disable=SC2086
    quietly differential-pip "check that pip can reach its index" "$VENV/bin/pip" install $WANTED
    printf '%s\n' "$WANTED" >"$VENV/wanted"
fi

DIR=$(mktemp -d "${TMPDIR:-/tmp}/tidemark-differential.XXXXXX")
chmod 755 "$DIR"
# Also the end of a run that was interrupted.
trap '"$ROOT/scripts/pg.sh" destroy "$DIR/pg"; rm -rf "$DIR"' EXIT
"$ROOT/scripts/pg.sh" start "$DIR/pg" "" fsync=off synchronous_commit=off max_parallel_workers_per_gather=3 \
    max_wal_size=8GB log_min_messages=log log_min_error_statement=panic >/dev/null
URL=$("$ROOT/scripts/pg.sh" url "$DIR/pg")
"$PGBIN/psql" -X -q -v ON_ERROR_STOP=1 "$URL" <<'SQL'
CREATE EXTENSION tidemark;
SQL
if [ -e "$("$PG_CONFIG" --sharedir)/extension/hll.control" ]; then
    "$PGBIN/psql" -X -q -v ON_ERROR_STOP=1 "$URL" -c 'CREATE SCHEMA peer' -c 'CREATE EXTENSION hll SCHEMA peer'
else
    say "    postgresql-hll is not there: the comparisons with it are left out"
fi
cd "$DIR"
PYTHONDONTWRITEBYTECODE=1 "$VENV/bin/python" "$ROOT/tests/differential" \
    --url "$URL" --log "$DIR/pg/data/server.log" "$@"
