"""The ``absorption`` and ``integer`` blocks of ``result.json``: which networks were compared, and what differed."""

from __future__ import annotations

from dataclasses import dataclass, field

from qbsnn.results.exit_schema import EarlyExit


@dataclass
class LayerCheck:
    """Agreement of two networks in one layer, over all images and steps.

    The fields from ``membrane_mismatches`` on belong to the integer network and are 0 in an absorption check.

    Args:
        name: Of the layer.
        spikes: Sum of all bursts that the layer emitted in the network that was checked. A check of a silent layer
            proves nothing, so a layer with 0 spikes makes the whole check fail.
        positions: Neuron-steps compared.
        mismatches: Positions that differ and are no tie.
        ties: Positions that differ within rounding of a threshold.
        free_running_mismatches: Positions that differ when each network runs on its own spikes.
        membrane_mismatches: Positions whose membranes differ.
        disagreement: Share of positions whose burst differs from the absorbed network's.
        accumulator_bits: Width that the accumulator needs.
        membrane_bits: Width that the membrane needs.
        accumulator_bound: Largest magnitude that any input can cause.
        membrane_bound: Largest magnitude that any input can cause.
        membrane_seen: Largest magnitude met.
        theta_min: Smallest integer threshold.
        theta_max: Largest integer threshold.
        clipped_weights: Weights that the grid cannot hold.
        kernel: What multiplied there: ``int8`` and the unit, or ``exact float`` and why int8 was not provably exact.
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

    Each layer and step of the absorbed network is fed the trained network's own spikes and membrane.

    Args:
        checkpoint: File of the weights.
        passed: Whether the check proves what it should.
        images: Images compared.
        spikes: Bursts summed over layers, steps and images.
        positions: Neuron-steps compared.
        spike_mismatches: Positions that differ and are no tie; must be 0.
        ties: Positions that differ within rounding of a threshold.
        free_running_mismatches: Positions that differ when each network runs on its own spikes.
        acc: Accuracy of the absorbed network on these images.
        trained_acc: Accuracy of the trained network on these images.
        layers: The same by layer.
        skipped: Why the check did not run.
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
    """What keeps a network off a hardware target: layer, property, its value there, and what the target holds."""

    layer: str
    what: str
    value: str
    limit: str


@dataclass
class Integer:
    """The integer network (int8 engine) against the independent int64 engine, and against onnxruntime.

    The fields up to ``layers`` mean what they mean in :class:`Absorption`; bits are the largest over the layers.

    Args:
        flip_mismatches: What the same comparison reports after one weight was changed by one unit; must not be 0.
        absorbed_acc: Accuracy of the network before rounding on these images: the absorbed one, or with ``mode`` qat
            that of the weights that training on the grid left.
        overflows: Membranes that did not fit ``register_bits``; under the policy ``error`` there may be none.
        mode: ``ptq``, the rounded network, or ``qat``, fine-tuned on the grid and better on validation images.
        theta: ``pow2`` or ``integer``, the kind of thresholds.
        leak: The kinds of leak in use.
        overflow: What happens to a membrane that does not fit: ``error``, ``saturate`` or ``wrap``.
        weight_bytes: All weights behind the first layer, packed.
        grid_mismatches: Spikes and membranes in which the network that training on the grid computes in floating
            point differs from the engines; must be 0.
        first_overflow: Where the first one was.
        ptq_acc: Test accuracy of the rounded network; like the next two, ``None`` without fine-tuning.
        qat_acc: Test accuracy of the fine-tuned integer network.
        float_comparator_acc: Test accuracy of the float network after as many epochs as ``qat`` had.
        multiplying_layers: Layers with a product among their integer operations.
        first_layer: ``float``, whose current is rounded once, or ``integer``.
        readout_kernel: As ``LayerCheck.kernel``.
        readout_clipped_weights: As ``LayerCheck.clipped_weights``.
        profile: The hardware that the settings are those of.
        promise: What that profile holds: ``verified`` against the maker's simulator, published ``rules`` of arithmetic,
            or ``limits only``, sizes; and where the target differs.
        findings: What does not fit that hardware.
        exit: What its early exit gives; ``None`` where none was asked for.
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
    readout_clipped_weights: int = 0
    profile: str | None = None
    promise: str | None = None
    findings: list[Finding] = field(default_factory=list)
    exit: EarlyExit | dict[str, str] | None = None
