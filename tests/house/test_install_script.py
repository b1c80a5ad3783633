"""pgspot on the install script as pgrx generates it. It needs the installed extension (IOT_PG_CONFIG) but no server, and
therefore runs with `make test-e2e` and not with `make lint`.
"""

import os
import subprocess
from pathlib import Path

from test_house import pgspot


def test_pgspot_accepts_the_install_script():
    sharedir = subprocess.run(
        [os.environ["IOT_PG_CONFIG"], "--sharedir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (script,) = (Path(sharedir) / "extension").glob("iot_ext--*.sql")
    # PS017: pgrx writes types and aggregates without a schema; `schema = iot` in the control file places them.
    assert pgspot(script, "--ignore", "PS017") == ""
