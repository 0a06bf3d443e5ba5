"""The choices of a conversion: the grid of every layer and the integer leak of every neuron."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qbsnn.deploy.convert.calibration import branch_inputs
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.deploy.convert.thresholds import Floats, Grid, Plan, power_of_two_theta, search, search_scale
from qbsnn.deploy.format.network import Leak
from qbsnn.errors import DeployError
from qbsnn.layers.stage import INPUT, Branch, Stage
from qbsnn.models.network import SpikingNetwork
from qbsnn.neurons.base import FixedBurst


def make_plan(absorbed: SpikingNetwork, settings: DeploySettings, calibration: Tensor | None = None) -> Plan:
    """Choose the grid of every layer; that of the analog first one is a power of two as if its weights had 8 bits."""
    if absorbed.decision != "mean":
        raise DeployError(
            f"readout: QB-INT 1 adds up the logits of all steps; model.decision={absorbed.decision} has no integer form"
        )
    searched = settings.theta == "integer"
    inputs = branch_inputs(absorbed, calibration) if searched and calibration is not None else {}
    grids: dict[str, Grid] = {}
    scale = None
    for name, stage in absorbed.named_stages():
        _check_branches(name, stage)
        limit = 0 if stage.neuron is None else _largest_theta(name, stage, settings)
        weights, bias = weights_and_bias(stage)
        if stage.neuron is None:
            scale = _readout_scale(name, weights[0], bias, settings, inputs.get(name, [None])[0], searched)
        elif searched and INPUT not in stage.sources:
            grids[name] = search(weights, bias, settings.q_max, limit, inputs.get(name))
        else:
            largest = np.max([np.abs(w).reshape(len(w), -1).max(1) for w in weights], axis=0)
            theta = power_of_two_theta(largest, 127 if INPUT in stage.sources else settings.q_max, limit)
            grids[name] = Grid(theta, theta.astype(np.float64))
    if scale is None or not grids:
        raise DeployError("the network needs at least one spiking stage and a readout")
    return Plan(grids, scale)


def _check_branches(name: str, stage: Stage) -> None:
    """Raise a DeployError where a stage has not the branches with weights that QB-INT 1 asks for."""
    layers = [branch for branch in stage.parts if branch.weight is not None]
    if stage.neuron is not None and not layers:
        raise DeployError(
            f"{name}: QB-INT 1 takes the thresholds of a stage from its weights, and its branches have none"
        )
    if stage.neuron is None and (len(stage.parts) > 1 or not layers):
        found = f"{len(stage.parts)} branches" if len(stage.parts) > 1 else "a branch without"
        raise DeployError(f"{name}: QB-INT 1 reads out by one layer of weights, got {found}")


def _largest_theta(name: str, stage: Stage, settings: DeploySettings) -> int:
    s_max = fixed_neuron(name, stage).s_max
    limit = settings.largest_theta(s_max)
    if not limit:
        raise DeployError(
            f"{name}: a membrane must hold twice the largest burst: s_max = {s_max} needs deploy.membrane_bits of at "
            f"least {s_max.bit_length() + 2}, got {settings.membrane_bits}"
        )
    return limit


def leak_of(name: str, decay: float, steps: int, kind: str = "auto", profile: str | None = None) -> Leak:
    """The integer leak of a neuron with decay λ = 1 − 1/τ; ``kind`` as in :class:`DeploySettings`, or of a profile.

    None where λ = 1, or where one step leaves nothing to leak. Raises DeployError where τ has no such leak.

    >>> [leak_of("x", 1 - 1 / tau, 4) for tau in (2.0, 3.0)]
    [Leak(kind='shift_floor', amount=1), Leak(kind='mul12_to_zero', amount=1365)]
    """
    if decay == 1 or steps == 1:
        return Leak("none", 0)
    tau = 1 / (1 - decay)
    power = round(math.log2(tau))
    shift = power if math.isclose(2.0**power, tau, rel_tol=1e-6) else None
    setting = f"profile={profile}" if profile else f"leak={kind}"
    if kind == "none":
        raise DeployError(f"{name}: its neurons leak (tau = {tau:g}), and {setting} has no leak")
    if kind in ("shift_floor", "shift_xylo") and shift is None:
        raise DeployError(f"{name}: {setting} shifts, so tau must be a power of two (1, 2, 4, ...), got tau = {tau:g}")
    if kind == "shift_xylo":
        return Leak("shift_xylo", shift or 0)
    if shift is not None and kind != "mul12_to_zero":
        return Leak("shift_floor", shift)
    return Leak("mul12_to_zero", round(4096 / tau))


def fixed_neuron(name: str, stage: Stage) -> FixedBurst:
    """The absorbed neuron of a stage, or a DeployError."""
    if not isinstance(stage.neuron, FixedBurst):
        raise DeployError(f"{name}: {type(stage.neuron).__name__} is not absorbed; call absorb(network) first")
    return stage.neuron


def _readout_scale(
    name: str,
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
    settings: DeploySettings,
    inputs: Floats | None,
    searched: bool,
) -> float:
    """One scale for all classes: the largest weight becomes ±q_max, or what a search finds."""
    largest = float(np.abs(weight).max())
    if not largest > 0:
        raise DeployError(f"{name}: all weights of the readout are 0")
    return search_scale(weight, bias, settings.q_max, inputs) if searched else settings.q_max / largest


def weights_and_bias(stage: Stage) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
    """The weights of the branches that have some, and the sum of their biases ``[O]``."""
    found = [weight_and_bias(branch) for branch in stage.parts if branch.weight is not None]
    return [weight for weight, _ in found], np.sum([bias for _, bias in found], axis=0)


def weight_and_bias(branch: Branch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight ``[O, ...]`` and bias ``[O]`` of an absorbed branch."""
    assert branch.weight is not None and branch.weight.bias is not None, "absorb() gives every layer a bias"
    return array(branch.weight.weight), array(branch.weight.bias)


def array(tensor: Tensor) -> NDArray[np.float64]:
    """A tensor as float64."""
    return tensor.detach().double().cpu().numpy()
