# shellcheck shell=bash
# What every script shares: saying what happens, finding Postgres, running as a user that Postgres accepts.
# Source it; it changes to no directory and starts nothing.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
RUN=$ROOT/.run
LOGS=$RUN/logs
TOOLS=$ROOT/.tools
SERVER_USER=${TIDEMARK_SERVER_USER:-postgres}

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
    BOLD=$'\e[1m' RED=$'\e[31m' RESET=$'\e[0m'
else
    BOLD='' RED='' RESET=''
fi

# All of these speak on stderr: stdout belongs to the answer (an address, a report).
say() { printf '%s\n' "$*" >&2; }

# die WHAT [NEXT]: one sentence for what failed, one for what to do.
die() {
    printf '%s%s%s\n' "$RED" "tidemark: $1" "$RESET" >&2
    [ -z "${2:-}" ] || printf '%s\n' "  what to do: $2" >&2
    exit 1
}

# step TITLE COMMAND...: a line before, the seconds after; stops the script when the command fails.
step() {
    local title=$1 started=$EPOCHSECONDS rc
    shift
    say "${BOLD}==> $title${RESET}"
    set +e
    (set -e && "$@")
    rc=$?
    set -e
    [ "$rc" = 0 ] || exit "$rc"
    say "    done in $((EPOCHSECONDS - started)) s"
}

# quietly LOGNAME NEXT COMMAND...: output goes to a log; on failure its last lines and what to do.
quietly() {
    local log=$LOGS/$1.log next=$2 rc ticker started=$EPOCHSECONDS
    shift 2
    mkdir -p "$LOGS"
    : >"$log"
    # Ends with the script, whatever ends that; its sleep holds nobody's pipe open.
    while sleep 20 &>/dev/null && kill -0 $$; do
        say "    $((EPOCHSECONDS - started)) s: $(tail -n 1 "$log" | cut -c 1-100)"
    done &
    ticker=$!
    set +e
    (set -e && "$@") >"$log" 2>&1 </dev/null
    rc=$?
    kill "$ticker" 2>/dev/null && wait "$ticker" 2>/dev/null
    set -e
    if [ "$rc" != 0 ]; then
        tail -n 25 "$log" | sed 's/^/    | /' >&2
        die "\"$*\" failed (exit $rc); the whole log is $log" "$next"
    fi
}

# --- Postgres ---------------------------------------------------------------------------------------------------

# A pg_config is of use only with the server and its headers beside it; Debian packs the three apart.
complete_postgres() {
    [ -x "$1" ] && [ -x "$("$1" --bindir)/initdb" ] && [ -e "$("$1" --includedir-server)/postgres.h" ]
}

# Prints the pg_config to build for: $PG_CONFIG, else Debian's lowest supported version, else the one on PATH.
find_pg_config() {
    local candidate
    if [ -n "${PG_CONFIG:-}" ]; then
        printf '%s\n' "$PG_CONFIG"
        return
    fi
    for candidate in /usr/lib/postgresql/{15,16,17,18}/bin/pg_config "$(command -v pg_config || true)"; do
        if complete_postgres "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

# Sets PG_CONFIG, PGBIN, PGFEATURE (pg15 ..) and what pgrx wants in the environment; refuses what cannot work.
use_postgres() {
    local version
    PG_CONFIG=$(find_pg_config) ||
        die "no Postgres server with development headers found" \
            "run scripts/deps.sh, or give your own: PG_CONFIG=/path/to/pg_config"
    [ -x "$PG_CONFIG" ] ||
        die "$PG_CONFIG is not an executable pg_config" "give the full path: PG_CONFIG=/path/to/pg_config"
    version=$("$PG_CONFIG" --version 2>/dev/null | sed -nE 's/^PostgreSQL ([0-9]+).*/\1/p' || true)
    case $version in
        15 | 16 | 17 | 18) PGFEATURE=pg$version ;;
        *)
            die "$PG_CONFIG is of \"$("$PG_CONFIG" --version 2>&1 | head -n 1 || true)\"; tidemark builds for PostgreSQL 15 to 18" \
                "give the pg_config of a supported server: PG_CONFIG=/path/to/pg_config"
            ;;
    esac
    [ -e "$("$PG_CONFIG" --includedir-server)/postgres.h" ] ||
        die "the server headers of $("$PG_CONFIG" --version) are missing" \
            "install them (Debian: apt-get install postgresql-server-dev-$version)"
    PGBIN=$("$PG_CONFIG" --bindir)
    # One value in every cargo call: pgrx-pg-sys is rebuilt whenever this variable changes.
    export PG_CONFIG PGFEATURE PGBIN PGRX_PG_CONFIG_PATH=$PG_CONFIG PGRX_HOME=$TOOLS/pgrx
    # Who only starts a server may use another one than the builds do, and must not make them begin anew.
    [ -n "${SERVER_ONLY:-}" ] || write_pgrx_config
}

