#!/usr/bin/env bash
# Builds the extension and lays it out as it will be installed, below target/package. It exists apart from installing,
# so that nothing is ever compiled as root just because the install needs root.
# PROFILE=release (the default) or dev.
. "$(dirname "$0")/lib.sh"
choose_postgres

profile=${PROFILE:-release}
package=$PROJECT/target/package/pg$PG-$profile
started=$SECONDS
say "Building $EXTENSION for PostgreSQL $PG ($profile)"
rm -rf "$package"
cargo pgrx package --pg-config "$PG_CONFIG" --profile "$profile" --out-dir "$package"
"$PROJECT/scripts/upgrade_scripts.sh" "$(find "$package" -type d -name extension)"
note "built in $(seconds $((SECONDS - started)))"
