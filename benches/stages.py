"""Where the time of ingest(arrays) goes, in nanoseconds of CPU per reading: 10,000 readings a call, 1,000 sensors, calibration,
zscore and two rules each, sent as binary parameters.

The stages are those of iot.iot_stat_ingest; `perf` (sampling the CPU clock) splits the storing of the rows into tuples,
indexes and the write-ahead log. Rules are what twenty more of them cost, a tenth of it for two.

    make bench BENCH=stages [ARGS='--calls 100']
"""

import argparse
import collections
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from cluster import Cluster
from ingest.measure import process_cpu
from ingest.readings import SECOND, Stream, clock
from ingest.world import RULES, SETTINGS, check_counts, ingest_arrays, world_of

SENSORS, TICKS = 1_000, 10
STAGES = ("look_up_milliseconds", "score_milliseconds", "store_milliseconds", "alert_milliseconds")
# The innermost frame that says what a sample belongs to; in the order in which a stack is searched.
PARTS = {
    "write-ahead log": ("XLogInsert", "XLogBeginInsert", "XLogRegister", "XLogFlush", "XLogRecord", "log_heap"),
    "index": ("btinsert", "_bt_", "brininsert", "index_insert", "ExecInsertIndexTuples", "FormIndexDatum", "index_form_tuple"),
    "tuple": ("heap_multi_insert", "heap_insert", "heap_form_tuple", "RelationGetBufferForTuple", "heap_prepare_insert",
              "heap_compute_data_size", "heap_fill_tuple", "ReadBuffer", "tts_heap"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100, help="calls of 10,000 readings")
    options = parser.parse_args()
    with Cluster(settings=SETTINGS) as cluster:
        print(f"PostgreSQL {cluster.major}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f},"
              f" {options.calls} calls of {SENSORS * TICKS:,} readings")
        usual = run(cluster, options.calls, RULES)
        # Sampling costs time itself: it tells shares only.
        sampled = run(cluster, max(options.calls // 4, 10), RULES, with_perf=True)
        more = run(cluster, options.calls, RULES * 11)
        rules = (more["score_milliseconds"] - usual["score_milliseconds"]) / 10
        shown = [
            ("decode (arrays to readings, and the call itself)", usual["total"] - sum(usual[stage] for stage in STAGES)),
            ("look-up (sensors, calibrations, rules)", usual["look_up_milliseconds"]),
            ("score (calibration, quality, duplicates, state, score)", usual["score_milliseconds"] - rules),
            ("rules (two on each sensor)", rules),
            *((part, usual["store_milliseconds"] * sampled[part]) for part in (*PARTS, "rest of storing") if part in sampled),
        ]
        if "tuple" not in sampled:
            shown.append(("storing (no perf here to split it)", usual["store_milliseconds"]))
        for name, nanoseconds in (*shown, ("in all", usual["total"])):
            print(f"{name:<58} {nanoseconds:>8,.0f} ns")


def run(cluster, calls, rules, with_perf=False):
    """Nanoseconds per reading of each stage and in all; with perf also the shares of the parts in storing."""
    with world_of(cluster, SENSORS, rules=rules) as world, world.connect() as connection:
        stream = Stream(SENSORS, clock() - 20 * 3600 * SECOND, interval=SECOND)
        call = ingest_arrays(connection)

        def feed(count):
            for _ in range(count):
                batch = stream.next(TICKS)
                check_counts(call(*batch.arrays(world.sensors)), len(batch))

        feed(10)
        pid, readings = connection.info.backend_pid, calls * SENSORS * TICKS
        before, stages = process_cpu(pid)[0], stage_times(connection)
        with samples(pid, with_perf) as stacks:
            feed(calls)
        found = {stage: float(after - earlier) * 1e6 / readings
                 for stage, earlier, after in zip(STAGES, stages, stage_times(connection))}
        found["total"] = (process_cpu(pid)[0] - before) * 1e9 / readings
        in_store = {part: count for part, count in stacks.items() if part}
        return found | {part: count / sum(in_store.values()) for part, count in in_store.items()}


def stage_times(connection):
    return connection.execute(f"SELECT {', '.join(STAGES)} FROM iot.iot_stat_ingest").fetchone()


class samples:
    """Yields a counter that tells, at the end, how many samples of a process fell on each part of storing."""

    def __init__(self, pid, wanted):
        self.pid, self.perf = pid, shutil.which("perf") if wanted else None
        self.counts = collections.Counter()

    def __enter__(self):
        if self.perf:
            self.file = Path(tempfile.mkdtemp(prefix="iot_ext-profile-")) / "perf.data"
            self.process = subprocess.Popen(
                [self.perf, "record", "-q", "-e", "cpu-clock", "-F", "499", "--call-graph", "dwarf,16384", "-p", str(self.pid),
                 "-o", str(self.file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(1)
        return self.counts

    def __exit__(self, *_):
        if not self.perf:
            return
        self.process.send_signal(2)
        self.process.wait()
        text = subprocess.run([self.perf, "script", "-i", str(self.file), "-F", "ip,sym"], capture_output=True, text=True,
                              check=False).stdout
        shutil.rmtree(self.file.parent)
        for stack in text.split("\n\n"):
            self.counts[part_of([line.split(None, 1)[-1] for line in stack.splitlines() if line.strip()])] += 1


def part_of(frames):
    """Innermost first."""
    for frame in frames:
        for part, names in PARTS.items():
            if frame.startswith(names):
                return part
    if any("bulk_insert" in frame or "store" in frame for frame in frames):
        return "rest of storing"
    return None


if __name__ == "__main__":
    main()
