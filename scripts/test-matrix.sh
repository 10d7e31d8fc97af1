#!/usr/bin/env bash
# The extension's tests on every PostgreSQL it supports: `make test-matrix`. One version at a time, a line for each:
# how many tests passed and failed, and the seconds. Exit 1 when anything failed.
#
#   MATRIX="17 18"       only these; "15 16 17 18" unless told
#   MATRIX_TESTS="walk"  only these programs of the client tests, and no other stage
#   MATRIX_DIR=DIR       where the chroots are kept, /var/tmp/tidemark-matrix unless told
#
# The version of this machine's own server is tested here. Each other one is tested in a chroot of the distribution
# that has it (scripts/chroots.sh), made once and reused: the tests inside Postgres, the Debian package, and the client
# tests, with a Kafka whose jars are this machine's.
# For maintainers, as root, with debootstrap. Whatever a run leaves goes with `rm -rf --one-file-system DIR`.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/chroots.sh
. "$(dirname "$0")/chroots.sh"
in_namespace "$0" "$@"
cd "$ROOT"

MATRIX=${MATRIX:-15 16 17 18}
MATRIX_TESTS=${MATRIX_TESTS:-}
PREBUILT=$RUN/prebuilt

# What the chroots do not build themselves: the loader and the client test programs, and cargo-pgrx. They were linked
# with the C library of this machine, which must be no newer than any chroot's.
prebuild() {
    local program
    rm -rf "$PREBUILT"
    mkdir -p "$PREBUILT"
    cargo fetch --locked # for all platforms: cargo metadata wants to see them
    "$ROOT/scripts/kafka.sh" libs
    "$ROOT/scripts/bi-check.sh" libs
    "$ROOT/scripts/deb.sh" loader
    cp "$(target_dir)"/release/tidemark{,-shop} dist/tidemark-loader_*.deb "$PREBUILT/"
    # The names of the programs end with a hash.
    cargo test --no-run --locked -p tidemark-tests --message-format=json >"$PREBUILT/messages"
    sed -nE 's/.*"target":\{"kind":\["test"\].*"name":"([a-z_]+)".*"executable":"([^"]+)".*/\1 \2/p' \
        "$PREBUILT/messages" |
        while read -r program file; do
            if [[ -z "$MATRIX_TESTS" || " $MATRIX_TESTS " == *" $program "* ]]; then
                cp "$file" "$PREBUILT/test-$program"
            fi
        done
    ls "$PREBUILT"/test-* >/dev/null
}

# The stages of scripts/test.sh: the named ones only if all tests are wanted.
stages() { if [ -n "$MATRIX_TESTS" ]; then echo install prebuilt; else echo "$@" install prebuilt; fi; }

# In its own process: a failure ends it and not the matrix.
test_in_chroot() {
    local version=$1 program
    use_chroot "$version"
    share_rust
    share_sources
    mkdir -p "$CHROOT$ROOT/.run/prebuilt" "$CHROOT$ROOT"/.tools/{bin,kafka,bi}
    program=$(PATH=$TOOLS/bin:$PATH command -v cargo-pgrx)
    touch "$CHROOT/usr/local/bin/cargo-pgrx"
    mount --bind "$program" "$CHROOT/usr/local/bin/cargo-pgrx"
    mount --bind "$PREBUILT" "$CHROOT$ROOT/.run/prebuilt"
    mount --bind "$TOOLS/kafka" "$CHROOT$ROOT/.tools/kafka"
    mount --bind "$TOOLS/bi" "$CHROOT$ROOT/.tools/bi"
    in_chroot "$CHROOT" env CARGO_NET_OFFLINE=true CARGO_INCREMENTAL=0 \
        TIDEMARK_CHROOT="$version" TIDEMARK_PREBUILT="$PREBUILT" \
        PG_CONFIG="/usr/lib/postgresql/$version/bin/pg_config" \
        "$ROOT/scripts/test.sh" $(stages pgrx deb)
    [ -n "$MATRIX_TESTS" ] || { mkdir -p dist && cp "$CHROOT$ROOT"/dist/*.deb dist/; }
}

test_here() { TIDEMARK_PREBUILT=$PREBUILT PG_CONFIG=$HERE "$ROOT/scripts/test.sh" $(stages pgrx); }

HERE=$(find_pg_config || true)
here_version=$([ -z "$HERE" ] || "$HERE" --version | sed -nE 's/^PostgreSQL ([0-9]+).*/\1/p')
for version in $MATRIX; do suite_of "$version" >/dev/null; done
mkdir -p "$LOGS"
"$ROOT/scripts/pgrx.sh" ensure
step "build the loader and the client tests" quietly prebuild "read the first error above" prebuild

results=() failed=0
for version in $MATRIX; do
    log=$LOGS/matrix-$version.log
    began=$EPOCHSECONDS
    if [ "$version" = "$here_version" ]; then
        where="this machine"
        say "${BOLD}==> PostgreSQL $version on $where${RESET}"
        run=(test_here)
    else
        where="a chroot of $(suite_of "$version")"
        say "${BOLD}==> PostgreSQL $version in $where${RESET}"
        run=(test_in_chroot "$version")
    fi
    # Not with `||`, inside of which bash goes on after a failure.
    set +e
    (set -e && "${run[@]}") >"$log" 2>&1 </dev/null
    rc=$?
    set -e
    counts=$(sed -nE 's/^tests: (.*)/\1/p' "$log" | tail -n 1)
    if [ "$rc" != 0 ] || [ -z "$counts" ]; then
        failed=1
        tail -n 25 "$log" | sed 's/^/    | /' >&2
        verdict="FAILED, see $log"
    else
        verdict=ok
    fi
    results+=("PostgreSQL $version on $where: ${counts:-no test ran}, $((EPOCHSECONDS - began)) s, $verdict")
    say "    ${results[-1]}"
done
printf '%s\n' "${results[@]}"
exit "$failed"
