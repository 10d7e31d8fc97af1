#!/usr/bin/env bash
# The dbt package, run for real: `make dbt`. dbt-core and dbt-postgres in an environment of their own, a private Postgres,
# events loaded by the loader in four batches with late ones among them. After each batch the extension refreshes its own
# models, dbt builds its, and both are compared row by row; dbt's tests return the rows that differ.
#
#   scripts/dbt.sh            builds and installs the extension and the loader first
#   TIDEMARK_BIN=PATH scripts/dbt.sh    takes that loader, and the extension as it is installed
#
# Everything runs in a copy of dbt/ below .run, which is deleted at the end; KEEP=1 leaves it, with its server.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

RUNS=4
VENV=$TOOLS/dbt
mkdir -p "$RUN"
WORK=$(mktemp -d "$RUN/dbt.XXXXXX")
chmod 755 "$WORK" # the server's user looks for its data in it
PG=$WORK/pg PROJECT=$WORK/dbt/integration_tests
STARTED=$EPOCHSECONDS

finish() {
    local rc=$?
    if [ -n "${KEEP:-}" ]; then say "    kept: $WORK"; else
        "$ROOT/scripts/pg.sh" destroy "$PG" >/dev/null 2>&1 || true
        rm -rf "$WORK"
    fi
    exit "$rc"
}
trap finish EXIT
trap 'exit 130' INT TERM

# dbt in its versions of dbt/requirements.txt; made anew when these change.
install_dbt() {
    local wanted python
    "$ROOT/scripts/deps.sh" dbt
    wanted=$(sha256sum <"$ROOT/dbt/requirements.txt")
    if [ "$(cat "$VENV/requirements.sha256" 2>/dev/null)" = "$wanted" ] && [ -x "$VENV/bin/dbt" ]; then return; fi
    python=$(find_python) || die "there is no Python 3.10 or later with venv" "install one (Debian: apt-get install python3-venv)"
    say "    installing dbt into ${VENV#"$ROOT"/}"
    rm -rf "$VENV"
    quietly dbt-venv "read the log" "$python" -m venv "$VENV"
    quietly dbt-install "check that pip reaches its packages" \
        "$VENV/bin/pip" --disable-pip-version-check install --requirement "$ROOT/dbt/requirements.txt"
    printf '%s\n' "$wanted" >"$VENV/requirements.sha256"
}

build() { "$ROOT/scripts/build.sh" && "$ROOT/scripts/install.sh" --no-build; }

# psql_as USER ARGS...: passwords go through the environment, since arguments show in the process list.
psql_as() {
    PGPASSWORD=$(cat "$PG/password") "$PGBIN/psql" -XqAt -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$(cat "$PG/port")" \
        -U "$1" -d "${DATABASE:-tidemark}" "${@:2}"
}
loader() { TIDEMARK_DATABASE_URL=$("$ROOT/scripts/pg.sh" url "$PG" tidemark) quietly dbt-loader "read the log" "$TIDEMARK_BIN" "$@"; }

# The server, the warehouse, and two logins: who builds with dbt, and who may refresh the extension's models.
prepare() {
    local address
    cp -r "$ROOT/dbt" "$WORK/dbt"
    rm -rf "$PROJECT"/{target,logs,dbt_packages}
    address=$("$ROOT/scripts/pg.sh" start "$PG")
    say "    Postgres listens on $address"
    DATABASE=postgres psql_as postgres -c 'CREATE DATABASE tidemark TEMPLATE template0'
    loader migrate
    psql_as postgres -v password="$(cat "$PG/password")" -f - <<'SQL'
CREATE ROLE dbt_analyst LOGIN PASSWORD :'password';
GRANT tidemark_reader TO dbt_analyst;
GRANT USAGE ON SCHEMA bronze TO dbt_analyst;
GRANT SELECT ON bronze.events, bronze.late_events TO dbt_analyst;
CREATE SCHEMA analytics AUTHORIZATION dbt_analyst;
CREATE ROLE dbt_operator LOGIN PASSWORD :'password';
GRANT tidemark_admin TO dbt_operator;
GRANT USAGE ON SCHEMA analytics TO tidemark_admin;
SQL
}

