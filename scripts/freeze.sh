#!/usr/bin/env bash
# The release of a version: keeps its install script, and notes the checksums of it and of the upgrade scripts that lead
# to it in extension/released.sha256. From then on the tests fail when one of them changes.
#
#   scripts/freeze.sh [DIR] [VERSION]     extension/ and the version in Cargo.toml, unless told
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "${1:-$ROOT/extension}"
VERSION=${2:-$(crate_version)}

script=install/tidemark--$VERSION.sql
if [ ! -e "$script" ]; then
    "$ROOT/scripts/install-sql.sh" "$PWD" "$VERSION" >"$script.new"
    mv "$script.new" "$script"
fi
files=("$script")
for file in sql/tidemark--*--"$VERSION".sql; do
    if [ -e "$file" ]; then files+=("$file"); fi
done
for file in "${files[@]}"; do
    line=$(sha256sum "$file")
    known=$(grep -F "  $file" released.sha256 || true)
    if [ "$known" = "$line" ]; then
        say "    $file was released before"
    elif [ -n "$known" ]; then
        die "$file was released with other content" "restore it, and write an upgrade script to a new version"
    else
        printf '%s\n' "$line" >>released.sha256
        say "    $file is released: it never changes again"
    fi
done
