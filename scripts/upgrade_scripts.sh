#!/usr/bin/env bash
# Puts the upgrade scripts together, and the released install scripts beside them, in the directory given: an upgrade
# runs the very files that a fresh install runs, so the two cannot differ in what is new.
. "$(dirname "$0")/lib.sh"
target=${1:?usage: upgrade_scripts.sh DIRECTORY}

install -m 644 "$PROJECT"/sql/released/"$EXTENSION"--*.sql "$target/"
for list in "$PROJECT"/sql/upgrade/*--*; do
    script=$target/$EXTENSION--$(basename "$list").sql
    {
        printf '%s\n' "\\echo Use \"ALTER EXTENSION $EXTENSION UPDATE\" to load this file. \\quit"
        while read -r file; do
            case $file in '' | '#'*) continue ;; esac
            printf '\n-- %s\n' "$file"
            cat "$PROJECT/sql/$file"
        done <"$list"
    } >"$script"
done
