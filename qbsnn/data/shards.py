"""A cache of records (bytes) on disk or in memory, made once, in shards.

The folder's name is a hash of everything that determines the records. A shard is written beside its place, flushed to
the disk and renamed, so two processes that make one cache write the same files twice and neither sees half of one; an
interrupted process leaves whole shards, which the next one keeps. A shard's CRC-32 is compared when it is opened; a
damaged shard is made again, and so is one with a record that says why it could not be made: the reason may be over.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from qbsnn.data.workers import own_errors
from qbsnn.errors import DataError
from qbsnn.results.files import write_atomically

log = logging.getLogger(__name__)

MAGIC = b"QBSHARD1"
HEAD = struct.Struct("<8sII")  # magic, CRC-32 of all that follows, number of records
SHARD = 128  # records in a shard
OPEN = 256
"""So many shards are open at a time: each takes one of the files that a process may have open, often 1024."""
BAD = b"-"
"""What a record begins with that says why it could not be made."""
Make = Callable[[int], bytes]


@dataclass
class Found:
    """What opening a cache found: ``hits`` records were there, ``misses`` were made, ``size`` bytes in all."""

    hits: int = 0
    misses: int = 0
    size: int = 0
    folder: str | None = None


class Records:
    """Records 0 to ``count`` − 1, read from shards: arrays, or files with the ``offsets`` of their records."""

    def __init__(
        self, shards: Sequence[NDArray[np.uint8] | Path], offsets: Sequence[NDArray[np.int64]], found: Found
    ) -> None:
        self.shards, self.offsets, self.found = list(shards), list(offsets), found
        self._mapped: dict[int, NDArray[np.uint8]] = {}

    def __getitem__(self, index: int) -> memoryview:
        """One record."""
        shard, place = divmod(index, SHARD)
        start, end = self.offsets[shard][place : place + 2]
        return self._shard(shard).data[start:end]

    def _shard(self, number: int) -> NDArray[np.uint8]:
        shard = self.shards[number]
        if not isinstance(shard, Path):
            return shard
        if number not in self._mapped:
            if len(self._mapped) >= OPEN:
                del self._mapped[next(iter(self._mapped))]  # the one that was opened first
            mapped = _map(shard)
            if mapped is None:
                raise DataError(f"{shard}, a part of the cache, is gone; the next run makes it again")
            self._mapped[number] = mapped
        return self._mapped[number]

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens files itself."""
        return {**self.__dict__, "_mapped": {}}


