"""The schema of ``result.json``, the one file that tables, plots and pages are made from.

Every run writes one :class:`Result`. Accuracies are fractions in [0, 1], times are seconds, bits are widths of
two's complement integers. A block that did not run is ``None``, or names its reason in ``skipped``. JSON has no
NaN and no infinity: a measured value that is not finite is written as null and read back as NaN (a diverged run has
a result file too); in ``config`` it is written as the string ``nan``, ``inf`` or ``-inf``.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from qbsnn.results.energy_schema import Energy
from qbsnn.results.files import write_atomically

SCHEMA_VERSION = 1


@dataclass
class Metrics:
    """Metrics by name (``test/acc``, ``test/loss``, ``val/acc``, ...), for two sets of weights.

    ``last`` are the weights after the last epoch; ``best`` those with the best validation accuracy. Test data has no
    part in choosing either. ``best["epoch"]`` is the epoch it comes from, counted from 0.
    """

    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)


@dataclass
class Layer:
    """What one spiking layer did on the test data, with the weights of ``best`` (or of the evaluated checkpoint).

    ``delta`` is the scale |Δ| in units of the membrane; ``None`` for a neuron without one. ``mean_burst`` is the mean
    count per neuron and step, ``saturation`` the share of neuron-steps at ``s_max``, ``silent`` the share of neurons
    that never fired on the images the histogram was taken from. Signed bursts count by their size.
    """

    name: str
    neuron: str
    delta: float | None
    mean_burst: float
    saturation: float
    silent: float


@dataclass
class LayerCheck:
    """Agreement of two networks in one layer, over all images and steps.

    ``positions`` are the neuron-steps compared, ``mismatches`` those that differ and are not ``ties``. The fields
    from ``membrane_mismatches`` on belong to the integer network and are 0 in an absorption check; ``disagreement`` is
    the share of positions whose burst differs from the absorbed network's. ``*_bound`` is the largest magnitude that
    any input can cause, ``membrane_seen`` the largest one met, ``theta_*`` the range of the integer thresholds.
    ``kernel``: what multiplied there, ``int8`` and the unit, or ``exact float`` and why int8 was not provably exact.

    ``spikes`` is the sum of all bursts the layer emitted in the network that was checked: a check of a silent layer
    proves nothing, so a layer with 0 spikes makes the whole check fail.
    """

    name: str
    spikes: int
    positions: int
    mismatches: int
    ties: int = 0
    free_running_mismatches: int = 0
    membrane_mismatches: int = 0
    disagreement: float = 0.0
    accumulator_bits: int = 0
    membrane_bits: int = 0
    accumulator_bound: int = 0
    membrane_bound: int = 0
    membrane_seen: int = 0
    theta_min: int = 0
    theta_max: int = 0
    clipped_weights: int = 0
    kernel: str = ""


@dataclass
class Absorption:
    """The trained network against the network whose norms and scales are folded into its weights.

    ``spikes``: bursts summed over layers, steps and images. ``positions``: neuron-steps compared. Teacher-forced: each
    layer and step is fed the trained network's own spikes and membrane. ``spike_mismatches`` counts differing
    positions that are not ``ties`` (within rounding of a threshold) and must be 0. ``free_running_mismatches`` counts
    differing positions when each network runs on its own spikes.
    """

    checkpoint: str
    passed: bool
    images: int
    spikes: int
    positions: int
    spike_mismatches: int
    ties: int
    free_running_mismatches: int
    acc: float
    trained_acc: float
    layers: list[LayerCheck]
    skipped: str | None = None


@dataclass
class Finding:
    """What keeps a network off a hardware target: layer, property, its value there and what the target holds."""

    layer: str
    what: str
    value: str
    limit: str


@dataclass
class Integer:
    """The integer network (int8 engine) against the independent int64 engine, and against onnxruntime.

    ``flip_mismatches`` is what the same comparison reports after one weight was changed by one unit: it must not be 0.
    ``disagreement`` per layer is the share of positions where the integer network's burst differs from the absorbed
    network's; it is a fact to know, not a check. The bit counts are the largest over the layers.

    ``mode`` is ``ptq`` (the rounded network) or ``qat`` (fine-tuned on the grid, and kept because it was better on
    validation images). ``grid_mismatches``: spikes and membranes in which the network that training on the grid
    computes in floating point differs from the engines; must be 0. ``ptq_acc``, ``qat_acc``: test accuracy of either
    integer network; ``float_comparator_acc`` of the float network after as many epochs as ``qat`` had; ``None`` where
    there was no fine-tuning. ``theta``: pow2 or integer; ``leak``: the kinds in use; ``overflow``: the policy, under
    which ``overflows`` counts membranes that did not fit ``register_bits`` (under ``error`` none may);
    ``first_overflow`` names the first. ``weight_bytes``: all weights behind the first layer, packed.
    ``first_layer``: float, whose current is rounded once, or integer. ``multiplying_layers``: those with a product
    among their integer operations.
    ``findings``: what does not fit the hardware ``profile``. ``readout_kernel``: as ``LayerCheck.kernel``.
    """

    checkpoint: str
    passed: bool
    images: int
    spikes: int
    positions: int
    spike_mismatches: int
    membrane_mismatches: int
    logit_mismatches: int
    flip_mismatches: int
    acc: float
    absorbed_acc: float
    weight_bits: int
    accumulator_bits: int
    membrane_bits: int
    overflows: int
    layers: list[LayerCheck]
    onnxruntime_images: int | None = None
    onnxruntime_mismatches: int | None = None
    onnxruntime_skipped: str | None = None
    skipped: str | None = None
    mode: str = "ptq"
    theta: str = "pow2"
    leak: str = "shift_floor"
    overflow: str = "error"
    register_bits: int = 32
    weight_bytes: int = 0
    grid_mismatches: int | None = None
    first_overflow: str | None = None
    ptq_acc: float | None = None
    qat_acc: float | None = None
    float_comparator_acc: float | None = None
    multiplying_layers: list[str] = field(default_factory=list)
    first_layer: str = "float"
    readout_kernel: str = ""
    profile: str | None = None
    findings: list[Finding] = field(default_factory=list)


@dataclass
class Timing:
    """``total_seconds`` includes testing and the checks; ``fit_seconds`` is training and its validation alone."""

    fit_seconds: float = 0.0
    total_seconds: float = 0.0
    epochs: int = 0
    train_images_per_second: float = 0.0


@dataclass
class Host:
    """Where the run was made. ``gpu`` is ``None`` on a machine without one."""

    cpu: str
    cores: int
    isa: list[str]
    gpu: str | None
    platform: str
    versions: dict[str, str]


@dataclass
class Result:
    """One run. ``config`` is the full resolved configuration; ``git_dirty`` tells whether the tree had changes.

    ``checkpoints`` names the files of ``last`` and ``best``, relative to the run directory where they lie inside it.
    ``data`` says what was read: name of the set, whether simulated, samples per part, a checksum of their indices,
    names of samples that were skipped, and for events what the cache found and the framing lost. ``cell`` is the
    fingerprint of what determines the result (:mod:`qbsnn.results.fingerprint`), empty for an evaluation.
    ``precision`` is the one of training, in Lightning's words.
    """

    command: str
    config: dict[str, Any]
    seed: int
    host: Host
    git_commit: str | None
    git_dirty: bool | None
    status: str = "running"  # running | finished | failed
    error: str | None = None
    started: str = ""
    params: int = 0
    execution: str = ""  # what was compiled and what a training step kept; changes no number
    precision: str = "32-true"
    metrics: Metrics = field(default_factory=Metrics)
    checkpoints: dict[str, str] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    absorption: Absorption | dict[str, str] | None = None
    integer: Integer | dict[str, str] | None = None
    energy: Energy | dict[str, str] | None = None
    timing: Timing = field(default_factory=Timing)
    data: dict[str, Any] = field(default_factory=dict)
    cell: str = ""
    schema_version: int = SCHEMA_VERSION

    def write(self, path: Path) -> None:
        """Write the result as JSON: beside the target, flushed to disk, then renamed, so no reader sees half a file."""
        fields = asdict(self)
        content = {key: _finite(value, key == "config") for key, value in fields.items()}
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
        # Config values may hold lone surrogates (undecodable file names): escape these rather than lose the run.
        write_atomically(path, (text + "\n").encode("utf-8", "backslashreplace"))


Block = TypeVar("Block", Absorption, Integer, Energy)


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
