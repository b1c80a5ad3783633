"""The roads into the engine against what one would use instead: COPY and INSERT of rows that are finished already, and the
pipeline written by hand in PL/pgSQL.

Both sides of a comparison take turns in one run on one private server with the same settings; a figure is the median of
at least 5 rounds, and counts only if the work that was timed is found in the tables afterwards. See benches/README.md.

    make bench BENCH=ingest [ARGS='--only arrays,insert --quick']
"""

import argparse
import os
import sys

import psycopg

from cluster import Cluster, ClusterError
from ingest import bulk, calls, conditions, endurance
from ingest.measure import NotDone, NotThereYet, Report
from ingest.world import SETTINGS

MEASURES = {
    "arrays": lambda cluster, report: bulk.Arrays(cluster, report).run(),
    "copy": lambda cluster, report: bulk.Readings(cluster, report).run(),
    "copy_client": lambda cluster, report: bulk.ReadingsFromClient(cluster, report).run(),
    "jsonb": lambda cluster, report: bulk.Documents(cluster, report).run(),
    "wal": lambda cluster, report: bulk.WriteAheadLog(cluster, report).run(),
    "late": lambda cluster, report: bulk.Late(cluster, report).run(),
    "insert": calls.insert,
    "pipeline": calls.pipeline,
    "rules": calls.rules,
    "condition": conditions.evaluate,
    "memory": endurance.large_batches,
    "restart": endurance.restart,
}


def main():
    options = arguments()
    report = Report(options)
    with Cluster(settings=SETTINGS | dict(setting.split("=", 1) for setting in options.set)) as cluster:
        print(f"PostgreSQL {cluster.major}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f},"
              f" shared_preload_libraries = {cluster.settings['shared_preload_libraries']}, median of {options.rounds}"
              f"{' (smoke test)' if options.quick else ''}")
        report.head()
        for name in options.only or MEASURES:
            try:
                MEASURES[name](cluster, report)
            except NotThereYet as missing:
                report.missing(name, missing)
            # What a side raises is no reason to lose the other measures.
            except (NotDone, psycopg.Error, ClusterError) as why:
                report.void(name, why)
    print(f"load {os.getloadavg()[0]:.2f}; {report.problems} missed or void, {report.incomplete} not there yet")
    # A smoke test fails only where something did not work.
    sys.exit(1 if report.problems else 0)


def arguments():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("--only", type=names, help=f"measures, separated by commas: {', '.join(MEASURES)}")
    parser.add_argument("--quick", action="store_true", help="a smoke test: small sizes, no verdicts")
    parser.add_argument("--rounds", type=int, help="rounds that count (5; with --quick 2)")
    parser.add_argument("--narrow-rounds", type=int,
                        help="rounds where the ratio is within 10 %% of the goal (15; with --quick none more)")
    parser.add_argument("--cpu", action="store_true", help="server CPU seconds everywhere, not only where it is narrow")
    parser.add_argument("--last-seen", action="store_true",
                        help="pipeline: also what writing devices.last_seen_at costs the PL/pgSQL side")
    parser.add_argument("--windows", type=lambda text: [int(window) for window in text.split(",")], metavar="READINGS",
                        help=f"pipeline: only these windows, of {', '.join(map(str, calls.WINDOWS))}")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.narrow_rounds = options.narrow_rounds or (options.rounds if options.quick else 15)
    return options


def names(text):
    chosen = text.split(",")
    if unknown := set(chosen) - set(MEASURES):
        raise argparse.ArgumentTypeError(f"no such measure: {', '.join(sorted(unknown))}")
    return chosen


if __name__ == "__main__":
    main()
