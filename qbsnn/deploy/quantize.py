"""Post-training quantisation: an absorbed network to QB-INT 1 (see :mod:`qbsnn.deploy.integer`).

Per output channel θ = 2^k with k = clamp(⌊log2(127/max|W'|)⌋, 0, 15), W' the absorbed weights of all branches;
q = round_half_even(W'·θ), b = round_half_even(b'·θ), shortcut m = round_half_even(θ·c/Δ).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qbsnn.deploy.absorb import pair
from qbsnn.deploy.integer import INPUT as INPUT_INDEX
from qbsnn.deploy.integer import IntBranch, IntegerNetwork, IntPool, IntReadout, IntStage
from qbsnn.errors import DeployError
from qbsnn.functional.reset import is_hard
from qbsnn.layers.stage import INPUT, Branch, Stage
from qbsnn.models.network import SpikingNetwork
from qbsnn.neurons.base import FixedBurst

Q_MAX = 127
K_MAX = 15
INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class Quantized:
    """A quantised network: the integer part, and the analog first layer that feeds it.

    net: what every engine runs. front: the absorbed network, whose encoder and first stage give the input current.
    current_bounds: smallest and largest J that an input in the encoder's bounds can cause, per channel (int64 ``[O]``).
    clipped: per stage name, the number of weights that did not fit int8 at θ = 1.
    """

    net: IntegerNetwork
    front: SpikingNetwork
    current_bounds: tuple[NDArray[np.int64], NDArray[np.int64]]
    clipped: dict[str, int]

    def current(self, pixels: Tensor) -> NDArray[np.int32]:
        """J = round_half_even(θ·I) of the first layer, ``[T or 1, B, ...]`` for one batch of the encoder's inputs."""
        return self.current_of(self.front.encoder(pixels))

    def current_of(self, encoded: Tensor) -> NDArray[np.int32]:
        """The same for an input that is encoded already."""
        first = self.net.stages[0]
        stage = next(stage for _, stage in self.front.named_stages())
        current = stage.parts[0](encoded)
        theta = torch.from_numpy(first.theta.astype(np.float64)).to(current.device)
        scaled = (current.double() * theta.view(-1, *[1] * (current.dim() - 3))).round()
        if not bool((scaled.abs() <= INT32_MAX).all()):
            raise DeployError(f"{first.name}: input current leaves the int32 range or is not a number")
        return scaled.to(torch.int32).cpu().numpy()


def quantize(absorbed: SpikingNetwork) -> Quantized:
    """Quantise an absorbed network. Raises DeployError, naming the layer, where it has no QB-INT 1 form."""
    index: dict[str, int] = {INPUT: INPUT_INDEX}
    stages: list[IntStage] = []
    clipped: dict[str, int] = {}
    readout: IntReadout | None = None
    shapes = _stage_shapes(absorbed)
    for name, stage in absorbed.named_stages():
        if stage.neuron is None:
            readout = _readout(name, stage, index)
            continue
        if INPUT in stage.sources and (len(stage.sources) > 1 or stages):
            raise DeployError(f"{name}: only the first stage may read the network's input, and nothing else")
        converted, clipped[name] = _stage(name, stage, index, shapes[name])
        index[name] = len(stages)
        stages.append(converted)
    if readout is None or not stages:
        raise DeployError("the network needs at least one spiking stage and a readout")
    first_name, first = next(iter(absorbed.named_stages()))
    bounds = _current_bounds(first.parts[0], absorbed, stages[0].theta)
    if max(int(np.abs(bounds[0]).max()), int(np.abs(bounds[1]).max())) > INT32_MAX:
        raise DeployError(f"{first_name}: the input current of the largest input does not fit int32")
    return Quantized(IntegerNetwork(tuple(stages), readout, absorbed.T), absorbed, bounds, clipped)


def power_of_two_theta(largest: NDArray[np.float64]) -> NDArray[np.int32]:
    """θ = 2^k per channel for max|W'| per channel: the finest power-of-two grid on which the weights fit ±127.

    >>> power_of_two_theta(np.array([0.9, 127.0, 128.0, 0.0])).tolist()
    [128, 1, 1, 32768]
    """
    with np.errstate(divide="ignore"):
        k = np.floor(np.log2(Q_MAX / largest))
    return (2 ** np.clip(k, 0, K_MAX)).astype(np.int32)


