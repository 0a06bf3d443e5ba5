"""A user's own pictures: a folder per class, or a table of paths and labels."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qbsnn import checks
from qbsnn.data.class_folders import Labelled, OwnFiles
from qbsnn.data.images.decoding import SUFFIXES, view
from qbsnn.data.images.files import FileDataModule
from qbsnn.data.shards import key, stamps
from qbsnn.data.signatures import with_settings
from qbsnn.errors import ArgumentError, DataError
from qbsnn.results.files import write_atomically

log = logging.getLogger(__name__)

MOST = 4096
"""Of at most so many training pictures the mean and the deviation are computed."""


def moments(
    paths: Sequence[Path], size: int, side: int, channels: int, skip: bool
) -> tuple[list[float], list[float], int]:
    """Mean and standard deviation per channel over the pixels in [0, 1] of the pictures as validation sees them.

    Args:
        paths: of the pictures.
        size: side of what is cut out of the centre.
        side: shorter side after resizing.
        channels: 1 or 3.
        skip: leave out pictures that cannot be read.

    Returns:
        Both ``[channels]``, and the number of pictures. The deviation is at least 1/255.

    Raises:
        DataError: for a picture that cannot be read, or where none can.
    """
    total = torch.zeros(2, channels, dtype=torch.float64)
    count = 0
    for path in paths:
        try:
            pixels = view(path, size, side, channels).double().flatten(1) / 255
        except DataError:
            if not skip:
                raise
            continue
        total += torch.stack([pixels.mean(1), pixels.square().mean(1)])
        count += 1
    if not count:
        raise DataError(f"none of {len(paths)} training pictures can be read, {paths[0]} among them")
    mean, square = (total / count).tolist()
    return mean, [max(math.sqrt(max(q - m * m, 0)), 1 / 255) for m, q in zip(mean, square, strict=True)], count


@with_settings
class ImageFolder(OwnFiles, FileDataModule):
    """Your own pictures of any sizes: ``root/{train,val,test}/<class>/*.png`` (jpg, webp, bmp, tif, gif).

    Without ``val`` or ``test``, and where ``root`` holds the classes themselves, parts are held out of the training
    pictures. Classes are numbered in alphabetical order.

    Args:
        channels: 3, or 1 for grey.
        val_fraction: share of the training pictures that are for validation where there is no folder ``val``.
        test_fraction: share of the training pictures that are for the test where there is no folder ``test``.
        table: a CSV file with the columns path, label and, if you like, part (train, val or test) that takes the place
            of the folders; it and its paths are relative to ``root``.
        mean: of the training pixels in [0, 1], per channel; ``None`` computes it once and keeps it in ``cache_dir``
            (``<root>/.cache`` by default).
        std: their standard deviation, likewise; give both or none.
        settings: see ``FileDataModule``.

    Raises:
        ArgumentError: for a bad value.
        DataError: for an absent folder or one without classes.
    """

    name = "image_folder"
    own_files = True

    def __init__(
        self,
        *,
        root: str | Path = "data",
        val_fraction: float = 0.1,
        channels: int = 3,
        test_fraction: float = 0.1,
        table: str | Path | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **settings: Any,
    ) -> None:
        checks.integer("channels", channels, 1, 3)
        if channels == 2:
            raise ArgumentError("channels must be 1 (grey) or 3 (colour), got 2")
        if (mean is None) != (std is None):
            raise ArgumentError(f"mean and std must both be given or both be null, got {mean!r} and {std!r}")
        for which, values in (("mean", mean), ("std", std)):
            if values is not None and (not isinstance(values, Sequence) or len(values) != channels):
                raise ArgumentError(f"{which} must be a list of {channels} numbers, one a channel, got {values!r}")
            for value in values or ():
                checks.number(which, value, 0, 1, open_low=which == "std")
        cache = self.look(root, table, SUFFIXES, test_fraction)
        settings["cache_dir"] = settings.get("cache_dir") or cache
        super().__init__(root=root, val_fraction=val_fraction, **settings)
        self.in_shape = (channels, self.size, self.size)
        self._given = (mean, std)

    @cached_property
    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel, as given, as kept from an earlier run, or computed now."""
        mean, std = self._given
        if mean is not None and std is not None:
            return tuple(mean), tuple(std)
        train = self.parts["train"].paths
        paths = [train[i] for i in np.linspace(0, len(train) - 1, min(len(train), MOST)).astype(int)]
        name = key(files=stamps(paths), size=self.size, side=self.side, of=self.in_shape)
        stored = self.cache_dir / self.name / f"{name}.json"
        try:
            kept = json.loads(stored.read_text(encoding="utf-8"))
            return tuple(kept["mean"]), tuple(kept["std"])
        except (OSError, ValueError, KeyError, TypeError):
            log.info("%s: mean and deviation of %s training pictures are computed once", self.name, f"{len(paths):,}")
        mean, std, count = moments(paths, self.size, self.side, self.in_shape[0], self.skip)
        if count < len(paths):  # the others may be readable another time
            return tuple(mean), tuple(std)
        try:
            stored.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(stored, json.dumps({"mean": mean, "std": std, "pictures": len(paths)}).encode())
        except OSError as error:
            log.warning("%s: they are not kept, %s cannot be written: %s", self.name, stored, error.strerror)
        return tuple(mean), tuple(std)

    @property
    def mean(self) -> tuple[float, ...]:  # type: ignore[override]
        """Per channel, of the training pixels in [0, 1]."""
        return self.moments[0]

    @property
    def std(self) -> tuple[float, ...]:  # type: ignore[override]
        """Per channel, of the training pixels in [0, 1]."""
        return self.moments[1]

    def open(self, train: bool) -> tuple[Labelled, NDArray[np.int64], NDArray[np.int64]]:
        """The training files and behind them those for validation, or the test files."""
        found = self.official(train)
        return found, found.labels, found.file_of

    def describe(self) -> dict[str, Any]:
        """As every folder, and the mean and the deviation."""
        return super().describe() | {"mean": list(self.mean), "std": list(self.std)}
