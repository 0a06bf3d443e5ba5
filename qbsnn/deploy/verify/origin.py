"""Whether a quantised network is what a trained one became: it is made a second time and compared, field by field."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qbsnn.deploy.convert.quantize import convert
from qbsnn.deploy.convert.quantized import Quantized
from qbsnn.deploy.verify.traces import identical
from qbsnn.errors import ArgumentError, DeployError
from qbsnn.models.network import SpikingNetwork


def check_origin(absorbed: SpikingNetwork, quantized: Quantized) -> None:
    """Check that an absorbed network, rounded to the grid of a quantised one, is that one.

    Raises:
        ArgumentError: it is another one; the message says where they differ first.
    """
    if (difference := _difference(absorbed, quantized)) is not None:
        raise ArgumentError(
            f"quantized must be what quantize(absorb(network)) makes of this network, got another one's: {difference}"
        )


def _difference(absorbed: SpikingNetwork, quantized: Quantized) -> str | None:
    """Where the two differ first, in words; an exit margin is chosen later and does not count."""
    front, own = quantized.front, dict(absorbed.named_stages())
    others = dict(front.named_stages())
    if list(own) != list(others):
        return f"its stages are {', '.join(others)}, those of the network {', '.join(own)}"
    for what in ("T", "in_shape"):
        if getattr(absorbed, what) != getattr(front, what):
            return f"{what} = {getattr(front, what)}, that of the network is {getattr(absorbed, what)}"
    if absorbed.encoder.coding != front.encoder.coding or not _equal(absorbed.encoder, front.encoder):
        return "encoder: its coding, mean or std is another one"
    for name, stage in own.items():
        if type(stage.neuron) is not type(others[name].neuron) or _sizes(stage) != _sizes(others[name]):
            return f"{name}: its neuron or the size of its weights is another one"
    try:
        made = convert(absorbed, quantized.plan, quantized.settings)
    except DeployError as error:
        return str(error)
    name = next(iter(own))
    if not _equal(made.front.stages[name], others[name]):
        return f"{name}: its weights or their strides are other ones"
    net, right = replace(quantized.net, exit_margin=None), made.net
    if len(net.stages) != len(right.stages):
        return f"it has {len(net.stages)} stages with neurons, the network {len(right.stages)}"
    parts = zip([*net.stages, net.readout], [*right.stages, right.readout], [*made.plan.grids, "readout"], strict=True)
    for found, expected, name in parts:
        if not identical(found, expected):
            return f"{name}: its weights, thresholds or neurons are other ones"
    for what in ("T", "membrane_bits", "overflow"):
        if getattr(net, what) != getattr(right, what):
            return f"{what} = {getattr(net, what)}, from its settings follows {getattr(right, what)}"
    return None


def _sizes(module: torch.nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in module.state_dict().items()}


def _equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Whether two modules are built alike and hold the same values."""
    values: dict[str, Tensor] = b.state_dict()
    alike = repr(a) == repr(b) and _sizes(a) == _sizes(b)
    return alike and all(torch.equal(value, values[name]) for name, value in a.state_dict().items())