# What `cargo pgrx init` would leave. Plain cargo needs it as well: pgrx-pg-sys watches this file, and while it is
# missing every build starts from there again. Not rewritten without need: cargo looks at its age.
write_pgrx_config() {
    local config
    config=$(printf '[configs]\n%s = "%s"\n' "$PGFEATURE" "$PG_CONFIG")
    if [ "$(cat "$PGRX_HOME/config.toml" 2>/dev/null)" != "$config" ]; then
        mkdir -p "$PGRX_HOME"
        printf '%s\n' "$config" >"$PGRX_HOME/config.toml"
    fi
}

# Postgres refuses root, so root runs it as $SERVER_USER; anybody else as himself.
as_server() {
    if [ "$(id -u)" = 0 ]; then
        (cd / && exec setpriv --reuid="$SERVER_USER" --regid="$SERVER_USER" --init-groups -- "$@")
    else
        "$@"
    fi
}

# `java File.java` needs the compiler's module, which not every runtime has.
has_java_compiler() { java --list-modules 2>/dev/null | grep -q '^jdk\.compiler@'; }

# Version of the extension, from the workspace manifest.
crate_version() { sed -nE '/^\[workspace.package\]/,/^\[/s/^version = "(.*)"/\1/p' "$ROOT/Cargo.toml"; }

# Where cargo puts what it builds. Only cargo knows: a variable may say, or a configuration file in any folder above.
target_dir() { (cd "$ROOT" && cargo metadata --format-version 1 --no-deps) | sed -E 's/.*"target_directory":"([^"]*)".*/\1/'; }

# --- Ports ------------------------------------------------------------------------------------------------------

port_busy() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_port FROM: the first port at or above FROM on which nobody listens.
free_port() {
    local port=$1
    while port_busy "$port"; do port=$((port + 1)); done
    printf '%s\n' "$port"
}

# --- Python -----------------------------------------------------------------------------------------------------

# Prints a Python that dbt runs on and that can make environments of its own; Debian packs venv apart.
find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 /usr/bin/python3; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

# The first mirror in this machine's apt sources, old style or deb822.
mirror() {
    local found
    found=$(sed -nE 's/^(deb +(\[[^]]*\] +)?|URIs: *)([a-z+]+:[^ ]*).*/\3/p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null | awk '!/security/ && !n++' || true)
    [ -n "$found" ] || die "no mirror in /etc/apt" "put one into /etc/apt/sources.list"
    printf '%s\n' "$found"
}

# use_venv NAME PACKAGES: sets VENV to a virtual environment of that name below $TOOLS with these packages, made if need be.
use_venv() {
    VENV=$TOOLS/$1
    if [ "$(cat "$VENV/wanted" 2>/dev/null)" = "$2" ]; then return; fi
    say "    setting up Python" >&2
    quietly "$1-venv" "install python3-venv" python3 -m venv "$VENV"
    # shellcheck disable=SC2086
    quietly "$1-pip" "check that pip can reach its index" "$VENV/bin/pip" install $2
    printf '%s\n' "$2" >"$VENV/wanted"
}
