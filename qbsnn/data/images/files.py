"""Image sets too large for memory: one file per image, read when it is needed, or decoded and resized once."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from qbsnn import checks
from qbsnn.data import shards
from qbsnn.data.base import DataModule
from qbsnn.data.class_folders import Labelled
from qbsnn.data.images.augment import Augment
from qbsnn.data.images.decoding import decode, resized
from qbsnn.data.images.mix import Mix
from qbsnn.data.loading import Split
from qbsnn.data.randomness import Purpose, draw, torch_seeded
from qbsnn.data.skipping import SkippingSplit, record

SIZE = struct.Struct("<2I")


def encode(paths: Sequence[Path], side: int, channels: int, skip: bool, place: int) -> bytes:
    """A record of a resized image: its height and width, then its pixels."""

    def make() -> bytes:
        image = resized(paths[place], side, channels)
        return SIZE.pack(*image.shape[1:]) + image.numpy().tobytes()

    return record(make, skip)


class FileSplit(SkippingSplit):
    """Images ``paths`` ``[N]``; ``fetch`` gives float32 ``[B, channels, size, size]`` in [0, 1].

    side: of the shorter side after resizing, then the centre is cut out; ``random_crop`` (arXiv 1409.4842: 8 to 100 %
    of the image, 3:4 to 4:3) takes its place.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Tensor,
        size: int,
        side: int,
        channels: int,
        records: shards.Records | None,
        skip: bool,
        seed: int = 0,
        random_crop: bool = False,
        augment: Augment | None = None,
        mix: Mix | None = None,
    ) -> None:
        super().__init__([str(path) for path in paths], labels, records, skip)
        self.paths, self.size, self.side, self.seed = paths, size, side, seed
        self.channels = channels
        self.random_crop = v2.RandomResizedCrop(size, antialias=True) if random_crop else None
        self.augment, self.mix = augment, mix

    def fetch(self, epochs: NDArray[np.int64], indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Pixels float32 ``[B, channels, size, size]``, labels int64 ``[B]`` (float32 ``[B, classes]`` where mixed)."""
        images, epochs, indices = self.collect(self._view, epochs, indices)
        pixels = torch.stack(images)
        if self.augment is not None:
            pixels = self.augment(pixels, epochs, indices)
        batch = pixels.float() / 255, self.labels[indices]
        return batch if self.mix is None else self.mix(*batch, epochs, indices)

    def _view(self, epoch: int, index: int) -> Tensor:
        if self.random_crop is None:
            return v2.functional.center_crop(self._image(index, resize=True), [self.size, self.size])
        image = self._image(index, resize=False)
        with torch_seeded(int(draw(Purpose.VIEW, self.seed, epoch, index)[0])):
            return self.random_crop(image)

    def _image(self, index: int, resize: bool) -> Tensor:
        if self.records is None:
            path = self.paths[index]
            return resized(path, self.side, self.channels) if resize else decode(path, self.channels)
        data = self.cached(index)
        height, width = SIZE.unpack_from(data)
        pixels = np.frombuffer(data, np.uint8, offset=SIZE.size).reshape(self.channels, height, width)
        return torch.from_numpy(pixels.copy())


class FileDataModule(DataModule[Labelled]):
    """Classified image files; batches are (pixels float32 ``[B, 3, size, size]`` in [0, 1], labels int64 ``[B]``).

    size: side of the pictures. random_crop: train on random parts (``FileSplit``); validation and test resize to
    256/224 of the size first then, else to the size itself, and cut out the centre. cache: ``disk`` and ``memory``
    decode and resize every image once (3 bytes a pixel; random parts are then taken from the resized image), ``none``
    reads the files.
    cache_dir: ``<root>/cache`` by default. on_bad_sample: ``raise``, or ``skip`` and report. crop, flip, cutout,
    autoaugment: see ``Augment``. mix, mix_alpha: see ``Mix``. The rest: see ``DataModule``.
    """

    def __init__(
        self,
        root: str | Path = "data",
        download: bool = True,
        verify: bool = True,
        batch_size: int = 128,
        val_fraction: float = 0.02,
        split_seed: int = 0,
        seed: int = 0,
        num_workers: int = 0,
        size: int = 224,
        random_crop: bool = True,
        crop: int = 0,
        flip: bool = True,
        cutout: int = 0,
        autoaugment: str | None = None,
        mix: str | None = None,
        mix_alpha: float = 1.0,
        cache: str = "none",
        cache_dir: str | Path | None = None,
        on_bad_sample: str = "raise",
        limit_train: int | None = None,
        limit_val: int | None = None,
        limit_test: int | None = None,
    ) -> None:
        limits = {"train": limit_train, "val": limit_val, "test": limit_test}
        super().__init__(root, download, verify, batch_size, val_fraction, split_seed, seed, num_workers, limits)
        self.size = checks.integer("size", size, 8, 4096)
        self.in_shape = (3, size, size)
        self.random_crop = checks.boolean("random_crop", random_crop)
        self.side = round(size * 256 / 224) if random_crop else size
        for key, pixels in (("crop", crop), ("cutout", cutout)):
            checks.integer(key, pixels, 0, size)
        self.cache = checks.choice("cache", cache, ("none", "memory", "disk"))
        self.cache_dir = self.cache_at(cache_dir)
        self.skip = checks.choice("on_bad_sample", on_bad_sample, ("raise", "skip")) == "skip"
        self.augment = Augment(seed, crop, flip, cutout, autoaugment)
        self.mix = Mix(mix, mix_alpha, self.num_classes, seed) if mix is not None else None

    def part(self, source: Labelled, chosen: NDArray[np.int64], labels: Tensor, augmented: bool) -> Split:
        """Cache the chosen images, if wanted."""
        paths = [source.paths[i] for i in chosen]
        records = self._records(paths)
        if not augmented:
            return FileSplit(paths, labels, self.size, self.side, self.in_shape[0], records, self.skip)
        how = (self.seed, self.random_crop, self.augment, self.mix)
        return FileSplit(paths, labels, self.size, self.side, self.in_shape[0], records, self.skip, *how)

    def describe(self) -> dict[str, Any]:
        """As every set, and per part what the cache found."""
        parts = {part: split for part, split in self._splits.items() if isinstance(split, FileSplit)}
        return super().describe() | {"cache": {p: vars(s.records.found) for p, s in parts.items() if s.records}}

    def _records(self, paths: list[Path]) -> shards.Records | None:
        channels = self.in_shape[0]

        def folder() -> Path:
            more = {} if channels == 3 else {"channels": channels}
            key = shards.key(format=2, side=self.side, files=shards.stamps(paths), **more)
            return self.cache_dir / self.name / key

        make = partial(encode, paths, self.side, channels, self.skip)
        return shards.records(self.cache, folder, len(paths), make, self.num_workers)
