"""Quantized burst spiking networks: train them, absorb their scales, prove the integer network.

Everything below is imported on first use, so that ``import qbsnn`` costs nothing.

>>> import qbsnn
>>> qbsnn.QBLIF(s_max=4).s_max
4
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qbsnn import results
    from qbsnn.cli.checkpoints import load
    from qbsnn.deploy.convert.absorb import absorb
    from qbsnn.deploy.convert.quantize import quantize
    from qbsnn.deploy.convert.settings import DeploySettings
    from qbsnn.deploy.verify.integer import verify
    from qbsnn.models.fast import fast
    from qbsnn.models.mlp import mlp
    from qbsnn.models.network import SpikingNetwork
    from qbsnn.models.resnet import resnet
    from qbsnn.models.vgg import vgg
    from qbsnn.neurons import (
        IF,
        ILIF,
        LIF,
        PLIF,
        QATQBLIF,
        QBLIF,
        AdaptiveQB,
        BurstLIF,
        MultiCompartment,
        QuantReLU,
        ReLU,
        TernaryBurst,
    )

__version__ = "0.1.0"

__all__ = [
    "IF",
    "ILIF",
    "LIF",
    "PLIF",
    "QATQBLIF",
    "QBLIF",
    "AdaptiveQB",
    "BurstLIF",
    "DeploySettings",
    "MultiCompartment",
    "QuantReLU",
    "ReLU",
    "SpikingNetwork",
    "TernaryBurst",
    "absorb",
    "fast",
    "load",
    "mlp",
    "quantize",
    "resnet",
    "results",
    "verify",
    "vgg",
]

_HOMES = {
    "absorb": "qbsnn.deploy.convert.absorb",
    "DeploySettings": "qbsnn.deploy.convert.settings",
    "load": "qbsnn.cli.checkpoints",
    "quantize": "qbsnn.deploy.convert.quantize",
    "verify": "qbsnn.deploy.verify.integer",
    **dict.fromkeys(("SpikingNetwork", "fast", "mlp", "resnet", "vgg"), "qbsnn.models"),
}
"""Where a name is at home; all others are neurons."""


def __getattr__(name: str) -> Any:
    """Import a public name, or a module of the package, when it is first asked for."""
    if name in __all__ and name != "results":
        value = getattr(importlib.import_module(_HOMES.get(name, "qbsnn.neurons")), name)
    else:
        try:
            value = importlib.import_module(f"qbsnn.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"qbsnn.{name}":
                raise
            raise AttributeError(f"module 'qbsnn' has no attribute {name!r}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
