"""Post-training quantisation: an absorbed network to QB-INT 1 (see :mod:`qbsnn.deploy.format.network`).

A plan (:mod:`qbsnn.deploy.convert.plan`) fixes the grid of every layer; ``convert`` rounds to it by (I2), with a unit r
in place of θ for weights that lie on a grid already. The analog first layer keeps its weights, (I3).
"""

from __future__ import annotations

import copy
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qbsnn.deploy.convert.absorb import checked_network
from qbsnn.deploy.convert.folding import pair
from qbsnn.deploy.convert.plan import array, fixed_neuron, leak_of, make_plan, weight_and_bias, weights_and_bias
from qbsnn.deploy.convert.quantized import INT32_MAX, Quantized
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.deploy.convert.thresholds import Grid, Plan, rounded
from qbsnn.deploy.format.bounds import bounds
from qbsnn.deploy.format.network import INPUT as INPUT_INDEX
from qbsnn.deploy.format.network import IntBranch, IntegerNetwork, IntPool, IntReadout, IntStage
from qbsnn.deploy.format.validation import check
from qbsnn.errors import ArgumentError, DeployError
from qbsnn.functional.arguments import real
from qbsnn.layers.stage import INPUT, Branch, Stage
from qbsnn.models.network import SpikingNetwork


def quantize(
    absorbed: SpikingNetwork, settings: DeploySettings | None = None, calibration: Tensor | None = None
) -> Quantized:
    """Quantise an absorbed network.

    Args:
        absorbed: What :func:`~qbsnn.deploy.convert.absorb.absorb` returned.
        settings: How.
        calibration: Pixels ``[N, C, H, W]`` of training images, used by the search for integer thresholds.

    Raises:
        ArgumentError: ``absorbed``, ``settings`` or ``calibration`` is something else.
        DeployError: A layer, which is named, has no QB-INT 1 form.
    """
    checked_network(absorbed, "absorbed")
    if settings is not None and not isinstance(settings, DeploySettings):
        raise ArgumentError(f"settings must be DeploySettings, such as DeploySettings(bits=8), got {settings!r}")
    if calibration is not None and not len(real("calibration", calibration, "[N, C, H, W]")):
        raise ArgumentError(f"calibration must hold an image at least, got {list(calibration.shape)}")
    settings = (settings or DeploySettings()).resolved()
    return convert(absorbed, make_plan(absorbed, settings, calibration), settings)


def convert(absorbed: SpikingNetwork, plan: Plan, settings: DeploySettings) -> Quantized:
    """Round an absorbed network to the grids of a plan, which was made with the same resolved settings."""
    first_clipped = 0
    if settings.first_layer == "integer":
        absorbed, first_clipped = _with_integer_first_layer(absorbed, plan)
    index: dict[str, int] = {INPUT: INPUT_INDEX}
    stages: list[IntStage] = []
    clipped: dict[str, int] = {}
    readout: IntReadout | None = None
    shapes = _stage_shapes(absorbed)
    for name, stage in absorbed.named_stages():
        if stage.neuron is None:
            readout, clipped["readout"] = _readout(name, stage, index, plan.scale, settings.q_max)
            continue
        if INPUT in stage.sources and (len(stage.sources) > 1 or stages):
            raise DeployError(f"{name}: only the first stage may read the network's input, and nothing else")
        converted, clipped[name] = _stage(name, stage, index, shapes[name], plan.grids[name], settings, absorbed.T)
        index[name] = len(stages)
        stages.append(converted)
    assert readout is not None, "make_plan() refuses a network without one"
    first_name, first = next(iter(absorbed.named_stages()))
    clipped[first_name] = first_clipped
    ends = _current_bounds(first.parts[0], absorbed, stages[0].theta)
    net = IntegerNetwork(tuple(stages), readout, absorbed.T, settings.membrane_bits, settings.overflow)
    check(net)
    result = Quantized(net, absorbed, ends, clipped, settings, plan)
    for name, bound in zip([*index, "readout"][1:], bounds(net, ends), strict=True):
        if bound.accumulator > INT32_MAX:
            raise DeployError(f"{name}: a sum may reach {bound.accumulator}, which does not fit a 32-bit accumulator")
    return result


def _with_integer_first_layer(absorbed: SpikingNetwork, plan: Plan) -> tuple[SpikingNetwork, int]:
    """A copy whose first layer has the weights q/θ and the bias b/θ, q in ±127 and b integers; how many were clipped.

    On an input of whole numbers its current is then J/θ without rounding: J = Σ q·x + b, an accumulation per spike.
    Raises DeployError for an analog input, and where a float32 sum could be inexact.
    """
    new = copy.deepcopy(absorbed)
    name, stage = next(iter(new.named_stages()))
    if new.encoder.coding == "direct":
        raise DeployError(
            f"{name}: deploy.first_layer=integer needs an input of spikes or counts (model.encoding=rate or latency, "
            "or events), got analog pixels"
        )
    layer, unit = stage.parts[0].weight, plan.grids[name].unit
    assert layer is not None and layer.bias is not None, "absorb() gives every layer a bias"
    q, clipped = _rounded(array(layer.weight), unit, 127)
    bias = np.rint(array(layer.bias) * unit)
    largest = np.abs(q.astype(np.int64)).reshape(len(q), -1).sum(1) * float(new.encoder.bounds()[1].max()) + np.abs(
        bias
    )
    if largest.max() >= 2**24:
        raise DeployError(f"{name}: its integer sums may reach {largest.max():.0f}; float32 is exact below 2^24")
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(q / unit.reshape(-1, *[1] * (q.ndim - 1))))
        layer.bias.copy_(torch.from_numpy(bias / unit))
    return new, clipped


