#!/usr/bin/env bash
# What must be so without running the extension: formatting, clippy without a warning, and the checks of the house
# (tests/house). Runs all of them before it fails, so that one round shows everything.
. "$(dirname "$0")/lib.sh"
choose_postgres

for tool in fmt clippy; do
    cargo "$tool" --version >/dev/null 2>&1 || fail "cargo $tool is missing: rustup component add rustfmt clippy"
done

failed=()
check() {
    local name=$1
    shift
    say "$name"
    "$@" || failed+=("$name")
}

check "rustfmt" cargo fmt --all --check
check "rustfmt, fuzz targets" cargo fmt --manifest-path crates/iot_core/fuzz/Cargo.toml --check
check "clippy, pure crates" cargo clippy --quiet -p iot_core --all-targets -- -D warnings
check "clippy, extension" cargo clippy --quiet --all-targets --no-default-features --features "$(features pg_test)" -- -D warnings
# The check of the install script needs a build and so belongs to test-e2e.
check "house" "$TOOLING/venv/bin/python" -m pytest -q tests/house --ignore tests/house/test_install_script.py

[ ${#failed[@]} -eq 0 ] || {
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
}
