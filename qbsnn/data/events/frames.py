"""From events to frames ``[T, C, H, W]`` of counts, equal to Tonic's ``ToFrame`` and several times faster."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbsnn import checks
from qbsnn.data.events.events import Events, Sensor
from qbsnn.errors import ArgumentError, DataError

COUNT_MAX = 255
POLARITIES = {"both": 2, "merged": 1, "on": 1, "off": 1}


@dataclass
class Losses:
    """Sums over ``recordings`` with ``events``: what is in no frame, and frames that hold nothing.

    tail: events behind the last slice. clipped: events above 255 in one cell. padded: frames that stay empty because a
    recording is shorter than the frames asked for.
    """

    recordings: int = 0
    events: int = 0
    tail: int = 0
    clipped: int = 0
    padded: int = 0

    def __iadd__(self, other: Losses) -> Losses:
        """Add up."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


@dataclass(frozen=True)
class Framing:
    """How events become frames; these settings and the events determine them.

    sensor: of the recordings. frames: T, how many. slice_by: ``time`` (T slices of equal duration), ``count`` (T slices
    of equally many events) or ``duration`` (slices of ``window_ms``, the first T of them; missing ones stay empty).
    keep_tail: what is left behind the last whole slice joins it (``duration``: the incomplete slice is a frame too)
    instead of being dropped as Tonic does. size: side of the frames in pixels; several pixels of the sensor are summed.
    polarity: ``both`` (channel 0 is off, 1 is on), ``merged``, ``on`` or ``off`` (one channel).
    """

    sensor: Sensor
    frames: int
    slice_by: str = "time"
    window_ms: float | None = None
    keep_tail: bool = True
    size: int | None = None
    polarity: str = "both"
    shape: tuple[int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        """Check the settings; raises SettingsError."""
        checks.integer("frames", self.frames, 1, 65536)
        checks.choice("slice_by", self.slice_by, ("time", "count", "duration"))
        checks.boolean("keep_tail", self.keep_tail)
        checks.choice("polarity", self.polarity, POLARITIES)
        if self.polarity in ("on", "off") and self.sensor.polarities == 1:
            raise ArgumentError(
                f"polarity must be both or merged, as events of this sensor have one polarity, got {self.polarity!r}"
            )
        if self.slice_by == "duration":
            checks.number("window_ms", self.window_ms, 0.001)
        width, height, polarities = self.sensor
        if self.size is not None:
            checks.integer("size", self.size, 1, width)
            width = self.size
            height = max(1, self.size * self.sensor.height // self.sensor.width)
        channels = min(POLARITIES[self.polarity], polarities)
        object.__setattr__(self, "shape", (channels, height, width))

    def __call__(self, events: Events, where: str = "a recording") -> tuple[NDArray[np.uint8], Losses]:
        """Counts uint8 ``[T, C, H, W]`` of checked events ``[N]``, clipped at 255, and what was lost.

        Raises DataError where a recording has too few events, or is too short, for T slices.
        """
        edges, padded = self.edges(events["t"], where)
        channels, height, width = self.shape
        cells = channels * height * width
        frames = np.zeros((self.frames, cells), np.uint8)
        clipped = 0
        for i in range(len(edges) - 1):
            counts = np.bincount(self._cells(events[edges[i] : edges[i + 1]]), minlength=cells)
            most = int(counts.max())
            if most > COUNT_MAX:
                clipped += int((counts - COUNT_MAX).clip(0).sum())
                counts = counts.clip(max=COUNT_MAX)
            frames[i] = counts
        losses = Losses(1, len(events), len(events) - int(edges[-1] - edges[0]), clipped, padded)
        return frames.reshape(self.frames, *self.shape), losses

    def least(self) -> tuple[int, int]:
        """How many events a recording needs, and how many µs between its first and its last one."""
        if self.slice_by == "count":
            return self.frames, 0
        return 2, self.frames if self.slice_by == "time" else 1

    def edges(self, t: NDArray[Any], where: str) -> tuple[NDArray[np.int64], int]:
        """First event of each slice and the end of the last one, ``[slices + 1]``, and how many slices are missing."""
        if len(t) == 0:
            raise DataError(f"{where}: there are no events")
        if self.slice_by == "count":
            per_frame = len(t) // self.frames
            if per_frame == 0:
                raise DataError(f"{where}: {len(t)} events do not make {self.frames} frames of equally many")
            edges = np.arange(self.frames + 1) * per_frame
            if self.keep_tail:
                edges[-1] = len(t)
            return edges, 0
        start, duration = int(t[0]), int(t[-1]) - int(t[0])
        if self.slice_by == "time":
            slices, window = self.frames, float(duration // self.frames)
            if window == 0:
                raise DataError(f"{where}: {duration} µs of events do not make {self.frames} frames of 1 µs or more")
        else:
            assert self.window_ms is not None
            window = self.window_ms * 1000
            whole = max(int((duration - window) // window) + 1, 1)
            if self.keep_tail and start + whole * window <= int(t[-1]):
                whole += 1
            slices = min(whole, self.frames)
        edges = np.searchsorted(t, start + np.arange(slices + 1) * window).astype(np.int64)
        if self.slice_by == "time" and self.keep_tail:
            edges[-1] = len(t)
        return edges, self.frames - slices

    def _cells(self, events: Events) -> NDArray[np.int64]:
        """The position in a flattened frame of each event that the polarity keeps, of ``[N]`` events."""
        if self.polarity in ("on", "off") and self.sensor.polarities == 2:
            events = events[events["p"].astype(bool) == (self.polarity == "on")]
        channels, height, width = self.shape
        x = events["x"].astype(np.int64)
        y = events["y"].astype(np.int64) if "y" in (events.dtype.names or ()) else np.zeros_like(x)
        if self.size is not None:
            x, y = x * width // self.sensor.width, y * height // self.sensor.height
        cells = y * width + x
        if channels == 2:
            cells += events["p"].astype(np.int64) * (height * width)
        return cells
