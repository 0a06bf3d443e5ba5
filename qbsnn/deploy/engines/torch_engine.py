"""The fast integer engine: QB-INT 1 in torch, all time steps of a weight layer at once.

Weight layers run as floating-point convolutions on integers, which are exact as long as no partial sum exceeds the
integers the format holds: the static bound of each layer decides between float32 (below 2^24, on a CPU), float64 (below
2^53) and refusal. Membranes are int32 where the static bound fits, else int64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qbsnn.deploy.convert.quantized import INT32_MAX, Quantized
from qbsnn.deploy.engines.neuron_step import NeuronKind, fired, leaked
from qbsnn.deploy.format.bounds import Bound, bounds, output_range
from qbsnn.deploy.format.network import IntBranch, IntegerNetwork, IntPool, IntStage, Overflow, Trace
from qbsnn.errors import DeployError
from qbsnn.functional.early_exit import leave
from qbsnn.functional.exact import exact_float, exact_for_sums, full_float32


class TorchEngine:
    """Runs a quantised network on ``device``."""

    def __init__(self, quantized: Quantized, device: torch.device | str = "cpu") -> None:
        self.net = quantized.net
        self.device = torch.device(device)
        self.bounds = bounds(quantized.net, quantized.current_bounds)
        self._weights: dict[int, Tensor] = {}

    @full_float32()
    def run(self, current: NDArray[np.int32]) -> Trace:
        """Spikes, membranes and logits for the input current J, int32 ``[T or 1, B, *first shape]``.

        Raises DeployError where J has another type or shape, or lies outside the bounds of an input.
        """
        seen = Overflows()
        spikes, membranes = [], []
        j = self._checked(torch.from_numpy(np.ascontiguousarray(current)).to(self.device))
        outputs: list[Tensor] = []
        for index, stage in enumerate(self.net.stages):
            s, v = self._stage(index, j, outputs, seen)
            outputs.append(s if stage.pool is None else self._pool(s, stage.pool))
            spikes.append(s.cpu().numpy())
            membranes.append(v.cpu().numpy())
        running = self._readout(outputs[self.net.readout.branch.source], seen)
        exits = None
        if self.net.exit_margin is not None:
            exits = torch.stack(leave(running, self.net.exit_margin)).cpu().numpy()
        return Trace(spikes, membranes, running[-1].cpu().numpy(), seen.count, seen.first, exits)

    def _checked(self, j: Tensor) -> Tensor:
        """J, which must have the network's shape and lie within the bound that everything behind it rests on."""
        steps, shape, most = self.net.T, self.net.stages[0].shape, self.bounds[0].accumulator
        if j.dtype != torch.int32:
            raise DeployError(f"the current J must be int32, got {j.dtype}")
        if j.dim() < 2 or j.shape[2:] != shape or len(j) not in (1, steps) or not j.numel():
            raise DeployError(f"the current J must be [{steps} or 1, B, {str(shape)[1:-1]}], got {tuple(j.shape)}")
        low, high = (int(end) for end in j.aminmax())
        if low < -most or high > most:
            raise DeployError(
                f"the current J must be within ±{most}, as it is for pixels in [0, 1] and frames in [0, 255], got "
                f"{low}..{high}"
            )
        return j

    def _stage(self, index: int, j: Tensor, outputs: Sequence[Tensor], seen: Overflows) -> tuple[Tensor, Tensor]:
        """Bursts and membranes of a stage, ``[T, B, *shape]``, from J and what left the stages before it."""
        bound = self.bounds[index]
        return self._neurons(index, self._accumulate(self.net.stages[index], j, outputs, bound), bound, seen)

    def _readout(self, x: Tensor, seen: Overflows) -> Tensor:
        """Z after each step, ``[T, B, classes]``."""
        readout = self.net.readout
        steps = self._contract(readout.branch, x).long() + torch.from_numpy(readout.bias.astype(np.int64)).to(x.device)
        running = steps.cumsum(0)
        for t in range(len(steps)):
            seen.add(t, len(self.net.stages), "readout", steps[t], running[t], INT32_MAX)
        return running

    def _accumulate(self, stage: IntStage, j: Tensor, outputs: Sequence[Tensor], bound: Bound) -> Tensor:
        """Σ q·s + b + Σ m·s of all steps, ``[T or 1, B, *shape]``."""
        dtype = torch.int32 if bound.accumulator <= INT32_MAX else torch.int64
        total = self._channels(stage.bias, stage).to(dtype)
        for branch in stage.branches:
            if branch.kind == "input":
                part = j
            elif branch.scale is not None:
                part = outputs[branch.source].to(dtype) * self._channels(branch.scale, stage).to(dtype)
            else:
                part = self._contract(branch, outputs[branch.source])
            total = total + part.to(dtype)
        return total

    def _neurons(self, index: int, total: Tensor, bound: Bound, seen: Overflows) -> tuple[Tensor, Tensor]:
        """The neuron equations over T, on sums ``[T or 1, B, *shape]``."""
        net, stage = self.net, self.net.stages[index]
        largest = register_max(net)
        reach = bound.membrane  # of V plus a step's sum
        if net.overflow != "error" and reach > largest:
            reach = largest + 1 + bound.accumulator
        needed = largest_value(stage, reach)
        if net.overflow == "wrap" and reach > largest:
            needed += 2 * (largest + 1)  # which wrapping adds or divides by
        total = total.to(torch.int64 if needed > INT32_MAX else torch.int32).expand(net.T, *total.shape[1:])
        theta = self._channels(stage.theta, stage).to(total.dtype)
        v = torch.zeros_like(total[0])
        kind = NeuronKind.of(stage)
        spikes = torch.empty(total.shape, dtype=kind.burst, device=self.device)
        membranes = torch.empty_like(total, memory_format=torch.contiguous_format)
        for t in range(net.T):
            v = leaked(stage.leak, v) + total[t]
            if reach > largest:
                seen.add(t, index, stage.name, total[t], v, largest)
                v = _fit(net, v)
            s, v = fired(kind, v, theta)
            spikes[t], membranes[t] = s, v
        return spikes, membranes

    def _contract(self, branch: IntBranch, x: Tensor) -> Tensor:
        """Σ q·s of a weight branch for spikes ``[T, B, ...]``, as exact integers (int32 or int64)."""
        weight = self._weight(branch)
        dtype = weight.dtype
        merged = x.flatten(0, 1).to(dtype)
        if branch.kind == "linear":
            y = merged.flatten(1) @ weight.T
        else:
            y = F.conv2d(merged, weight, None, branch.stride, branch.padding, groups=branch.groups)
        return y.unflatten(0, x.shape[:2]).to(torch.int32 if dtype == torch.float32 else torch.int64)

    def _weight(self, branch: IntBranch) -> Tensor:
        """The weights of a branch, once in the format in which its sums are exact."""
        if id(branch) not in self._weights:
            assert branch.weight is not None
            magnitude = np.abs(branch.weight.astype(np.int64)).reshape(len(branch.weight), -1).sum(1).max()
            dtype = exact_float(int(magnitude) * output_range(self.net, branch.source)[1], self.device)
            self._weights[id(branch)] = torch.from_numpy(branch.weight).to(self.device, dtype)
        return self._weights[id(branch)]

    def _pool(self, s: Tensor, pool: IntPool) -> Tensor:
        return pooled(s, pool)

    def _channels(self, values: NDArray[np.int32], stage: IntStage) -> Tensor:
        """Shape per-channel values to broadcast over ``[T, B, *shape]``."""
        return torch.from_numpy(values).to(self.device).view(-1, *[1] * (len(stage.shape) - 1))