generate() {
    mkdir "$WORK/events"
    "$TIDEMARK_BIN-shop" generate --events 6000 --days 12 --users 250 --seed 7 --start 2026-03-01 --out "$WORK/all.ndjson" 2>/dev/null
    awk -v first=1 -v out="$WORK/events" -f "$PROJECT/events/deal.awk" "$WORK/all.ndjson"
}

# run_dbt LOG ARGS...: as written on docs/dbt.md; notes what it ran. The log is kept, what matters of it is shown.
run_dbt() {
    local log=$LOGS/dbt-$1.log rc=0 target=$PROJECT/target
    shift
    # Another login makes dbt parse everything anew: it gets a directory of its own, and the next run as before does not.
    [[ " $* " != *" --target "* ]] || target+=-operator
    printf 'dbt %s\n' "$*" >>"$WORK/commands"
    (cd "$PROJECT" && DBT_ENV_SECRET_PASSWORD=$(cat "$PG/password") TIDEMARK_DBT_PORT=$(cat "$PG/port") TIDEMARK_DBT_RUN=${BATCH:-1} \
        DBT_PROFILES_DIR=$PROJECT DBT_TARGET_PATH=$target DBT_USE_COLORS=false DBT_SEND_ANONYMOUS_USAGE_STATS=false \
            "$VENV/bin/dbt" "$@") >"$log" 2>&1 </dev/null || rc=$?
    LAST_LOG=$log
    return "$rc"
}
must_dbt() {
    run_dbt "$@" || {
        tail -n 40 "$LAST_LOG" | sed 's/^/    | /' >&2
        die "dbt ${*:2} failed; the whole log is $LAST_LOG" "read the lines above"
    }
}
# What dbt says at the end of a run, without the times in front.
show_end() { sed -nE 's/^[0-9:]{8} +((tidemark_|revenue_).* to recompute|Finished running.*|Done\. .*)$/    \1/p' "$LAST_LOG" >&2; }

one_run() {
    loader load "$PROJECT/events/batch_$BATCH.ndjson" "$WORK/events/batch_$BATCH.ndjson"
    sed -nE 's/^(read .*)/    \1/p' "$LOGS/dbt-loader.log" >&2
    loader maintain
    must_dbt "run-$BATCH" build --exclude tag:after_refresh
    show_end
    nothing_to_say
}
nothing_to_say() {
    grep -q 'PASS=.* WARN=0 ERROR=0 SKIP=0' "$LAST_LOG" ||
        die "dbt build warned or skipped something; the log is $LAST_LOG" "read it"
}

# Events of March make nothing fresh; one of just now does.
freshness() {
    ! run_dbt stale source freshness ||
        die "dbt source freshness passes although no event is newer than March" "is the filter of the sources right?"
    printf '{"messageId":"fresh-1","type":"track","event":"page_viewed","timestamp":"%s","userId":"fresh"}\n' \
        "$(date -u +%FT%TZ)" >"$WORK/events/fresh.ndjson"
    loader load "$WORK/events/fresh.ndjson"
    must_dbt waiting test --select tidemark_silver_events_nothing_waits
    grep -q 'WARN=1' "$LAST_LOG" || die "no test says that a date waits for a refresh; the log is $LAST_LOG"
    must_dbt refresh run-operation tidemark.refresh --target operator
    sed -nE 's/.*(tidemark: refreshed.*)/    \1/p' "$LAST_LOG" >&2
    must_dbt fresh source freshness
}

# A table of dbt under a model of the extension: the marks that dbt's runs left are worked off by the refresh.
register_costs() {
    psql_as dbt_operator -c 'SET ROLE tidemark_admin' -f - >/dev/null <<'SQL'
SELECT tidemark.create_model('gold.campaign_costs_daily', ARRAY['analytics.campaign_costs']::regclass[], $$
    SELECT c.event_date, count(*) AS campaigns, sum(c.cost) AS cost
      FROM analytics.campaign_costs AS c
     WHERE c.event_date >= $1 AND c.event_date < $2
     GROUP BY c.event_date
$$, key => ARRAY['event_date']::name[]);
GRANT SELECT ON gold.campaign_costs_daily TO tidemark_reader;
SQL
}
# What they wrote is compared by the tests tagged after_refresh, which run from here on.
costs() { must_dbt refresh run-operation tidemark.refresh --target operator; }

