"""The datamodule that all image sets share: settings, splits, checks and loaders."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from qbsnn import checks
from qbsnn.data.augment import POLICIES, Augment
from qbsnn.data.loading import ImageSplit, eval_loader, train_loader
from qbsnn.data.randomness import Purpose, permutation
from qbsnn.data.split import hold_out
from qbsnn.errors import DataError, SettingsError


class Images(NamedTuple):
    """A set as read: pixels uint8 ``[N, C, H, W]``, labels int64 ``[N]``, ids the positions in the source ``[N]``."""

    pixels: Tensor
    labels: Tensor
    ids: Tensor


class ImageDataModule(lightning.LightningDataModule):
    """Classified images, held in memory; batches are (pixels float32 ``[B, C, H, W]`` in [0, 1], labels int64 ``[B]``).

    Pixels are not normalised: that is the network's first layer, with ``mean`` and ``std`` of this class, which hold
    per channel and for pixels in [0, 1]. Validation images are held out from the official training images, stratified.

    root: where the files are or go. download: fetch absent files. verify: compare the checksums of the files (an
    archive about to be unpacked or a download is checked in any case); CIFAR's files are pickles, which can run code,
    so turn it off only for files of your own. batch_size: samples. val_fraction: share of the training images that is
    held out. split_seed: chooses them. seed: order and augmentation. num_workers: loader processes. crop, flip, cutout:
    see ``Augment``, in pixels after resizing. autoaugment: a name in ``augment.POLICIES``. resize: new side in pixels.
    limit_train, limit_val, limit_test: use that many images at most, chosen by ``split_seed``.

    Raises SettingsError for a bad value; ``prepare_data`` and ``setup`` raise DataError for absent or damaged files.
    """

    name: str
    class_names: ClassVar[tuple[str, ...]]
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    image_shape: ClassVar[tuple[int, int, int]]  # C, H, W in the source
    pixel_max: int = 255  # the stored value that stands for 1.0

    def __init__(
        self,
        root: str | Path = "data",
        download: bool = True,
        verify: bool = True,
        batch_size: int = 128,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        seed: int = 0,
        num_workers: int = 0,
        crop: int = 0,
        flip: bool = False,
        cutout: int = 0,
        autoaugment: str | None = None,
        resize: int | None = None,
        limit_train: int | None = None,
        limit_val: int | None = None,
        limit_test: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(root, (str, Path)) or not str(root):
            raise SettingsError(f"data.root must be the path of a folder, got {root!r}")
        for key, value in (("download", download), ("verify", verify), ("flip", flip)):
            checks.boolean(f"data.{key}", value)
        checks.integer("data.batch_size", batch_size, 1, 2**31)
        checks.integer("data.split_seed", split_seed, 0, 2**63 - 1)
        checks.integer("data.seed", seed, 0, 2**63 - 1)
        checks.integer("data.num_workers", num_workers, 0, 1024)
        if type(val_fraction) is not float or not 0 < val_fraction < 1:
            raise SettingsError(f"data.val_fraction must be a number above 0 and below 1, got {val_fraction!r}")
        if resize is not None:
            checks.integer("data.resize", resize, 1, 4096)
        self.in_shape = self.image_shape if resize is None else (self.image_shape[0], resize, resize)
        checks.integer("data.crop", crop, 0, min(self.in_shape[1:]))
        checks.integer("data.cutout", cutout, 0, min(self.in_shape[1:]))
        if autoaugment is not None and autoaugment not in list(POLICIES):
            raise SettingsError(f"data.autoaugment must be null or one of {', '.join(POLICIES)}, got {autoaugment!r}")
        self._limits = {"train": limit_train, "val": limit_val, "test": limit_test}
        for part, limit in self._limits.items():
            if limit is not None:
                checks.integer(f"data.limit_{part}", limit, 1, 2**31)

        self.root = Path(root).expanduser().absolute()
        self.download, self.verify, self.batch_size, self.num_workers = download, verify, batch_size, num_workers
        self.val_fraction, self.split_seed, self.seed, self.resize = val_fraction, split_seed, seed, resize
        self.num_classes = len(self.class_names)
        if resize is not None or autoaugment is not None:
            self.pixel_max = 255  # both round to integers, and policies take bytes for granted (inversion is 255 - x)
        self.augment = Augment(seed, crop, flip, cutout, autoaugment) if crop or flip or cutout or autoaugment else None
        #: after setup, for each part the positions in the source (in its training or its test images) ``[n]``
        self.indices: dict[str, Tensor] = {}
        self._splits: dict[str, ImageSplit] = {}

    @abstractmethod
    def read(self, train: bool) -> Images:
        """Read the official training or test images from the disk; raises DataError."""

    def setup(self, stage: str | None = None) -> None:
        """Read what ``stage`` needs: ``"test"`` the test images, ``None`` all, any other the training images."""
        if stage != "test" and "train" not in self._splits:
            images = self._checked(train=True)
            val = hold_out(images.labels.numpy(), self.val_fraction, self.split_seed, self.name)
            self._add("train", images, np.flatnonzero(~val), self.augment)
            self._add("val", images, np.flatnonzero(val))
        if stage in (None, "test") and "test" not in self._splits:
            images = self._checked(train=False)
            self._add("test", images, np.arange(len(images.labels)))

    def split_sizes(self) -> dict[str, int]:
        """Number of images in ``train``, ``val`` and ``test``, for those that ``setup`` has read so far."""
        return {part: len(split) for part, split in self._splits.items()}

    def train_dataloader(self) -> DataLoader:
        """Augmented training images, shuffled anew in each epoch."""
        return train_loader(self._split("train"), self.batch_size, self.seed, self.num_workers)

    def val_dataloader(self) -> DataLoader:
        """The images held out from training, as they are."""
        return eval_loader(self._split("val"), self.batch_size, self.num_workers)

    def test_dataloader(self) -> DataLoader:
        """The official test images, as they are."""
        return eval_loader(self._split("test"), self.batch_size, self.num_workers)

    def _split(self, part: str) -> ImageSplit:
        if part not in self._splits:
            raise RuntimeError(f"{self.name} has no {part} images yet: call setup() first")
        return self._splits[part]

    def _add(self, part: str, images: Images, chosen: Any, augment: Augment | None = None) -> None:
        limit = self._limits[part]
        if limit is not None:
            chosen = np.sort(chosen[permutation(Purpose.LIMIT, len(chosen), self.split_seed)[:limit]])
        chosen = torch.from_numpy(chosen)
        pixels = images.pixels[chosen]
        source_max = type(self).pixel_max
        if self.pixel_max != source_max:
            pixels = (pixels * (self.pixel_max / source_max)).round().to(torch.uint8)
        if self.resize is not None:  # in chunks: the interpolation needs several times the memory of its input
            size = [self.resize, self.resize]
            pixels = torch.cat([v2.functional.resize(chunk, size, antialias=True) for chunk in pixels.split(1024)])
        self._splits[part] = ImageSplit(pixels, images.labels[chosen], self.pixel_max, augment)
        self.indices[part] = images.ids[chosen]

    def _checked(self, train: bool) -> Images:
        images = self.read(train)
        pixels, labels, _ = images
        where = f"{self.name}, {'training' if train else 'test'} images"
        if pixels.dtype != torch.uint8 or labels.dtype != torch.int64:
            raise DataError(f"{where}: pixels must be uint8 and labels int64, got {pixels.dtype} and {labels.dtype}")
        if pixels.shape[1:] != self.image_shape or len(pixels) == 0:
            raise DataError(f"{where}: the shape must be (N, {str(self.image_shape)[1:]}, got {tuple(pixels.shape)}")
        if labels.shape != pixels.shape[:1]:
            raise DataError(f"{where}: {len(pixels)} images, but labels of shape {tuple(labels.shape)}")
        top = type(self).pixel_max
        if int(pixels.max()) > top:
            raise DataError(f"{where}: pixels must be at most {top}, got {int(pixels.max())}")
        bad = (labels < 0) | (labels >= self.num_classes)
        if bad.any():
            first = int(bad.nonzero()[0])
            raise DataError(
                f"{where}: labels must be from 0 to {self.num_classes - 1}, but {int(bad.sum())} are not; "
                f"the first is {int(labels[first])}, of image {first}"
            )
        return images
