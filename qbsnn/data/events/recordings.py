"""What a set of event recordings is, and a recording's frames as a record of a cache."""

from __future__ import annotations

import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbsnn.data.events.events import Events, Sensor, check_events, naming
from qbsnn.data.events.frames import Framing, Losses
from qbsnn.data.skipping import record

LOST = struct.Struct("<4I")
SPARSE, DENSE = b"s", b"d"


class Recordings(ABC):
    """Recordings in a fixed order. names: of the N recordings; labels: int64 ``[N]``; sensor: they all share."""

    def __init__(self, names: Sequence[str], labels: NDArray[np.int64], sensor: Sensor) -> None:
        self.names, self.labels, self.sensor = list(names), labels, sensor

    @abstractmethod
    def read(self, index: int) -> Events:
        """The events of one recording as its source has them; may raise anything for a damaged one."""

    @abstractmethod
    def fingerprint(self) -> Any:
        """Something JSON can hold that is another whenever any recording is."""

    def events(self, index: int) -> Events:
        """The events of one recording, checked; raises DataError naming it."""
        where = self.names[index]
        with naming(where):
            events = self.read(index)
        return check_events(events, self.sensor, where)


def encode(recordings: Recordings, chosen: NDArray[np.int64], framing: Framing, skip: bool, place: int) -> bytes:
    """Read and frame the recording ``chosen[place]``: a record of its frames, or with ``skip`` of why it has none."""

    def make() -> bytes:
        index = int(chosen[place])
        frames, lost = framing(recordings.events(index), recordings.names[index])
        return LOST.pack(lost.events, lost.tail, lost.clipped, lost.padded) + pack(frames.ravel())

    return record(make, skip)


def losses(made: memoryview) -> Losses:
    """What the framing lost, from a record without its mark."""
    return Losses(1, *LOST.unpack_from(made))


def decode(made: memoryview, size: int) -> NDArray[np.uint8]:
    """The ``size`` cells of a record without its mark, flat."""
    return unpack(made[LOST.size :], size)


def pack(cells: NDArray[np.uint8]) -> bytes:
    """Counts ``[N]`` as gaps between those that are not 0, and these: 2 bytes each. Where that is more, compressed.

    A gap above 255 is bridged by zeros that are stored as if they were counts.
    """
    where = np.flatnonzero(cells)
    gaps = np.diff(where, prepend=-1)
    bridges = (gaps - 1) // 255
    place = np.arange(len(where)) + np.cumsum(bridges)
    total = len(where) + int(bridges.sum())
    if 4 * total > len(cells):
        return DENSE + zlib.compress(cells.data, 1)
    pairs = np.zeros((2, total), np.uint8)
    pairs[0] = 255
    pairs[0, place], pairs[1, place] = gaps - 255 * bridges, cells[where]
    return SPARSE + pairs.tobytes()


def unpack(packed: memoryview, size: int) -> NDArray[np.uint8]:
    """The counts ``[size]`` that ``pack`` was given.

    >>> counts = np.array([0, 3, 0, 0, 255] + 900 * [0] + [1], np.uint8)
    >>> bool((unpack(memoryview(pack(counts)), len(counts)) == counts).all())
    True
    """
    if packed[:1] == DENSE:
        return np.frombuffer(zlib.decompress(packed[1:]), np.uint8)
    gaps, counts = np.frombuffer(packed, np.uint8, offset=1).reshape(2, -1)
    cells = np.zeros(size, np.uint8)
    cells[gaps.cumsum(dtype=np.int64) - 1] = counts
    return cells
