"""A small factory that does not exist: deterministic, physically plausible sensor readings.

Each sensor follows a daily cycle with noise; some have what real sensors have: a bearing that wears out, spikes, a
probe that freezes at one value, a radio link that drops out.
"""

import math
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Iterator


@dataclass(frozen=True)
class Sensor:
    device: str
    name: str
    kind: str
    unit: str
    level: float
    swing: float
    noise: float
    physical: tuple[float, float]
    calibration: dict = field(default_factory=dict)
    drift_per_day: float = 0.0
    spikes: tuple[tuple[float, float], ...] = ()
    flatline: tuple[float, float] | None = None
    dropout: tuple[float, float] | None = None


# Days are counted from the start of the simulation.
FACTORY = (
    Sensor("PUMP-01", "bearing temperature", "temperature", "degC", 61.0, 3.0, 0.4, (-40, 150),
           drift_per_day=0.25, spikes=((2.40, 24.0), (5.71, 30.0))),
    Sensor("PUMP-01", "vibration", "vibration", "mm/s", 2.1, 0.3, 0.08, (0, 50), spikes=((5.70, 4.5),)),
    Sensor("OVEN-07", "chamber temperature", "temperature", "degC", 182.0, 4.0, 0.6, (0, 400),
           calibration={"multiplier": 1.02, "offset": -1.5}, flatline=(4.10, 4.35)),
    Sensor("TANK-03", "level", "level", "percent", 55.0, 18.0, 0.5, (0, 100), dropout=(3.25, 3.50)),
    Sensor("HALL-A", "humidity", "humidity", "percent", 46.0, 7.0, 0.9, (0, 100), spikes=((1.55, -34.0),)),
)


def readings(start: datetime, days: float, step: timedelta) -> Iterator[tuple[Sensor, datetime, float]]:
    """Readings of the whole factory in order of time."""
    noise = random.Random(20261121)
    frozen: dict[str, float] = {}
    for count in range(int(timedelta(days=days) / step)):
        moment = start + count * step
        day = (moment - start) / timedelta(days=1)
        for sensor in FACTORY:
            value = _value(sensor, day, moment, noise)
            if sensor.flatline and sensor.flatline[0] <= day < sensor.flatline[1]:
                value = frozen.setdefault(sensor.name, value)
            if sensor.dropout and sensor.dropout[0] <= day < sensor.dropout[1]:
                continue
            yield sensor, moment, round(value, 3)


def _value(sensor: Sensor, day: float, moment: datetime, noise: random.Random) -> float:
    hour = moment.hour + moment.minute / 60
    value = sensor.level + sensor.drift_per_day * day
    value += sensor.swing * math.sin((hour - 9) / 24 * 2 * math.pi)
    value += noise.gauss(0, sensor.noise)
    for at, height in sensor.spikes:
        # A spike decays within about twenty minutes.
        if at <= day < at + 0.02:
            value += height * math.exp(-(day - at) * 144)
    return min(max(value, sensor.physical[0]), sensor.physical[1])