def key(**parts: Any) -> str:
    """A hash of ``parts``, which JSON must be able to hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def stamps(paths: Sequence[Path]) -> list[list[Any]]:
    """Path, size and time of change of each file, for a key; of one that is absent -1 and 0."""
    return [_stamp(path) for path in paths]


def _stamp(path: Path) -> list[Any]:
    try:
        stat = path.stat()
    except FileNotFoundError:  # a sample like any other that cannot be read: whoever reads it says so
        return [str(path), -1, 0]
    return [str(path), stat.st_size, stat.st_mtime_ns]


def records(cache: str, folder: Callable[[], Path], count: int, make: Make, workers: int) -> Records | None:
    """All records for a setting ``cache``: ``none``, ``memory``, or ``disk`` in what ``folder`` returns."""
    if cache == "none":
        return None
    return in_memory(count, make, workers) if cache == "memory" else on_disk(folder(), count, make, workers)


def in_memory(count: int, make: Make, workers: int = 0) -> Records:
    """Make all records and keep them in memory."""
    shards = [np.frombuffer(data, np.uint8) for data in _each(_Shards(range(_number(count)), count, make), workers)]
    return Records(shards, list(map(_offsets, shards)), Found(0, count, sum(len(shard) for shard in shards)))


def on_disk(folder: Path, count: int, make: Make, workers: int = 0) -> Records:
    """Open the cache in ``folder``, making the shards that are absent, damaged or, where it can be written, have a bad
    record.

    Raises DataError where the folder cannot be written, a full disk included; shards written before stay.
    """
    offsets: dict[int, NDArray[np.int64]] = {}
    for number in range(_number(count)):
        shard = _open(_path(folder, number), _size(number, count))
        if shard is not None and not (_has_bad(shard) and os.access(folder, os.W_OK)):
            offsets[number] = _offsets(shard)
    hits = sum(_size(number, count) for number in offsets)
    absent = [number for number in range(_number(count)) if number not in offsets]
    if absent:
        log.info("caching %d of %d records in %s", count - hits, count, folder)
        _sweep(folder)
        for _ in _each(_Shards(absent, count, make, folder), workers):
            pass
        for number in absent:
            shard = _open(_path(folder, number), _size(number, count))
            if shard is None:
                raise DataError(f"{_path(folder, number)} was written and cannot be read back: is the disk sound?")
            offsets[number] = _offsets(shard)
    numbers = sorted(offsets)
    found = Found(hits, count - hits, sum(int(offsets[number][-1]) for number in numbers), str(folder))
    return Records([_path(folder, number) for number in numbers], [offsets[number] for number in numbers], found)


class _Shards(Dataset[bytes]):
    """Makes shards, one per index; with a folder it writes them there and returns nothing of their contents."""

    def __init__(self, numbers: Sequence[int], count: int, make: Make, folder: Path | None = None) -> None:
        self.numbers, self.count, self.make, self.folder = numbers, count, make, folder

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> bytes:
        number = self.numbers[index]
        first = number * SHARD
        records = [self.make(i) for i in range(first, first + _size(number, self.count))]
        body = np.array([len(record) for record in records], "<u4").tobytes() + b"".join(records)
        data = HEAD.pack(MAGIC, zlib.crc32(body), len(records)) + body
        if self.folder is None:
            return data
        _write(_path(self.folder, number), data)
        return b""


def _each(shards: _Shards, workers: int) -> Iterator[bytes]:
    with own_errors():
        yield from DataLoader(shards, batch_size=None, num_workers=min(workers, len(shards)))


def _number(count: int) -> int:
    return -(-count // SHARD)


def _size(number: int, count: int) -> int:
    return min(SHARD, count - number * SHARD)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.shard"


def _open(path: Path, size: int) -> NDArray[np.uint8] | None:
    """The mapped shard, or ``None`` where it is absent or not what was written."""
    shard = _map(path)
    if shard is None:
        return None
    if len(shard) >= HEAD.size:
        magic, checksum, number = HEAD.unpack_from(shard.data)
        if (magic, number) == (MAGIC, size) and checksum == zlib.crc32(shard[HEAD.size :].data):
            return shard
    log.warning("%s is damaged: it is made again", path)
    return None


def _map(path: Path) -> NDArray[np.uint8] | None:
    """The bytes of a file, mapped; ``None`` where there is none."""
    try:
        return np.memmap(path, np.uint8, mode="r")
    except FileNotFoundError:
        return None
    except ValueError:  # an empty file
        return np.zeros(0, np.uint8)
    except OSError as error:
        raise DataError(f"cannot read the cache {path}: {error.strerror}") from error


def _offsets(shard: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where the records of a shard begin, and where the last one ends."""
    number = HEAD.unpack_from(shard.data)[2]
    sizes = np.frombuffer(shard, "<u4", number, HEAD.size)
    return HEAD.size + 4 * number + np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def _has_bad(shard: NDArray[np.uint8]) -> bool:
    return any(shard[start : start + 1].tobytes() == BAD for start in _offsets(shard)[:-1])


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise DataError(
            f"cannot write the cache into {path.parent}: {error.strerror}. Make room there, choose another place with "
            "data.cache_dir, or do without: data.cache=memory or none"
        ) from error


def _sweep(folder: Path) -> None:
    """Remove what interrupted processes left; a process that still writes has touched its file lately."""
    for left in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink()
