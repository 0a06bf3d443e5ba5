"""The datamodule that all event sets share: recordings to frames, cached, and what became of them."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import asdict
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qbsnn import checks
from qbsnn.bounds import DataBounds
from qbsnn.data import shards
from qbsnn.data.base import DataModule
from qbsnn.data.events import recordings as record_of
from qbsnn.data.events.augment import EventAugment, EventMix, FrameAugment
from qbsnn.data.events.events import Events, Sensor
from qbsnn.data.events.frames import COUNT_MAX, Framing, Losses
from qbsnn.data.events.recordings import Recordings
from qbsnn.data.loading import Split
from qbsnn.data.randomness import Purpose, draw
from qbsnn.data.skipping import SkippingSplit
from qbsnn.errors import ArgumentError, DataError

log = logging.getLogger(__name__)

FORMAT = 1  # of a cache record; to be raised when framing or encoding changes
VALUES = ("count", "binary", "log")


class FrameSplit(SkippingSplit):
    """Frames of the recordings ``chosen`` ``[N]``; ``fetch`` gives float32 ``[B, T, C, H, W]``.

    steps: T, how many of ``framing.frames`` a sample gets: all, or with ``augmented`` a random choice in their order,
    else evenly spaced ones. records: the cache; ``None`` reads every recording anew. value: ``count``, ``binary`` (0 or
    1) or ``log`` (ln(1 + count)). skip: leave out what cannot be read.
    """

    def __init__(
        self,
        recordings: Recordings,
        chosen: NDArray[np.int64],
        labels: Tensor,
        framing: Framing,
        steps: int,
        value: str,
        records: shards.Records | None,
        skip: bool,
        seed: int | None = None,
        augment_events: EventAugment | None = None,
        augment_frames: FrameAugment | None = None,
        mix: EventMix | None = None,
    ) -> None:
        super().__init__([recordings.names[i] for i in chosen], labels, records, skip)
        self.recordings, self.chosen, self.framing, self.steps = recordings, chosen, framing, steps
        self.value, self.seed = value, seed
        self.augment_events, self.augment_frames, self.mix = augment_events, augment_frames, mix
        self.losses = Losses()
        if records is not None:
            for index in range(len(self)):
                self.losses += record_of.losses(self.cached(index))

    def fetch(self, epochs: NDArray[np.int64], indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Frames float32 ``[B, T, C, H, W]``, labels int64 ``[B]`` (float32 ``[B, classes]`` where mixed)."""
        flat, epochs, indices = self.collect(self._frames, epochs, indices)
        batch = np.stack(flat).reshape(len(flat), self.framing.frames, *self.framing.shape)
        frames, labels = torch.from_numpy(self._subset(batch, epochs, indices)), self.labels[indices]
        if self.augment_frames is not None:
            frames = self.augment_frames(frames, epochs, indices)
        if self.mix is not None:
            frames, labels = self.mix(frames, labels, epochs, indices)
        if self.value == "binary":
            frames = frames.clamp(max=1)
        return frames.float().log1p() if self.value == "log" else frames.float(), labels

    def _frames(self, epoch: int, index: int) -> NDArray[np.uint8]:
        """All frames of a sample, flat."""
        if self.records is not None:
            return record_of.decode(self.cached(index), self.framing.frames * prod(self.framing.shape))
        events = self.recordings.events(int(self.chosen[index]))
        if self.augment_events is not None:
            with contextlib.suppress(DataError):  # too few events are left for the frames
                return self.framing(self.augment_events(events, epoch, index), self.names[index])[0].ravel()
        return self.framing(events, self.names[index])[0].ravel()

    def _subset(
        self, frames: NDArray[np.uint8], epochs: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        total = frames.shape[1]
        if total == self.steps:
            return frames
        if self.seed is None:
            return frames[:, (2 * np.arange(self.steps) + 1) * total // (2 * self.steps)]
        drawn = np.stack([draw(Purpose.STEPS, self.seed, epochs, indices * total + i) for i in range(total)], 1)
        which = np.sort(drawn.argsort(1)[:, : self.steps], 1)
        return np.take_along_axis(frames, which[:, :, None, None, None], 1)


class EventDataModule(DataModule[Recordings]):
    """Classified recordings of events; batches are (frames float32 ``[B, T, C, H, W]``, labels int64 ``[B]``).

    T: steps of the network. frames: slices of a recording, at least T and T by default; with more, training takes a
    random T of them, in order, and validation and test take evenly spaced ones. slice_by, window_ms, keep_tail, size,
    polarity: see ``Framing``. value: see ``FrameSplit``. cache: ``none``, ``memory`` or ``disk``, in ``cache_dir``
    (``<root>/cache`` by default). on_bad_sample: ``raise``, or ``skip`` and report. drop_events, jitter, reverse,
    time_jitter_ms: see ``EventAugment``; with one of them on, training reads the recordings anew in each epoch. flip,
    roll, rotate, shear, cutout: see ``FrameAugment``. mix: ``eventmix`` or ``None``; mix_alpha: see ``EventMix``. The
    rest: see ``DataModule``.
    """

    sensor: Sensor
    encodings = ("events",)
    values = ("counts", COUNT_MAX)

    def __init__(
        self,
        root: str | Path = "data",
        download: bool = True,
        verify: bool = True,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        seed: int = 0,
        num_workers: int = 0,
        T: int = 4,
        frames: int | None = None,
        slice_by: str = "time",
        window_ms: float | None = None,
        keep_tail: bool = True,
        size: int | None = None,
        polarity: str = "both",
        value: str = "count",
        cache: str = "disk",
        cache_dir: str | Path | None = None,
        on_bad_sample: str = "raise",
        drop_events: float = 0.0,
        jitter: float = 0.0,
        time_jitter_ms: float = 0.0,
        reverse: float = 0.0,
        flip: bool = False,
        roll: int = 0,
        rotate: float = 0.0,
        shear: float = 0.0,
        cutout: int = 0,
        mix: str | None = None,
        mix_alpha: float = 1.0,
        limit_train: int | None = None,
        limit_val: int | None = None,
        limit_test: int | None = None,
    ) -> None:
        limits = {"train": limit_train, "val": limit_val, "test": limit_test}
        super().__init__(root, download, verify, batch_size, val_fraction, split_seed, seed, num_workers, limits)
        self.T = DataBounds.check("T", T)
        total = self.T if frames is None else checks.integer("frames", frames, self.T)
        self.framing = Framing(self.sensor, total, slice_by, window_ms, keep_tail, size, polarity)
        self.in_shape = self.framing.shape
        self.mean, self.std = (0.0,) * self.in_shape[0], (1.0,) * self.in_shape[0]
        self.value = checks.choice("value", value, VALUES)
        self.cache = checks.choice("cache", cache, ("none", "memory", "disk"))
        self.cache_dir = self.cache_at(cache_dir)
        self.skip = checks.choice("on_bad_sample", on_bad_sample, ("raise", "skip")) == "skip"
        for key, number, high in (
            ("drop_events", drop_events, 0.9),
            ("jitter", jitter, 100),
            ("time_jitter_ms", time_jitter_ms, 1e6),
            ("reverse", reverse, 1),
            ("rotate", rotate, 180),
            ("shear", shear, 80),
        ):
            checks.number(key, number, 0, high)
        if self.sensor.height == 1 and (jitter or rotate or shear):
            raise ArgumentError(f"jitter, rotate and shear must be 0 for {self.name}, whose sensor is a line")
        checks.boolean("flip", flip)
        for key, pixels in (("roll", roll), ("cutout", cutout)):
            checks.integer(key, pixels, 0, self.in_shape[2])
        self._event_settings = (drop_events, jitter, time_jitter_ms, reverse)
        self._frame_settings = (flip, roll, rotate, shear, cutout)
        if mix is not None:
            checks.choice("mix", mix, ("eventmix",))
        self.mix = EventMix(mix_alpha, self.num_classes, seed) if mix is not None else None

    def part(self, source: Recordings, chosen: NDArray[np.int64], labels: Tensor, augmented: bool) -> Split:
        """Frame and cache the chosen recordings, unless they are to be read anew in each epoch."""
        split_settings = (self.framing, self.T, self.value)
        anew = augmented and any(self._event_settings)
        records = None if anew else self._records(source, chosen)
        if not augmented:
            return FrameSplit(source, chosen, labels, *split_settings, records, self.skip)
        return FrameSplit(
            source,
            chosen,
            labels,
            *split_settings,
            records,
            self.skip,
            self.seed,
            EventAugment(self.sensor, self.seed, *self._event_settings) if anew else None,
            FrameAugment(self.seed, *self._frame_settings) if any(self._frame_settings) else None,
            self.mix,
        )

    def describe(self) -> dict[str, Any]:
        """As every set, and per part what the cache found and what the framing lost."""
        found = super().describe()
        parts = {part: split for part, split in self._splits.items() if isinstance(split, FrameSplit)}
        found["cache"] = {part: vars(s.records.found) for part, s in parts.items() if s.records is not None}
        found["framing"] = {part: vars(s.losses) for part, s in parts.items() if s.records is not None}
        return found

    def events(self, part: str, index: int) -> Events:
        """The events behind one sample of a part, as its source has them."""
        split = self._split(part)
        assert isinstance(split, FrameSplit)
        return split.recordings.events(int(split.chosen[split.kept[index]]))

    def setup(self, stage: str | None = None) -> None:
        """Read what ``stage`` needs, as every set; say what the cache found and what the framing lost."""
        before = set(self._splits)
        super().setup(stage)
        for part, split in self._splits.items():
            if part in before or not isinstance(split, FrameSplit) or split.records is None:
                continue
            found, lost = split.records.found, split.losses
            dense = len(split) * self.framing.frames * prod(self.in_shape) * 4
            log.info(
                "%s %s cache: %d hits, %d made, %.1f MB (1/%.0f of float32)",
                self.name, part, found.hits, found.misses, found.size / 1e6, dense / max(found.size, 1),
            )  # fmt: skip
            if lost.tail or lost.clipped or lost.padded:
                log.info(
                    "%s %s frames lack %d of %d events behind the last slice and %d above %d in one cell; %d are empty "
                    "as recordings are short",
                    self.name, part, lost.tail, lost.events, lost.clipped, COUNT_MAX, lost.padded,
                )  # fmt: skip

    def _records(self, source: Recordings, chosen: NDArray[np.int64]) -> shards.Records | None:
        def folder() -> Path:
            found = {"framing": asdict(self.framing), "chosen": chosen.tolist(), "source": source.fingerprint()}
            return self.cache_dir / self.name / shards.key(format=FORMAT, name=self.name, **found)

        make = partial(record_of.encode, source, chosen, self.framing, self.skip)
        return shards.records(self.cache, folder, len(chosen), make, self.num_workers)
