"""The weights of a checkpoint, taken over by a network that they must fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qbsnn.errors import CheckpointError, SettingsError
from qbsnn.models.network import SpikingNetwork


def load_weights(
    module: nn.Module, contents: dict[str, Any], path: Path, what: str = "the network of its configuration"
) -> None:
    """Load the weights of a checkpoint into the module.

    Args:
        module: takes them.
        contents: of the checkpoint.
        path: its file.
        what: must fit, for the message.

    Raises:
        CheckpointError: there are no weights, or a weight is no number.
        SettingsError: the checkpoint does not fit.
    """
    kept = contents.get("state_dict")
    if not isinstance(kept, Mapping):
        raise CheckpointError(f"checkpoint {path} holds no weights: it has no state_dict")
    for name, value in kept.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and not bool(value.isfinite().all()):
            wrong = int((~value.isfinite()).sum())
            raise CheckpointError(f"checkpoint {path}: {wrong} of {value.numel()} values of {name} are NaN or infinite")
    try:
        module.load_state_dict(kept)
    except (KeyError, RuntimeError) as error:
        first = misfit(module.state_dict(), kept) or " ".join(str(error).split())
        raise SettingsError(
            f"checkpoint {path} does not fit {what}: {first}. The settings of model, neuron, data and T must be those "
            "of the checkpoint"
        ) from error


def load_network(network: SpikingNetwork, contents: dict[str, Any], path: Path, **what: str) -> None:
    """As :func:`load_weights`, the weights of the network alone: whatever else was trained with them is left out."""
    kept = contents.get("state_dict")
    if isinstance(kept, Mapping):
        contents = {"state_dict": {name: value for name, value in kept.items() if name.startswith("network.")}}
    load_weights(nn.ModuleDict({"network": network}), contents, path, **what)


def misfit(wanted: Mapping[str, Any], kept: Mapping[str, Any]) -> str | None:
    """The first thing that weights lack, have too much or have in another shape, in words.

    >>> misfit({"a": torch.zeros(2, 3)}, {"a": torch.zeros(2, 4)})
    'a has the shape [2, 3] here and [2, 4] there'
    >>> misfit({"a": torch.zeros(2)}, {}), misfit({}, {"b": torch.zeros(2)})
    ('a [2] is missing there', 'b [2] is only there')
    """
    for name, value in wanted.items():
        if name not in kept:
            return f"{name}{_shape(value)} is missing there"
        if _shape(value) != _shape(kept[name]):
            return f"{name} has the shape{_shape(value)} here and{_shape(kept[name])} there"
    return next((f"{name}{_shape(value)} is only there" for name, value in kept.items() if name not in wanted), None)


def _shape(value: Any) -> str:
    return f" {list(value.shape)}" if isinstance(value, torch.Tensor) else ""
