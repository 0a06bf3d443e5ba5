"""What folds: the one list of layers, norms and pools that absorption takes apart; all else is refused by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

from qbsnn.errors import DeployError
from qbsnn.layers.norm import BatchNorm1d, BatchNorm2d, TDBatchNorm
from qbsnn.layers.quantised import WeightQuantiser
from qbsnn.layers.stage import Branch, Stage
from qbsnn.models.network import SpikingNetwork
from qbsnn.neurons.base import Neuron, SpikingNeuron, steps_anew

WEIGHTS: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.Linear)
NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, BatchNorm1d, BatchNorm2d, TDBatchNorm)
POOLS: tuple[type[nn.Module], ...] = (nn.MaxPool2d, nn.AvgPool2d)
"""Classes themselves: a subclass may compute something else."""


def check_foldable(network: SpikingNetwork) -> None:
    """Raise a DeployError for the first stage that does not fold, with its name and the reason."""
    owners: dict[int, str] = {}
    _check_class("network", network, SpikingNetwork)
    _check_hooks("network", [network])
    *_, (last, _) = network.named_stages()
    for name, stage in network.named_stages():
        if stage.neuron is None and name != last:
            raise DeployError(f"{name}: it has no neuron, and only the last stage, which reads out, may have none")
        for module in (stage, *stage.parts):
            other = owners.setdefault(id(module), name)
            if other != name or list(stage.parts).count(module) > 1:  # type: ignore[arg-type]
                what = "branches" if isinstance(module, Branch) else "stage"
                raise DeployError(f"{name}: shares its {what} with {other}, and what is folded must have one neuron")
        _check_class(name, stage, Stage)
        for branch in stage.parts:
            _check_class(name, branch, Branch)
            if (reason := _why_branch_not(branch)) is not None:
                raise DeployError(f"{name}: {reason}")
        _check_hooks(name, stage.modules())
        if (reason := why_pool_not(stage.pool)) is not None:
            raise DeployError(f"{name}: {reason}")
        layers = [branch.weight for branch in stage.parts if branch.weight is not None]
        if len({_outputs(layer) for layer in layers}) > 1:
            found = " and ".join(f"{_kind(layer).__name__} to {_outputs(layer)[0]}" for layer in layers)
            raise DeployError(f"{name}: its branches must put out as many channels as one another, got {found}")
        if stage.neuron is not None:
            neuron = spiking(name, stage.neuron)
            if (reason := _why_neuron_not(neuron, {_outputs(layer) for layer in layers})) is not None:
                raise DeployError(f"{name}: {reason}")


def _check_class(name: str, module: nn.Module, base: type[nn.Module]) -> None:
    """Raise a DeployError where a module, or its class below ``base``, replaces what ``base`` computes."""
    order = type(module).__mro__
    if base not in order:
        raise DeployError(f"{name}: {type(module).__name__} is no {base.__name__}")
    computes = {each for each in vars(base) if not each.startswith("__")} - {"extra_repr"} | {"__call__"}
    for place in (vars(module), *map(vars, order[: order.index(base)])):
        for each in place:
            if each in computes:
                raise DeployError(
                    f"{name}: {type(module).__name__} has a {each} of its own, and what folds is what a "
                    f"{base.__name__} computes"
                )


def _check_hooks(name: str, modules: Iterable[nn.Module]) -> None:
    """Raise a DeployError for a hook that could change what a module computes, and that folding would lose."""
    for module in modules:
        if module._forward_hooks or module._forward_pre_hooks:
            raise DeployError(
                f"{name}: its {type(module).__name__} has a forward hook, which folding would lose; call remove() of "
                "what registered it first"
            )


def _kind(layer: nn.Module) -> type[nn.Module]:
    return parametrize.type_before_parametrizations(layer)


def _outputs(layer: nn.Conv2d | nn.Linear) -> tuple[int, ...]:
    """The shape of one number per output that broadcasts over what the layer puts out, ``(C, 1, 1)`` or ``(F,)``."""
    return (layer.out_features,) if isinstance(layer, nn.Linear) else (layer.out_channels, 1, 1)


def _why_neuron_not(neuron: SpikingNeuron, outputs: set[tuple[int, ...]]) -> str | None:
    """Why a neuron does not fold into weights with these outputs; ``None`` if it does."""
    decay = neuron.decay
    if isinstance(decay, Tensor) and decay.numel() != 1 and type(neuron).absorbed is SpikingNeuron.absorbed:
        return f"its λ must be one number, as the leak of an integer stage is, got one of shape {list(decay.shape)}"
    scales = {"Δ": neuron.scale(), "emission scale": neuron.emission_scale()}
    for right in outputs:
        for what, scale in scales.items():
            if scale.numel() != 1 and scale.shape != right:
                return (
                    f"its {what} must be one number or {list(right)}, one per channel, got {list(scale.shape)}; "
                    "size_to((C, H, W)) of the neuron must hear the shape of one sample's current"
                )
    return None


def spiking(name: str, neuron: nn.Module) -> SpikingNeuron:
    """The neuron, or a DeployError where it has no integer form or does not say whether it has one."""
    reason = neuron.no_integer_form if isinstance(neuron, Neuron) else "is no neuron of qbsnn"
    if reason is None and steps_anew(type(neuron), "absorbed", "no_integer_form"):
        reason = "computes a step of its own and does not say, by absorbed() or no_integer_form, what becomes of it"
    if reason is not None or not isinstance(neuron, SpikingNeuron):
        raise DeployError(f"{name}: {type(neuron).__name__} {reason}, so it has no absorbed and no integer form")
    return neuron


def why_norm_not(norm: nn.Module | None) -> str | None:
    """Why a norm does not fold into the weights before it; ``None`` if it does."""
    if norm is None:
        return None
    if isinstance(norm, nn.GroupNorm):
        return "layer norm divides by the deviation of each sample, which no constant weight can do"
    if type(norm) not in NORMS:
        return f"{type(norm).__name__} is none of {_names(NORMS)}"
    assert isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d))
    if not norm.affine:
        return "it has affine=False, so no γ and β; build it with affine=True"
    if not norm.track_running_stats or norm.running_mean is None:
        return "it has track_running_stats=False, so it divides by the deviation of each batch"
    return None


def why_pool_not(pool: nn.Module | None) -> str | None:
    """Why a pool between spikes and weights does not fold; ``None`` if it does."""
    if pool is None:
        return None
    if type(pool) not in POOLS:
        return f"a {type(pool).__name__} between spikes and weights cannot be folded, but {_names(POOLS)}"
    if isinstance(pool, nn.MaxPool2d):
        if pair(pool.dilation) != (1, 1) or pool.ceil_mode or pool.return_indices:
            return (
                "max pooling folds without dilation, ceil_mode and return_indices only, got "
                f"dilation={pool.dilation}, ceil_mode={pool.ceil_mode}, return_indices={pool.return_indices}"
            )
        return None
    assert isinstance(pool, nn.AvgPool2d)
    if pool.ceil_mode or (not pool.count_include_pad and pair(pool.padding) != (0, 0)):
        return "average pooling folds only with a constant divisor; ceil_mode must be False and count_include_pad True"
    return None


def pair(value: int | str | tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of a size given as one or two integers."""
    assert not isinstance(value, str), value
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def pool_divisor(name: str, stage: Stage) -> int:
    """By what a stage's pool divides the sum of its window: 1 for a max pool or none."""
    pool = stage.pool
    if (reason := why_pool_not(pool)) is not None:
        raise DeployError(f"{name}: {reason}")
    if not isinstance(pool, nn.AvgPool2d):
        return 1
    kernel = pair(pool.kernel_size)
    return pool.divisor_override or kernel[0] * kernel[1]