# Every comparison can fail: a row of each table is made wrong, and each must be noticed.
spoil() {
    local caught
    psql_as dbt_analyst -f - <<'SQL'
UPDATE analytics.tidemark_sessions SET exit_page = '/elsewhere'
 WHERE session_id = (SELECT min(session_id::text)::uuid FROM analytics.tidemark_sessions);
DELETE FROM analytics.tidemark_person_sessions
 WHERE session_id = (SELECT min(session_id::text)::uuid FROM analytics.tidemark_person_sessions);
UPDATE analytics.tidemark_daily_actives SET persons_sketch = tidemark.hll_empty() WHERE event_date = '2026-03-03';
INSERT INTO analytics.tidemark_person_days SELECT event_date, 'nobody', 1, refresh_id FROM analytics.tidemark_person_days LIMIT 1;
UPDATE analytics.tidemark_retention_weekly SET pct = pct - 0.1 WHERE cohort_week = '2026-03-02' AND weeks_since = 0;
UPDATE analytics.tidemark_funnel_daily SET median_seconds = median_seconds + 0.001 WHERE event_date = '2026-02-20' AND step = 2;
UPDATE analytics.revenue_daily SET revenue = revenue + 0.01 WHERE event_date = (SELECT min(event_date) FROM analytics.revenue_daily);
SQL
    ! run_dbt spoilt test --select path:tests/against_gold person_sessions equal_revenue_daily ||
        die "dbt test passes although rows are wrong; the log is $LAST_LOG"
    caught=$(sed -nE 's/.*Done\. PASS=0 WARN=0 ERROR=([0-9]+) SKIP=0.*/\1/p' "$LAST_LOG")
    [ "$caught" = 8 ] || die "of 8 comparisons with wrong rows $caught failed; the log is $LAST_LOG"
    say "    wrong rows in 7 tables: all 8 comparisons over them fail"
}

# A full refresh gives the rows that four increments gave.
full_refresh() {
    must_dbt full-refresh build --full-refresh
    show_end
    nothing_to_say
}
# A run that finds its place in the extension's log gone computes every date, and is right.
forgotten() {
    psql_as postgres -c "DELETE FROM tidemark_internal.refresh_log WHERE event_date < '2026-04-01'"
    must_dbt forgotten build
    show_end
    nothing_to_say
}

# Dates that reach into retired partitions cannot be computed any more. The extension's models leave them as they are; so do
# those of dbt, and go on with the dates beside them.
retired() {
    psql_as dbt_operator -f - >/dev/null <<'SQL'
SELECT tidemark.manage_partitions(parent => s.name::regclass, partition_schema => s.schema, partition_unique => ARRAY['event_id']::name[],
           retention_days => (now() AT TIME ZONE 'UTC')::date - date '2026-02-15')
  FROM (VALUES ('silver.events', 'silver_partitions'), ('bronze.events', 'bronze_partitions')) AS s(name, schema);
SQL
    loader maintain
    printf '%s\n' '{"messageId":"ahead-3","type":"track","event":"page_viewed",'\
'"timestamp":"2026-02-15T00:20:00Z","receivedAt":"2026-03-13T09:00:00Z","userId":"edge-ahead"}' \
        >"$WORK/events/after.ndjson"
    loader load "$WORK/events/after.ndjson"
    loader maintain
    must_dbt retired build --select tidemark_sessions tidemark_daily_actives tidemark_person_days tidemark_funnel_daily \
        --exclude-resource-type test
    show_end
    must_dbt retired-test test --select path:tests/against_gold/{sessions,daily_actives,person_days,funnel_daily}.sql
    [ "$(psql_as dbt_analyst -c "SELECT (SELECT count(*) FROM silver.events WHERE event_date < '2026-02-15') || ' ' ||
            (SELECT count(*) FROM analytics.tidemark_sessions WHERE event_date < '2026-02-15') || ' ' ||
            (SELECT events FROM analytics.tidemark_daily_actives WHERE event_date = '2026-02-15')")" = "0 3 2" ] ||
        die "retired dates are not as they were, or the date after them was not computed"
    say "    4 retired dates kept, the date after them computed"
}

