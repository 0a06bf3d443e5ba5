"""Weights that are quantised in training."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import parametrize

from qbsnn.functional.parameters import quantise_weight


class WeightQuantiser(nn.Module):
    """A parametrization that keeps a weight ``[O, ...]`` on a grid of ``bits`` bits per output channel, eq. (Q1).

    per_tensor: one grid for all outputs, as the readout needs it, whose classes are compared with one another.
    """

    def __init__(self, bits: int, per_tensor: bool = False) -> None:
        super().__init__()
        self.bits, self.per_tensor = bits, per_tensor

    def forward(self, weight: Tensor) -> Tensor:
        """The weight on its grid, with the gradient of the identity."""
        if self.per_tensor:
            return quantise_weight(weight.flatten().unsqueeze(0), self.bits).view_as(weight)
        return quantise_weight(weight, self.bits)


def quantise(layer: nn.Module, bits: int, per_tensor: bool = False) -> None:
    """Make ``layer.weight`` a quantised weight, in place, if it is none yet; the optimiser has the real-valued one."""
    known = layer.parametrizations["weight"] if parametrize.is_parametrized(layer, "weight") else ()  # type: ignore[index]
    if any(isinstance(part, WeightQuantiser) for part in known):
        return
    parametrize.register_parametrization(layer, "weight", WeightQuantiser(bits, per_tensor))


def trained_weight(layer: nn.Module) -> nn.Parameter:
    """What the optimiser changes: ``layer.weight``, or the real-valued one that a quantised weight is computed from."""
    quantised = parametrize.is_parametrized(layer, "weight")
    return layer.parametrizations["weight"].original if quantised else layer.weight  # type: ignore[index,union-attr,return-value]


def plain(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """A layer of the same sizes, on the same device and in the same dtype, whose weight is a parameter of its own.

    torch cannot remove a parametrization from a copied module without breaking the original.
    """
    place = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        new: nn.Conv2d | nn.Linear = nn.utils.skip_init(nn.Linear, layer.in_features, layer.out_features, bias, **place)
    else:
        new = nn.utils.skip_init(
            nn.Conv2d, layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
            layer.dilation, layer.groups, bias, layer.padding_mode, **place,
        )  # fmt: skip
    return new.train(layer.training)