def _stage(
    name: str,
    stage: Stage,
    index: dict[str, int],
    shape: tuple[int, ...],
    grid: Grid,
    settings: DeploySettings,
    steps: int,
) -> tuple[IntStage, int]:
    neuron = fixed_neuron(name, stage)
    branches, clipped = [], 0
    for branch in stage.parts:
        converted, lost = _branch(name, branch, index[branch.source], grid.unit, settings.q_max)
        branches.append(converted)
        clipped += lost
    bias = np.zeros(shape[0]) if branches[0].kind == "input" else weights_and_bias(stage)[1]
    result = IntStage(
        name=name,
        branches=tuple(branches),
        bias=_int32(name, "bias", np.rint(bias * grid.unit)),
        theta=grid.theta,
        s_max=neuron.s_max,
        shape=shape,
        leak=leak_of(name, float(neuron.decay), steps, settings.leak, settings.profile),
        s_min=neuron.s_min,
        rounding=neuron.rounding,  # type: ignore[arg-type]  # the check of the network refuses others
        reset="hard" if neuron.reset.kind == "hard" else "soft",
        pool=_pool(name, stage.pool),
    )
    return result, clipped


def _branch(name: str, branch: Branch, source: int, unit: NDArray[np.float64], q_max: int) -> tuple[IntBranch, int]:
    """The integer branch, and how many weights were clipped."""
    if source == INPUT_INDEX:
        return IntBranch(source, "input"), 0
    layer = branch.weight
    if layer is None:
        assert branch.gain is not None, "absorb() sets the gain of identity shortcuts"
        m = np.rint(array(branch.gain).reshape(-1) * unit)
        return IntBranch(source, "identity", scale=_int32(branch.source, "shortcut", m)), 0
    q, lost = _rounded(array(layer.weight), unit, q_max)
    if isinstance(layer, nn.Linear):
        return IntBranch(source, "linear", q), lost
    if pair(layer.dilation) != (1, 1):
        raise DeployError(f"{name}: QB-INT 1 has no dilation, got a convolution with {layer.dilation}")
    return IntBranch(source, "conv", q, None, pair(layer.stride), pair(layer.padding), layer.groups), lost


def _rounded(weight: NDArray[np.float64], unit: NDArray[np.float64], q_max: int) -> tuple[NDArray[np.int8], int]:
    """q of weights ``[O, ...]`` for units r ``[O]``, and how many were clipped."""
    q = rounded(weight, unit, q_max)
    return q.astype(np.int8), int((q != rounded(weight, unit, 2**62)).sum())


def _readout(name: str, stage: Stage, index: dict[str, int], scale: float, q_max: int) -> tuple[IntReadout, int]:
    (branch,) = stage.parts
    weight, bias = weight_and_bias(branch)
    q, clipped = _rounded(weight, np.full(len(weight), scale), q_max)
    b = _int32(name, "bias", np.rint(bias * scale))
    return IntReadout(IntBranch(index[branch.source], "linear", q), b, scale), clipped


def _pool(name: str, pool: nn.Module | None) -> IntPool | None:
    if pool is None:
        return None
    assert isinstance(pool, (nn.MaxPool2d, nn.AvgPool2d))
    padding = pair(pool.padding)
    if isinstance(pool, nn.AvgPool2d) and padding != (0, 0):
        raise DeployError(f"{name}: QB-INT 1 sums pools without padding, got padding {padding}")
    kind: Literal["max", "sum"] = "max" if isinstance(pool, nn.MaxPool2d) else "sum"
    return IntPool(kind, pair(pool.kernel_size), pair(pool.stride), padding)


def _current_bounds(
    branch: Branch, absorbed: SpikingNetwork, theta: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Interval arithmetic over the encoder's bounds; zero padding counts as a value of the window, so 0 is included."""
    weight, bias = weight_and_bias(branch)
    groups = branch.weight.groups if isinstance(branch.weight, nn.Conv2d) else 1
    # an output sees the channels of its own group
    low, high = (
        np.repeat(np.broadcast_to(array(bound), absorbed.in_shape[0]).reshape(groups, -1, 1), len(weight) // groups, 0)
        for bound in absorbed.encoder.bounds()
    )
    per_channel = weight.reshape(*low.shape[:2], -1)
    ends = np.stack([per_channel * low, per_channel * high, np.zeros_like(per_channel)])
    lower = ends.min(0).sum((1, 2)) + bias
    upper = ends.max(0).sum((1, 2)) + bias
    # The float32 sum may lie outside the exact interval by rounding; 1e-5 of the magnitude and one unit cover it.
    slack = 1e-5 * np.abs(ends).max(0).sum((1, 2)) + 1e-5 * np.abs(bias)
    return np.floor((lower - slack) * theta).astype(np.int64) - 1, np.ceil((upper + slack) * theta).astype(np.int64) + 1


def _stage_shapes(network: SpikingNetwork) -> dict[str, tuple[int, ...]]:
    """One sample's membrane shape of every stage, found by passing one black image."""
    shapes: dict[str, tuple[int, ...]] = {}

    def visit(name: str, stage: Stage, inputs: list[Tensor]) -> Tensor:
        current = stage.current(inputs, 1)
        shapes[name] = tuple(current.shape[2:])
        return stage.emit(current)

    parameter = next(network.parameters())
    with torch.no_grad():
        network.walk(torch.zeros(1, 1, *network.in_shape, device=parameter.device, dtype=parameter.dtype), visit)
    return shapes


def _int32(name: str, what: str, values: NDArray[np.float64]) -> NDArray[np.int32]:
    if np.abs(values).max(initial=0) > INT32_MAX:
        raise DeployError(f"{name}: {what} does not fit int32 (largest {np.abs(values).max():.3g})")
    return values.astype(np.int32)
