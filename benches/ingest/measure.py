"""How a figure comes about: sides that take turns in one run, medians, CPU seconds where the margin is narrow."""

import os
import statistics
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
WIDTH = 76  # of the names of measures
NARROW = 0.10  # closer to the goal than this, wall time on a machine that others use decides nothing


class NotThereYet(Exception):
    """The function under test does not exist in this build."""


class NotDone(Exception):
    """The work that was timed did not happen, so its time means nothing."""


@dataclass
class Sample:
    """One run of one side. `cpu` is what its backend (or backends) spent in the server."""

    amount: float
    seconds: float
    cpu: float

    @property
    def rate(self):
        return self.amount / self.seconds


@dataclass
class Goal:
    """`bound` is for the first side's figure divided by `against`'s, which must be at least (or at most) that."""

    against: str
    bound: float
    at_least: bool = True

    def is_met(self, ratio):
        return ratio >= self.bound if self.at_least else ratio <= self.bound

    def is_narrow(self, ratio):
        return abs(ratio / self.bound - 1) < NARROW

    def __str__(self):
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


class Report:
    """Prints a line per figure and remembers what did not hold, for the exit status."""

    def __init__(self, options):
        self.options = options
        self.problems = 0
        self.incomplete = 0

    def head(self):
        print(f"{'measure':<{WIDTH}} {'ours':>13} {'theirs':>13} {'ratio':>8} {'goal':>8}")

    def line(self, title, ours, theirs, ratio, goal=None, note=""):
        verdict = "" if goal is None else "met" if goal.is_met(ratio) else "MISSED"
        # The sizes of a smoke test say nothing about the goals.
        if self.options.quick and verdict:
            verdict = "(quick)"
        figures = f"{figure(ours):>13} {figure(theirs):>13} {ratio:>8.3f} {str(goal or ''):>8}"
        print(f"{title:<{WIDTH}} {figures} {verdict} {note}".rstrip(), flush=True)
        self.problems += verdict == "MISSED"

    def missing(self, title, what):
        self.incomplete += 1
        print(f"{title:<{WIDTH}} not there yet: {what}", flush=True)

    def void(self, title, why):
        self.problems += 1
        print(f"{title:<{WIDTH}} DOES NOT COUNT: {why}", flush=True)


def figure(number):
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def take_turns(sides, rounds, first=0):
    """Samples of each side. They alternate within a round, and who begins alternates from round to round."""
    samples = defaultdict(list)
    for number in range(first, first + rounds):
        for name in sides if number % 2 else reversed(sides):
            samples[name].append(sides[name](number))
    return samples


def compare(report, title, sides, goals, unit="rows/s"):
    """Compares the first of `sides` (functions of a round's number, giving a Sample) with others by rate.

    Round 0 warms up and does not count. A narrow margin prolongs the run and adds CPU seconds. Returns the samples.
    """
    options = report.options
    ours = next(iter(sides))
    take_turns(sides, 1)
    samples = take_turns(sides, options.rounds, first=1)

    def ratio(goal, figure):
        return figure(samples[ours]) / figure(samples[goal.against])

    if any(goal.is_narrow(ratio(goal, median_rate)) for goal in goals) and options.rounds < options.narrow_rounds:
        for name, more in take_turns(sides, options.narrow_rounds - options.rounds, first=options.rounds + 1).items():
            samples[name] += more
    for goal in goals:
        label = f"{title}, {unit} against {goal.against}"
        narrow = goal.is_narrow(ratio(goal, median_rate))
        report.line(label, median_rate(samples[ours]), median_rate(samples[goal.against]), ratio(goal, median_rate), goal,
                    f"n={len(samples[ours])}{' narrow' if narrow else ''}")
        if narrow or options.cpu:
            report.line("    per server CPU second", per_cpu(samples[ours]), per_cpu(samples[goal.against]),
                        ratio(goal, per_cpu), None, f"goal {goal}")
    return samples


def median_rate(samples):
    return statistics.median(sample.rate for sample in samples)


def per_cpu(samples):
    """Amount per CPU second over all samples: the clock's ticks are too coarse for a single one."""
    return sum(sample.amount for sample in samples) / max(sum(sample.cpu for sample in samples), 1 / TICKS)


def process_cpu(pid):
    """CPU seconds of a process, and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, children_user, children_system = map(int, fields[11:15])
    return (user + system) / TICKS, (children_user + children_system) / TICKS


def children(pid):
    """The processes that a process has started and not yet heard the end of."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def parent(pid):
    """The process that started another."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def timed(connection, amount, work):
    """Runs `work`, which uses the connection, and returns a Sample with its backend's CPU seconds."""
    pid = connection.info.backend_pid
    cpu, started = process_cpu(pid)[0], time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return Sample(amount, seconds, process_cpu(pid)[0] - cpu)


def memory(pid, field):
    """A field of /proc/<pid>/status in bytes, such as VmHWM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


@contextmanager
def watch_memory(pid, interval=0.002):
    """Yields a list whose only element becomes the highest RssAnon seen: the kernel keeps a peak of the whole only, and
    that counts every page of the shared buffers that the process ever touched."""
    peak, ended = [memory(pid, "RssAnon")], threading.Event()

    def watch():
        while not ended.wait(interval):
            peak[0] = max(peak[0], memory(pid, "RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()
