# shellcheck shell=bash
# Debian chroots that hold one PostgreSQL version each: made once, reused, entered in a mount namespace of their own, so
# that no mount outlives the script. Source it after lib.sh; the caller runs in that namespace (see `in_namespace`).

CHROOTS=${MATRIX_DIR:-/var/tmp/tidemark-matrix}
CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}
RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}

# The distribution that has this version among its own packages.
suite_of() {
    case $1 in
        15) echo bookworm ;;
        16) echo noble ;; # Ubuntu: no Debian release has 16
        17) echo trixie ;;
        18) echo forky ;;
        *) die "no distribution is known for PostgreSQL \"$1\"" "15, 16, 17 or 18" ;;
    esac
}

# in_namespace SCRIPT ARGUMENTS...: once, at the top of a script. Mounts and processes get namespaces of their own:
# whatever is left of either ends with the script, however that ends.
in_namespace() {
    if [ -z "${TIDEMARK_UNSHARED:-}" ]; then
        [ "$(id -u)" = 0 ] || die "a chroot needs root" "run it as root"
        command -v debootstrap >/dev/null || die "there is no debootstrap" "apt-get install debootstrap"
        exec env TIDEMARK_UNSHARED=1 nice -n 5 unshare --mount --pid --fork --kill-child --mount-proc "$@"
    fi
}

# The keys of Ubuntu's archive, from the package that Debian has of them since 13.
ubuntu_keys() {
    local keys=usr/share/keyrings/ubuntu-archive-keyring.gpg trixie=$CHROOTS/trixie
    if [ -e "/$keys" ]; then
        printf '%s\n' "/$keys"
        return
    fi
    if [ ! -e "$trixie/$keys" ]; then
        [ -e "$trixie/etc/os-release" ] || bootstrap_chroot "$trixie" trixie
        enter_chroot "$trixie"
        quietly ubuntu-keys "leave 16 out: MATRIX=\"15 17 18\"" chroot_install_plain "$trixie" ubuntu-keyring
    fi
    printf '%s\n' "$trixie/$keys"
}

# bootstrap_chroot DIR SUITE: a minimal system. debootstrap knows older suites than there are, so it is told the script.
bootstrap_chroot() {
    local dir=$1 suite=$2 scripts=/usr/share/debootstrap/scripts advice="read the log; is the mirror in reach?"
    rm -rf --one-file-system "$dir"
    mkdir -p "$(dirname "$dir")"
    rm -rf --one-file-system "$dir.new"
    if [ "$suite" = noble ]; then
        # Without a mirror: debootstrap's own for Ubuntu.
        quietly "debootstrap-$suite" "$advice" debootstrap --variant=minbase --components=main,universe \
            --keyring="$(ubuntu_keys)" --include=ca-certificates \
            "$suite" "$dir.new" "${UBUNTU_MIRROR:-}" "$scripts/gutsy"
        # Minor releases of Postgres come that way.
        sed -n "s/ $suite / $suite-updates /p" "$dir.new/etc/apt/sources.list" \
            >"$dir.new/etc/apt/sources.list.d/updates.list"
    else
        quietly "debootstrap-$suite" "$advice" debootstrap --variant=minbase --include=ca-certificates \
            "$suite" "$dir.new" "$(mirror)" "$scripts/sid"
    fi
    mv "$dir.new" "$dir"
}