def _stage(name: str, stage: Stage, index: dict[str, int], shape: tuple[int, ...]) -> tuple[IntStage, int]:
    neuron = stage.neuron
    if not isinstance(neuron, FixedBurst):
        raise DeployError(f"{name}: {type(neuron).__name__} is not absorbed; call absorb(network) first")
    weights = [_array(b.weight.weight) for b in stage.parts if b.weight is not None]
    largest = np.max([np.abs(w).reshape(shape[0], -1).max(1) for w in weights], axis=0)
    theta = power_of_two_theta(largest)
    bias = np.zeros(shape[0])
    branches, clipped = [], 0
    for branch in stage.parts:
        converted, lost = _branch(branch, index[branch.source], theta)
        branches.append(converted)
        clipped += lost
        if branch.weight is not None and converted.kind != "input":
            bias = bias + _weight_and_bias(branch)[1]
    result = IntStage(
        name=name,
        branches=tuple(branches),
        bias=_int32(name, "bias", np.rint(bias * theta)),
        theta=theta,
        s_max=neuron.s_max,
        shape=shape,
        leak_shift=leak_shift(name, neuron.tau),
        reset="hard" if is_hard(neuron.reset) else "soft",
        pool=_pool(name, stage.pool),
    )
    return result, clipped


def leak_shift(name: str, tau: float) -> int:
    """The n = log2 τ of the shift leak V − (V >> n), or a DeployError when τ is no power of two."""
    shift = math.log2(tau)
    if shift != int(shift):
        raise DeployError(f"{name}: the shift leak needs tau to be a power of two (1, 2, 4, ...), got tau = {tau:g}")
    return int(shift)


def _branch(branch: Branch, source: int, theta: NDArray[np.int32]) -> tuple[IntBranch, int]:
    """The integer branch, and how many weights were clipped."""
    if source == INPUT_INDEX:
        return IntBranch(source, "input"), 0
    layer = branch.weight
    if layer is None:
        assert branch.gain is not None, "absorb() sets the gain of identity shortcuts"
        gain = np.broadcast_to(_array(branch.gain), theta.shape)
        return IntBranch(source, "identity", scale=_int32(branch.source, "shortcut", np.rint(gain * theta))), 0
    weight = _array(layer.weight)
    q = np.rint(weight * theta.reshape(-1, *[1] * (weight.ndim - 1)))
    q8 = np.clip(q, -Q_MAX, Q_MAX).astype(np.int8)
    lost = int((np.abs(q) > Q_MAX).sum())
    if isinstance(layer, nn.Linear):
        return IntBranch(source, "linear", q8), lost
    if pair(layer.dilation) != (1, 1) or layer.padding_mode != "zeros":
        raise DeployError(f"convolution from {branch.source}: QB-INT 1 has no dilation and pads with zeros only")
    return IntBranch(source, "conv", q8, None, pair(layer.stride), pair(layer.padding), layer.groups), lost


def _readout(name: str, stage: Stage, index: dict[str, int]) -> IntReadout:
    """One scale for all classes: the largest weight becomes ±127."""
    (branch,) = stage.parts
    weight, bias = _weight_and_bias(branch)
    largest = float(np.abs(weight).max())
    if not largest > 0:
        raise DeployError(f"{name}: all weights of the readout are 0")
    scale = Q_MAX / largest
    converted = IntBranch(index[branch.source], "linear", np.rint(weight * scale).astype(np.int8))
    return IntReadout(converted, _int32(name, "bias", np.rint(bias * scale)), scale)


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
    low, high = (_array(bound) for bound in absorbed.encoder.bounds())
    weight, bias = _weight_and_bias(branch)
    per_channel = weight.reshape(len(weight), len(low), -1)
    ends = np.stack([per_channel * low[:, None], per_channel * high[:, None], np.zeros_like(per_channel)])
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


def _weight_and_bias(branch: Branch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    assert branch.weight is not None and branch.weight.bias is not None, "absorb() gives every layer a bias"
    return _array(branch.weight.weight), _array(branch.weight.bias)


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().double().cpu().numpy()


def _int32(name: str, what: str, values: NDArray[np.float64]) -> NDArray[np.int32]:
    if np.abs(values).max(initial=0) > INT32_MAX:
        raise DeployError(f"{name}: {what} does not fit int32 (largest {np.abs(values).max():.3g})")
    return values.astype(np.int32)
