"""What a set of event recordings is, and a recording's frames as a record of a cache."""

from __future__ import annotations

import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbsnn.data.events import Events, Sensor, check_events
from qbsnn.data.frames import Framing, Losses
from qbsnn.errors import DataError

GOOD, BAD = b"F", b"E"
LOST = struct.Struct("<4I")


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
        try:
            events = self.read(index)
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"{where}: cannot be read: {error.strerror or error}") from error
        except Exception as error:  # readers raise almost anything for damaged files
            raise DataError(f"{where}: is damaged: {type(error).__name__}: {error}") from error
        return check_events(events, self.sensor, where)


def encode(recordings: Recordings, chosen: NDArray[np.int64], framing: Framing, skip: bool, place: int) -> bytes:
    """Read and frame the recording ``chosen[place]``: a record of its frames, or with ``skip`` of why it has none."""
    index = int(chosen[place])
    try:
        frames, losses = framing(recordings.events(index), recordings.names[index])
    except DataError as error:
        if not skip:
            raise
        return BAD + str(error).encode()
    lost = LOST.pack(losses.events, losses.tail, losses.clipped, losses.padded)
    return GOOD + lost + zlib.compress(frames.data, 1)


def fault(record: memoryview) -> str | None:
    """Why the record has no frames, or ``None``."""
    return bytes(record[1:]).decode() if bytes(record[:1]) == BAD else None


def losses(record: memoryview) -> Losses:
    """What the framing lost."""
    return Losses(1, *LOST.unpack_from(record, 1))


def decode(record: memoryview) -> bytes:
    """The frames of a record as bytes."""
    return zlib.decompress(record[1 + LOST.size :])