class Overflows:
    """How many positions did not fit, and the earliest of them."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Overflow | None = None

    def add(self, step: int, index: int, stage: str, drive: Tensor, state: Tensor, largest: int) -> None:
        """Look at a step's sum, against int32, and at a state, against −largest − 1..largest, both ``[B, ...]``."""
        drive_out = (drive > INT32_MAX) | (drive < -INT32_MAX - 1)
        where = (drive_out | (state > largest) | (state < -largest - 1)).nonzero()
        if not len(where):
            return
        self.count += len(where)
        sample, *neuron = at = tuple(where[0].tolist())
        value = int((drive if bool(drive_out[at]) else state)[at])
        found = Overflow(step, index, sample, tuple(neuron), stage, value)
        self.first = found if self.first is None or found < self.first else self.first


def register_max(net: IntegerNetwork) -> int:
    """The largest V that the membrane register holds."""
    return 2 ** (net.membrane_bits - 1) - 1


def largest_value(stage: IntStage, reach: int) -> int:
    """The largest magnitude in the neuron equations where V plus a step's sum is at most ``reach``."""
    return max(reach + int(stage.theta.max()), reach * 4096 if stage.leak.kind == "mul12_to_zero" else 0)


def _fit(net: IntegerNetwork, v: Tensor) -> Tensor:
    """V in the membrane register, by the overflow policy."""
    half = 2 ** (net.membrane_bits - 1)
    if net.overflow == "saturate":
        return v.clamp(-half, half - 1)
    return torch.remainder(v + half, 2 * half) - half if net.overflow == "wrap" else v


def pooled(s: Tensor, pool: IntPool) -> Tensor:
    """Pool spikes ``[T, B, C, H, W]``; sums come back as int32."""
    merged = exact_for_sums(s.flatten(0, 1).float(), pool.kernel)
    if pool.kind == "max":
        out = F.max_pool2d(merged, pool.kernel, pool.stride, pool.padding).to(s.dtype)
    else:
        out = F.avg_pool2d(merged, pool.kernel, pool.stride, divisor_override=1).to(torch.int32)
    return out.unflatten(0, s.shape[:2])
