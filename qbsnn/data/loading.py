"""From images in memory to batches: the data set fetches a whole batch at once, the sampler says which epoch it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from qbsnn.data.augment import Augment
from qbsnn.data.randomness import Purpose, permutation

# (epoch, index), or an index alone, which means epoch 0: torch's and Lightning's own samplers give those
Key = tuple[int, int] | int
Item = TypeVar("Item")


class ImageSplit(Dataset[tuple[Tensor, Tensor]]):
    """Images ``pixels`` uint8 ``[N, C, H, W]`` from 0 to ``pixel_max``, and their ``labels`` int64 ``[N]``."""

    def __init__(self, pixels: Tensor, labels: Tensor, pixel_max: int, augment: Augment | None = None) -> None:
        self.pixels, self.labels, self.pixel_max, self.augment = pixels, labels, pixel_max, augment

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        """One sample: pixels float32 ``[C, H, W]`` in [0, 1], label int64 ``[]``."""
        pixels, labels = self.__getitems__([key])
        return pixels[0], labels[0]

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """A batch: pixels float32 ``[B, C, H, W]`` in [0, 1], labels int64 ``[B]``."""
        epochs, indices = np.array([key if isinstance(key, tuple) else (0, key) for key in keys], np.int64).T
        where = torch.from_numpy(indices.copy())
        pixels = self.pixels[where]
        if self.augment is not None:
            pixels = self.augment(pixels, epochs, indices)
        return pixels.float() / self.pixel_max, self.labels[where]


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields ``(epoch, index)`` over ``size`` samples, in an order given by (seed, epoch).

    Lightning calls ``set_epoch`` before each epoch; by hand it must be called before iterating.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is of."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of samples."""
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Iterate over one epoch."""
        epoch = self.epoch  # set_epoch during an iteration concerns the next one
        return ((epoch, index) for index in permutation(Purpose.ORDER, self.size, self.seed, epoch).tolist())


class LateLoader(DataLoader):
    """Starts an epoch when its first batch is asked for, not when the iterator is made.

    On resuming, Lightning makes the iterator first and calls ``set_epoch`` after; worker processes would have begun
    with the order of epoch 0 by then.
    """

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:  # type: ignore[override]
        """Iterate over one epoch."""
        yield from super().__iter__()


def train_loader(split: ImageSplit, batch_size: int, seed: int, num_workers: int) -> DataLoader:
    """Shuffled batches; the last is dropped if it is incomplete, unless it is the only one."""
    return _loader(split, batch_size, num_workers, EpochSampler(len(split), seed), len(split) >= batch_size)


def eval_loader(split: ImageSplit, batch_size: int, num_workers: int) -> DataLoader:
    """Every sample once, in the order of the split."""
    return _loader(split, batch_size, num_workers, None, False)


def _loader(
    split: ImageSplit, batch_size: int, num_workers: int, sampler: EpochSampler | None, drop_last: bool
) -> DataLoader:
    return LateLoader(
        split,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=drop_last,
        num_workers=num_workers,
        # workers keep no state between epochs, so keeping them is safe and saves starting them again
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        collate_fn=_whole,
    )


def _whole(batch: Item) -> Item:
    """The data set returns whole batches: there is nothing to collate."""
    return batch
