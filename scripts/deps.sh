#!/usr/bin/env bash
# Installs what is missing, and only that.
#
#   scripts/deps.sh            what `make demo` needs: a C toolchain and a Postgres server with its headers
#   scripts/deps.sh kafka      also Java and Maven, for a real Kafka
#   scripts/deps.sh dbt        also Python with venv, for dbt
#   scripts/deps.sh test       also what only the test run needs
#
# PG_CONFIG=/path/to/pg_config takes that server instead of Debian's.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# Debian's package version of a server, when none is there yet: the first one that this system offers.
offered_postgres() {
    local version
    for version in 15 16 17 18; do
        if apt-cache show "postgresql-server-dev-$version" >/dev/null 2>&1; then
            printf '%s\n' "$version"
            return
        fi
    done
    die "no PostgreSQL 15 to 18 with headers among this system's packages" \
        "install one by hand and name it: PG_CONFIG=/path/to/pg_config"
}

# RUNLEVEL=1 keeps the services of what is installed from being started, outside systemd.
apt_get() {
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get -y -q -o DPkg::Lock::Timeout=300 --no-install-recommends "$@"
}

# Debian makes and starts a cluster when the server is installed. That one is the system's business and would sit on
# port 5432 for nothing: where we are the ones to bring Postgres in, it is not made.
install_without_cluster() {
    local conf=/etc/postgresql-common/createcluster.conf
    apt_get install postgresql-common
    cp "$conf" "$conf.tidemark"
    echo 'create_main_cluster = false' >>"$conf"
    if apt_get install "$@"; then mv "$conf.tidemark" "$conf"; else
        mv "$conf.tidemark" "$conf"
        return 1
    fi
}

missing=() why=()
need() { # need PACKAGE WHY CHECK...: asks for the package unless the check passes
    local package=$1 reason=$2
    shift 2
    if ! "$@" >/dev/null 2>&1; then
        missing+=("$package")
        why+=("$package ($reason)")
    fi
}
has_package() { [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null)" = 'ii ' ]; }
find_pgbouncer() { PATH=$PATH:/usr/sbin command -v pgbouncer; }
has_java() { java -version 2>&1 | grep -qE 'version "(1[7-9]|[2-9][0-9])'; }

want_kafka='' want_test='' want_dbt=''
for group in "$@"; do
    case $group in
        kafka) want_kafka=1 ;;
        dbt) want_dbt=1 ;;
        test) want_kafka=1 want_test=1 want_dbt=1 ;;
        *) die "unknown group \"$group\"" "scripts/deps.sh [kafka] [dbt] [test]" ;;
    esac
done

command -v cargo >/dev/null ||
    die "there is no cargo on PATH" "install Rust 1.95 or later with rustup (https://rustup.rs), then try again"

need gcc "C compiler" command -v cc
need g++ "C++ compiler" command -v c++
need libc6-dev "C headers" test -e /usr/include/stdio.h
need make "builds librdkafka" command -v make
need pkg-config "finds libraries" command -v pkg-config
need clang "reads Postgres headers" command -v clang
if command -v dpkg-query >/dev/null; then
    need libclang-dev "reads Postgres headers" has_package libclang-dev
    need zlib1g-dev "compression" has_package zlib1g-dev
    need libssl-dev "TLS" has_package libssl-dev
fi
postgres_missing=''
if ! find_pg_config >/dev/null; then postgres_missing=1; fi
if [ -n "$want_kafka" ]; then
    need openjdk-17-jre-headless "runs Kafka" has_java
    need maven "fetches Kafka" command -v mvn
fi
if [ -n "$want_dbt" ]; then need python3-venv "runs dbt" find_python; fi
if [ -n "$want_test" ]; then
    need npm "fetches user agents and networks" command -v npm
    # Debian's runtime brings the compiler's module along; a java from elsewhere may not.
    if has_java; then need openjdk-17-jdk-headless "runs a Java source file" has_java_compiler; fi
    need openssl "makes certificates for tests" command -v openssl
    need pgbouncer "tests what is refused" find_pgbouncer
    need prometheus "tests the alerts" command -v promtool
    if [ "$(id -u)" = 0 ]; then need sudo "cargo pgrx test as root" command -v sudo; fi
fi

if [ ${#missing[@]} = 0 ] && [ -z "$postgres_missing" ]; then
    say "    everything is here already"
    exit
fi

if ! command -v apt-get >/dev/null; then
    die "missing: ${why[*]}${postgres_missing:+ a PostgreSQL 15 to 18 server with headers}" \
        "this system has no apt-get: install them its own way, then try again"
fi
if [ "$(id -u)" != 0 ]; then
    packages="${missing[*]}${postgres_missing:+ postgresql-15 postgresql-server-dev-15}"
    die "missing: ${why[*]}${postgres_missing:+ postgresql-15 and postgresql-server-dev-15 (the server)}" \
        "as root: apt-get install --no-install-recommends $packages"
fi

advice="check that apt-get update and apt-get install work here, then try again"
say "    refreshing the package lists"
quietly apt-update "$advice" apt_get update
if [ -n "$postgres_missing" ]; then
    version=$(offered_postgres)
    missing+=("postgresql-$version" "postgresql-server-dev-$version")
    why+=("postgresql-$version (the server)" "postgresql-server-dev-$version (its headers)")
fi
# Later Debians have a later Java; any from 17 on will do.
if [[ " ${missing[*]} " = *" openjdk-17-"* ]] && ! apt-cache show openjdk-17-jre-headless >/dev/null 2>&1; then
    missing=("${missing[@]/openjdk-17-/default-}")
fi
say "    installing:$(printf ' %s,' "${why[@]}" | sed 's/,$//')"
if [ -n "$postgres_missing" ] && ! has_package postgresql-common; then
    quietly apt-install "$advice" install_without_cluster "${missing[@]}"
else
    quietly apt-install "$advice" apt_get install "${missing[@]}"
fi
