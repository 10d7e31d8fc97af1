#!/usr/bin/env bash
# The newcomer's path, proven: `make demo` and `make test` in an empty Debian 12 that holds nothing but git, make,
# certificates and rustup's cargo. For maintainers, as root, with debootstrap.
# The clone lies in /root (mode 0700), where user postgres cannot look: the hard case, and the usual one.
#
#   scripts/bare-chroot.sh [DIR] [COMMAND]     DIR: /var/tmp/tidemark-bare unless told; made anew each time
#                                              COMMAND: what runs in the clone, "make demo && make demo && make test"
#
# The clone is of the current commit: commit first. How packages are reached (apt sources, proxies, certificates, the
# settings of cargo, Maven and pip) is taken over from this machine when it runs; nothing of it is in the repository.
# KEEP=1 leaves the chroot for a look afterwards.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

CHROOT=${1:-/var/tmp/tidemark-bare}
COMMAND=${2:-make demo && make demo && make test}
[ "$(id -u)" = 0 ] || die "a chroot needs root" "run it as root"
command -v debootstrap >/dev/null || die "there is no debootstrap" "apt-get install debootstrap"
command -v cargo >/dev/null || die "there is no cargo on PATH" "install Rust with rustup"
CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}
RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}

# Mounts and processes get namespaces of their own: whatever is left of either ends with this script.
if [ -z "${TIDEMARK_UNSHARED:-}" ]; then
    rc=0
    TIDEMARK_UNSHARED=1 unshare --mount --pid --fork --kill-child --mount-proc "$0" "$@" || rc=$?
    # --one-file-system: should a mount be there all the same, the files behind it stay.
    [ -n "${KEEP:-}" ] || rm -rf --one-file-system "$CHROOT"
    exit "$rc"
fi

bootstrap() {
    rm -rf --one-file-system "$CHROOT"
    mkdir -p "$CHROOT"
    quietly debootstrap "read the log; is the mirror in reach?" \
        debootstrap --variant=minbase --include=ca-certificates,git,make bookworm "$CHROOT" "$(mirror)"
}

share() { # share FILE: the host's copy, at the same place
    if [ -e "$1" ]; then mkdir -p "$CHROOT$(dirname "$1")" && cp -aL "$1" "$CHROOT$1"; fi
}

furnish() {
    local name
    mount -t proc proc "$CHROOT/proc"
    mkdir -p "$CHROOT/dev/shm" "$CHROOT/root/.rustup" "$CHROOT/root/.cargo/bin"
    mount -t tmpfs tmpfs "$CHROOT/dev/shm"
    # The toolchain itself, read-only, at the place where rustup would have put it.
    mount --bind "$RUSTUP_HOME" "$CHROOT/root/.rustup"
    mount -o remount,bind,ro "$CHROOT/root/.rustup"
    cp -a "$CARGO_HOME"/bin/{cargo,cargo-clippy,cargo-fmt,clippy-driver,rustc,rustdoc,rustfmt,rustup} \
        "$CHROOT/root/.cargo/bin/"
    # How this machine reaches its packages.
    for name in /etc/resolv.conf /etc/hosts /etc/maven/settings.xml "$HOME/.m2/settings.xml" /etc/pip.conf \
        "$HOME/.config/pip/pip.conf" /etc/ssl/certs/ca-certificates.crt; do
        share "$name"
    done
    for name in config config.toml; do
        if [ -e "$CARGO_HOME/$name" ]; then cp -aL "$CARGO_HOME/$name" "$CHROOT/root/.cargo/"; fi
    done
    rm -f "$CHROOT/etc/apt/sources.list"
    cp -a /etc/apt/. "$CHROOT/etc/apt/"
    cp -a /usr/share/keyrings/. "$CHROOT/usr/share/keyrings/"
    cp -a /usr/local/share/ca-certificates/. "$CHROOT/usr/local/share/ca-certificates/" 2>/dev/null || true
    chroot "$CHROOT" update-ca-certificates >/dev/null 2>&1
    # A clone needs no history here, but it does need to be a clone: uncommitted files must not count.
    chmod 700 "$CHROOT/root"
    git clone -q --no-hardlinks "$ROOT" "$CHROOT/root/tidemark"
}

# Proxies and certificates only: a newcomer's environment holds nothing else.
inside() {
    local name passed=()
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY SSL_CERT_FILE SSL_CERT_DIR \
        CARGO_HTTP_PROXY CARGO_HTTP_CAINFO PIP_INDEX_URL PIP_CERT PIP_DEFAULT_TIMEOUT MAVEN_OPTS \
        RUSTUP_AUTO_INSTALL CI; do
        if [ -n "${!name:-}" ]; then passed+=("$name=${!name}"); fi
    done
    chroot "$CHROOT" \
        /usr/bin/env -i HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 \
        PATH=/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${passed[@]}" \
        /bin/bash -c "cd /root/tidemark && $1" </dev/null
}

step "bootstrap a minimal Debian 12 in $CHROOT" bootstrap
step "give it the toolchain and a clone of $(git -C "$ROOT" rev-parse --short HEAD)" furnish
# One step a command, so that each gets its wall time.
while read -r line; do
    step "in the chroot: $line" inside "$line"
done <<<"${COMMAND// && /$'\n'}"
