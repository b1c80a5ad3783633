#!/usr/bin/env bash
# The whole suite for one PostgreSQL version, step by step, with one sum at the end. A failed step does not keep the
# later ones from running. The sum adds what the runners themselves counted (cargo test, pytest); a step that fails
# without a count, a compile error say, counts as one failure, so that the last line never looks better than the run.
#
# With SUMMARY_FILE set, the three numbers also go there (.ci/run adds several runs).
. "$(dirname "$0")/lib.sh"
choose_postgres

trap 'exit 130' INT # else a step that ends in good order on Ctrl-C would be followed by the next one
logs=$PROJECT/target/test-logs/pg$PG
mkdir -p "$logs"
rm -f "$logs"/*
passed=0 failed=0 skipped=0 number=0
steps=(test_core lint test_db test_e2e)
report=()
began=$SECONDS

say "PostgreSQL $PG: setup"
"$PROJECT/scripts/setup.sh" || {
    note "setup failed"
    printf '0 passed, 1 failed\n'
    exit 1
}

# Adds up the closing lines of cargo test ("test result: …") and of pytest ("3 passed, 1 skipped in 0.12s").
count() {
    awk '
        /^test result:/ { gsub(/[.;]/, ""); for (i = 2; i <= NF; i++) {
            if ($i == "passed") p += $(i - 1); if ($i == "failed") f += $(i - 1); if ($i == "ignored") s += $(i - 1) } }
        /^(=+ )?[0-9]+ (passed|failed|errors?|skipped|deselected|xfailed|xpassed)[, ].*in [0-9.]+s/ {
            gsub(/,/, ""); for (i = 1; i < NF; i++) if ($i ~ /^[0-9]+$/) {
                if ($(i + 1) == "passed" || $(i + 1) == "xpassed") p += $i
                if ($(i + 1) == "failed" || $(i + 1) ~ /^errors?$/) f += $i
                if ($(i + 1) == "skipped" || $(i + 1) == "xfailed") s += $i } }
        END { printf "%d %d %d\n", p, f, s }' "$1"
}

for step in "${steps[@]}"; do
    number=$((number + 1))
    say "PostgreSQL $PG: step $number of ${#steps[@]}, $step"
    step_began=$SECONDS
    status=0
    # cargo-pgrx colours its words even where nobody sees it.
    "$PROJECT/scripts/$step.sh" 2>&1 | sed -u 's/\x1b\[[0-9;]*m//g' | tee "$logs/$step.log" || status=$?
    read -r p f s < <(count "$logs/$step.log")
    [ "$status" -eq 0 ] || [ "$f" -gt 0 ] || f=1
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    report+=("$(printf '%-10s %5d passed %3d failed %3d skipped   %s' "$step" "$p" "$f" "$s" "$(seconds $((SECONDS - step_began)))")")
    note "$step took $(seconds $((SECONDS - step_began)))"
done

say "PostgreSQL $PG: all steps, $(seconds $((SECONDS - began)))"
for line in "${report[@]}"; do note "$line"; done
prefix=
if [ -n "${SUMMARY_FILE:-}" ]; then
    echo "$passed $failed $skipped" >"$SUMMARY_FILE"
    prefix="PostgreSQL $PG: " # the plain line is the caller's
fi
tail=
[ "$skipped" -eq 0 ] || tail=", $skipped skipped"
printf '\n%s%d passed, %d failed%s\n' "$prefix" "$passed" "$failed" "$tail"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
