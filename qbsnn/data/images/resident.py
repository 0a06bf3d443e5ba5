"""Images that lie in one tensor, on the device that computes with them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qbsnn.data.images.augment import Augment
from qbsnn.data.images.mix import Mix
from qbsnn.data.loading import Split
from qbsnn.errors import ArgumentError, DataError

SHARE = 4
"""``auto`` leaves a set in the CPU's memory if it is larger than this part of what a GPU has free."""


class ImageSplit(Split):
    """Images ``pixels`` uint8 ``[N, C, H, W]`` from 0 to ``pixel_max``; ``fetch`` gives float32 in [0, 1].

    Batches lie on the device where ``to`` has put the images.
    """

    def __init__(
        self, pixels: Tensor, labels: Tensor, pixel_max: int, augment: Augment | None = None, mix: Mix | None = None
    ) -> None:
        super().__init__(labels)
        self.kept = np.arange(len(labels))
        self.pixels, self.pixel_max, self.augment, self.mix = pixels, pixel_max, augment, mix
        self._top = torch.tensor(float(pixel_max))

    def to(self, device: torch.device) -> None:
        """Move images and labels; batches are the same and lie there too."""
        # The divisor as well: CUDA multiplies by the rounded reciprocal of a number that is not on the device.
        self.pixels, self.labels, self._top = self.pixels.to(device), self.labels.to(device), self._top.to(device)

    def fetch(self, epochs: NDArray[np.int64], indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Pixels float32 ``[B, C, H, W]`` in [0, 1], labels int64 ``[B]`` (float32 ``[B, classes]`` where mixed)."""
        where = torch.from_numpy(indices).to(self.labels.device, non_blocking=True)
        pixels = self.pixels[where]
        if self.augment is not None:
            pixels = self.augment(pixels, epochs, indices)
        batch = pixels.float() / self._top, self.labels[where]
        return batch if self.mix is None else self.mix(*batch, epochs, indices)


def resident_choice(value: bool | str, num_workers: int) -> bool | None:
    """``data.resident``: true, false, or ``None`` for ``auto``. Raises SettingsError for others, and with workers."""
    if value == "auto":
        return None if num_workers == 0 else False
    if type(value) is not bool:
        raise ArgumentError(f"resident must be auto, true or false, got {value!r}")
    if value and num_workers:
        raise ArgumentError(f"resident must be auto or false with num_workers = {num_workers}, got true")
    return value


def place(split: ImageSplit, wanted: bool | None, device: torch.device, what: str) -> None:
    """Make a part resident: its batches are cut from its tensor without worker processes and copies between devices.

    wanted: see :func:`resident_choice`. device: of the network; on a CUDA device images, augmentation and batches stay
    there, except where torchvision augments (a policy, mixing), which draws from the CPU's generator. Batches are the
    same in either case. Raises DataError where a set that must be resident does not fit.
    """
    split.resident = wanted is not False
    if not split.resident or device.type != "cuda" or split.pixels.device == device:
        return
    if split.mix is not None or (split.augment is not None and split.augment.policy is not None):
        split.resident = False  # so that batches are copied from pinned memory
        return
    size, free = split.pixels.nbytes, torch.cuda.mem_get_info(device)[0]
    if size <= free // (1 if wanted else SHARE):
        split.to(device)
    elif wanted:
        raise DataError(f"{what}: data.resident=true needs {size:,} bytes on {device}, which has {free:,} free")
    else:
        split.resident = False
