"""Training on the grid: a network whose forward pass is QB-INT 1, with straight-through gradients.

All values of the forward pass are the integers of the deployed network, held exactly in floating point: float32 where a
bound proves them below 2^24, else float64 (below 2^53). So the network that was trained is the network that is
deployed: ``integers()`` of it runs, in any engine, to exactly the bursts of this forward pass. The backward pass is
that of the absorbed network: rounding passes gradients through, the burst has its neuron's surrogate at u = V/θ.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qbsnn.deploy.convert.quantize import convert
from qbsnn.deploy.convert.quantized import Quantized
from qbsnn.deploy.format.bounds import membrane_bound, output_range
from qbsnn.deploy.format.network import IntegerNetwork, IntStage, Leak
from qbsnn.functional.exact import exact_float, exact_for_sums, full_float32
from qbsnn.functional.surrogate import Surrogate
from qbsnn.layers.quantised import trained_weight
from qbsnn.layers.stage import INPUT, Branch, Stage
from qbsnn.models.network import SpikingNetwork, Tap
from qbsnn.neurons.base import SpikingNeuron


class _Through(torch.autograd.Function):
    """Forward: the exact value. Backward: the gradient goes to the smooth one."""

    @staticmethod
    def forward(ctx: Any, smooth: Tensor, exact: Tensor) -> Tensor:
        ctx.dtype = smooth.dtype
        return exact.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.to(ctx.dtype), None


class _IntegerBurst(torch.autograd.Function):
    """Forward: s of the stage's rounding, exact. Backward: the surrogate at the level that V is at, divided by θ."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, theta: Tensor, stage: IntStage, surrogate: Surrogate) -> Tensor:
        raised = v + (theta / 2).floor() if stage.rounding == "round" else v
        ctx.save_for_backward(raised, theta)
        ctx.stage, ctx.surrogate = stage, surrogate
        # the floor of an IEEE division is the exact ⌊V/θ⌋ here, and several times as fast as a floor division
        levels = raised / theta
        levels = levels.trunc_() if stage.rounding == "to_zero" else levels.floor_()
        return levels.clamp_(stage.s_min, stage.s_max)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        raised, theta = ctx.saved_tensors
        u = raised / theta
        if ctx.stage.rounding == "to_zero":
            u = u.abs() if ctx.stage.s_min < 0 else u
        elif ctx.stage.s_min < 0:
            u = torch.where(u < 0.5, 1 - u, u)  # the steps at 0, −1, ... mirror those at 1, 2, ...
        return ctx.surrogate(u, ctx.stage.s_max).mul_(grad).div_(theta), None, None, None


def through(smooth: Tensor, exact: Tensor) -> Tensor:
    """``exact`` with the gradient of ``smooth``; same shape."""
    return _Through.apply(smooth, exact) if smooth.requires_grad else exact


def leaked(leak: Leak, v: Tensor, decay: float) -> Tensor:
    """What the integer leak leaves of V, exact integers in floating point; the gradient is λ."""
    if leak.kind == "none":
        return v
    whole = v.detach()
    if leak.kind == "shift_floor":
        exact = whole - (whole * 2.0**-leak.amount).floor_()
    elif leak.kind == "shift_xylo":
        lost = (whole * 2.0**-leak.amount).floor_()
        exact = whole - torch.where(lost == 0, whole.sign(), lost)
    else:
        exact = torch.div(whole * (4096 - leak.amount), 4096, rounding_mode="trunc")
    return through(v * decay, exact)


def fitted(net: IntegerNetwork, v: Tensor) -> Tensor:
    """V in the membrane register by the overflow policy; a saturated V has no gradient."""
    half = 2 ** (net.membrane_bits - 1)
    if net.overflow == "saturate":
        return v.clamp(-half, half - 1)
    if net.overflow == "error":
        return v
    rest = torch.fmod(v.detach(), 2 * half)  # exact, and so is what follows: neither adds what a float would round
    return through(v, torch.where(rest >= half, rest - 2 * half, torch.where(rest < -half, rest + 2 * half, rest)))


