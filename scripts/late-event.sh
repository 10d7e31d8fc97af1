#!/usr/bin/env bash
# One late event in a big warehouse: `make late-event`. Which dates of which models are recomputed for it, and how long
# that takes beside building everything. Settings, all optional, from the environment:
#
#   EVENTS=10000000 DAYS=30 USERS=200000 SEED=42   what is generated
#   DAYS_BACK=20                                   how many days before the last one the late event happened
#   REBUILD=1                                      also mark every date and build all again (0: compare with the first
#                                                  build)
#   PERSONS=300                                    how many persons get one more event each afterwards, over all dates
#   VERIFY_DAYS=10                                 how many days around it every model is compared with a recompute
#   TIDEMARK_BIN=...                               this loader, and the extension as it is installed: nothing is built
#   LATE_DIR=.run/late-event                       where the private Postgres is kept (KEEP=1) or was (otherwise
#                                                  deleted)
#
# Fails unless exactly those dates are recomputed that the chain of lookback and lookahead reaches from what changed,
# and unless every model afterwards is what a recompute gives.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

EVENTS=${EVENTS:-10000000} DAYS=${DAYS:-30} USERS=${USERS:-200000} SEED=${SEED:-42} DAYS_BACK=${DAYS_BACK:-20}
REBUILD=${REBUILD:-1} VERIFY_DAYS=${VERIFY_DAYS:-10} PERSONS=${PERSONS:-300}
mkdir -p "${LATE_DIR:=$RUN/late-event}"
LATE_DIR=$(cd "$LATE_DIR" && pwd)
PG=$LATE_DIR/pg

for number in EVENTS DAYS USERS SEED DAYS_BACK REBUILD VERIFY_DAYS PERSONS; do
    case ${!number} in '' | *[!0-9]*) die "$number=${!number} is not a number" "make late-event $number=20" ;; esac
done
[ "$DAYS_BACK" -lt "$DAYS" ] || die "DAYS_BACK=$DAYS_BACK is before the first of $DAYS days" "choose fewer"

install_packages() { "$ROOT/scripts/deps.sh"; }
build() { "$ROOT/scripts/build.sh"; }
install_extension() { "$ROOT/scripts/install.sh" --no-build; }
start_postgres() {
    say "    Postgres listens on $("$ROOT/scripts/pg.sh" start "$PG" 0 max_wal_size=2GB checkpoint_timeout=15min)"
}
psql() { "$PGBIN/psql" -Xq -v ON_ERROR_STOP=1 -P pager=off "$("$ROOT/scripts/pg.sh" url "$PG" tidemark)" "$@"; }
value() { psql -At -c "$1"; }
tidemark() { TIDEMARK_DATABASE_URL=$("$ROOT/scripts/pg.sh" url "$PG" tidemark) "$TIDEMARK" "$@"; }

create_database() {
    "$PGBIN/psql" -Xq -v ON_ERROR_STOP=1 "$("$ROOT/scripts/pg.sh" url "$PG")" \
        -c 'SET client_min_messages = warning' -c 'DROP DATABASE IF EXISTS tidemark WITH (FORCE)' \
        -c 'CREATE DATABASE tidemark TEMPLATE template0'
    tidemark migrate
}

# Through a pipe: ten million lines need not be on the disk twice.
load_all() {
    "$TIDEMARK-shop" generate --events "$EVENTS" --days "$DAYS" --users "$USERS" --seed "$SEED" | tidemark load -
}

# timed NAME COMMAND...: the seconds it took go to the variable.
timed() {
    local name=$1 began=$EPOCHREALTIME
    shift
    "$@"
    printf -v "$name" '%s' "$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }')"
}

dirty() { value 'SELECT coalesce(sum(dirty_dates), 0) FROM tidemark.model_status'; }

# One round does everything; another one only when a date of it failed.
maintain_until_clean() {
    local round
    for round in 1 2 3; do
        tidemark maintain
        if [ "$(dirty)" = 0 ]; then return; fi
        say "    something is still dirty after round $round"
    done
    die "models are still dirty after three rounds" "psql: SELECT * FROM tidemark.model_status"
}

# Every date of every source, those that are models included: a date that comes out as it was would mark nobody.
mark_everything() {
    psql -At >/dev/null <<'SQL'
SELECT format('SELECT tidemark.mark_dirty(%L::regclass, ARRAY(SELECT DISTINCT event_date FROM %s), %L)',
              source, source, 'forced rebuild')
  FROM (SELECT DISTINCT source FROM tidemark_internal.model_sources) AS s
\gexec
SQL
}

# contents TABLE: remembers what every date of every model holds, as a number of rows and a sum of hashes.
contents() {
    psql -At >/dev/null <<SQL
CREATE TABLE late.$1 (model text, event_date date, rows bigint, hash numeric);
SELECT format('INSERT INTO late.$1 SELECT %L, event_date, count(*), sum(hashtextextended(t::text, 0)::numeric)'
              ' FROM %s AS t GROUP BY event_date',
              model, target) FROM tidemark.model_status
\gexec
SQL
}

recomputed() { value 'SELECT coalesce(sum(refresh_count), 0) FROM tidemark.model_status'; }

