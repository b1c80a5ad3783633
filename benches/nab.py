"""The streaming detectors against the Numenta Anomaly Benchmark (NAB), each by its own onsets, without a search for
the best threshold.

    benches/nab.py score         --data DATA --scorer score_nab.py [--detector NAME] [--results FOLDER]
    benches/nab.py leave-one-out --data DATA --scorer score_nab.py
    benches/nab.py stability     --data DATA --scorer score_nab.py
    benches/nab.py bootstrap     --data DATA --scorer score_nab.py
    benches/nab.py speed         --data DATA [--detector NAME]
    make bench BENCH=nab ARGS='sql --data DATA [--scorer score_nab.py] [--detector NAME]'

DATA holds NAB's data files as <category>/<file>.csv and labels/combined_windows.json; the scorer is a Python program
with NAB's scoring rules (class ScoredFile, method score_at). Any of `--constant NAME=VALUE` replaces a constant of the
adaptive detector.

score          writes a result folder (1 at an onset, else 0) and calls the scorer on it.
leave-one-out  for each file: picks from GRID what is best on all other files, and scores the file with that.
stability      scores with each constant 20 % lower and 20 % higher, all others as they are.
bootstrap      scores files drawn with replacement: how far the score is a matter of which files there are.
speed          nanoseconds per reading (with the loop over the readings), and bytes of state.
sql            scores by SELECT … FROM iot.score_series(…) on a private server with the installed extension, checks that
               each row equals that of the program that the other modes use, and does as score where there is a scorer.
"""

import argparse
import copy
import importlib.util
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
EXAMPLE = TARGET / "release" / "examples" / "score_series"
# The constants that matter most, each as multiples of its default.
GRID = {
    "limit": (0.8, 0.9, 1.0, 1.1, 1.2),
    "block_length": (0.7, 1.0, 1.4),
    "level_memory": (0.7, 1.0, 1.4),
    "refractory_hours": (0.7, 1.0, 1.5),
}
# Draws of the bootstrap.
DRAWS = 10_000
# Texts of the files go to the server as they are; it runs in UTC, as the program reads them.
SCORE_SERIES = """
    SELECT anomaly_score, is_anomaly::int, is_onset::int
      FROM iot.score_series(%s, %s::text[]::timestamptz[], %s::text[]::double precision[])
"""


class Benchmark:
    """The data files with their labels, and what a detection in each row is worth."""

    def __init__(self, data, scorer):
        self.data, self.scorer = Path(data), scorer
        labels = json.loads((self.data / "labels" / "combined_windows.json").read_text())
        self.windows = {key: labels[key] for key in sorted(labels) if (self.data / key).is_file()}
        self.paths = {str(self.data / key): key for key in self.windows}
        self.files = {}

    def load_rewards(self):
        rules = load_scorer(self.scorer)
        for key, windows in self.windows.items():
            times = [rules.parse_time(line.split(",")[0]) for line in lines(self.data / key)]
            scored = rules.ScoredFile(key, times, [0.0] * len(times), windows)
            # Rows of the learning period are not scored.
            self.files[key] = (scored, len(times) - len(scored.rows))

    def raw_scores(self, constants):
        """Raw standard score of each file, by the onsets with these constants."""
        output = run(["--only-onsets", *settings(constants), *self.paths])
        onsets = {key: [] for key in self.windows}
        for line in output.splitlines():
            path, number, *_ = line.rsplit(",", 6)
            onsets[self.paths[path]].append(int(number))
        return {key: self.raw_score(key, onsets[key]) for key in self.windows}

    def raw_score(self, key, onsets):
        scored, learning = self.files[key]
        rows = [(0.0, window, reward) for _, window, reward in scored.rows]
        for number in onsets:
            if number >= learning:
                rows[number - learning] = (1.0, *rows[number - learning][1:])
        # A copy: other threads score other variants of the same file.
        detected = copy.copy(scored)
        detected.rows = [row for row in rows if row[0]]
        raw, _, _ = detected.score_at(0.5, "standard")
        return raw

    def normalised(self, raw, keys=None):
        keys = list(keys or self.windows)
        count = sum(len(self.windows[key]) for key in keys)
        return 100 * (sum(raw[key] for key in keys) + count) / (2 * count)


def load_scorer(path):
    specification = importlib.util.spec_from_file_location("scorer", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def lines(path):
    return [line for line in Path(path).read_text().splitlines()[1:] if line.strip()]


def settings(constants):
    return [part for name, value in constants.items() for part in ("--constant", f"{name}={value!r}")]


def run(arguments):
    return subprocess.run([EXAMPLE, *arguments], check=True, capture_output=True, text=True).stdout


def constants_in_use(options):
    listed = dict(line.split("=") for line in run(["--list-constants"]).splitlines())
    constants = {name: float(value) for name, value in listed.items()}
    for setting in options.constant:
        name, value = setting.split("=")
        constants[name] = float(value)
    return constants


def evaluate_all(benchmark, variants):
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        return list(executor.map(benchmark.raw_scores, variants))


def score(options):
    benchmark = Benchmark(options.data, options.scorer)
    report(options, benchmark, verdicts(benchmark, options))


def verdicts(benchmark, options):
    """Of each file a list of (timestamp, value, score, is_anomaly, is_onset), as text."""
    output = run(["--detector", options.detector, *settings(constants_in_use(options)), *benchmark.paths])
    results = {key: [] for key in benchmark.windows}
    for line in output.splitlines():
        path, *columns = line.rsplit(",", 5)
        results[benchmark.paths[path]].append(columns)
    return results


def report(options, benchmark, results):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.results or temporary)
        for key, rows in results.items():
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            scored = [f"{timestamp},{value},{is_onset}" for timestamp, value, _, _, is_onset in rows]
            (folder / key).write_text("\n".join(["timestamp,value,anomaly_score", *scored]) + "\n")
        labels = benchmark.data / "labels" / "combined_windows.json"
        subprocess.run(
            [sys.executable, options.scorer, folder, "--labels", labels, "--data", benchmark.data]
            + ["--threshold", "0.5", "--per-file"],
            check=True,
        )


