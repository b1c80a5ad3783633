#!/usr/bin/env bash
# Tests of the pure crates: plain cargo, no PostgreSQL.
. "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2086 # ARGS are words
exec cargo test -p iot_core ${ARGS:-}
