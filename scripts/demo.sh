#!/usr/bin/env bash
# `make demo`: sets up, builds, installs into the private copy and hands over to demo/run.py.
# DATA=file.csv replays a file of `timestamp,value` lines instead of the simulator; LABELS=file.json compares the flags
# with labelled windows; WAIT=1 keeps the server until Enter is pressed.
. "$(dirname "$0")/lib.sh"
choose_postgres

"$PROJECT/scripts/setup.sh"
# What cargo says is of no interest to somebody who came for the demo, unless it fails.
started=$SECONDS
say "Building the extension (a few minutes the first time)"
with_progress "$TOOLING/demo-build.log" "$PROJECT/scripts/install_private.sh" || fail "the build failed"
note "built and installed into a private PostgreSQL in $(seconds $((SECONDS - started)))"
IOT_PG_CONFIG=$(private_pg_config run)
export IOT_PG_CONFIG
arguments=()
[ -z "${DATA:-}" ] || arguments+=(--data "$DATA")
[ -z "${LABELS:-}" ] || arguments+=(--labels "$LABELS")
[ -z "${WAIT:-}" ] || arguments+=(--wait)
# shellcheck disable=SC2086 # ARGS are words
exec "$TOOLING/venv/bin/python" demo/run.py "${arguments[@]}" ${ARGS:-}