def sql(options):
    benchmark = Benchmark(options.data, options.scorer)
    expected = verdicts(benchmark, options)
    # Only this mode needs a server.
    from cluster import Cluster

    results, differing, worst, seconds = {}, [], 0.0, 0.0
    with Cluster() as cluster, cluster.connect() as connection:
        connection.execute("CREATE EXTENSION iot_ext")
        for key, rows in expected.items():
            arguments = (options.detector, [row[0] for row in rows], [row[1] for row in rows])
            started = time.monotonic()
            found = connection.execute(SCORE_SERIES, arguments).fetchall()
            seconds += time.monotonic() - started
            results[key] = [(*row[:2], *verdict) for row, verdict in zip(rows, found, strict=True)]
            for number, (row, verdict) in enumerate(zip(rows, found)):
                worst = max(worst, abs(float(row[2]) - verdict[0]))
                if [int(flag) for flag in row[3:]] != [*verdict[1:]]:
                    differing.append(f"{key}, reading {number}")
    count = sum(map(len, results.values()))
    onsets = sum(row[4] for rows in results.values() for row in rows)
    print(f"{options.detector}: {count} readings, {onsets} onsets, {seconds * 1e6 / count:.1f} us per reading (with client)")
    print(f"against the program: {len(differing)} flags and onsets differ; scores by {worst:.1g} at most")
    if options.scorer:
        report(options, benchmark, results)
    if differing or worst > 1e-9:
        sys.exit("not the same: " + "; ".join(differing[:5]))


def leave_one_out(options):
    benchmark = Benchmark(options.data, options.scorer)
    benchmark.load_rewards()
    base = constants_in_use(options)
    factors = list(itertools.product(*GRID.values()))
    variants = [base | {name: base[name] * factor for name, factor in zip(GRID, row)} for row in factors]
    raws = evaluate_all(benchmark, variants)
    left_out = {}
    for key in benchmark.windows:
        others = [other for other in benchmark.windows if other != key]
        best = max(range(len(raws)), key=lambda number: benchmark.normalised(raws[number], others))
        left_out[key] = raws[best][key]
        chosen = " ".join(f"{name} {factor:g}" for name, factor in zip(GRID, factors[best]))
        print(f"{key:58} raw {left_out[key]:7.3f}  chosen on the others: {chosen}")
    default = benchmark.raw_scores(base)
    everything = max(benchmark.normalised(raw) for raw in raws)
    print(f"{len(variants)} variants; constants in use {benchmark.normalised(default):.2f}, best on all {everything:.2f}")
    print(f"leave-one-file-out {benchmark.normalised(left_out):.2f}")


def stability(options):
    benchmark = Benchmark(options.data, options.scorer)
    benchmark.load_rewards()
    base = constants_in_use(options)
    changes = [(name, factor) for name in base for factor in (0.8, 1.2)]
    raws = evaluate_all(benchmark, [base | {name: base[name] * factor} for name, factor in changes])
    scores = [benchmark.normalised(raw) for raw in raws]
    for number, name in enumerate(base):
        print(f"{name:30} {base[name]:10g}  -20 % {scores[2 * number]:6.2f}  +20 % {scores[2 * number + 1]:6.2f}")
    print(f"constants in use {benchmark.normalised(benchmark.raw_scores(base)):.2f}, worst {min(scores):.2f}")


def bootstrap(options):
    benchmark = Benchmark(options.data, options.scorer)
    benchmark.load_rewards()
    raw = benchmark.raw_scores(constants_in_use(options))
    keys = list(benchmark.windows)
    # A fixed seed: the same figure each time.
    draw = random.Random(1).choices
    samples = [draw(keys, k=len(keys)) for _ in range(DRAWS)]
    # Without any window there is nothing to find.
    samples = [drawn for drawn in samples if any(benchmark.windows[key] for key in drawn)]
    scores = sorted(benchmark.normalised(raw, drawn) for drawn in samples)
    low, high = scores[len(scores) // 40], scores[-len(scores) // 40]
    print(f"constants in use {benchmark.normalised(raw):.2f}, 95 % of {len(scores)} draws of files {low:.2f} to {high:.2f}")


def speed(options):
    files = sorted(path for path in Path(options.data).glob("*/*.csv"))
    print(run(["--speed", "--detector", options.detector, *map(str, files)]), end="")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = {"score": score, "leave-one-out": leave_one_out, "stability": stability, "bootstrap": bootstrap}
    modes |= {"speed": speed, "sql": sql}
    parser.add_argument("mode", choices=modes)
    parser.add_argument("--data", required=True, help="folder of NAB's data files and labels")
    parser.add_argument("--scorer", help="program with NAB's scoring rules")
    parser.add_argument("--detector", default="adaptive", help="for score, speed and sql (default: %(default)s)")
    parser.add_argument("--constant", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--results", help="folder for the results of score (default: a temporary one)")
    if len(sys.argv) == 1:
        # As one of all benches: there is no data in the repository.
        print("skipped: wants a folder with NAB's data, see --help")
        return
    options = parser.parse_args()
    if options.mode not in ("speed", "sql") and not options.scorer:
        parser.error(f"{options.mode} wants --scorer")
    if options.mode == "sql" and options.constant:
        parser.error("sql scores with the constants in use")
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "-p", "iot_core", "--example", "score_series"], cwd=ROOT, check=True
    )
    modes[options.mode](options)


if __name__ == "__main__":
    main()
