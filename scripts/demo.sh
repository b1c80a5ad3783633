#!/usr/bin/env bash
# `make demo`: sets up, builds, installs into the private copy and hands over to demo/run.py.
# DATA=file.csv replays a file of `timestamp,value` lines instead of the simulator.
. "$(dirname "$0")/lib.sh"
choose_postgres

"$PROJECT/scripts/setup.sh"
# What cargo says is of no interest to somebody who came for the demo, unless it fails.
log=$TOOLING/demo-build.log
started=$SECONDS
say "Building the extension (a few minutes the first time)"
"$PROJECT/scripts/install_private.sh" >"$log" 2>&1 || {
    cat "$log" >&2
    fail "the build failed"
}
note "built and installed into a private PostgreSQL in $(seconds $((SECONDS - started)))"
IOT_PG_CONFIG=$(private_pg_config run)
export IOT_PG_CONFIG
arguments=()
[ -z "${DATA:-}" ] || arguments=(--data "$DATA")
# shellcheck disable=SC2086 # ARGS are words
exec "$TOOLING/venv/bin/python" demo/run.py "${arguments[@]}" ${ARGS:-}
