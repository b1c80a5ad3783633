#!/usr/bin/env bash
# Line coverage of the pure core by its own tests, with a floor below which it fails.
# cargo-llvm-cov would need a component that a plain Rust install lacks, hence tarpaulin, installed into .tooling.
. "$(dirname "$0")/lib.sh"

TARPAULIN_VERSION=0.37.5
if [ "$("$TOOLING/cargo/bin/cargo-tarpaulin" tarpaulin --version 2>/dev/null)" != "cargo-tarpaulin-tarpaulin $TARPAULIN_VERSION" ]; then
    say "Building cargo-tarpaulin $TARPAULIN_VERSION (several minutes, once)"
    mkdir -p "$TOOLING"
    CARGO_TARGET_DIR=$TOOLING/tarpaulin-build with_progress "$TOOLING/tarpaulin.log" cargo install --locked \
        cargo-tarpaulin --version "$TARPAULIN_VERSION" --root "$TOOLING/cargo"
    rm -rf "$TOOLING/tarpaulin-build"
fi
# shellcheck disable=SC2086 # ARGS are words
exec cargo tarpaulin -p iot_core --engine llvm --skip-clean --target-dir target/coverage --out Stdout --out Html \
    --output-dir target/coverage --include-files 'crates/iot_core/*' --fail-under 95 ${ARGS:-}
