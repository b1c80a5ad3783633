"""The demo runs and tells the truth, on a small file and, where it is at hand, on a real one."""

import csv
import math
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest

from cluster import clean_environment
from documents import ROOT
from factory import add_sensor

NAB = ROOT.parent / "shared" / "data" / "nab"
MACHINE = NAB / "realKnownCause" / "machine_temperature_system_failure.csv"
needs_nab = pytest.mark.skipif(not MACHINE.is_file(), reason="the NAB data are not here")


def run_demo(*arguments):
    """What the demo prints when it is not on a terminal."""
    environment = clean_environment(IOT_PG_CONFIG=os.environ["IOT_PG_CONFIG"])
    return subprocess.run(
        [sys.executable, str(ROOT / "demo" / "run.py"), *map(str, arguments)], env=environment, check=True, text=True,
        capture_output=True, stdin=subprocess.DEVNULL, timeout=350).stdout


def test_a_file_is_replayed(tmp_path):
    path = tmp_path / "boiler.csv"
    start = datetime(2026, 3, 1)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["timestamp", "value"])
        for minute in range(300):
            writer.writerow([start + timedelta(minutes=minute), 20 + math.sin(minute / 9) + (80 if minute == 250 else 0)])
        writer.writerow([start, 99])  # a repeated time
    printed = run_demo("--data", path)
    assert "301 offered = 300 stored + 1 duplicates" in printed
    assert "301/301 readings" in printed and "rows/s" in printed
    assert re.search(r"high +active +\d+ .* value is [\d.]+, beyond [\d.]+", printed)
    assert re.search(r"Anomalies: [1-9]\d* readings", printed)
    assert "█" in printed and "▲" in printed
    assert "active_devices" in printed and "active_processing_rules" in printed
    assert "psql -h" in printed


def test_the_simulator_is_replayed():
    printed = run_demo()
    assert "10,008 offered = 10,008 stored + 0 duplicates" in printed
    for text in ("Bearing hot", "Vibration high", "Hall too dry"):
        assert text in printed


@needs_nab
def test_readme_tells_what_the_demo_finds_on_real_data():
    printed = run_demo("--data", MACHINE, "--labels", NAB / "labels" / "combined_windows.json")
    assert "22,695 offered = 22,683 stored + 12 duplicates" in printed
    assert "4 of 4 windows contain a flagged reading; 892 of 1,003 flags lie outside all windows" in printed
    readme = " ".join((ROOT / "README.md").read_text().split())
    for figure in ("22,695 readings", "22,683 readings were stored", "12 duplicates", "1,003 readings were flagged",
                   "Each of the 4 labelled failure windows", "892 flags lie outside all windows"):
        assert figure in readme


@needs_nab
def test_scores_are_those_of_a_naive_computation(database):
    """Ten days of real readings, with gaps of our making and late ones, against the definition written out in Python."""
    _, sensor = add_sensor(database)
    with MACHINE.open(newline="") as file:
        rows = [(datetime.fromisoformat(row["timestamp"]).replace(tzinfo=timezone.utc), float(row["value"]))
                for row in csv.DictReader(file)][:2900]
    # Some arrive late, up to two days, and a few hours are missing altogether.
    rows = [row for number, row in enumerate(rows) if not 800 < number < 850]
    for number in range(1000, 2800, 37):
        rows.insert(number + (number % 11) * 50, rows.pop(number))
    database.execute("SELECT iot.setup(retention => '20 years')")
    with database.connect(autocommit=False) as connection:
        with connection.pipeline():
            for moment, value in rows:
                connection.execute(
                    "SELECT iot.process_sensor_data(%s::uuid, %s, measurement_timestamp => %s)", (sensor, value, moment))
        connection.commit()
    stored = dict(database.rows("SELECT measurement_timestamp, anomaly_score FROM iot.sensor_data"))
    assert len(stored) == len({moment for moment, _ in rows})

    seen, newest = {}, None
    for moment, value in rows:
        if moment in seen:
            continue
        newest = max(moment, newest or moment)
        start = newest - timedelta(minutes=newest.minute % 30, seconds=newest.second) - timedelta(hours=24)
        window = [other for at, other in seen.items() if at >= start]
        assert abs(stored[moment] - naive_score(value, window)) < 1e-9, moment
        seen[moment] = value


def naive_score(value, window):
    if len(window) < 2:
        return 0.0
    mean = math.fsum(window) / len(window)
    deviation = math.sqrt(math.fsum((other - mean) ** 2 for other in window) / (len(window) - 1))
    if deviation == 0:
        return 0.0 if value == window[0] else 5.0
    return min(abs(value - mean) / deviation, 5.0)
