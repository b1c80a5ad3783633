"""Comparing output with a reviewed file, or rewriting that file when IOT_UPDATE_EXPECTED=1 says so."""

import difflib
import os
from pathlib import Path

import pytest


def compare(got, expected, major=None):
    """Fails with a diff when `got` is not what the file `expected` holds.

    A file of the same name with `_18` before its ending takes its place on PostgreSQL 18, and so on.
    """
    expected = Path(expected)
    special = expected.with_name(f"{expected.stem}_{major}{expected.suffix}")
    path = special if major and special.exists() else expected
    wanted = path.read_text(encoding="utf-8") if path.exists() else ""
    if got == wanted:
        return
    if os.environ.get("IOT_UPDATE_EXPECTED") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(got, encoding="utf-8")
        return
    diff = difflib.unified_diff(
        wanted.splitlines(), got.splitlines(), f"expected: {path.name}", "got", lineterm="", n=3
    )
    pytest.fail("\n".join(diff) + "\n\nIf this is what it should be, run again with IOT_UPDATE_EXPECTED=1.", pytrace=False)
