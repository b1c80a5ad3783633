"""pgspot on the scripts that install this version, as pgrx and the build make them. It needs the installed extension
(IOT_PG_CONFIG) but no server, and therefore runs with `make test-e2e` and not with `make lint`.
"""

import os
import re
import subprocess
import tomllib
from pathlib import Path

from test_house import ROOT, pgspot

VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
# PS017: pgrx writes types and aggregates without a schema; `schema = iot` in the control file places them.
# PS002, PS015: since CVE-2022-2625 was mended, PostgreSQL replaces in an extension's script only what is the extension's.
IGNORED = [argument for code in ("PS017", "PS002", "PS015") for argument in ("--ignore", code)]


def scripts():
    """The script that installs this version, and those that lead to it; others were released and stay as they are."""
    sharedir = subprocess.run(
        [os.environ["IOT_PG_CONFIG"], "--sharedir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return sorted((Path(sharedir) / "extension").glob(f"iot_ext--*{VERSION}.sql"))


def procedures(script):
    """As pgspot names them. One that commits cannot have a SET clause; what it calls is looked at all the same."""
    names = set(re.findall(r"CREATE PROCEDURE ([\w.]+)\(", script.read_text()))
    report = pgspot(script, *IGNORED)
    found = re.findall(r"^PS005: Function without explicit search_path: (([\w.]+)\(.*\)) at line \d+$", report, re.MULTILINE)
    return [argument for signature, name in found if name in names for argument in ("--proc-without-search-path", signature)]


def test_pgspot_accepts_what_installs_this_version():
    found = scripts()
    assert f"iot_ext--{VERSION}.sql" in [script.name for script in found]
    complaints = {script.name: report for script in found if (report := pgspot(script, *IGNORED, *procedures(script)))}
    assert complaints == {}


def test_each_released_version_leads_to_this_one():
    released = {path.stem.split("--")[1] for path in (ROOT / "sql" / "released").glob("iot_ext--*.sql")} - {VERSION}
    ways = [path.stem.split("--")[1:] for path in scripts()[0].parent.glob("iot_ext--*--*.sql")]
    reached = {VERSION}
    while new := {old for old, to in ways if to in reached} - reached:
        reached |= new
    assert released <= reached
