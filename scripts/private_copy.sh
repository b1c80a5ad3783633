#!/usr/bin/env bash
# Makes, or refreshes, a private copy of a PostgreSQL install, and prints the path of the copy's pg_config.
#
# Tests and the demo must not install anything into the system. PostgreSQL finds its share and library directories
# relative to its own program, so a copy with the same layout below another root is a complete install of its own, in
# which `make install DESTDIR=…` puts the extension. What is where is asked of pg_config, not assumed.
#
# Usage: private_copy.sh run|pgrx   (with PG or PG_CONFIG as for make)
. "$(dirname "$0")/lib.sh"
choose_postgres

purpose=${1:?usage: private_copy.sh run|pgrx}
root=$(private_root)
copy=$(private_copy "$purpose")
bindir=$(real_bindir)
ours=$(private_pg_config "$purpose")

# Anybody may write to the temp folder: take the directory only if it is really ours and nobody else's to change.
mkdir -m 755 "$root" 2>/dev/null || true
if [ -L "$root" ] || [ ! -d "$root" ] || [ ! -O "$root" ] || [ -n "$(find "$root" -maxdepth 0 -perm /022)" ]; then
    fail "$root exists, but is not a directory that only $USER can write; remove it, or set TMPDIR"
fi

# A package upgrade, or another install of the same major version, makes the copy stale.
stamp="$("$PG_CONFIG" --version) $bindir $(stat -c '%s %Y' "$bindir/postgres")"
if [ -x "$ours" ] && [ "$(cat "$copy/.stamp" 2>/dev/null)" = "$stamp" ]; then
    echo "$ours"
    exit
fi

rm -rf "$copy"
mkdir -m 755 "$copy"
umask 022

copy_tree() {
    local from
    from=$(cd "$1" 2>/dev/null && pwd -P) || return 0
    mkdir -p "$copy$from"
    # Without the owner: the copy is ours.
    cp -R --preserve=mode,timestamps "$from/." "$copy$from/"
}

# Some systems keep the programs in /usr/bin, among all the others. Links are followed: a program that is one would look
# for its files beside the real one.
mkdir -p "$copy$bindir"
find "$bindir" -maxdepth 1 \( -name 'pg_*' -o -name postgres -o -name initdb -o -name psql -o -name pgbench \
    -o -name 'create*' -o -name 'drop*' -o -name 'vacuum*' -o -name reindexdb -o -name clusterdb \) \
    -exec cp -L --preserve=mode,timestamps -t "$copy$bindir" {} +
copy_tree "$("$PG_CONFIG" --pkglibdir)"
copy_tree "$("$PG_CONFIG" --sharedir)"
copy_tree "$("$PG_CONFIG" --pkgincludedir)"
copy_tree "$("$PG_CONFIG" --includedir-server)"
case $("$PG_CONFIG" --includedir) in
    /usr/include | /usr/local/include) ;; # everybody's, not PostgreSQL's
    *) copy_tree "$("$PG_CONFIG" --includedir)" ;;
esac

# Libraries that the programs bring along (found by a path relative to themselves, so they must come too). ldd grumbles
# about scripts among the programs.
libraries=$({
    find "$copy$bindir" -type f -printf "$bindir/%f\n"
    find "$("$PG_CONFIG" --pkglibdir)" -maxdepth 1 -name '*.so'
} | xargs -d '\n' ldd 2>/dev/null | sed -n 's/^.*=> \(\/[^ ]*\) (.*$/\1/p' | sort -u || true)
while IFS= read -r library; do
    case $library in
        '' | /lib/* | /lib64/* | /usr/lib/*-linux-gnu/* | /usr/lib64/*) ;;
        *)
            # ldd leaves "bin/../lib" in the path: tidy it, but keep the name that the program asks for.
            directory=$(cd "$(dirname "$library")" && pwd -P)
            mkdir -p "$copy$directory"
            cp -L "$library" "$copy$directory/"
            ;;
    esac
done <<<"$libraries"

got=$("$ours" --sharedir)
[ "$got" = "$copy$(cd "$("$PG_CONFIG" --sharedir)" && pwd -P)" ] ||
    fail "this PostgreSQL cannot be moved: the copy's pg_config says sharedir is $got"
if is_root; then
    setpriv --reuid="$(server_user)" --regid="$(id -g "$(server_user)")" --init-groups "$(dirname "$ours")/postgres" --version \
        >/dev/null || fail "user $(server_user) cannot run the programs in $copy; set TMPDIR to a folder that it can enter"
fi
printf '%s\n' "$stamp" >"$copy/.stamp"
echo "$ours"
