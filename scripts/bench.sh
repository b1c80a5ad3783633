#!/usr/bin/env bash
# Runs the benches, each of which measures both sides of its comparison in one run and prints the ratio.
# BENCH=name runs one of benches/*.py.
. "$(dirname "$0")/lib.sh"
choose_postgres

mapfile -t benches < <(find benches -maxdepth 1 -name "${BENCH:-*}.py" | sort)
[ ${#benches[@]} -gt 0 ] || fail "no such bench in benches/"
PROFILE=release "$PROJECT/scripts/install_private.sh"
IOT_PG_CONFIG=$(private_pg_config run)
export IOT_PG_CONFIG PYTHONPATH=$PROJECT/tests
for bench in "${benches[@]}"; do
    say "$bench"
    # shellcheck disable=SC2086 # ARGS are words
    "$TOOLING/venv/bin/python" "$bench" ${ARGS:-}
done