# costs TIME: where the seconds since then went, the views over models aside.
costs() {
    psql -c "SELECT model, way, count(*) AS dates, max(persons) AS persons,
                    sum(rows_inserted + rows_updated + rows_deleted) AS rows, sum(seconds)::numeric(9, 2) AS seconds
               FROM tidemark.refresh_log WHERE refreshed_at >= '$1' AND way <> 'changed' GROUP BY 1, 2 ORDER BY 6 DESC"
}

if [ -z "${TIDEMARK_LATE_LOCKED:-}" ]; then
    rc=0
    TIDEMARK_LATE_LOCKED=1 flock -n -o -E 99 "$LATE_DIR/lock" "$0" "$@" || rc=$?
    [ "$rc" != 99 ] ||
        die "another make late-event is at work in $LATE_DIR" \
            "wait for it, or give a directory of its own: LATE_DIR=..."
    exit "$rc"
fi
STARTED=$EPOCHSECONDS

say "a late event among $EVENTS events of $DAYS days, $USERS users, seed $SEED"
need_mb=$((EVENTS * 2 / 1024 + 2500)) have_mb=$(($(df -Pk "$LATE_DIR" | awk 'NR == 2 { print $4 }') / 1024))
[ "$have_mb" -ge "$need_mb" ] ||
    die "this needs about $need_mb MiB of disk in $LATE_DIR, there are $have_mb" \
        "free some, give another place (LATE_DIR=...) or fewer EVENTS"
step "install what is missing" install_packages
use_postgres
TIDEMARK=${TIDEMARK_BIN:-$(target_dir)/release/tidemark}
if [ -z "${TIDEMARK_BIN:-}" ]; then
    step "build extension and loader in release mode (some minutes the first time)" build
    step "install the extension into $("$PG_CONFIG" --version)" install_extension
fi
trap 'if [ -z "${KEEP:-}" ]; then "$ROOT/scripts/pg.sh" destroy "$PG" || true; fi' EXIT
step "start a private Postgres" start_postgres
step "create the database" create_database

say "${BOLD}==> generate and load${RESET}"
timed LOADED load_all
say "${BOLD}==> build every model${RESET}"
psql -c 'ANALYZE'
timed BUILT maintain_until_clean
BUILT_DATES=$(recomputed)
say "    $BUILT_DATES dates of models in $BUILT s"

REBUILT=$BUILT REBUILT_DATES=$BUILT_DATES
if [ "$REBUILD" != 0 ]; then
    say "${BOLD}==> mark every date and build all again${RESET}"
    psql -c 'ANALYZE'
    mark_everything
    before=$(recomputed)
    timed REBUILT maintain_until_clean
    REBUILT_DATES=$(($(recomputed) - before))
    say "    $REBUILT_DATES dates of models in $REBUILT s"
    [ "$REBUILT_DATES" -ge "$BUILT_DATES" ] || die "the forced rebuild recomputed fewer dates than there are"
fi
psql -c 'ANALYZE'

psql -c 'CREATE SCHEMA late'
contents before

DATE=$(value "SELECT max(event_date) - $DAYS_BACK FROM bronze.events")
say "${BOLD}==> load one event of $DATE, received $DAYS_BACK days later${RESET}"
received=$(value "SELECT date '$DATE' + $DAYS_BACK")
printf '{%s,%s,%s}\n' \
    '"messageId":"00000000-0000-4000-8000-00000001a7e0","type":"track","event":"page_viewed"' \
    "\"timestamp\":\"${DATE}T12:34:56.789Z\",\"receivedAt\":\"${received}T18:00:00.000Z\"" \
    '"userId":"u000001","properties":{"n":1},"context":{"page":{"path":"/late"}}' >"$LATE_DIR/late.ndjson"
timed LATE_LOADED tidemark load "$LATE_DIR/late.ndjson"
[ "$(value "SELECT count(*) FROM bronze.events
             WHERE event_date = '$DATE' AND event_id::text = '00000000-0000-4000-8000-00000001a7e0'")" = 1 ] ||
    die "the late event is not in bronze.events"
say "    dirty before the refresh:"
psql -c "SELECT model, dirty_dates, oldest_dirty_date FROM tidemark.model_status WHERE dirty_dates > 0 ORDER BY model"
since=$(value 'SELECT clock_timestamp()')
before=$(recomputed)
timed REFRESHED maintain_until_clean
LATE_DATES=$(($(recomputed) - before))
say "    $LATE_DATES dates of models in $REFRESHED s"
costs "$since"

say "${BOLD}==> what was recomputed, and what should have been${RESET}"
contents after
psql -v since="$since" -v date="$DATE" -v days="$VERIFY_DAYS" <<'SQL'
-- What was recomputed, by the extension's own account.
CREATE TABLE late.recomputed AS
SELECT model, event_date, count(*) AS times FROM tidemark.refresh_log WHERE refreshed_at >= :'since'
   AND way <> 'changed' GROUP BY 1, 2;
