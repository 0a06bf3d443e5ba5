"""What a reader returns, and how columns of numbers become it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbsnn.data.events.events import EVENT, Events
from qbsnn.errors import DataError

UNITS = {"s": 1_000_000.0, "ms": 1000.0, "us": 1.0, "ns": 0.001}
"""Microseconds in a unit of time."""

BLOCK = 1 << 18
"""Rows or words of a binary file that are decoded at once, so that little memory is needed beside the events."""

NAMES = {
    "x": ("x", "xs", "col"),
    "y": ("y", "ys", "row"),
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
"""How files call the four columns."""


@dataclass(frozen=True)
class Convention:
    """What formats without a header leave open; ``None`` is found out where only one answer is possible.

    Args:
        time_unit: ``s``, ``ms``, ``us`` or ``ns``.
        columns: the order of columns without names, such as ``xypt``.
    """

    time_unit: str | None = None
    columns: str | None = None


@dataclass(frozen=True)
class Recording:
    """A file's events.

    Args:
        events: with the fields of ``EVENT``, times in µs.
        size: width and height of the sensor, where the file says them.
    """

    events: Events
    size: tuple[int, int] | None = None


def from_integers(x: NDArray[Any], y: NDArray[Any], t: NDArray[Any], p: NDArray[Any]) -> Events:
    """Events of integers ``[N]`` that fit: coordinates below 2^15, times in µs, polarities 0 and 1."""
    events = np.zeros(len(t), EVENT)
    events["x"], events["y"], events["t"], events["p"] = x, y, t, p
    return events


def in_blocks(rows: NDArray[Any], decode: Callable[[NDArray[Any]], Events]) -> Events:
    """The events of ``rows`` ``[N, ...]`` that ``decode`` makes of ``BLOCK`` of them at a time."""
    return np.concatenate([decode(rows[i : i + BLOCK]) for i in range(0, max(len(rows), 1), BLOCK)])


def from_columns(columns: Mapping[str, NDArray[Any]], convention: Convention, where: str) -> Events:
    """Events of columns ``x``, ``y``, ``t`` and ``p``, each ``[N]``, of any types of numbers.

    Polarities are 0 and 1, or −1 and 1. Times without a unit are µs if they are integers, s if they have fractions and
    last less than 100.

    Raises:
        DataError: for columns of other lengths or types, coordinates that are no integers below 2^15, other
            polarities, and times whose unit cannot be told.
    """
    if len({len(column) for column in columns.values()}) != 1:
        lengths = ", ".join(f"{name} {len(column):,}" for name, column in columns.items())
        raise DataError(f"{where}: its columns must be of one length, got {lengths}")
    for name, column in columns.items():
        if column.dtype.kind not in "biuf" or column.ndim != 1:
            raise DataError(f"{where}: {name} must be numbers [N], got {column.dtype} {list(column.shape)}")
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            raise DataError(f"{where}: {name} must be finite numbers")
    if len(columns["t"]) == 0:
        raise DataError(f"{where}: it holds no events")
    for name in ("x", "y"):
        values = columns[name]
        wrong = (values < 0) | (values >= 2**15) | (values != np.floor(values))
        if wrong.any():
            first = int(np.argmax(wrong))
            raise DataError(f"{where}: {name} must be integers from 0 to 32767, but event {first} has {values[first]}")
    p = columns["p"]
    if not (np.isin(p, (0, 1)).all() or np.isin(p, (-1, 1)).all()):
        found = ", ".join(f"{value:g}" for value in np.unique(p)[:5].astype(float))
        raise DataError(f"{where}: polarities must be 0 and 1, or -1 and 1, got {found}")
    return from_integers(columns["x"], columns["y"], _microseconds(columns["t"], convention, where), p > 0)


def named_columns(available: Mapping[str, Any] | tuple[str, ...], where: str) -> dict[str, str]:
    """Which of the ``available`` names is x, y, t and p. Raises DataError where one is missing."""
    known = {name.lower(): name for name in available}
    found = {}
    for column, names in NAMES.items():
        there = [known[name] for name in names if name in known]
        if not there:
            listed = ", ".join(available) or "nothing"
            raise DataError(f"{where}: it has no column {column} (or {', '.join(names[1:])}); it has: {listed}")
        found[column] = there[0]
    return found


def ordered_columns(rows: NDArray[Any], convention: Convention, where: str) -> dict[str, NDArray[Any]]:
    """The columns of ``rows`` ``[N, 4]``: as the convention says, or by what each can be; x comes before y.

    Raises:
        DataError: for another shape, or where more than one column can be the time or the polarity.
    """
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise DataError(f"{where}: events must be numbers [N, 4] or have named columns, got {list(rows.shape)}")
    order = convention.columns
    if order is None:
        polarity = [i for i in range(4) if np.isin(rows[:, i], (-1, 0, 1)).all()]
        time = [i for i in range(4) if i not in polarity and (rows[1:, i] >= rows[:-1, i]).all()]
        if len(polarity) != 1 or len(time) != 1:
            backwards = ", or its times run backwards" if len(polarity) == 1 and not time else ""
            raise DataError(
                f"{where}: which of its 4 columns is the time and which the polarity cannot be told{backwards}; set "
                "data.columns, such as xypt"
            )
        rest = iter("xy")
        order = "".join("p" if i in polarity else "t" if i in time else next(rest) for i in range(4))
    return {name: rows[:, i] for i, name in enumerate(order)}


def _microseconds(t: NDArray[Any], convention: Convention, where: str) -> NDArray[np.int64]:
    whole = t.dtype.kind != "f" or bool((t == np.floor(t)).all())
    unit = convention.time_unit
    if unit is None and t.dtype.kind != "f":
        unit = "us"
    elif unit is None and not whole and float(t.max() - t.min()) < 100:
        unit = "s"
    elif unit is None:
        raise DataError(
            f"{where}: the unit of its times ({t[0]:g} to {t[-1]:g}) cannot be told; set data.time_unit to one of "
            f"{', '.join(UNITS)}"
        )
    factor = UNITS[unit]
    if t.dtype.kind == "u" and int(t.max()) >= 2**63:
        raise DataError(f"{where}: times must be below 2^63, got {t.max()}")
    if factor >= 1 and t.dtype.kind != "f":
        return t.astype(np.int64) * int(factor)
    scaled = t * factor
    if np.abs(scaled).max() >= 2**62:
        raise DataError(f"{where}: times must be below 2^62 µs, got {scaled.max():g}")
    return np.round(scaled).astype(np.int64)
