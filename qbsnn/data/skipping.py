"""Samples that may turn out to be unreadable: named in an error, or left out, counted and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qbsnn.data.loading import Key, Split
from qbsnn.data.shards import BAD, Records
from qbsnn.errors import DataError

GOOD = b"+"
Sample = TypeVar("Sample")


def record(make: Callable[[], bytes], skip: bool) -> bytes:
    """A record of a cache: what ``make`` returns, or with ``skip`` why it raised a DataError."""
    try:
        return GOOD + make()
    except DataError as error:
        if not skip:
            raise
        return BAD + str(error).encode("utf-8", "surrogateescape")


class NothingReadable(DataError):
    """No sample of a batch can be read."""


class SkippingSplit(Split):
    """A part whose samples, called ``names`` ``[N]``, may be unreadable.

    records: their cache, where bad ones are known beforehand; without ``skip`` the first of them raises its DataError.
    """

    def __init__(self, names: Sequence[str], labels: Tensor, records: Records | None, skip: bool) -> None:
        self.names, self.records, self.skip = names, records, skip
        kept = list(range(len(names)))
        if records is not None:
            kept = [place for place in kept if records[place][:1] == GOOD]
            if len(kept) < len(names) and not skip:
                first = min(set(range(len(names))) - set(kept))
                raise DataError(bytes(records[first][1:]).decode("utf-8", "surrogateescape"))
        self.kept, self.targets = np.array(kept, np.int64), labels
        super().__init__(labels[self.kept])
        # shared with the worker processes, so that the main one can count
        self.bad = torch.zeros(len(self.kept), dtype=torch.bool).share_memory_()

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """A batch, empty where none of its samples can be read."""
        try:
            return super().__getitems__(keys)
        except NothingReadable:
            return torch.empty(0), self.labels[:0]

    def cached(self, index: int) -> memoryview:
        """What the cache holds of a sample."""
        assert self.records is not None
        return self.records[int(self.kept[index])][1:]

    def collect(
        self, read: Callable[[int, int], Sample], epochs: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> tuple[list[Sample], NDArray[np.int64], NDArray[np.int64]]:
        """``read(epoch, index)`` of every sample that can be read, with the epochs and indices of these.

        Raises:
            NothingReadable: none can. Where the part ``fills``, as many samples behind them are taken instead.
        """
        samples, taken = self._readable(read, zip(epochs.tolist(), indices.tolist(), strict=True), len(indices))
        if not samples and self.fills:
            behind = (indices[0] + np.arange(1, len(self))) % len(self)
            samples, taken = self._readable(read, ((int(epochs[0]), int(i)) for i in behind), len(indices))
        if not samples:
            name = self.names[self.kept[indices[-1]]]
            raise NothingReadable(f"no sample of a batch of {len(indices)} can be read, {name} among them")
        epochs, indices = np.array(taken, np.int64).T
        return samples, epochs, indices

    def _readable(
        self, read: Callable[[int, int], Sample], keys: Iterable[tuple[int, int]], most: int
    ) -> tuple[list[Sample], list[tuple[int, int]]]:
        """At most so many samples that can be read, with their epochs and indices."""
        samples, taken = [], []
        for epoch, index in keys:
            try:
                samples.append(read(epoch, index))
            except DataError:
                if not self.skip:
                    raise
                self.bad[index] = True
                continue
            taken.append((epoch, index))
            if len(samples) == most:
                break
        return samples, taken

    def skipped(self) -> list[str]:
        """Names of the samples left out so far."""
        left_out = np.setdiff1d(np.arange(len(self.names)), self.kept[~self.bad.numpy()])
        return [self.names[place] for place in left_out]

    def usable(self) -> int:
        """Number of the samples that can be read, as far as is known."""
        return len(self) - int(self.bad.sum())

    def check_classes(self) -> None:
        """Raise DataError, naming it, where a class is known to have no sample that can be read."""
        if not self.class_names or self.usable() == len(self.names):
            return
        lost = np.setdiff1d(self.targets.numpy(), self.labels[~self.bad].numpy())
        if len(lost):
            places = np.flatnonzero(self.targets.numpy() == lost[0])
            more = f" (and the same of {len(lost) - 1} more)" if len(lost) > 1 else ""
            raise DataError(
                f"{self.called}: none of the {len(places)} of the class {self.class_names[lost[0]]} can be read, "
                f"{self.names[places[0]]} among them{more}"
            )
