"""Events as Tonic hands them out: a structured array with a row per event, times in µs, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qbsnn.errors import DataError

EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])
"""Column, row, time in µs, polarity (True: brighter). Tonic's own layout; its sets deviate in order and width."""

Events = NDArray[Any]


class Sensor(NamedTuple):
    """Size of a sensor in Tonic's order: width, height, polarities (1 or 2)."""

    width: int
    height: int
    polarities: int


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Turn whatever reading raises into a DataError that names the recording: readers raise almost anything."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise DataError(f"{where}: is damaged: {type(error).__name__}: {error}") from error


def check_events(events: Events, sensor: Sensor, where: str) -> Events:
    """Return the events ``[N]``, or raise DataError for the first fault found.

    Faults: no structured array, no x, t or p, columns that are no integers, no events, times that are negative or run
    backwards, coordinates outside the sensor.

    >>> backwards = np.array([(0, 0, 9, True), (0, 0, 5, True)], EVENT)
    >>> check_events(backwards, Sensor(34, 34, 2), "some.bin")
    Traceback (most recent call last):
    ...
    qbsnn.errors.DataError: some.bin: times must not run backwards, but event 1 has t = 5 µs after 9 µs
    """
    names = events.dtype.names or ()
    if not {"x", "t", "p"} <= set(names) or events.ndim != 1:
        raise DataError(f"{where}: events must have the fields x, y, t and p, got {events.dtype} {list(events.shape)}")
    if any(events.dtype[name].kind not in "iub" for name in names):
        raise DataError(f"{where}: events must be integers, got {events.dtype}")
    if len(events) == 0:
        raise DataError(f"{where}: it holds no events")
    t = events["t"]
    if t.min() < 0:
        first = int(np.argmax(t < 0))
        raise DataError(f"{where}: times must not be negative, but event {first} has t = {t[first]} µs")
    if (t[1:] < t[:-1]).any():
        first = int(np.argmax(t[1:] < t[:-1])) + 1
        raise DataError(
            f"{where}: times must not run backwards, but event {first} has t = {t[first]} µs after {t[first - 1]} µs"
        )
    for name, size in (("x", sensor.width), ("y", sensor.height), ("p", max(sensor.polarities, 2))):
        if name not in names:
            continue
        values = events[name]
        if values.min() < 0 or values.max() >= size:
            first = int(np.argmax((values < 0) | (values >= size)))
            raise DataError(f"{where}: {name} must be from 0 to {size - 1}, but event {first} has {values[first]}")
    return events
