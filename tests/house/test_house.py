"""Rules of the house that no compiler checks. No server is needed: this runs in seconds and is a part of `make lint`."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPPED = {".git", ".tooling", "target", "__pycache__", "results", ".pytest_cache"}
SOURCES = {".rs", ".sql", ".py", ".sh"}
LONGEST_FILE = 500

RUST_NOISE = re.compile(
    r"""//[^\n]* | /\*.*?\*/ | r(\#*)".*?"\1 | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])'""", re.VERBOSE | re.DOTALL
)


def files(*endings, below=""):
    """Every file of the project that a person wrote, by the ends of their names."""
    for path in sorted((ROOT / below).rglob("*")):
        parts = path.relative_to(ROOT).parts
        if path.is_file() and not SKIPPED & set(parts) and (not endings or path.suffix in endings):
            yield path


def name(path):
    return str(path.relative_to(ROOT))


def text(path):
    """The text of a file, or nothing if it is not text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def code(path):
    """A Rust file without comments and literals, its lines in place."""
    return RUST_NOISE.sub(lambda match: "\n" * match.group().count("\n"), text(path))


def rust_files():
    return [*files(".rs", below="src"), *files(".rs", below="crates"), *files(".rs", below="benches")]


def test_unsafe_is_written_only_in_src_pg():
    offenders = [
        f"{name(path)}:{number}"
        for path in rust_files() if not name(path).startswith("src/pg/")
        for number, line in enumerate(code(path).splitlines(), 1) if re.search(r"\bunsafe\b", line)
    ]
    assert offenders == []


def test_sql_that_runs_in_every_database_is_ascii():
    """Scripts and migrations reach the server as they are: another database encoding would garble or refuse the rest."""
    assert [name(path) for path in files(".sql", below="sql") if not text(path).isascii()] == []


def test_every_unsafe_says_why_it_is_sound():
    offenders = []
    for path in files(".rs", below="src/pg"):
        lines = text(path).splitlines()
        for number, line in enumerate(code(path).splitlines()):
            # Neither a function pointer's type nor an attribute like #[unsafe(no_mangle)] is a claim of its own.
            if re.search(r"\bunsafe\b(?!\()(?!\s+extern\s+fn\s*\()", line):
                near = "\n".join(lines[max(0, number - 10) : number + 1])
                if "SAFETY:" not in near and "# Safety" not in near:
                    offenders.append(f"{name(path)}:{number + 1}")
    assert offenders == []


@pytest.mark.parametrize("word", ["todo" + "!", "FIX" + "ME", "unimplemented" + "!", "dbg" + "!("])
def test_nothing_is_left_undone(word):
    assert [name(path) for path in files(*SOURCES, ".toml", ".md") if word in text(path)] == []


@pytest.mark.parametrize("place", ["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/"])
def test_no_path_of_somebodys_machine(place):
    assert [name(path) for path in files() if place in text(path)] == []


def test_files_stay_small():
    # What pgrx put together for a released version is kept as it was.
    written = (path for path in files(*SOURCES) if path.parent.name != "released")
    lengths = {name(path): text(path).count("\n") for path in written}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def test_versions_agree():
    cargo = tomllib.loads(text(ROOT / "Cargo.toml"))
    meta = json.loads(text(ROOT / "META.json"))
    control = text(ROOT / "iot_ext.control")
    version = cargo["workspace"]["package"]["version"]
    assert {meta["version"], meta["provides"]["iot_ext"]["version"]} == {version}
    assert "default_version = '@CARGO_VERSION@'" in control
    assert re.search(rf"^## \[?{re.escape(version)}\b", text(ROOT / "CHANGELOG.md"), re.MULTILINE)


def test_pgrx_is_pinned_everywhere_alike():
    cargo = tomllib.loads(text(ROOT / "Cargo.toml"))
    assert cargo["dependencies"]["pgrx"] == cargo["dev-dependencies"]["pgrx-tests"]
    assert cargo["dependencies"]["pgrx"].startswith("=")


def test_the_core_knows_no_database():
    tree = subprocess.run(
        ["cargo", "tree", "--quiet", "--package", "iot_core", "--prefix", "none", "--format", "{p}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )
    assert tree.returncode == 0, tree.stderr
    assert [line for line in tree.stdout.splitlines() if line.startswith(("pgrx", "postgres"))] == []


def test_a_panic_unwinds_in_every_profile():
    """`abort` would take the whole server down with one statement."""
    profiles = tomllib.loads(text(ROOT / "Cargo.toml"))["profile"]
    assert {profile: settings.get("panic", "unwind") for profile, settings in profiles.items()} == dict.fromkeys(
        profiles, "unwind"
    )


def test_pgspot_accepts_the_migrations():
    migrations = sorted((ROOT / "sql" / "setup").rglob("*.sql"))
    assert migrations
    complaints = {name(path): report for path in migrations if (report := pgspot(path))}
    assert complaints == {}


def pgspot(path, *arguments):
    """What pgspot has to say against a file; empty when it has nothing."""
    program = Path(sys.executable).with_name("pgspot")
    done = subprocess.run([program, *arguments, path], capture_output=True, text=True, check=False)
    report = done.stdout + done.stderr
    return "" if done.returncode == 0 and "Errors: 0 Warnings: 0 Unknown: 0" in report else report
