#!/usr/bin/env bash
# A private Postgres cluster: own directory, own port, 127.0.0.1 only, never the system's cluster.
#
#   scripts/pg.sh start   DIR [PORT] [name=value ...]   creates it the first time; prints host:port
#   scripts/pg.sh stop    DIR
#   scripts/pg.sh restart DIR
#   scripts/pg.sh crash   DIR            immediate stop: what was not written yet is lost (for tests)
#   scripts/pg.sh kill    DIR            kill -9 of the postmaster (for tests)
#   scripts/pg.sh status  DIR            exit 0 when it answers
#   scripts/pg.sh url     DIR [DATABASE] superuser URL, with its password
#   scripts/pg.sh destroy DIR            stops it and deletes DIR
#
# DIR holds: port, password (mode 0600) and data. When the server's user cannot reach DIR (say, below /root),
# data is a link to /var/lib/tidemark/<hash of DIR>. Without PORT: the remembered one, else a free one from 54329.
# A name=value is a server setting for this and later starts. With STANDBY_OF=DIR the cluster that is created is a copy
# of the one in that DIR and follows it.
set -euo pipefail
unset RUST_BACKTRACE # a server that inherits it shows Rust frames in the DETAIL of some errors
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

usage() { sed -n "2,/^set -/{/^set -/d;s/^# \{0,1\}//p}" "$0" >&2 && exit 64; }
[ $# -ge 2 ] || usage
COMMAND=$1
mkdir -p "$2" && DIR=$(cd "$2" && pwd)
shift 2
DATA=$DIR/data

ctl() { as_server "$PGBIN/pg_ctl" -D "$(readlink -f "$DATA")" "$@"; }
port() { cat "$DIR/port"; }
initialized() { [ -e "$DIR/password" ] && [ -e "$DIR/port" ] && [ -e "$DATA/PG_VERSION" ]; }
running() {
    initialized && ctl status >/dev/null 2>&1 && "$PGBIN/pg_isready" -q -h 127.0.0.1 -p "$(port)"
}
elsewhere() { printf '/var/lib/tidemark/%s\n' "$(printf %s "$DIR" | sha256sum | cut -c1-16)"; }

# Leaves a directory for the data that the server's user owns and can reach, with $DATA leading to it.
place_data() {
    local place=$DATA
    if [ "$(id -u)" = 0 ]; then
        id "$SERVER_USER" >/dev/null 2>&1 ||
            die "Postgres refuses to run as root and there is no user \"$SERVER_USER\"" \
                "create one (useradd --system $SERVER_USER), or name another: TIDEMARK_SERVER_USER=somebody"
        if ! as_server test -x "$DIR"; then
            place=$(elsewhere)
            say "    user $SERVER_USER cannot reach $DIR: the data goes to $place"
            # Left over from an earlier checkout at this path, whose password is gone with it.
            if [ -e "$place" ]; then
                as_server "$PGBIN/pg_ctl" -D "$place" -m immediate stop >/dev/null 2>&1 || true
                rm -rf "$place"
            fi
            install -d -m 755 /var/lib/tidemark
            rm -rf "$DATA"
            ln -s "$place" "$DATA"
        fi
    fi
    rm -rf "$place"
    install -d -m 700 "$place"
    if [ "$(id -u)" = 0 ]; then chown "$SERVER_USER:" "$place"; fi
}

create() {
    local real
    rm -f "$DIR/password"
    place_data
    real=$(readlink -f "$DATA")
    if [ -n "${STANDBY_OF:-}" ]; then copy_of "$STANDBY_OF" "$real"; else create_empty "$real"; fi
}

# A standby of the cluster in DIR $1; start.conf comes along and is written anew by the start.
copy_of() {
    local password
    password=$(cat "$1/password")
    as_server "$PGBIN/pg_basebackup" -D "$2" -R -c fast -X stream \
        -d "postgresql://postgres:$password@127.0.0.1:$(cat "$1/port")/postgres" ||
        die "pg_basebackup of $1 failed" "read the lines above"
    (umask 077 && printf '%s\n' "$password" >"$DIR/password")
}

create_empty() {
    local password memory_mb real=$1
    password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    # initdb reads the password from a file, which its own user must be able to read: inside a directory of mode 0700.
    # shellcheck disable=SC2016
    as_server sh -ec '
        umask 077
        cat >"$1/.pw"
        mkdir "$1/.new"
        LC_ALL=C.UTF-8 "$2/initdb" -D "$1/.new" --username=postgres --auth=scram-sha-256 --pwfile="$1/.pw" \
            --encoding=UTF8 --locale=C.UTF-8 >/dev/null
        rm "$1/.pw"
        mv "$1"/.new/* "$1/"
        rmdir "$1/.new"
    ' sh "$real" "$PGBIN" <<<"$password" ||
        die "initdb failed for $real" "read the lines above; scripts/pg.sh destroy $DIR starts over"
    memory_mb=$(($(sed -nE 's/^MemTotal: +([0-9]+) kB/\1/p' /proc/meminfo) / 1024))
    printf '%s\n' "listen_addresses = '127.0.0.1'" "unix_socket_directories = ''" "timezone = 'UTC'" \
        "log_timezone = 'UTC'" "shared_buffers = $((memory_mb / 8 < 512 ? memory_mb / 8 : 512))MB" \
        "wal_compression = on" "max_wal_size = 4GB" "jit = off" "include_if_exists = 'start.conf'" |
        append "$real/postgresql.conf"
    (umask 077 && printf '%s\n' "$password" >"$DIR/password")
}
# The data belongs to the server's user, also when that is not us.
# shellcheck disable=SC2016
append() { as_server sh -c 'cat >>"$1"' sh "$1"; }
# shellcheck disable=SC2016
replace() { as_server sh -c 'cat >"$1"' sh "$1"; }

# Whether the last start failed for want of its port: a connection that somebody opened may have it for a moment, which
# looks free to who asks whether anybody answers there.
refused_port() { as_server tail -n 8 "$1/server.log" 2>/dev/null | grep -q 'could not bind'; }

start() {
    local wanted=${1:-} fixed='' real tries=0
    case $wanted in
        '' | 0) ;;
        *[!0-9]*) die "\"$wanted\" is not a port" "scripts/pg.sh start DIR PORT" ;;
        *) fixed=1 ;;
    esac
    if running && { [ -z "$fixed" ] || [ "$(port)" = "$wanted" ]; }; then
        printf '127.0.0.1:%s\n' "$(port)"
        return
    fi
    # On another port, or not answering. Should it be dead after all, `start` below sorts that out.
    if [ -e "$DATA/PG_VERSION" ]; then ctl -m fast -w -t 60 stop >/dev/null 2>&1 || true; fi
    if [ -e "$DIR/password" ] && [ -e "$DATA/PG_VERSION" ]; then
        [ "pg$(as_server cat "$(readlink -f "$DATA")/PG_VERSION")" = "$PGFEATURE" ] ||
            die "$DIR was made by another major version than $("$PG_CONFIG" --version)" \
                "scripts/pg.sh destroy $DIR (make clean-demo for the demo) and start again"
    else
        create
    fi
    real=$(readlink -f "$DATA")
    if [ -z "$fixed" ]; then wanted=$(free_port "$(cat "$DIR/port" 2>/dev/null || echo 54329)"); fi
    [ $# -eq 0 ] || shift
    [ $# -eq 0 ] || printf '%s\n' "$@" | replace "$real/settings.conf"
    printf '%s\n' "port = $wanted" "include_if_exists = 'settings.conf'" | replace "$real/start.conf"
    while :; do
        if ! port_busy "$wanted" && ctl -w -t 60 -l "$real/server.log" start >/dev/null 2>&1 </dev/null; then break; fi
        tries=$((tries + 1))
        if [ -n "$fixed" ] || [ "$tries" = 20 ] || { ! port_busy "$wanted" && ! refused_port "$real"; }; then
            as_server tail -n 10 "$real/server.log" 2>/dev/null | sed 's/^/    | /' >&2 || true
            if port_busy "$wanted"; then
                die "port $wanted on 127.0.0.1 is taken" \
                    "choose another one (make demo DEMO_PORT=..., or the PORT argument)"
            fi
            die "the private Postgres in $DIR does not start" "read the lines above; its log is $real/server.log"
        fi
        wanted=$(free_port "$((wanted + 1))") # somebody was faster
        printf '%s\n' "port = $wanted" "include_if_exists = 'settings.conf'" | replace "$real/start.conf"
    done
    printf '%s\n' "$wanted" >"$DIR/port"
    printf '127.0.0.1:%s\n' "$wanted"
}

stop() {
    [ -e "$DATA/PG_VERSION" ] || return 0
    if ctl status >/dev/null 2>&1; then
        ctl -m fast -w -t 60 stop >/dev/null ||
            die "the private Postgres in $DIR does not stop" "scripts/pg.sh kill $DIR"
    fi
}

SERVER_ONLY=1
use_postgres
case $COMMAND in
    start) start "$@" ;;
    stop) stop ;;
    restart)
        initialized || die "there is no cluster in $DIR" "scripts/pg.sh start $DIR"
        stop
        start "$(port)"
        ;;
    crash)
        initialized || die "there is no cluster in $DIR" "scripts/pg.sh start $DIR"
        ctl -m immediate -w -t 60 stop >/dev/null
        ;;
    kill)
        initialized || die "there is no cluster in $DIR" "scripts/pg.sh start $DIR"
        pid=$(head -n 1 "$DATA/postmaster.pid")
        kill -9 "$pid"
        # Gone only when reaped: until then Postgres takes its lock file for that of a living server.
        while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
        ;;
    status)
        running || die "no Postgres answers for $DIR" "scripts/pg.sh start $DIR"
        say "Postgres answers at 127.0.0.1:$(port)"
        ;;
    url)
        initialized || die "there is no cluster in $DIR" "scripts/pg.sh start $DIR"
        printf 'postgresql://postgres:%s@127.0.0.1:%s/%s\n' "$(cat "$DIR/password")" "$(port)" "${1:-postgres}"
        ;;
    destroy)
        stop
        if [ -L "$DATA" ]; then rm -rf "$(elsewhere)"; fi
        rm -rf "$DIR"
        ;;
    *) usage ;;
esac
