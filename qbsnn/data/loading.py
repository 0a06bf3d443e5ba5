"""From samples to batches: the data set fetches a whole batch at once, the sampler says which epoch it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from qbsnn.data.randomness import Purpose, permutation
from qbsnn.data.workers import own_errors
from qbsnn.errors import ArgumentError, DataError, SettingsError

# (epoch, index), or an index alone, which means epoch 0: torch's and Lightning's own samplers give those
Key = tuple[int, int] | int
Item = TypeVar("Item")


class Split(Dataset[tuple[Tensor, Tensor]]):
    """One part of a set: ``labels`` int64 ``[N]``, and inputs that a subclass fetches by the batch."""

    kept: NDArray[np.int64]  # of the samples it was made of, those that can be read
    resident: bool = False  # whether batches are fetched without a DataLoader's machinery and pinned memory
    fills: bool = False  # whether a batch without a readable sample is made of others instead of left out
    called: str = "samples"  # the part, for messages
    class_names: Sequence[str] = ()  # empty where classes may be missing

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        """One sample: input ``[...]``, label."""
        inputs, labels = self.__getitems__([key])
        return inputs[0], labels[0]

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """A batch: inputs float32 ``[B, ...]`` and labels."""
        epochs, indices = np.array([key if isinstance(key, tuple) else (0, key) for key in keys], np.int64).T
        return self.fetch(epochs.copy(), indices.copy())

    @abstractmethod
    def fetch(self, epochs: NDArray[np.int64], indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """The batch of the samples ``(epochs[b], indices[b])``, both ``[B]``."""

    def skipped(self) -> list[str]:
        """Names of the samples that could not be read and were left out so far."""
        return []

    def usable(self) -> int:
        """Number of the samples that can be read, as far as is known."""
        return len(self)

    def check_classes(self) -> None:
        """Raise DataError, naming it, where a class is known to have no sample that can be read."""


@dataclass(frozen=True)
class Share:
    """The part of every batch that one of ``world`` processes takes: the ``rank``-th."""

    rank: int = 0
    world: int = 1

    def of_batch(self, batch_size: int) -> int:
        """Samples of a training batch that each process takes; raises SettingsError where they do not divide."""
        if batch_size % self.world:
            raise ArgumentError(
                f"batch_size is the batch of all processes together and must be a multiple of the {self.world} "
                f"processes, got {batch_size}"
            )
        return batch_size // self.world


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields ``(epoch, index)`` over ``size`` samples, in an order given by (seed, epoch).

    Lightning calls ``set_epoch`` before each epoch; by hand it must be called before iterating. With several processes
    each yields its share of every batch of ``batch_size`` samples, so that the shares of a batch are together the batch
    that a single process makes; what is left behind the last whole batch is dropped. The first iteration leaves out
    ``skip`` batches.
    """

    def __init__(self, size: int, seed: int, batch_size: int = 1, share: Share | None = None, skip: int = 0) -> None:
        self.order, self.seed, self.epoch, self.skip = size, seed, 0, skip
        self.share, self.batch_size = share or Share(), batch_size
        self.size = size if self.share.world == 1 else size // batch_size * self.share.of_batch(batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is of."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of samples that this process takes."""
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Iterate over one epoch."""
        epoch = self.epoch  # set_epoch during an iteration concerns the next one
        order = permutation(Purpose.ORDER, self.order, self.seed, epoch)
        if self.share.world > 1:
            whole = order[: self.size * self.share.world].reshape(
                -1, self.share.world, self.share.of_batch(self.batch_size)
            )
            order = whole[:, self.share.rank].ravel()
        skip, self.skip = self.skip * self.share.of_batch(self.batch_size), 0
        return ((epoch, index) for index in order[skip:].tolist())


class EvalBatches(Sampler[list[int]]):
    """The shares that one of several processes takes of ``size`` samples: every sample once, in no other process.

    A share may be smaller by one than another. All processes get equally many batches and none of them is empty, since
    buffers are exchanged before each: a last batch with fewer samples than processes joins the one before.
    Raises SettingsError for fewer samples than processes.
    """

    def __init__(self, size: int, batch_size: int, share: Share) -> None:
        share.of_batch(batch_size)
        if size < share.world:
            raise SettingsError(f"{share.world} processes need a sample each to evaluate, got {size} samples in all")
        starts = [*range(0, size, batch_size)]
        if size - starts[-1] < share.world:
            starts.pop()
        batches = np.split(np.arange(size), starts[1:])
        self.batches = [np.array_split(batch, share.world)[share.rank].tolist() for batch in batches]

    def __len__(self) -> int:
        """The number of batches."""
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        """Iterate over the batches."""
        return iter(self.batches)


class LateLoader(DataLoader):
    """Starts an epoch when its first batch is asked for, not when the iterator is made.

    On resuming, Lightning makes the iterator first and calls ``set_epoch`` after; worker processes would have begun
    with the order of epoch 0 by then. Batches without a sample are left out.

    Raises DataError where no sample can be read, or with the last batch where none of a class can.
    """

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:  # type: ignore[override]
        """Iterate over one epoch."""
        with own_errors():
            split, batches = self.dataset, self.batch_sampler
            assert isinstance(split, Split)
            at_once = split.resident and batches is not None and not self.num_workers
            found = map(split.__getitems__, batches) if at_once and batches is not None else super().__iter__()
            good = bad = 0
            for batch in found:
                filled = len(batch[1]) > 0
                good, bad = good + filled, bad + (not filled)
                if good and good + bad == len(self):  # whoever knows the length asks for no more
                    split.check_classes()
                if filled:
                    yield batch
            if bad and not good:
                raise DataError(f"none of {len(split)} samples can be read, {split.skipped()[0]} among them")


def train_loader(
    split: Split, batch_size: int, seed: int, num_workers: int, share: Share | None = None, skip: int = 0
) -> DataLoader:
    """Shuffled batches; the last is dropped if it is incomplete, unless it is the only one.

    share: of ``batch_size`` samples, what this process takes; ``None`` is all. An only, incomplete batch is cut to a
    multiple of the number of processes. skip: batches that the first epoch leaves out.
    """
    share = share or Share()
    whole = min(batch_size, len(split) // share.world * share.world) if share.world > 1 else batch_size
    if not whole:
        raise SettingsError(f"{share.world} processes need a training sample each, got {len(split)} samples in all")
    share.of_batch(batch_size)
    sampler = EpochSampler(len(split), seed, whole, share, skip)
    return _loader(
        split, num_workers, batch_size=share.of_batch(whole), sampler=sampler, drop_last=len(split) >= batch_size
    )


def eval_loader(split: Split, batch_size: int, num_workers: int, share: Share | None = None) -> DataLoader:
    """Every sample once, in the order of the split; with several processes in one of them."""
    if share is None or share.world == 1:
        return _loader(split, num_workers, batch_size=batch_size)
    return _loader(split, num_workers, batch_sampler=EvalBatches(len(split), batch_size, share))


def _loader(split: Split, num_workers: int, **batches: Any) -> DataLoader:
    return LateLoader(
        split,
        **batches,
        num_workers=num_workers,
        # workers keep no state between epochs, so keeping them is safe and saves starting them again
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available() and not split.resident,
        collate_fn=_whole,
    )


def _whole(batch: Item) -> Item:
    """The data set returns whole batches: there is nothing to collate."""
    return batch


def first_inputs(batches: Iterable[tuple[Tensor, Tensor]], count: int | None) -> Iterator[Tensor]:
    """Inputs ``[B, ...]`` of the first ``count`` samples, by the batch; of all if it is ``None`` or there are fewer."""
    for inputs, _ in batches:
        yield inputs[:count]
        if count is not None and (count := count - len(inputs)) <= 0:
            return