-- What changed, by content.
CREATE TABLE late.changed AS
SELECT model, event_date FROM late.before b FULL JOIN late.after a USING (model, event_date)
 WHERE (b.rows, b.hash) IS DISTINCT FROM (a.rows, a.hash);
-- What a change reaches: a date of a model when one of its sources changed between its lookback and its lookahead.
CREATE TABLE late.expected AS
SELECT DISTINCT m.name AS model, c.event_date + shift AS event_date
  FROM (SELECT 'bronze.events'::regclass AS source, date :'date' AS event_date
        UNION ALL
        SELECT m.target, c.event_date
          FROM late.changed c JOIN tidemark_internal.models m ON m.name = c.model) AS c
  JOIN tidemark_internal.model_sources s ON s.source = c.source
  JOIN tidemark_internal.models m ON m.name = s.model
 CROSS JOIN LATERAL generate_series(-m.lookahead_days, m.lookback_days) AS shift;
CREATE TABLE late.wrong AS
SELECT 'recomputed in vain' AS what, model, event_date
  FROM (SELECT model, event_date FROM late.recomputed EXCEPT TABLE late.expected) AS x
UNION ALL
SELECT 'not recomputed', model, event_date
  FROM (TABLE late.expected EXCEPT SELECT model, event_date FROM late.recomputed) AS x
UNION ALL SELECT 'recomputed more than once', model, event_date FROM late.recomputed WHERE times > 1
UNION ALL
SELECT 'changed without a recompute', model, event_date
  FROM (TABLE late.changed EXCEPT SELECT model, event_date FROM late.recomputed) AS x
UNION ALL SELECT 'differs from a recompute: ' || v.status || ' ' || coalesce(v.detail, ''), m.name, v.event_date
  FROM tidemark_internal.models m, tidemark.verify_model(m.name, date :'date' - :days, date :'date' + :days) AS v
 WHERE v.status <> 'ok';
\pset border 2
\pset null '-'
\echo
SELECT m.name AS model, m.lookback_days AS back, m.lookahead_days AS ahead,
       (SELECT string_agg(to_char(event_date, 'MM-DD'), ' ' ORDER BY event_date)
          FROM late.recomputed r WHERE r.model = m.name) AS recomputed,
       (SELECT string_agg(to_char(event_date, 'MM-DD'), ' ' ORDER BY event_date)
          FROM late.expected e WHERE e.model = m.name) AS expected,
       (SELECT string_agg(to_char(event_date, 'MM-DD'), ' ' ORDER BY event_date)
          FROM late.changed c WHERE c.model = m.name) AS changed,
       (SELECT count(*) FROM late.before b WHERE b.model = m.name) AS all_dates
  FROM tidemark_internal.models m ORDER BY 1;
SQL

say "${BOLD}==> load one event each of $PERSONS persons, over all dates${RESET}"
psql -At >"$LATE_DIR/persons.ndjson" <<SQL
SELECT format('{"messageId":"00000000-0000-4000-8001-%s","type":"track","event":"page_viewed",'
              '"timestamp":"%sT12:34:56.789Z","receivedAt":"%sT18:00:00Z","userId":"%s","context":{"page":{"path":"/late"}}}',
              lpad(n::text, 12, '0'), date '$received' - (n % $DAYS)::integer, '$received', person)
  FROM (SELECT person, row_number() OVER (ORDER BY person) - 1 AS n
          FROM (SELECT DISTINCT person FROM silver.events WHERE event_date = '$DATE' AND user_id IS NOT NULL) AS p
         LIMIT $PERSONS) AS p
SQL
tidemark load "$LATE_DIR/persons.ndjson"
psql -c "CALL tidemark.refresh('silver.events')"
since=$(value 'SELECT clock_timestamp()')
timed SESSIONS psql -c "CALL tidemark.refresh('gold_storage.session_facts')"
timed PERSONS_REFRESHED maintain_until_clean
costs "$since"

printf '%-46s %10s %12s\n' 'what' 'dates' 'seconds' \
    "load $EVENTS events" '' "$LOADED" \
    'first build of all models' "$BUILT_DATES" "$BUILT" \
    "$([ "$REBUILD" = 0 ] && echo 'no forced rebuild: the first build counts' || echo 'forced rebuild of all models')" \
    "$REBUILT_DATES" "$REBUILT" \
    "load one event of $DATE" '' "$LATE_LOADED" \
    'maintain after it' "$LATE_DATES" "$REFRESHED" \
    "sessions after an event each of $PERSONS persons" '' "$SESSIONS" \
    'maintain after that' '' "$PERSONS_REFRESHED"
awk -v a="$REBUILT" -v b="$REFRESHED" 'BEGIN { printf "rebuild / maintain after the late event: %.1f\n", a / b }'
wrong=$(value "SELECT what || ': ' || model || ' ' || event_date FROM late.wrong ORDER BY 1")
[ -z "$wrong" ] || die "not exactly the right dates:
$wrong" "KEEP=1 leaves the database; the tables in schema late say more"
[ "$(value 'SELECT count(*) FROM late.expected')" -gt 0 ] || die "no model reads bronze.events"
say "exactly the dates that the event reaches were recomputed; all of it took $((EPOCHSECONDS - STARTED)) s"
