"""The datamodule that all sets share: settings, parts, loaders and what a run records of its data."""

from __future__ import annotations

import hashlib
import logging
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from qbsnn import checks
from qbsnn.bounds import DataBounds
from qbsnn.data.loading import Share, Split, eval_loader, train_loader
from qbsnn.data.randomness import Purpose, permutation
from qbsnn.data.ranges import check_range
from qbsnn.data.split import hold_out
from qbsnn.errors import ArgumentError, DataError

log = logging.getLogger(__name__)
Source = TypeVar("Source")


class DataModule(lightning.LightningDataModule, Generic[Source]):
    """Classified samples in three parts; batches are (inputs float32 ``[B, ...]``, labels).

    Labels are int64 ``[B]``, or where training mixes samples float32 ``[B, classes]``. Validation samples are held out
    from the official training samples, stratified, by ``split_seed`` alone. A set opens its official training and
    test samples as a ``Source`` of its own and makes parts of it.

    root: where the files are or go. download: fetch absent files. verify: compare checksums and numbers of files with
    the published ones. batch_size: samples, of all processes together. val_fraction: share of the training samples that
    is held out. seed: order and augmentation. num_workers: loader processes. limits: use that many samples of a part at
    most, chosen by ``split_seed``. Raises SettingsError for a bad value.
    """

    name: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    in_shape: tuple[int, int, int]
    encodings: ClassVar[tuple[str, ...]] = ("direct", "rate", "latency")  # that a network may use; the usual one first
    values: ClassVar[tuple[str, float]] = ("pixels", 1)  # what inputs are called, and the largest; the smallest is 0
    simulated: ClassVar[bool] = False  # whether the samples were computed from other data, not recorded
    names_known: bool = True  # whether class_names are the set's own already, not in files that are still to be read
    own_files: ClassVar[bool] = False  # whether the files are the user's, so that nobody knows what they should be

    def __init__(
        self,
        root: str | Path,
        download: bool,
        verify: bool,
        batch_size: int,
        val_fraction: float,
        split_seed: int,
        seed: int,
        num_workers: int,
        limits: dict[str, int | None],
    ) -> None:
        super().__init__()
        folder = checks.path("root", root, "a folder")
        given = {"download": download, "verify": verify, "batch_size": batch_size, "val_fraction": val_fraction}
        given |= {"split_seed": split_seed, "seed": seed, "num_workers": num_workers}
        DataBounds.check_known(given | {f"limit_{part}": limit for part, limit in limits.items()})
        self.root = folder.absolute()
        self.download, self.verify, self.batch_size, self.num_workers = download, verify, batch_size, num_workers
        self.val_fraction, self.split_seed, self.seed, self._limits = val_fraction, split_seed, seed, limits
        self.num_classes = len(self.class_names)
        #: batches that the first epoch of the next training loader leaves out, since an earlier process took them
        self.batches_done = 0
        #: after setup, for each part the positions in the source (in its training or its test samples) ``[n]``
        self.indices: dict[str, Tensor] = {}
        self._splits: dict[str, Split] = {}

    @abstractmethod
    def open(self, train: bool) -> tuple[Source, NDArray[np.int64], NDArray[np.int64]]:
        """The official training or test samples, their labels and their positions in the source, both int64 ``[N]``.

        Labels are checked by the caller. Raises DataError for absent or damaged files.
        """

    @abstractmethod
    def part(self, source: Source, chosen: NDArray[np.int64], labels: Tensor, augmented: bool) -> Split:
        """The samples ``chosen`` ``[n]`` of ``source`` with their ``labels`` ``[n]`` as one part."""

    def check(self, inputs: Tensor, where: str) -> None:
        """Raise DataError for inputs that no sample of this set can have: numbers outside ``values``."""
        check_range(inputs, where, *self.values)

    def setup(self, stage: str | None = None) -> None:
        """Read what ``stage`` needs: ``"test"`` the test samples, ``None`` all, any other the training samples."""
        if stage != "test" and "train" not in self._splits:
            source, labels, ids = self._opened(train=True)
            val = self.held_out(source, labels)
            self._add("train", source, labels, ids, np.flatnonzero(~val))
            self._add("val", source, labels, ids, np.flatnonzero(val))
        if stage in (None, "test") and "test" not in self._splits:
            source, labels, ids = self._opened(train=False)
            self._add("test", source, labels, ids, np.arange(len(labels)))

    def cache_at(self, folder: str | Path | None) -> Path:
        """The folder that a setting ``cache_dir`` names, by default ``cache`` below the root; absolute."""
        return self.root / "cache" if folder is None else checks.path("cache_dir", folder, "a folder").absolute()

    def held_out(self, source: Source, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the official training samples are for validation, a mask ``[N]``."""
        return hold_out(labels, self.val_fraction, self.split_seed, self.name)

    def split_sizes(self) -> dict[str, int]:
        """Number of samples in ``train``, ``val`` and ``test``, for those that ``setup`` has read so far."""
        return {part: len(split) for part, split in self._splits.items()}

    def describe(self) -> dict[str, Any]:
        """What a result records: name, whether simulated, usable samples, a checksum of each part's indices, skips."""
        return {
            "name": self.name,
            "simulated": self.simulated,
            "samples": {part: split.usable() for part, split in self._splits.items()},
            "indices_sha256": {
                part: hashlib.sha256(ids.numpy().astype("<i8").tobytes()).hexdigest()[:16]
                for part, ids in self.indices.items()
            },
            "skipped": {part: found for part, split in self._splits.items() if (found := split.skipped())},
        }

    def train_dataloader(self) -> DataLoader:
        """Augmented training samples, shuffled anew in each epoch."""
        done, self.batches_done = self.batches_done, 0
        return train_loader(self._placed("train"), self.batch_size, self.seed, self.num_workers, self._share(), done)

    def train_batches(self) -> int:
        """How many batches an epoch of training has, known after ``setup``; makes no loader."""
        return max(len(self._split("train")) // self.batch_size, 1)  # as train_loader drops an incomplete one

    def val_dataloader(self) -> DataLoader:
        """The samples held out from training, as they are."""
        return eval_loader(self._placed("val"), self.batch_size, self.num_workers, self._share())

    def test_dataloader(self) -> DataLoader:
        """The official test samples, as they are."""
        return eval_loader(self._placed("test"), self.batch_size, self.num_workers, self._share())

    def on_before_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Check the inputs while the batch is still on the CPU, where looking is free; resident ones never were."""
        if batch[0].device.type == "cpu":
            self.check(batch[0], "a batch")
        return batch

    def teardown(self, stage: str) -> None:
        """Report samples that could not be read and were left out."""
        for part, split in self._splits.items():
            if found := split.skipped():
                log.warning("%s: %d %s samples were skipped as they cannot be read", self.name, len(found), part)

    def encoding(self, wanted: str | None) -> str:
        """The input encoding of a network for this set: ``wanted`` if it fits, the usual one for ``None``."""
        if wanted is None:
            return self.encodings[0]
        if wanted not in self.encodings:
            options = ", ".join(self.encodings)
            raise ArgumentError(f"encoding must be null or one of {options} for {self.name}, got {wanted!r}")
        return wanted

    def _share(self) -> Share:
        """What this process takes of every batch: all, unless a trainer with several processes runs the module."""
        return Share() if self.trainer is None else Share(self.trainer.global_rank, self.trainer.world_size)

    def _placed(self, part: str) -> Split:
        """A part where its loader is to find it."""
        return self._split(part)

    def _split(self, part: str) -> Split:
        if part not in self._splits:
            raise RuntimeError(f"{self.name} has no {part} samples yet: call setup() first")
        return self._splits[part]

    def _add(
        self, part: str, source: Source, labels: NDArray[np.int64], ids: NDArray[np.int64], chosen: NDArray[np.int64]
    ) -> None:
        limit = self._limits[part]
        cut = limit is not None and limit < len(chosen)
        if cut:
            chosen = np.sort(chosen[permutation(Purpose.LIMIT, len(chosen), self.split_seed)[:limit]])
        targets = torch.from_numpy(labels[chosen])
        split = self.part(source, chosen, targets, part == "train")
        if len(split) == 0:
            raise DataError(f"{self.name}: none of the {len(chosen)} {part} samples can be read")
        split.fills, split.called = part == "train", f"{self.name}, {part} samples"
        split.class_names = () if cut else self.class_names
        split.check_classes()
        if part == "train" and not cut and len(lost := np.setdiff1d(labels, labels[chosen])):
            raise DataError(
                f"{self.name}: no training sample is left of the class {self.class_names[lost[0]]}, since all of its "
                f"{(labels == lost[0]).sum()} samples are held out for validation; lower data.val_fraction"
            )
        self._splits[part] = split
        kind = " (simulated)" if self.simulated else ""
        log.info("%s%s: %s %s samples", self.name, kind, f"{len(split):,}", part)
        self.indices[part] = torch.from_numpy(ids[chosen[split.kept]])

    def _opened(self, train: bool) -> tuple[Source, NDArray[np.int64], NDArray[np.int64]]:
        source, labels, ids = self.open(train)
        bad = np.flatnonzero((labels < 0) | (labels >= self.num_classes))
        if len(bad):
            raise DataError(
                f"{self.name}, {'training' if train else 'test'} samples: labels must be from 0 to "
                f"{self.num_classes - 1}, but {len(bad)} are not; the first is {labels[bad[0]]}, of sample {bad[0]}"
            )
        return source, labels, ids
