"""What the demo prints: a progress bar, tables, and a line of block characters for a series."""

import sys
import time
from collections.abc import Iterable, Sequence
from decimal import Decimal

BLOCKS = "▁▂▃▄▅▆▇█"


class Progress:
    """Rows done, rows per second and time left; one line on a terminal, a line every tenth otherwise."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.started = time.monotonic()
        self.live = sys.stdout.isatty()
        self.next_tenth = 1

    def show(self, done: int) -> None:
        seconds = max(time.monotonic() - self.started, 1e-9)
        rate = done / seconds
        left = (self.total - done) / rate if rate else 0
        filled = 30 * done // self.total
        line = (f"  [{'█' * filled}{'·' * (30 - filled)}] {done:,}/{self.total:,} readings"
                f"  {rate:,.0f} rows/s  {left:.0f} s left")
        if self.live:
            print(f"\r{line}   ", end="\n" if done == self.total else "", flush=True)
        elif done * 10 >= self.next_tenth * self.total:
            self.next_tenth = done * 10 // self.total + 1
            print(line, flush=True)


def sparkline(values: Sequence[float], flagged: Sequence[bool], width: int = 100) -> tuple[str, str]:
    """The series as blocks, and below it a mark under each column that holds an anomaly.

    A column shows its value farthest from the mean of the series, so that a short spike stays visible.
    """
    if not values:
        return "", ""
    low, high = min(values), max(values)
    mean = sum(values) / len(values)
    width = min(width, len(values))
    line, marks = [], []
    for column in range(width):
        part = slice(column * len(values) // width, (column + 1) * len(values) // width)
        value = max(values[part], key=lambda each: abs(each - mean))
        level = 0 if high == low else int((value - low) / (high - low) * (len(BLOCKS) - 1) + 0.5)
        line.append(BLOCKS[level])
        marks.append("▲" if any(flagged[part]) else " ")
    return "".join(line), "".join(marks).rstrip()


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest cell."""
    cells = [[str(header) for header in headers]] + [[_text(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    lines = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
    lines.insert(1, "  " + "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def heading(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}")


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, (float, Decimal)):
        return f"{cell:,.3f}".rstrip("0").rstrip(".")
    return str(cell)
