#!/usr/bin/env bash
# Builds the extension with plain cargo and copies its files into a Postgres installation.
#
#   scripts/install.sh [--no-build]     PG_CONFIG=/path/to/pg_config says which
#
# --no-build copies what an earlier build left: for `sudo`, where root has no cargo.
# DESTDIR=/tree puts the files below that directory instead: for packages.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
use_postgres

VERSION=$(crate_version)
LIBDIR=${DESTDIR:-}$("$PG_CONFIG" --pkglibdir)
EXTDIR=${DESTDIR:-}$("$PG_CONFIG" --sharedir)/extension

if [ "${1:-}" != --no-build ]; then
    "$ROOT/scripts/build.sh" extension
fi
{ read -r built_for && read -r library; } 2>/dev/null <"$RUN/built" && [ -e "$library" ] ||
    die "the extension is not built" "run it without --no-build"
[ "$built_for" = "$PG_CONFIG" ] ||
    die "$library was built for $built_for, not for $PG_CONFIG" "run it without --no-build"

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/lib" "$stage/ext"
cp "$library" "$stage/lib/tidemark.so"
sed "s/@CARGO_VERSION@/$VERSION/" "$ROOT/extension/tidemark.control" >"$stage/ext/tidemark.control"
"$ROOT/scripts/install-sql.sh" >"$stage/ext/tidemark--$VERSION.sql"
find "$ROOT/extension/sql" -name 'tidemark--*--*.sql' -exec cp {} "$stage/ext/" \;

[ -z "${DESTDIR:-}" ] || mkdir -p "$LIBDIR" "$EXTDIR"
copied=0
# put FILE DIRECTORY MODE: leaves an identical file alone; a rename, so that no running server sees half a library.
put() {
    local to
    to=$2/$(basename "$1")
    if cmp -s "$1" "$to"; then return; fi
    { install -m "$3" "$1" "$to.new" && mv -f "$to.new" "$to"; } 2>/dev/null ||
        die "no permission to write $to" "sudo PG_CONFIG=$PG_CONFIG $ROOT/scripts/install.sh --no-build"
    say "    copied $to"
    copied=$((copied + 1))
}
put "$stage/lib/tidemark.so" "$LIBDIR" 755
for file in "$stage"/ext/*; do put "$file" "$EXTDIR" 644; done
[ "$copied" != 0 ] || say "    $("$PG_CONFIG" --version) has these very files already"