def _why_branch_not(branch: Branch) -> str | None:
    if branch.temporal is not None:
        return "TEBN scales every step by its own factor, which one set of weights cannot hold"
    if (reason := why_norm_not(branch.norm)) is not None:
        return f"its norm cannot be folded: {reason}"
    layer = branch.weight
    if layer is None:
        return None
    kind = _kind(layer)
    if kind not in WEIGHTS:
        return f"a {kind.__name__} cannot be folded, but {_names(WEIGHTS)}"
    if parametrize.is_parametrized(layer):
        parts = cast("nn.ModuleDict", layer.parametrizations)
        others = [part for each in parts.values() for part in cast("nn.ModuleList", each)]
        strange = [type(part).__name__ for part in others if not isinstance(part, WeightQuantiser)]
        if strange:
            return f"its weight is parametrized by {strange[0]}; remove it with leave_parametrized=True"
    for what in ("weight", "bias"):
        plain = what in layer._parameters or parametrize.is_parametrized(layer, what)
        if not plain:
            return f"its {what} is made by a hook; torch.nn.utils.prune.remove(layer, {what!r}) makes pruning final"
    if isinstance(layer, nn.Conv2d) and isinstance(layer.padding, str):
        return f"its convolution pads with {layer.padding!r}: give the padding as numbers"
    if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        return f"its convolution pads with {layer.padding_mode!r}; only zeros stand for no spikes"
    return None


def _names(classes: tuple[type[nn.Module], ...]) -> str:
    return " and ".join(dict.fromkeys(cls.__name__ for cls in classes))
