#!/usr/bin/env bash
# Removes what the build and the tests made: target, the private copies in the temp folder and, with ALL=1, the tools
# in .tooling as well. System packages stay.
. "$(dirname "$0")/lib.sh"

rm -rf "$PROJECT/target"
root=$(private_root)
if [ -d "$root" ] && [ ! -L "$root" ] && [ -O "$root" ]; then rm -rf "$root"; fi
[ -z "${ALL:-}" ] || rm -rf "$TOOLING"
