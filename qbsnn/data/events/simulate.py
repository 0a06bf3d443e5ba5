"""Events simulated from images: a picture moves in three saccades before a model of an event camera's pixels.

The saccades are those of N-MNIST (Orchard et al. 2015, doi 10.3389/fnins.2015.00437): the sides of a triangle, 105 ms
each. Each pixel follows the model of ESIM (Rebecq et al. 2018): it sees L = ln(floor + intensity), remembers the
level at which it fired last, and fires whenever L has moved by the contrast threshold from there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbsnn import checks
from qbsnn.data.events.events import EVENT, Events

SACCADE_US = 105_000
SACCADES = 3


@dataclass(frozen=True)
class PixelModel:
    """The pixels of the simulated camera.

    threshold: change of L per event. floor: intensity added to pixels in [0, 1], the dark level of the sensor.
    refractory_us: a pixel that fired is silent for so long; levels passed meanwhile emit nothing. step_us: time between
    two computed pictures; within a step L is a line, on which the times of events are interpolated. noise_hz: events
    per second and pixel that nothing caused, of random polarity.
    """

    threshold: float = 0.3
    floor: float = 0.1
    refractory_us: float = 1000.0
    step_us: int = 3000
    noise_hz: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings; raises SettingsError."""
        checks.number("pixel.threshold", self.threshold, 0.01)
        checks.number("pixel.floor", self.floor, 0, open_low=True)
        checks.number("pixel.refractory_us", self.refractory_us, 0)
        checks.integer("pixel.step_us", self.step_us, 1, SACCADE_US)
        checks.number("pixel.noise_hz", self.noise_hz, 0, 1000)

    def key(self) -> dict[str, Any]:
        """What determines the events besides the picture."""
        return asdict(self) | {"saccades": [SACCADES, SACCADE_US]}


def trajectory(travel: int, step_us: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Times in µs, and where the picture's upper left corner is then, in columns and rows from 0 to ``travel``."""
    corners = SACCADE_US * np.arange(SACCADES + 1)
    times = np.arange(0, corners[-1] + 1, step_us)
    return times, np.interp(times, corners, [0, travel / 2, travel, 0]), np.interp(times, corners, [0, travel, 0, 0])


def moved(image: NDArray[np.float64], travel: int, x: float, y: float) -> NDArray[np.float64]:
    """``image`` ``[H, W]`` at column x and row y of a dark field ``[H + travel, W + travel]``, bilinear."""
    height, width = image.shape
    field = np.zeros((height + travel + 1, width + travel + 1))
    column, row = int(x), int(y)
    fx, fy = x - column, y - row
    for dy, dx, weight in ((0, 0, (1 - fy) * (1 - fx)), (0, 1, (1 - fy) * fx), (1, 0, fy * (1 - fx)), (1, 1, fy * fx)):
        field[row + dy : row + dy + height, column + dx : column + dx + width] += weight * image
    return field[:-1, :-1]


def simulate(image: NDArray[np.float64], travel: int, pixel: PixelModel, numbers: np.random.Generator) -> Events:
    """Events of ``image`` ``[H, W]`` in [0, 1] on a sensor of ``[H + travel, W + travel]``, sorted by time."""
    times, columns, rows = trajectory(travel, pixel.step_us)
    width = image.shape[1] + travel
    now = np.log(pixel.floor + moved(image, travel, columns[0], rows[0])).ravel()
    level, last = now.copy(), np.full(now.size, -np.inf)
    found: list[tuple[NDArray[Any], ...]] = []
    for start, x, y in zip(times, columns[1:], rows[1:], strict=False):
        before, now = now, np.log(pixel.floor + moved(image, travel, x, y)).ravel()
        passed = np.trunc((now - level) / pixel.threshold).astype(np.int64)
        hit = passed.nonzero()[0]
        for k in range(1, int(np.abs(passed).max(initial=0)) + 1):
            which = hit[np.abs(passed[hit]) >= k]
            up = passed[which] > 0
            crossing = level[which] + np.where(up, k, -k) * pixel.threshold
            share = (crossing - before[which]) / (now[which] - before[which])
            t = start + pixel.step_us * share.clip(0, 1)
            fires = t - last[which] >= pixel.refractory_us
            last[which[fires]] = t[fires]
            found.append((which[fires], t[fires], up[fires]))
        level[hit] += passed[hit] * pixel.threshold
    if pixel.noise_hz:
        count = numbers.poisson(pixel.noise_hz * times[-1] / 1e6 * now.size)
        noise = (
            numbers.integers(now.size, size=count),
            numbers.uniform(0, times[-1], count),
            numbers.random(count) < 0.5,
        )
        found.append(noise)
    if not found:
        return np.zeros(0, EVENT)
    places, stamps, polarities = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(stamps, kind="stable")
    events = np.zeros(len(order), EVENT)
    events["y"], events["x"] = np.divmod(places[order], width)
    events["t"], events["p"] = stamps[order], polarities[order]
    return events