# Sources and models have the columns that are described, each with a description, and each comment is in the database.
catalog() {
    must_dbt docs docs generate
    "$VENV/bin/python" - "$PROJECT/target" >&2 <<'PYTHON' || \
        die "descriptions and tables differ" "dbt/models/ describes what the lines above name"
import json, sys
manifest, catalog = (json.load(open(f"{sys.argv[1]}/{name}.json")) for name in ("manifest", "catalog"))
described = {**manifest["sources"], **{k: v for k, v in manifest["nodes"].items() if v["resource_type"] == "model"}}
found = {**catalog["sources"], **catalog["nodes"]}
wrong, relations, columns = [], 0, 0
for key, node in described.items():
    if key.startswith("model.") and node["name"] == "campaign_costs":
        continue
    there = set(found[key]["columns"]) if key in found else set()
    relations, columns = relations + 1, columns + len(there)
    for name in there ^ set(node["columns"]):
        wrong.append(f"{key}.{name} is {'not described' if name in there else 'not there'}")
    for name, column in node["columns"].items():
        if not column["description"] or (key.startswith("model.") and found[key]["columns"][name]["comment"] != column["description"]):
            wrong.append(f"{key}.{name} has no description, or another comment in the database")
for name, macro in manifest["macros"].items():
    if macro["package_name"] == "tidemark" and not name.startswith("macro.tidemark.test_"):
        said = {a["name"] for a in macro["arguments"]}
        if not macro["description"] or not said:
            wrong.append(f"{name} is not described")
print("\n".join(wrong) or f"    {relations} sources and models with {columns} columns, all of them described")
sys.exit(bool(wrong))
PYTHON
}

# The page shows nothing that was not run: its commands are among those above, its blocks stand in the files below dbt/.
page() {
    "$VENV/bin/python" - "$ROOT/docs/dbt.md" "$WORK/commands" "$ROOT/dbt" >&2 <<'PYTHON' || \
        die "docs/dbt.md shows what was not run here" "the lines above name it"
import pathlib, re, sys
page, ran = (pathlib.Path(name).read_text() for name in sys.argv[1:3])
files = [p.read_text() for p in pathlib.Path(sys.argv[3]).rglob("*") if p.suffix in (".sql", ".yml") and "target" not in p.parts]
commands = [line for block in re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S) for line in block.splitlines()]
blocks = re.findall(r"^```(?:jinja|yaml)\n(.*?)^```", page, re.M | re.S)
wrong = [c for c in commands if c not in ran.splitlines()] + [b for b in blocks if not any(b in f for f in files)]
print("\n".join(wrong) or f"    {len(commands)} commands and {len(blocks)} blocks of docs/dbt.md are what was run")
sys.exit(bool(wrong) or not commands or not blocks)
PYTHON
}

step "dbt" install_dbt
use_postgres
if [ -z "${TIDEMARK_BIN:-}" ]; then
    TIDEMARK_BIN=$(target_dir)/release/tidemark
    step "build and install" build
fi
step "a private Postgres with the warehouse" prepare
step "events" generate
step "dbt deps" must_dbt deps deps
for BATCH in $(seq $RUNS); do
    step "run $BATCH" one_run
    [ "$BATCH" != 1 ] || step "a model of the extension over a table of dbt" register_costs
done
step "what dbt wrote reaches the extension" costs
step "wrong rows" spoil
step "full refresh" full_refresh
step "freshness" freshness
step "a log that was cut" forgotten
step "descriptions" catalog
step "retired partitions" retired
step "the page" page
read -r nodes tests < <(sed -nE 's/.*Found ([0-9]+) models, ([0-9]+) data tests.*/\1 \2/p' "$LOGS/dbt-run-4.log")
say "make dbt: $nodes models, $tests tests, $RUNS incremental runs, 1 full refresh" \
    "and 8 spoilt comparisons as expected, in $((EPOCHSECONDS - STARTED)) s"
