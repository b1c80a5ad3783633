#!/usr/bin/env bash
# Tests from outside: real clusters, psql, pg_dump, crashes (tests/*.py), on the extension as a user would install it.
# PROFILE=dev builds faster while you write them; ARGS goes to pytest (ARGS='-k dump').
. "$(dirname "$0")/lib.sh"
choose_postgres

"$PROJECT/scripts/install_private.sh"
IOT_PG_CONFIG=$(private_pg_config run)
export IOT_PG_CONFIG
say "pytest"
# ARGS may quote: ARGS="-k 'dump or crash'".
eval "arguments=(${ARGS:-})"
# Files are shared out to processes: each has clusters of its own, and most tests wait more than they work.
processes=$(nproc)
[ "$processes" -le 4 ] || processes=4
exec "$TOOLING/venv/bin/python" -m pytest -q -n "$processes" --dist loadfile tests --ignore tests/house/test_house.py "${arguments[@]}"
