"""Samples that may turn out to be unreadable: named in an error, or left out, counted and reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qbsnn.data.loading import Split
from qbsnn.data.shards import Records
from qbsnn.errors import DataError

GOOD, BAD = b"+", b"-"
Sample = TypeVar("Sample")


def record(make: Callable[[], bytes], skip: bool) -> bytes:
    """A record of a cache: what ``make`` returns, or with ``skip`` why it raised a DataError."""
    try:
        return GOOD + make()
    except DataError as error:
        if not skip:
            raise
        return BAD + str(error).encode()


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
                raise DataError(bytes(records[first][1:]).decode())
        self.kept = np.array(kept, np.int64)
        super().__init__(labels[self.kept])
        # shared with the worker processes, so that the main one can count
        self.bad = torch.zeros(len(self.kept), dtype=torch.bool).share_memory_()

    def cached(self, index: int) -> memoryview:
        """What the cache holds of a sample."""
        assert self.records is not None
        return self.records[int(self.kept[index])][1:]

    def collect(
        self, read: Callable[[int, int], Sample], epochs: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> tuple[list[Sample], NDArray[np.int64], NDArray[np.int64]]:
        """``read(epoch, index)`` of every sample that can be read, with the epochs and indices of these."""
        samples, good = [], np.ones(len(indices), bool)
        for b, (epoch, index) in enumerate(zip(epochs.tolist(), indices.tolist(), strict=True)):
            try:
                samples.append(read(epoch, index))
            except DataError:
                if not self.skip:
                    raise
                self.bad[index], good[b] = True, False
        if not samples:
            raise DataError(
                f"no sample of a batch of {len(good)} can be read, {self.names[self.kept[index]]} among them"
            )
        return samples, epochs[good], indices[good]

    def skipped(self) -> list[str]:
        """Names of the samples left out so far."""
        left_out = np.setdiff1d(np.arange(len(self.names)), self.kept[~self.bad.numpy()])
        return [self.names[place] for place in left_out]
