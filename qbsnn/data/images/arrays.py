"""The datamodule of the image sets that fit into memory."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from qbsnn import checks
from qbsnn.data.base import DataModule
from qbsnn.data.images.augment import Augment
from qbsnn.data.images.mix import Mix
from qbsnn.data.images.resident import ImageSplit, place, resident_choice
from qbsnn.data.loading import Split
from qbsnn.errors import DataError


class Images(NamedTuple):
    """A set as read: pixels uint8 ``[N, C, H, W]``, labels int64 ``[N]``, ids the positions in the source ``[N]``."""

    pixels: Tensor
    labels: Tensor
    ids: Tensor


class ImageDataModule(DataModule[Images]):
    """Classified images, held in memory; batches are (pixels float32 ``[B, C, H, W]`` in [0, 1], labels int64 ``[B]``).

    Pixels are not normalised: that is the network's first layer, with ``mean`` and ``std`` of this class, which hold
    per channel and for pixels in [0, 1].

    verify: compare the checksums of the files (an archive about to be unpacked or a download is checked in any case);
    CIFAR's files are pickles, which can run code, so turn it off only for files of your own. crop, padding, flip and
    cutout: see ``Augment``, in pixels after resizing. mix, mix_alpha: see ``Mix``. autoaugment: a name in
    ``augment.POLICIES``. resize: new side in pixels. resident: see :func:`qbsnn.data.images.resident.place`. The rest:
    see ``DataModule``.

    Raises SettingsError for a bad value; ``prepare_data`` and ``setup`` raise DataError for absent or damaged files.
    """

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
        padding: str = "zeros",
        flip: bool | str = False,
        cutout: int = 0,
        autoaugment: str | None = None,
        mix: str | None = None,
        mix_alpha: float = 1.0,
        resize: int | None = None,
        resident: bool | str = "auto",
        limit_train: int | None = None,
        limit_val: int | None = None,
        limit_test: int | None = None,
    ) -> None:
        limits = {"train": limit_train, "val": limit_val, "test": limit_test}
        super().__init__(root, download, verify, batch_size, val_fraction, split_seed, seed, num_workers, limits)
        if resize is not None:
            checks.integer("resize", resize, 1, 4096)
        self.in_shape = self.image_shape if resize is None else (self.image_shape[0], resize, resize)
        checks.integer("crop", crop, 0, min(self.in_shape[1:]) - (padding == "reflect"))
        checks.integer("cutout", cutout, 0, min(self.in_shape[1:]))
        self.resize = resize
        self.resident = resident_choice(resident, num_workers)
        if resize is not None or autoaugment is not None:
            self.pixel_max = 255  # both round to integers, and policies take bytes for granted (inversion is 255 - x)
        augment = Augment(seed, crop, flip, cutout, autoaugment, padding)
        self.augment = augment if crop or flip or cutout or autoaugment else None
        self.mix = Mix(mix, mix_alpha, self.num_classes, seed) if mix is not None else None

    @abstractmethod
    def read(self, train: bool) -> Images:
        """Read the official training or test images from the disk; raises DataError."""

    def open(self, train: bool) -> tuple[Images, NDArray[np.int64], NDArray[np.int64]]:
        """Read and check the images."""
        images = self.read(train)
        pixels, labels, ids = images
        where = f"{self.name}, {'training' if train else 'test'} samples"
        if pixels.dtype != torch.uint8 or labels.dtype != torch.int64:
            raise DataError(f"{where}: pixels must be uint8 and labels int64, got {pixels.dtype} and {labels.dtype}")
        if pixels.shape[1:] != self.image_shape or len(pixels) == 0:
            raise DataError(f"{where}: the shape must be (N, {str(self.image_shape)[1:]}, got {tuple(pixels.shape)}")
        if labels.shape != pixels.shape[:1]:
            raise DataError(f"{where}: {len(pixels)} images, but labels of shape {tuple(labels.shape)}")
        top = type(self).pixel_max
        if int(pixels.max()) > top:
            raise DataError(f"{where}: pixels must be at most {top}, got {int(pixels.max())}")
        return images, labels.numpy(), ids.numpy()

    def part(self, source: Images, chosen: NDArray[np.int64], labels: Tensor, augmented: bool) -> Split:
        """Resize the chosen images."""
        pixels = source.pixels[torch.from_numpy(chosen)]
        source_max = type(self).pixel_max
        if self.pixel_max != source_max:
            pixels = (pixels * (self.pixel_max / source_max)).round().to(torch.uint8)
        if self.resize is not None:  # in chunks: the interpolation needs several times the memory of its input
            size = [self.resize, self.resize]
            pixels = torch.cat([v2.functional.resize(chunk, size, antialias=True) for chunk in pixels.split(1024)])
        if not augmented:
            return ImageSplit(pixels, labels, self.pixel_max)
        return ImageSplit(pixels, labels, self.pixel_max, self.augment, self.mix)

    def _placed(self, part: str) -> Split:
        split = self._split(part)
        assert isinstance(split, ImageSplit)
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        place(split, self.resident, device, f"{self.name}, {part} samples")
        return split
