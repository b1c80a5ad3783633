"""Readings as clients send them: made ahead and encoded outside the clock, so that only the server's work is timed."""

import hashlib
import json
import math
import struct
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

# OIDs of the element types, which every PostgreSQL has.
UUID, TIMESTAMPTZ, FLOAT8 = 2950, 1184, 701
POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)
SECOND = 1_000_000


def identifier(kind, number):
    """The uuid of the n-th sensor or device; SQL says the same with md5(kind || ' ' || n)::uuid."""
    return uuid.UUID(hashlib.md5(f"{kind} {number}".encode()).hexdigest())


def clock():
    """Now, in microseconds of PostgreSQL."""
    return (datetime.now(timezone.utc) - POSTGRES_EPOCH) // timedelta(microseconds=1)


def written(at):
    """Microseconds of PostgreSQL as text."""
    return (POSTGRES_EPOCH + timedelta(microseconds=at)).isoformat()


@dataclass
class Batch:
    """Readings in the order in which they are sent: (sensor's number, time, value)."""

    rows: list

    def __len__(self):
        return len(self.rows)

    @property
    def span(self):
        """The earliest and the latest time in it, as text."""
        times = [at for _, at, _ in self.rows]
        return written(min(times)), written(max(times))

    def parts(self, size):
        return [Batch(self.rows[start : start + size]) for start in range(0, len(self.rows), size)]

    def arrays(self, sensors):
        """uuid[], timestamptz[] and double precision[] as the wire carries them in binary."""
        return (
            _array(UUID, 16, (sensors[number].bytes for number, _, _ in self.rows), len(self), "16s"),
            _array(TIMESTAMPTZ, 8, (at for _, at, _ in self.rows), len(self), "q"),
            _array(FLOAT8, 8, (value for _, _, value in self.rows), len(self), "d"),
        )

    def document(self, sensors):
        """One jsonb array as the wire carries it in binary: a version, then text."""
        return b"\x01" + json.dumps([
            {"sensor_id": str(sensors[number]), "measurement_timestamp": written(at), "measurement_value": value}
            for number, at, value in self.rows
        ]).encode()

    def csv(self, sensors):
        return "".join(f"{sensors[number]},{written(at)},{value}\n" for number, at, value in self.rows)


def _array(element, width, values, length, code):
    pack = struct.Struct(f"!i{code}").pack
    header = struct.pack("!iiIii", 1, 0, element, length, 1)
    return header + b"".join(pack(width, value) for value in values)


class Stream:
    """Readings of all sensors tick by tick. No two times are the same, so sorting by time gives back the order."""

    def __init__(self, sensors, start, interval=10 * SECOND):
        self.sensors = sensors
        self.start = start
        self.interval = interval
        self.tick = 0

    def next(self, ticks):
        """The next ticks of every sensor."""
        rows = [
            (number, self.start + tick * self.interval + number, value_of(number, tick))
            for tick in range(self.tick, self.tick + ticks) for number in range(self.sensors)
        ]
        self.tick += ticks
        return Batch(rows)


def value_of(number, tick):
    """A wave with a little noise, of three decimals, that no rule of the benches fires on."""
    return round(20 + 4 * math.sin(tick / 60 + number) + ((tick * 7919 + number * 104729) % 1009) / 1009, 3)