# enter_chroot DIR: the mounts, and how this machine reaches its packages. For the length of the caller's namespace.
enter_chroot() {
    local dir=$1 file
    mountpoint -q "$dir/proc" || mount -t proc proc "$dir/proc"
    mkdir -p "$dir/dev/shm"
    mountpoint -q "$dir/dev/shm" || mount -t tmpfs tmpfs "$dir/dev/shm"
    for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
        if [ -e "$file" ]; then cp -L "$file" "$dir$file"; fi
    done
    # Settings of this machine, not what its packages brought.
    for file in /etc/apt/apt.conf.d/*; do
        if [ -f "$file" ] && ! dpkg-query -S "$file" >/dev/null 2>&1; then cp -L "$file" "$dir/etc/apt/apt.conf.d/"; fi
    done
}

# in_chroot DIR COMMAND...: with a clean environment, but for how packages are reached.
in_chroot() {
    local dir=$1 name passed=()
    shift
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY CI; do
        if [ -n "${!name:-}" ]; then passed+=("$name=${!name}"); fi
    done
    chroot "$dir" /usr/bin/env -i HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 RUNLEVEL=1 \
        DEBIAN_FRONTEND=noninteractive \
        PATH=/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        "${passed[@]}" "$@" </dev/null
}

chroot_install_plain() {
    local dir=$1
    shift
    in_chroot "$dir" apt-get -q update
    in_chroot "$dir" apt-get -y -q --no-install-recommends install "$@"
    in_chroot "$dir" apt-get clean
}

# chroot_install DIR PACKAGE...: the packages, and no cluster of the system's.
chroot_install() {
    local dir=$1
    shift
    chroot_install_plain "$dir" postgresql-common
    grep -q '^create_main_cluster = false' "$dir/etc/postgresql-common/createcluster.conf" ||
        echo 'create_main_cluster = false' >>"$dir/etc/postgresql-common/createcluster.conf"
    chroot_install_plain "$dir" "$@"
}

# use_chroot VERSION: makes what is missing and enters it; sets CHROOT. A file says that it is complete.
use_chroot() {
    local version=$1 suite packages stamp
    suite=$(suite_of "$version")
    CHROOT=$CHROOTS/$suite
    packages="postgresql-$version postgresql-server-dev-$version gcc g++ libc6-dev clang libclang-dev pkg-config \
        libssl-dev zlib1g-dev make git sudo openssl pgbouncer dpkg-dev default-jdk-headless"
    # One opinion about the packages is enough.
    if [ "$version" = 17 ]; then packages+=" lintian"; fi
    [ -e "$CHROOT/etc/os-release" ] || bootstrap_chroot "$CHROOT" "$suite"
    enter_chroot "$CHROOT"
    stamp=$CHROOT/.tidemark-packages
    if [ "$(cat "$stamp" 2>/dev/null)" != "$packages" ]; then
        # shellcheck disable=SC2086
        quietly "packages-$suite" "read the log; remove $CHROOT to begin anew" chroot_install "$CHROOT" $packages
        printf '%s\n' "$packages" >"$stamp"
    fi
}

# share_rust: the toolchain and the downloaded crates, read-only, at the place where rustup puts them.
share_rust() {
    local name
    for name in rustup:$RUSTUP_HOME cargo/registry:$CARGO_HOME/registry; do
        mkdir -p "$CHROOT/root/.${name%%:*}"
        mountpoint -q "$CHROOT/root/.${name%%:*}" && continue
        mount --bind "${name#*:}" "$CHROOT/root/.${name%%:*}"
        mount -o remount,bind,ro "$CHROOT/root/.${name%%:*}"
    done
    mkdir -p "$CHROOT/root/.cargo/bin"
    cp -a "$CARGO_HOME"/bin/{cargo,rustc,rustdoc,rustfmt,rustup} "$CHROOT/root/.cargo/bin/"
}

# share_sources: the working tree as it is, at the same path, so that paths compiled into test programs agree. What was
# built there before stays. The first time, what an older distribution built is the beginning: all but the parts that
# depend on Postgres are the same, and a program that runs with an older C library runs with a newer one.
share_sources() {
    local copy=$CHROOT$ROOT suite
    mkdir -p "$copy"
    for suite in bookworm noble trixie; do
        if [ "$suite" = "${CHROOT##*/}" ] || [ -e "$copy/target" ]; then break; fi
        if [ -e "$CHROOTS/$suite$ROOT/target" ]; then cp -a "$CHROOTS/$suite$ROOT/target" "$copy/target"; fi
    done
    find "$copy" -mindepth 1 -maxdepth 1 ! -name target ! -name .run ! -name .tools -exec rm -rf {} +
    (cd "$ROOT" && git ls-files -coz --exclude-standard | while IFS= read -r -d '' file; do
        if [ -e "$file" ]; then printf '%s\0' "$file"; fi
    done | tar --null -T - -cf -) | tar -C "$copy" -xf -
}
