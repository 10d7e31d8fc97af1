#!/usr/bin/env bash
# Release builds, one cargo call for all artifacts, so that they share what they have in common.
#
#   scripts/build.sh             libtidemark.so, tidemark and tidemark-shop, in release/ of cargo's target directory
#   scripts/build.sh demo        the same without what is heavy (loader/Cargo.toml): no Kafka
#   scripts/build.sh extension   the extension alone
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
use_postgres
cd "$ROOT"

what=(-p tidemark -p tidemark-cli -p tidemark-shop --lib --bin tidemark --bin tidemark-shop) features=tidemark/$PGFEATURE
profile=()
case ${1:-all} in
    all) features+=,tidemark-cli/default,tidemark-shop/default ;;
    # The commands: 4 s to compile in place of 35, for a twentieth more time of the processor per event. The extension,
    # which all others wait for in the end, on both cores.
    demo)
        profile=(--config profile.release.package.tidemark-cli.opt-level=0
            --config profile.release.package.tidemark.codegen-units=16)
        ;;
    extension) what=(-p tidemark --lib) ;;
    *) die "unknown target \"$1\"" "scripts/build.sh [demo|extension]" ;;
esac
quietly build "read the first error above; a full disk or a registry out of reach are the usual reasons, then try again" \
    cargo build --release "${profile[@]}" "${what[@]}" --no-default-features --features "$features"
# For scripts/install.sh --no-build: the library does not say which server it fits, and root may not know where it is.
printf '%s\n' "$PG_CONFIG" "$(target_dir)/release/libtidemark.so" >"$RUN/built"
