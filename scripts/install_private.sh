#!/usr/bin/env bash
# Puts the extension into the private copy of PostgreSQL that the demo, the tests from outside and the benches run.
# It is `make install` with DESTDIR, so that what they see is what a user installs.
. "$(dirname "$0")/lib.sh"
choose_postgres

"$PROJECT/scripts/private_copy.sh" run >/dev/null
DESTDIR=$(private_copy run) "$PROJECT/scripts/install.sh" install
