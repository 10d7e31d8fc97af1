#!/usr/bin/env bash
# Debian packages into dist/: `make deb PG_CONFIG=/path/to/pg_config`. Named as PGDG does, one extension package for each
# major version of Postgres; the loader's needs none.
#
#   scripts/deb.sh                       both
#   scripts/deb.sh extension|loader      one of them
#
# Built with the C library of this machine, so they install here and on anything newer. Needs dpkg-dev.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
command -v cargo >/dev/null || die "there is no cargo on PATH" "install Rust 1.95 or later with rustup, then try again"
for program in dpkg-deb dpkg-shlibdeps strip; do
    command -v "$program" >/dev/null || die "there is no $program" "apt-get install dpkg-dev binutils"
done
cd "$ROOT"

CHANGELOG=packaging/debian/changelog
DEB_VERSION=$(sed -nE '1s/^tidemark \(([^)]+)\).*/\1/p' "$CHANGELOG")
MAINTAINER=$(sed -nE 's/^ -- (.*>)  .*/\1/p' "$CHANGELOG" | head -n 1)
ARCH=$(dpkg --print-architecture)
[ "${DEB_VERSION%-*}" = "$(crate_version)" ] ||
    die "$CHANGELOG is of $DEB_VERSION, Cargo.toml of $(crate_version)" "write an entry for the new version"
# The latest date of a file, so that the same sources give the same package. Not for cargo: it would build anew.
DATE=$(date -d "$(sed -nE 's/^ -- .*>  (.*)/\1/p' "$CHANGELOG" | head -n 1)" +%s)

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# The packages that a program's libraries are in, with the versions that have what it uses.
libraries() {
    mkdir -p "$WORK/shlibs/debian"
    printf 'Source: tidemark\n\nPackage: tidemark\nArchitecture: any\n' >"$WORK/shlibs/debian/control"
    (cd "$WORK/shlibs" && dpkg-shlibdeps -O "$1" 2>/dev/null) | sed -n 's/^shlibs:Depends=//p'
}

# What every package has: who may use it, what changed.
document() {
    local doc=$1/usr/share/doc/$2
    install -D -m 644 packaging/debian/copyright "$doc/copyright"
    gzip -9n <"$CHANGELOG" >"$doc/changelog.Debian.gz"
    chmod 644 "$doc/changelog.Debian.gz"
}

# pack TREE CONTROL PROGRAM [KEY=VALUE ...]: fills in the control file and makes the package.
pack() {
    local tree=$1 control=$2 program=$3 deb substitution edits=()
    shift 3
    mkdir -p "$tree/DEBIAN"
    find "$tree" -type d -exec chmod 755 {} +
    for substitution in "VERSION=$DEB_VERSION" "ARCH=$ARCH" "MAINTAINER=$MAINTAINER" "LIBRARIES=$(libraries "$program")" \
        "SIZE=$(du -sk --apparent-size --exclude=DEBIAN "$tree" | cut -f1)" "$@"; do
        edits+=(-e "s|@${substitution%%=*}@|${substitution#*=}|g")
    done
    sed "${edits[@]}" "$control" >"$tree/DEBIAN/control"
    ! grep -n '@\|Depends: *$\|, *$' "$tree/DEBIAN/control" | grep -v '^[0-9]*:Maintainer' ||
        die "the control file is not complete" "read the lines above"
    (cd "$tree" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
    chmod 644 "$tree/DEBIAN/control" "$tree/DEBIAN/md5sums"
    mkdir -p dist
    deb=dist/$(sed -n 's/^Package: //p' "$tree/DEBIAN/control")_${DEB_VERSION}_$ARCH.deb
    quietly dpkg-deb "read the log" env SOURCE_DATE_EPOCH="$DATE" dpkg-deb --root-owner-group -Zxz --build "$tree" "$deb"
    say "    $deb ($(($(stat -c %s "$deb") / 1024)) kB), depends on: $(dpkg-deb -f "$deb" Depends)"
}

extension() {
    local version=${PGFEATURE#pg} tree=$WORK/extension library
    step "build the extension for $("$PG_CONFIG" --version)" "$ROOT/scripts/build.sh" extension
    DESTDIR=$tree "$ROOT/scripts/install.sh" --no-build
    library=$tree$("$PG_CONFIG" --pkglibdir)/tidemark.so
    strip --strip-unneeded "$library"
    chmod 644 "$library"
    document "$tree" "postgresql-$version-tidemark"
    install -m 644 docs/*.md "$tree/usr/share/doc/postgresql-$version-tidemark/"
    pack "$tree" packaging/debian/postgresql-tidemark.control "$library" "N=$version"
}

loader() {
    local tree=$WORK/loader script
    step "build the loader" quietly build-loader "read the first error above" \
        cargo build --release --locked -p tidemark-cli
    install -D -m 755 "$(target_dir)/release/tidemark" "$tree/usr/bin/tidemark"
    strip --strip-unneeded "$tree/usr/bin/tidemark"
    install -D -m 644 packaging/tidemark.toml "$tree/etc/tidemark/tidemark.toml"
    # Without its opening lines, which say how to do by hand what the package does.
    mkdir -p "$tree/usr/lib/systemd/system"
    sed -e '1,/^\[Unit\]/{/^#/d}' -e 's|/usr/local/bin/|/usr/bin/|' packaging/systemd/tidemark.service \
        >"$tree/usr/lib/systemd/system/tidemark.service"
    chmod 644 "$tree/usr/lib/systemd/system/tidemark.service"
    install -D -m 644 packaging/systemd/tidemark.sysusers "$tree/usr/lib/sysusers.d/tidemark.conf"
    quietly manual "read the log" cargo run --release --locked -p tidemark-cli --example manual -- "$tree/usr/share"
    find "$tree/usr/share/man" -type f -exec gzip -9n {} +
    document "$tree" tidemark-loader
    install -m 644 packaging/debian/README.Debian docs/loader.md docs/loading.md "$tree/usr/share/doc/tidemark-loader/"
    mkdir -p "$tree/DEBIAN"
    for script in postinst prerm postrm; do
        install -m 755 "packaging/debian/tidemark-loader.$script" "$tree/DEBIAN/$script"
    done
    echo /etc/tidemark/tidemark.toml >"$tree/DEBIAN/conffiles"
    chmod 644 "$tree/DEBIAN/conffiles"
    pack "$tree" packaging/debian/tidemark-loader.control "$tree/usr/bin/tidemark"
}

case ${1:-both} in
    extension) use_postgres && extension ;;
    loader) loader ;;
    both)
        use_postgres
        extension
        loader
        ;;
    *) die "unknown package \"$1\"" "scripts/deb.sh [extension|loader]" ;;
esac
