#!/usr/bin/env bash
# Tests that run inside the server (`#[pg_test]`): cargo pgrx test, against the private copy that is kept for it.
# It exists because cargo pgrx needs help in three places: as root (another user for the server), with its data
# directory (a short path which that user can write), and when it is interrupted (it leaves its server running).
. "$(dirname "$0")/lib.sh"
choose_postgres

"$PROJECT/scripts/private_copy.sh" pgrx >/dev/null
user=$(server_user)
data=$(private_root)/data$PG
bindir=$(dirname "$(private_pg_config pgrx)")

as_server() {
    if is_root; then "$PROJECT/scripts/as_root/sudo" -u "$user" "$@"; else "$@"; fi
}

clean_up() {
    local pid_file
    for pid_file in "$data"/*/postmaster.pid; do
        [ ! -e "$pid_file" ] || as_server "$bindir/pg_ctl" stop -m immediate -D "$(dirname "$pid_file")" >/dev/null || true
    done
    rm -rf "$data"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

clean_up
mkdir -m 700 "$data"
arguments=(--pgdata "$data")
if is_root; then
    chown "$user" "$data"
    arguments+=(--runas "$user")
    export PATH=$PROJECT/scripts/as_root:$PATH
fi

# shellcheck disable=SC2086 # ARGS are words: a part of a test's name
cargo pgrx test "${arguments[@]}" "pg$PG" ${ARGS:-}
