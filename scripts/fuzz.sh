#!/usr/bin/env bash
# Fuzzing of every parser of bytes and text: `make fuzz MINUTES=20`. Each target of fuzz/src/bin runs for a share of
# the time and gets one line. Ends with 1 when an input made one fail, says where that input lies and how to repeat it.
#
#   make fuzz TARGET=hll MINUTES=5       this target alone, or some: TARGET="hll channel"
#   make fuzz TARGET=hll INPUT=FILE      this input once
#
# What is learned stays in .run/fuzz/TARGET/corpus and is where the next run begins.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
MINUTES=${MINUTES:-20}
BIN=$(target_dir)/fuzz
HOST=$(rustc -vV | sed -n 's/^host: //p')
ALL=$(cd fuzz/src/bin && basename -s .rs -- *.rs)
read -ra targets <<<"$(tr '\n' ' ' <<<"${TARGET:-$ALL}")"
for target in "${targets[@]}"; do
    [ -e "fuzz/src/bin/$target.rs" ] || die "there is no fuzz target \"$target\"" "take some of: ${ALL//$'\n'/ }"
done

# Counters for libFuzzer, which any compiler of Rust can put in. No address sanitizer: core has next to no unsafe code, and
# librdkafka does not build beside a zstd with it. With --target the flags are not for build scripts.
build() {
    CARGO_TARGET_DIR=$BIN RUSTFLAGS="-Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table" \
        cargo build --locked --release --target "$HOST" --manifest-path fuzz/Cargo.toml "${targets[@]/#/--bin=}"
}
step "build the fuzz targets" quietly fuzz-build \
    "read the first error above; a lock file that is behind: cargo update --workspace --manifest-path fuzz/Cargo.toml" \
    build

# fuzz TARGET ARGUMENT...: a failure of the target ends it with another code than 0.
fuzz() {
    local target=$1
    shift
    TMPDIR=$RUN/fuzz/tmp "$BIN/$HOST/release/$target" -rss_limit_mb=2048 -timeout=10 \
        -entropic_scale_per_exec_time=1 "$@"
}
mkdir -p "$RUN/fuzz/tmp" "$LOGS"
trap 'rm -rf "$RUN/fuzz/tmp"' EXIT

if [ -n "${INPUT:-}" ]; then
    [ ${#targets[@]} = 1 ] || die "INPUT is for one target" "make fuzz TARGET=hll INPUT=$INPUT"
    fuzz "${targets[0]}" "$INPUT"
    exit
fi

seconds=$((MINUTES * 60 / ${#targets[@]}))
[ "$seconds" -gt 0 ] || die "$MINUTES minutes are too few for ${#targets[@]} targets" "make fuzz MINUTES=20"
say "${#targets[@]} targets, $seconds s each"
failed=0
for target in "${targets[@]}"; do
    dir=$RUN/fuzz/$target log=$LOGS/fuzz-$target.log
    mkdir -p "$dir/corpus"
    rc=0
    FUZZ_SEEDS=$dir/corpus fuzz "$target" -max_total_time="$seconds" -print_final_stats=1 -artifact_prefix="$dir/" \
        "$dir/corpus" >"$log" 2>&1 || rc=$?
    stat() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1; }
    printf '%-14s %11s executions %7s/s   corpus %5s   crashes %s\n' "$target" "$(stat number_of_executed_units)" \
        "$(stat average_exec_per_sec)" "$(find "$dir/corpus" -type f | wc -l)" "$((rc != 0))"
    if [ "$rc" != 0 ]; then
        failed=1
        input=$(sed -n 's/^.*Test unit written to //p' "$log" | tail -n 1)
        # Not the next lines, which are how it came there.
        grep -a -m 1 -A 2 -E "panicked at|ERROR: " "$log" | cut -c 1-200 | sed 's/^/    | /' >&2 || true
        say "    the whole log is $log"
        [ -z "$input" ] || say "    what to do: make fuzz TARGET=$target INPUT=$input"
    fi
done
exit "$failed"
