#!/usr/bin/env bash
# From nothing to the answers: `make demo`. Settings, all optional, from the environment:
#
#   EVENTS=200000 DAYS=30 USERS=5000 SEED=42   what is generated
#   KAFKA=1                                    through a real Kafka instead of a file
#   DEMO_PORT=54329                            where the private Postgres listens (the next free one unless told)
#   DEMO_DIR=.run/demo                         where everything is kept
#
# Running it again keeps the cluster and makes the database anew. The report also goes to DEMO_DIR/report.txt.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

EVENTS=${EVENTS:-200000} DAYS=${DAYS:-30} USERS=${USERS:-5000} SEED=${SEED:-42}
case ${KAFKA:-} in '' | 0 | no | false) KAFKA='' ;; *) KAFKA=1 ;; esac
mkdir -p "${DEMO_DIR:=$RUN/demo}"
DEMO_DIR=$(cd "$DEMO_DIR" && pwd)
PG=$DEMO_DIR/pg KAFKA_DIR=$DEMO_DIR/kafka
EVENT_FILE=$DEMO_DIR/events.ndjson
TOPIC=events

for number in EVENTS DAYS USERS SEED; do
    case ${!number} in '' | *[!0-9]*) die "$number=${!number} is not a number" "make demo $number=200" ;; esac
done

# Nobody runs two at once in one directory; -o keeps the lock out of the servers we start.
if [ -z "${TIDEMARK_DEMO_LOCKED:-}" ]; then
    rc=0
    TIDEMARK_DEMO_LOCKED=1 flock -n -o -E 99 "$DEMO_DIR/lock" "$0" "$@" || rc=$?
    [ "$rc" != 99 ] || die "another make demo is at work in $DEMO_DIR" "wait for it, or give a directory of its own: DEMO_DIR=..."
    exit "$rc"
fi
STARTED=$EPOCHSECONDS

install_packages() { "$ROOT/scripts/deps.sh" ${KAFKA:+kafka}; }
build() { "$ROOT/scripts/build.sh" "$([ -n "$KAFKA" ] && echo all || echo demo)"; }
install_extension() { "$ROOT/scripts/install.sh" --no-build; }

start_postgres() {
    local address
    # An explicit port is kept to; otherwise the one of last time, or the first free one.
    address=$("$ROOT/scripts/pg.sh" start "$PG" "${DEMO_PORT:-0}")
    say "    Postgres listens on $address"
}

# superuser DATABASE ARGS...: psql; the password goes through the environment, since arguments show in the process list.
superuser() {
    PGPASSWORD=$(cat "$PG/password") "$PGBIN/psql" -XqAt -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$(cat "$PG/port")" \
        -U postgres -d "$1" "${@:2}"
}
loader_url() { printf 'postgresql://app:%s@127.0.0.1:%s/tidemark\n' "$(cat "$DEMO_DIR/app.password")" "$(cat "$PG/port")"; }
with_superuser() { TIDEMARK_DATABASE_URL=$("$ROOT/scripts/pg.sh" url "$PG" tidemark) "$@"; }
with_loader() { TIDEMARK_DATABASE_URL=$(loader_url) "$@"; }

create_database() {
    # CREATE DATABASE copies template0 so that nothing left in template1 gets in.
    superuser postgres -c 'SET client_min_messages = warning' -c 'DROP DATABASE IF EXISTS tidemark WITH (FORCE)' \
        -c 'CREATE DATABASE tidemark TEMPLATE template0' || die "the demo database cannot be made anew" "make clean-demo, then make demo"
    with_superuser "$TIDEMARK" migrate
    [ -e "$DEMO_DIR/app.password" ] ||
        (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$DEMO_DIR/app.password")
    superuser tidemark -f - <<SQL
SET client_min_messages = warning;
SELECT format('CREATE ROLE %I LOGIN', name) FROM unnest(ARRAY['app', 'analyst']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE app PASSWORD '$(cat "$DEMO_DIR/app.password")';
ALTER ROLE analyst PASSWORD 'analyst';
GRANT tidemark_loader TO app;
GRANT tidemark_reader TO analyst;
SQL
}

generate() {
    "$TIDEMARK-shop" generate --events "$EVENTS" --days "$DAYS" --users "$USERS" --seed "$SEED" --out "$EVENT_FILE"
    say "    $(wc -l <"$EVENT_FILE") lines, $(($(stat -c %s "$EVENT_FILE") / 1024 / 1024)) MiB in $EVENT_FILE"
}

load_file() { with_loader "$TIDEMARK" load "$EVENT_FILE"; }

# A fresh broker every time: the topic holds this run's events and no others.
start_kafka() {
    local address
    "$ROOT/scripts/kafka.sh" destroy "$KAFKA_DIR"
    address=$("$ROOT/scripts/kafka.sh" start "$KAFKA_DIR")
    say "    Kafka listens on $address"
}
produce() { "$TIDEMARK-shop" produce "$EVENT_FILE" --brokers "127.0.0.1:$(cat "$KAFKA_DIR/port")" --topic "$TOPIC" --partitions 4; }
consume() {
    with_loader "$TIDEMARK" run --brokers "127.0.0.1:$(cat "$KAFKA_DIR/port")" --topic "$TOPIC" \
        --until-caught-up --maintain-every off
}

# As the superuser, who may act for tidemark_admin; a production set-up gives a role of its own that membership.
maintain() { with_superuser "$TIDEMARK" maintain; }

report() {
    PGPASSWORD=analyst "$PGBIN/psql" -Xq -v ON_ERROR_STOP=1 -P pager=off \
        -h 127.0.0.1 -p "$(cat "$PG/port")" -U analyst -d tidemark -f "$ROOT/sql/dashboards/demo.sql" >"$DEMO_DIR/report.txt" ||
        die "the report failed" "the database is there: read the error above; sql/dashboards/demo.sql is the report"
    cat "$DEMO_DIR/report.txt"
}

if [ -n "$KAFKA" ]; then way="through a real Kafka"; else way="from a file"; fi
say "tidemark demo: $EVENTS events of $DAYS days, seed $SEED, $way"
step "install what is missing" install_packages
use_postgres
TIDEMARK=$(target_dir)/release/tidemark
step "build extension and loader in release mode (some minutes the first time)" build
step "install the extension into $("$PG_CONFIG" --version)" install_extension
step "start a private Postgres" start_postgres
step "create the demo database" create_database
step "generate events" generate
if [ -n "$KAFKA" ]; then
    step "start a private Kafka" start_kafka
    step "produce the events to topic \"$TOPIC\"" produce
    step "load them from Kafka" consume
else
    step "load them from the file" load_file
fi
step "refresh models and materialized views" maintain
say "${BOLD}==> the answers${RESET}"
report

cat <<TEXT

Look around yourself (login and password: analyst):
  $PGBIN/psql postgresql://analyst:analyst@127.0.0.1:$(cat "$PG/port")/tidemark
Analysts see the typed columns of events only. Let them see all properties, too:
  $PGBIN/psql "\$(scripts/pg.sh url $PG tidemark)" -c "SELECT silver.show_properties('{*}')" -c "CALL tidemark.refresh()"
Stop the private servers: make stop      Delete them with their data: make clean-demo
TEXT
say "make demo took $((EPOCHSECONDS - STARTED)) s"
