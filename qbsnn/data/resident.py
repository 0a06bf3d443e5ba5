"""Images that lie in one tensor, on the device that computes with them."""

from __future__ import annotations

import torch

from qbsnn.data.loading import ImageSplit
from qbsnn.errors import DataError, SettingsError

SHARE = 4
"""``auto`` leaves a set in the CPU's memory if it is larger than this part of what a GPU has free."""


def resident_choice(value: bool | str, num_workers: int) -> bool | None:
    """``data.resident``: true, false, or ``None`` for ``auto``. Raises SettingsError for others, and with workers."""
    if value == "auto":
        return None if num_workers == 0 else False
    if type(value) is not bool:
        raise SettingsError(f"data.resident must be auto, true or false, got {value!r}")
    if value and num_workers:
        raise SettingsError(f"data.resident must be auto or false with data.num_workers = {num_workers}, got true")
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
