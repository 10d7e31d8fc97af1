#!/usr/bin/env bash
# Follows README.md line by line, as a reader on a fresh Debian 12 would: every command of its sh blocks and every
# statement of its sql blocks, in order, each with its output's end and its exit code. For maintainers, as root, in a
# machine that may be thrown away, such as the one of scripts/bare-chroot.sh:
#
#   scripts/bare-chroot.sh /var/tmp/tidemark-bare scripts/readme-walk.sh
#
# What the README takes for granted is put there first and said: a Postgres with a database "shop" that holds what
# `make demo` loaded into it (README, "What it answers"), and a Kafka topic. SKIP is a pattern of commands to leave out
# ("make test", which takes long). Exit code 1 when any command ended with another code than 0.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
SKIP=${SKIP:-^$}
LINES_SHOWN=${LINES_SHOWN:-6}
SHOP=postgresql://postgres@127.0.0.1/shop
WORK=$(mktemp -d)
failed=0 count=0 later=()

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# run COMMAND: in this shell, so that an export counts for the next line.
run() {
    if [[ $1 =~ $SKIP ]]; then
        say "left out: $1"
        return
    fi
    say "\$ $1"
    local began=$SECONDS rc=0 shown=$LINES_SHOWN
    case $1 in "make demo"*) shown=200 ;; esac
    eval "$1" >"$WORK/out" 2>&1 </dev/null || rc=$?
    tail -n "$shown" "$WORK/out"
    printf '[exit code %s, %s s]\n' "$rc" $((SECONDS - began))
    count=$((count + 1))
    [ "$rc" = 0 ] || { failed=$((failed + 1)) && tail -n 30 "$WORK/out"; }
}

ask() {
    printf '%s\n' "$1" >"$WORK/walk.sql"
    say "$1"
    run "psql -X -v ON_ERROR_STOP=1 $SHOP -f $WORK/walk.sql"
}

# Blocks of README.md as lines "kind<TAB>text"; a statement or a file's content is one line.
blocks() {
    awk '
        /^<!-- file: / { file = $3; next }
        /^```/ && inside { inside = 0; if (kind == "sql" && text != "") print "sql\t" text; text = ""; file = ""; next }
        /^```/ { kind = substr($1, 4); inside = 1; text = ""; next }
        !inside { next }
        kind == "sh" { print "sh\t" $0 }
        kind == "sql" { text = text (text == "" ? "" : " ") $0 }
        kind == "json" && file != "" { print "file " file "\t" $0 }
    ' README.md
}

prepared=
# The reader's own Postgres, between "two commands" and "put it into your own Postgres".
prepare() {
    prepared=1
    say "(the reader's own Postgres and Kafka: not in the README)"
    pg_createcluster 15 main -- --auth=trust >/dev/null
    pg_ctlcluster 15 main start
    su postgres -c 'createdb shop'
    # Java and Maven, which "make test" would have installed.
    scripts/deps.sh kafka >/dev/null
    TIDEMARK_BROKERS=$(scripts/kafka.sh start .run/walk-kafka)
    export TIDEMARK_BROKERS
    trap 'scripts/kafka.sh destroy .run/walk-kafka; pg_ctlcluster 15 main stop -m immediate' EXIT
}

while IFS=$'\t' read -r kind text <&3; do
    case $kind,$text in
        sh,"make install"*) [ -n "$prepared" ] || prepare ;;
        sh,"tidemark load"*)
            # The shop that the README's topic holds.
            tidemark-shop generate --events 20000 --days 30 --users 800 --seed 42 >"$WORK/shop.ndjson" 2>/dev/null
            tidemark-shop produce "$WORK/shop.ndjson" --topic events --partitions 2 >/dev/null 2>&1
            ;;
    esac
    case $kind in
        sh) run "$text" ;;
        sql) if [ -n "$prepared" ]; then ask "$text"; else later+=("$text"); fi ;;
        "file "*) printf '%s\n' "$text" >"${kind#file }" ;;
    esac
done 3< <(blocks)
say "the questions at the top, on what was loaded"
run "tidemark maintain"
for text in "${later[@]}"; do
    ask "$text"
done
say "README: $count commands and statements, $failed failed"
[ "$failed" = 0 ]
