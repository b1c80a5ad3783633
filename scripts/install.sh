#!/usr/bin/env bash
# Installs the extension into the PostgreSQL of PG_CONFIG, or removes it from there. With DESTDIR=/some/root everything
# goes below that root instead: that is how the private copies of the tests and the Docker image are filled, so this
# road is the tested one. Asks for root only when a target directory is not ours to write.
#
# Usage: install.sh install|uninstall
. "$(dirname "$0")/lib.sh"
choose_postgres

destination=${DESTDIR:-}
profile=${PROFILE:-release}
package=$PROJECT/target/package/pg$PG-$profile
built_extension_dir=$package$("$PG_CONFIG" --sharedir)/extension
built_library_dir=$package$("$PG_CONFIG" --pkglibdir)
# Without links, as the private copies have it.
extension_dir=$(cd "$("$PG_CONFIG" --sharedir)" && pwd -P)/extension
library_dir=$(cd "$("$PG_CONFIG" --pkglibdir)" && pwd -P)

# Runs a command as we are when the directory (or the nearest one above it that exists) is writable, else as root.
for_directory() {
    local directory=$1
    shift
    while [ ! -e "$directory" ]; do directory=$(dirname "$directory"); done
    if [ -w "$directory" ]; then "$@"; else as_root "$@"; fi
}

remove() {
    for_directory "$destination$extension_dir" rm -f "$destination$extension_dir/$EXTENSION.control" \
        "$destination$extension_dir/$EXTENSION"--*.sql
    for_directory "$destination$library_dir" rm -f "$destination$library_dir/$EXTENSION.so"
}

case ${1:?usage: install.sh install|uninstall} in
    install)
        "$PROJECT/scripts/build.sh"
        # First away with the old: no script of another version stays behind, and a server that has the old library open
        # keeps its file.
        remove
        for_directory "$destination$extension_dir" install -d "$destination$extension_dir"
        for_directory "$destination$library_dir" install -d "$destination$library_dir"
        for_directory "$destination$extension_dir" install -m 644 "$built_extension_dir/$EXTENSION.control" \
            "$built_extension_dir/$EXTENSION"--*.sql "$destination$extension_dir/"
        for_directory "$destination$library_dir" install -m 755 "$built_library_dir/$EXTENSION.so" "$destination$library_dir/"
        note "installed in $destination$extension_dir and $destination$library_dir"
        ;;
    uninstall)
        remove
        note "removed from $destination$extension_dir and $destination$library_dir"
        ;;
    *) fail "usage: install.sh install|uninstall" ;;
esac
