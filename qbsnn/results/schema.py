"""The schema of ``result.json``, the one file that tables, plots and pages are made from.

Every run writes one :class:`Result`. Accuracies are shares in [0, 1], times are seconds, bits are widths of two's
complement integers. A block that did not run is ``None``, or names its reason in ``skipped``.

JSON has no NaN and no infinity. A measured value that is not finite is written as null and read back as NaN, so that a
diverged run has a result file too. In ``config`` it is written as the string ``nan``, ``inf`` or ``-inf``.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from qbsnn.results.energy_schema import Energy
from qbsnn.results.exit_schema import EarlyExit
from qbsnn.results.files import write_atomically
from qbsnn.results.formatting import counted
from qbsnn.results.proof_schema import Absorption, Finding, Integer, LayerCheck

__all__ = [
    "SCHEMA_VERSION",
    "Absorption",
    "Disturbance",
    "EarlyExit",
    "Energy",
    "Finding",
    "Host",
    "Integer",
    "Layer",
    "LayerCheck",
    "Metrics",
    "Result",
    "Robustness",
    "Timing",
    "ran",
]

SCHEMA_VERSION = 1


@dataclass
class Metrics:
    """Metrics by name (``test/acc``, ``test/loss``, ``val/acc``, ...), for two sets of weights.

    Test data has no part in choosing either set.

    Args:
        last: Of the weights after the last epoch.
        best: Of the weights with the best validation accuracy. ``epoch`` is the epoch they come from, counted from 0.
    """

    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)


@dataclass
class Layer:
    """What one spiking layer did on the test data, with the weights of ``best`` (or of the evaluated checkpoint).

    Signed bursts count by their size.

    Args:
        name: Of the layer.
        neuron: Class of its neurons.
        delta: The scale |Δ| in units of the membrane; ``None`` for a neuron without one.
        mean_burst: Spikes per neuron and step; a burst of s counts s times.
        saturation: Share of neuron-steps at ``s_max``.
        silent: Share of neurons that never fired on the images of the histogram.
    """

    name: str
    neuron: str
    delta: float | None
    mean_burst: float
    saturation: float
    silent: float


@dataclass
class Disturbance:
    """What one disturbance leaves of the accuracy, see :class:`qbsnn.callbacks.Robustness`.

    Args:
        kind: ``noise``, ``missing`` (a time step without input) or ``steps``.
        value: The standard deviation of the noise; how many steps are missing; how many steps more than in training.
        accuracy: As a share; ``None`` where it is not defined.
        skipped: Why it is not.
    """

    kind: str
    value: float
    accuracy: float | None = None
    skipped: str | None = None


@dataclass
class Robustness:
    """The accuracy of the float network on disturbed test images; ``accuracy`` is that on the same without."""

    checkpoint: str
    images: int
    accuracy: float
    disturbances: list[Disturbance]
    skipped: str | None = None

    @property
    def noise(self) -> dict[str, float]:
        """By standard deviation."""
        return {f"{each.value:g}": each.accuracy for each in self.disturbances
                if each.kind == "noise" and each.accuracy is not None}  # fmt: skip

    @property
    def missing(self) -> float | None:
        """With one step missing."""
        return self._of("missing", 1)

    @property
    def longer(self) -> float | None:
        """With one step more."""
        return self._of("steps", 1)

    @property
    def shorter(self) -> float | None:
        """With one step fewer."""
        return self._of("steps", -1)

    def _of(self, kind: str, value: float) -> float | None:
        return next((each.accuracy for each in self.disturbances if (each.kind, each.value) == (kind, value)), None)


@dataclass
class Timing:
    """``total_seconds`` includes testing and the checks; ``fit_seconds`` is training and its validation alone."""

    fit_seconds: float = 0.0
    total_seconds: float = 0.0
    epochs: int = 0
    train_images_per_second: float = 0.0


@dataclass
class Host:
    """The machine of a run; ``gpu`` is ``None`` where there is none."""

    cpu: str
    cores: int
    isa: list[str]
    gpu: str | None
    platform: str
    versions: dict[str, str]

    @property
    def device(self) -> str:
        """What computed, in words."""
        return self.gpu or f"{self.cpu}, {counted(self.cores, 'core')}"


@dataclass
class Result:
    """One run. ``config`` is the full resolved configuration; ``git_dirty`` tells whether the tree had changes
    in what can change a number: the package, ``conf`` and the programs. ``code`` is a digest of these files
    (:func:`~qbsnn.training.devices.host.code_digest`), empty where git did not name them.

    ``status``: ``running``; ``finished``, trained as asked and proven; ``incomplete``, trained less than asked, or
    without validation; ``unproven``, trained, but a check proves nothing, for a layer is silent; ``interrupted``, by a
    signal; ``failed``. ``error`` says why for all but the first two.

    ``checkpoints`` names the files of ``last`` and ``best``, relative to the run directory where they lie inside it.
    ``data`` says what was read: name of the set, whether simulated, samples per part, a checksum of their indices,
    names of samples that were skipped, and for events what the cache found and the framing lost. ``identity`` is
    what determines the result and ``cell`` its fingerprint (:mod:`qbsnn.results.fingerprint`); both are empty for an
    evaluation, and ``identity`` in files of versions before 0.2.
    ``precision`` is the one of training, in Lightning's words.
    """

    command: str
    config: dict[str, Any]
    seed: int
    host: Host
    git_commit: str | None
    git_dirty: bool | None
    status: str = "running"
    error: str | None = None
    code: str = ""
    started: str = ""
    params: int = 0
    execution: str = ""  # what was compiled and what a training step kept; compiled gradients round otherwise
    precision: str = "32-true"
    metrics: Metrics = field(default_factory=Metrics)
    checkpoints: dict[str, str] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    absorption: Absorption | dict[str, str] | None = None
    integer: Integer | dict[str, str] | None = None
    energy: Energy | dict[str, str] | None = None
    early_exit: EarlyExit | dict[str, str] | None = None
    robustness: Robustness | dict[str, str] | None = None
    timing: Timing = field(default_factory=Timing)
    data: dict[str, Any] = field(default_factory=dict)
    cell: str = ""
    identity: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def as_json(self) -> dict[str, Any]:
        """What JSON can hold of it; see the module's docstring for numbers that are not finite."""
        return {key: _finite(value, key == "config") for key, value in asdict(self).items()}

    def write(self, path: Path) -> None:
        """Write the result as JSON; a reader never sees half a file."""
        text = json.dumps(self.as_json(), indent=2, allow_nan=False, ensure_ascii=False)
        # Config values may hold lone surrogates (undecodable file names): escape these rather than lose the run.
        write_atomically(path, (text + "\n").encode("utf-8", "backslashreplace"))


Block = TypeVar("Block", Absorption, Integer, Energy, EarlyExit, Robustness)


def ran(block: Block | dict[str, str] | None) -> Block | None:
    """The block of a check or a count that ran; ``None`` for one that did not run or was skipped."""
    return block if block is not None and not isinstance(block, dict) and block.skipped is None else None


def _finite(value: Any, in_config: bool) -> Any:
    """``value`` with every NaN and infinity replaced by what JSON can hold; see the module's docstring."""
    if isinstance(value, dict):
        return {key: _finite(item, in_config) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item, in_config) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value)) if in_config else None
    return value