class GridNetwork(SpikingNetwork):
    """Pixels ``[B, C, H, W]`` to logits ``[T, B, classes]``, computed as the deployed network computes them.

    Its parameters are the absorbed weights of ``quantized``, which are not changed; its grid is fixed. ``integers()``
    converts what has been learned. What ``trained``, the network before absorption, has frozen stays frozen: weights,
    and biases all of whose origins are.
    """

    def __init__(self, quantized: Quantized, trained: SpikingNetwork | None = None) -> None:
        shadow = copy.deepcopy(quantized.front)
        stages = {name: stage.requires_grad_(True) for name, stage in shadow.named_stages()}
        for stage in stages.values():
            for branch in stage.parts:
                if branch.gain is not None:
                    branch.gain.requires_grad_(False)
        for name, stage in trained.named_stages() if trained is not None else ():
            for own, origin in zip(stages[name].parts, stage.parts, strict=True):
                _freeze(own, origin)
        super().__init__(shadow.encoder, stages, shadow.T, shadow.in_shape, shadow.decision)
        self.origin = quantized
        self.numbers = {stage.name: i for i, stage in enumerate(quantized.net.stages)}
        device = next(shadow.parameters()).device
        for name, grid in quantized.plan.grids.items():
            stages[name].register_buffer("unit", torch.from_numpy(grid.unit).to(device), persistent=False)
            stages[name].register_buffer("theta", torch.from_numpy(grid.theta).double().to(device), persistent=False)

    def integers(self) -> Quantized:
        """The deployed network with the weights as they are now."""
        origin = self.origin
        front = copy.deepcopy(origin.front)
        front.load_state_dict(self.state_dict())
        return convert(front.to(next(self.parameters()).device), origin.plan, origin.settings)

    def forward(self, pixels: Tensor, tap: Tap | None = None) -> Tensor:
        """Logits of every time step: the step's Σ q·s + b over the readout's scale."""
        encoded = self.encoder(pixels)
        if tap is not None:
            tap(INPUT, encoded)
        return self.trace(encoded, tap)[0].float()

    def trace(self, encoded: Tensor, tap: Tap | None = None) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Logits in float64; bursts before pooling and membranes after the reset of every stage, ``[T, B, ...]``."""
        bursts: list[Tensor] = []
        membranes: list[Tensor] = []

        def visit(name: str, stage: Stage, inputs: list[Tensor]) -> Tensor:
            if stage.neuron is None:
                return self._readout(stage, inputs)
            s, v = self._spiking(name, stage, inputs)
            bursts.append(s)
            membranes.append(v)
            pool = self.origin.net.stages[self.numbers[name]].pool
            emitted = stage.emit(s if pool is None else exact_for_sums(s, pool.kernel))
            if tap is not None:
                tap(name, emitted)
            return emitted

        with full_float32():  # half precision would not be exact, and J must be the deployed network's
            return self.walk(encoded, visit), bursts, membranes

    def _spiking(self, name: str, stage: Stage, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        net = self.origin.net
        plan = net.stages[self.numbers[name]]
        theta, neuron = stage.get_buffer("theta"), stage.neuron
        assert isinstance(neuron, SpikingNeuron)
        if plan.branches[0].kind == "input":
            current = stage.parts[0](inputs[0])
            r = _channels(theta, current)
            total = through(current * r.to(current), (current.detach().double() * r).round())
        else:
            total = self._sums(plan, stage, inputs)
        level = _channels(theta, total)[0].to(total)
        v = torch.zeros_like(total[0])
        bursts, membranes = [], []
        for step in total.expand(net.T, *total.shape[1:]).unbind(0):
            v = fitted(net, leaked(plan.leak, v, float(neuron.decay)) + step)
            s = _IntegerBurst.apply(v, level, plan, neuron.surrogate)
            v = v * (s.detach() == 0) if plan.reset == "hard" else v - level * s.detach()
            bursts.append(s)
            membranes.append(v)
        return torch.stack(bursts), torch.stack(membranes)

    def _sums(self, plan: IntStage, stage: Stage, inputs: list[Tensor]) -> Tensor:
        """Σ q·s + b + Σ m·s ``[T, B, ...]`` of a stage that spikes feed, exact, in the format its neurons need."""
        unit = stage.get_buffer("unit")
        q_max = self.origin.settings.q_max
        layers = [part.weight for part in stage.parts if part.weight is not None]
        bias = torch.stack([layer.bias.double() for layer in layers if layer.bias is not None]).sum(0)
        b = through(bias * unit, (bias.detach() * unit).round())
        factors = [_factor(part, unit, q_max) for part in stage.parts]
        ranges = [output_range(self.origin.net, branch.source)[1] for branch in plan.branches]
        sizes = [f.detach().abs().reshape(len(f), -1).sum(1) * a for f, a in zip(factors, ranges, strict=True)]
        accumulator = int((torch.stack(sizes).sum(0) + b.detach().abs()).max())
        reach = membrane_bound(plan, accumulator, self.T) + accumulator + int(plan.theta.max())
        dtype = exact_float(reach * (4096 if plan.leak.kind == "mul12_to_zero" else 1), unit.device)
        terms = [
            _apply(part, f.to(dtype), x.to(dtype)) for part, f, x in zip(stage.parts, factors, inputs, strict=True)
        ]
        return sum(terms[1:], terms[0]) + _channels(b, terms[0]).to(dtype)

    def _readout(self, stage: Stage, inputs: list[Tensor]) -> Tensor:
        (branch,), (x,) = stage.parts, inputs
        scale = self.origin.plan.scale
        assert branch.weight is not None and branch.weight.bias is not None
        unit = torch.full((len(branch.weight.bias),), scale, dtype=torch.float64, device=x.device)
        q = _factor(branch, unit, self.origin.settings.q_max)
        b = through(branch.weight.bias.double() * scale, (branch.weight.bias.detach().double() * scale).round())
        return (_apply(branch, q, x.double()) + b) / scale


def _freeze(own: Branch, origin: Branch) -> None:
    """Freeze of an absorbed branch what was frozen in the one that it comes from."""
    layer = origin.weight
    if own.weight is None or own.weight.bias is None or layer is None:
        return
    own.weight.weight.requires_grad_(trained_weight(layer).requires_grad)
    origins = [bias for bias in (layer.bias, getattr(origin.norm, "bias", None)) if bias is not None]
    own.weight.bias.requires_grad_(not origins or any(bias.requires_grad for bias in origins))


def _factor(branch: Branch, unit: Tensor, q_max: int) -> Tensor:
    """What one spike is worth, as float64 integers: q of weights, ``[O, ...]``, or m of a shortcut, ``[O]``."""
    if branch.weight is None:
        assert branch.gain is not None, "absorb() sets the gain of identity shortcuts"
        return (branch.gain.double().flatten() * unit).round()
    weight = branch.weight.weight
    smooth = (weight.double() * unit.view(-1, *[1] * (weight.dim() - 1))).clamp(-q_max - 0.5, q_max + 0.5)
    return through(smooth, smooth.detach().round().clamp(-q_max, q_max))


def _apply(branch: Branch, factor: Tensor, x: Tensor) -> Tensor:
    """Σ q·s or m·s for spikes x ``[T, B, ...]``."""
    layer = branch.weight
    if layer is None:
        return x * _channels(factor, x)
    merged = x.flatten(0, 1)
    if isinstance(layer, nn.Linear):
        y = merged.flatten(1) @ factor.T
    else:
        y = F.conv2d(merged, factor, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return y.unflatten(0, x.shape[:2])


def _channels(values: Tensor, like: Tensor) -> Tensor:
    """Shape values ``[O]`` to broadcast over ``[T, B, O, ...]``; with two leading dimensions of 1 to index away."""
    return values.view(1, 1, -1, *[1] * (like.dim() - 3))
