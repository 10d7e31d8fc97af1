#!/usr/bin/env bash
# The extension's install script, on standard output: the files that extension/src/lib.rs lists, in that order; for a
# version that was released, what `make freeze` kept of it.
#
#   scripts/install-sql.sh [DIR] [VERSION]     extension/ and the version in Cargo.toml, unless told
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "${1:-$ROOT/extension}"
frozen=install/tidemark--${2:-$(crate_version)}.sql
if [ -e "$frozen" ]; then exec cat "$frozen"; fi

cd src
mapfile -t files < <(sed -nE 's|.*"(\./sql/[^"]+\.sql)".*|\1|p' lib.rs)
[ "$(printf '%s\n' "${files[@]}" | LC_ALL=C sort)" = "$(find ./sql -name '*.sql' | LC_ALL=C sort)" ] ||
    die "the files in $PWD/sql are not those that lib.rs lists" "an extension_sql_file! line for each"
cat "${files[@]}"
