"""Absorption: norms and scales folded into weights, so that every neuron emits integers at Δ = 1.

Equations (F1) to (F4), with c the emission scale of each branch's own source. Exact in real arithmetic, because leak,
reset and clamp are positively homogeneous, (H1).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from qbsnn.deploy.convert.folding import check_foldable, pool_divisor, spiking
from qbsnn.errors import ArgumentError, DeployError
from qbsnn.functional.fold import absorb_scale, fold_norm
from qbsnn.layers.norm import affine
from qbsnn.layers.quantised import plain
from qbsnn.layers.stage import INPUT, Branch
from qbsnn.models.network import SpikingNetwork
from qbsnn.neurons.base import SpikingNeuron


def absorb(network: SpikingNetwork) -> SpikingNetwork:
    """A new network that emits the same bursts, with Δ = 1, integer outputs and no norms. The argument is not changed.

    Folding is computed in float64 and rounded once to the weights' dtype.

    Args:
        network: A trained network.

    Returns:
        A network in evaluation mode, whose parameters want no gradients.

    Raises:
        ArgumentError: ``network`` is another kind of module.
        DeployError: A neuron, a norm or a pool, which is named, has no integer form, or a Δ is not known yet.
    """
    check_foldable(checked_network(network))
    for name, _, sender in network.spiking_stages():
        if (module := sender.delta_module) is not None and module.waits and bool(module.pending):
            raise DeployError(f"{name}: its Δ still waits for the first training batch (init=percentile): train first")
    scales = emission_scales(network)
    new = copy.deepcopy(network).eval().requires_grad_(False)
    dtype = next(new.parameters()).dtype
    for name, stage in new.named_stages():
        neuron = stage.neuron
        delta = torch.ones((), dtype=torch.float64) if neuron is None else spiking(name, neuron).scale().double()
        for branch in stage.parts:
            _absorb_branch(name, branch, scales[branch.source], delta, dtype)
        if isinstance(neuron, SpikingNeuron):
            stage.neuron = neuron.absorbed().to(neuron.scale()).eval()
        if isinstance(stage.pool, nn.AvgPool2d):
            pool = stage.pool
            stage.pool = nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, divisor_override=1)
    return new


def checked_network(network: object, name: str = "network") -> SpikingNetwork:
    """The network, or an ArgumentError where it is none."""
    if not isinstance(network, SpikingNetwork):
        raise ArgumentError(
            f"{name} must be a SpikingNetwork, as the functions of qbsnn.models build it (or by hand: docs/python.md), "
            f"got {type(network).__name__}"
        )
    return network


def emission_scales(network: SpikingNetwork) -> dict[str, Tensor]:
    """What one unit of each stage's integer output is worth in the trained network, pool included.

    float64; scalars, or one per channel that broadcasts over the output, ``[C, 1, 1]`` or ``[F]``.
    """
    scales = {INPUT: torch.ones((), dtype=torch.float64)}
    for name, stage in network.named_stages():
        if stage.neuron is not None:
            emitted = spiking(name, stage.neuron).emission_scale().detach().double()
            scales[name] = emitted / pool_divisor(name, stage)
    return scales


def _absorb_branch(name: str, branch: Branch, source: Tensor, delta: Tensor, dtype: torch.dtype) -> None:
    """Fold norm and scales into one branch, in place."""
    layer = branch.weight
    if layer is None:
        gain = 1 if branch.gain is None else branch.gain.double()
        branch.gain = (gain * source.to(delta) / delta).to(dtype)
        return
    weight = layer.weight.double()
    bias = layer.bias.double() if layer.bias is not None else weight.new_zeros(weight.shape[0])
    if isinstance(branch.norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
        mean, var, eps, gamma, beta = affine(branch.norm)
        weight, bias = fold_norm(weight, bias, mean.double(), var.double(), eps, gamma.double(), beta.double())
        branch.norm = None
    weight, bias = absorb_scale(weight, bias, source.to(weight), delta.to(weight), getattr(layer, "groups", 1))
    weight, bias = weight.to(dtype), bias.to(dtype)
    if not (bool(weight.isfinite().all()) and bool(bias.isfinite().all())):
        raise DeployError(f"{name}: its weights, norm or scale are infinite or no number, or their quotient is")
    branch.weight = plain(layer)
    branch.weight.weight = nn.Parameter(weight, requires_grad=False)
    branch.weight.bias = nn.Parameter(bias, requires_grad=False)
