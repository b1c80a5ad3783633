#!/usr/bin/env bash
# Lets libFuzzer look for inputs that break a promise of the core: TARGET=name or all of them, SECONDS=60 for each.
# Works with the stable compiler: the core has no unsafe code, so that coverage is instrumented and memory is not.
# What is found is minimized by nobody; its path is printed, and it belongs into crates/iot_core/fuzz/corpus once it is
# mended, where the ordinary tests try it.
. "$(dirname "$0")/lib.sh"

crate=$PROJECT/crates/iot_core/fuzz
host=$(rustc --print host-tuple)
# Named by hand: bash counts SECONDS itself.
length=${FUZZ_SECONDS:-60}
[[ $length =~ ^[1-9][0-9]*$ ]] || fail "SECONDS=$length is not a number of seconds"
targets=()
for source in "$crate"/fuzz_targets/*.rs; do targets+=("$(basename "$source" .rs)"); done
if [ -n "${TARGET:-}" ]; then
    [ -f "$crate/fuzz_targets/$TARGET.rs" ] || fail "TARGET=$TARGET: there is no such target, only ${targets[*]}"
    targets=("$TARGET")
fi
command -v c++ >/dev/null || fail "libFuzzer is C++: install a compiler (apt-get install g++)"

# The instrumentation of cargo-fuzz. With --target it leaves build scripts alone.
coverage="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
for kind in inline-8bit-counters pc-table trace-compares; do
    coverage+=" -Cllvm-args=-sanitizer-coverage-$kind"
done
export CARGO_TARGET_DIR=$PROJECT/target/fuzz
say "building"
bins=()
for target in "${targets[@]}"; do bins+=(--bin "$target"); done
RUSTFLAGS="$coverage" cargo build --quiet --release --target "$host" --manifest-path "$crate/Cargo.toml" "${bins[@]}"

failed=()
mkdir -p "$CARGO_TARGET_DIR/logs"
for target in "${targets[@]}"; do
    say "$target, $length s"
    found=$CARGO_TARGET_DIR/found/$target
    grown=$CARGO_TARGET_DIR/corpus/$target
    log=$CARGO_TARGET_DIR/logs/$target.log
    mkdir -p "$found" "$grown"
    if nice -n 10 "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$length" -max_len=8192 -timeout=10 \
        -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$found/" "$grown" "$crate/corpus/$target" \
        >"$log" 2>&1; then
        note "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, all promises kept"
    else
        grep -a -B 3 -A 3 'panicked at\|ERROR: libFuzzer\|Test unit written' "$log" >&2 || cat "$log" >&2
        failed+=("$target")
    fi
done
[ ${#failed[@]} -eq 0 ] || fail "there are inputs that break a promise, in $CARGO_TARGET_DIR/found, for ${failed[*]}"
