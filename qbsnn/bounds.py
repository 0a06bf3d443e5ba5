"""Bounds of the arguments that settings give to neurons, networks, data sets and optimisers.

They stand apart from the classes that take the arguments, so that a wrong setting is answered before PyTorch is
imported. The constructors of this project check by the same fields: a bound stands here alone, a default in the
signature alone. What a registry decides (the names of surrogates, norms and so on) is checked by its constructor.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qbsnn.checked import explained
from qbsnn.errors import ArgumentError

BUDGET_TOLERANCE = 0.05
"""The share by which a budget may be exceeded and still counts as kept."""


class Bounds(BaseModel):
    """Base of the bounds of a group of arguments. A field says what one argument may be; none of them has a default.

    >>> class Sizes(Bounds):
    ...     images: int = Field(ge=1)
    >>> Sizes.check("images", 3)
    3
    >>> Sizes.check("images", 0)
    Traceback (most recent call last):
    ...
    qbsnn.errors.ArgumentError: images must be an integer of at least 1, got 0
    """

    model_config = ConfigDict(strict=True, validate_assignment=True, allow_inf_nan=False)

    @classmethod
    def check(cls, name: str, value: Any) -> Any:
        """One argument as a plain value, numpy's numbers too.

        Raises:
            ArgumentError: it is of another type or out of bounds; the message begins with its name.
        """
        if isinstance(value, Real) and not isinstance(value, bool):
            value = int(value) if isinstance(value, Integral) else float(value)
        group = cls.model_construct()
        try:
            setattr(group, name, value)
        except ValidationError as error:
            raise ArgumentError(explained(cls, error.errors()[0])) from None
        return getattr(group, name)

    @classmethod
    def check_known(cls, given: Mapping[str, Any]) -> None:
        """Check those of some arguments that have a field here.

        Raises:
            ArgumentError: one of them is of another type or out of bounds.
        """
        for name, value in given.items():
            if name in cls.model_fields:
                cls.check(name, value)


class NeuronBounds(Bounds):
    """Of every neuron."""

    s_max: int = Field(ge=1, le=127)
    tau: float = Field(ge=1, allow_inf_nan=True)  # infinite: no leak
    learn_tau: bool
    delta: float = Field(gt=0)
    learn_delta: bool
    granularity: Literal["layer", "channel"]
    lsq: bool
    init: Literal["fixed", "percentile"]
    percentile: float = Field(gt=0, le=100)
    output: Literal["counts", "graded"]
    beta: float = Field(ge=0)
    tail: Literal["document", "continuous"]
    v_th: float = Field(gt=0)
    detach_reset: bool
    num_bits: int = Field(ge=2, le=8)
    bits: int = Field(ge=1, le=7)
    share: Literal["sample", "channel"]
    hidden: int = Field(ge=1)
    gamma: float = Field(ge=0, le=1)


class ModelBounds(Bounds):
    """Of every network."""

    T: int = Field(ge=1, le=1024)
    width: float = Field(gt=0)
    v_th: float = Field(gt=0)
    readout: Literal["current", "membrane", "rate"]
    readout_tau: float = Field(ge=1)
    population: int = Field(ge=1)


class DataBounds(Bounds):
    """Of every data set."""

    T: int = Field(ge=1, le=1024)
    download: bool
    verify: bool
    batch_size: int = Field(ge=1, le=2**31)
    split_seed: int = Field(ge=0, le=2**63 - 1)
    seed: int = Field(ge=0, le=2**63 - 1)
    num_workers: int = Field(ge=0, le=1024)
    val_fraction: float = Field(gt=0, lt=1)
    limit_train: int | None = Field(ge=1, le=2**31)
    limit_val: int | None = Field(ge=1, le=2**31)
    limit_test: int | None = Field(ge=1, le=2**31)


class OptimizerBounds(Bounds):
    """Of every optimiser of torch that settings name."""

    lr: float = Field(ge=0)
    weight_decay: float = Field(ge=0)


class SchedulerBounds(Bounds):
    """Of every schedule that settings name."""

    T_max: int = Field(ge=1)


class LossBounds(Bounds):
    """Of every loss."""

    label_smoothing: float = Field(ge=0, le=1)


LARGEST = 2.0  # relative energy that anybody can mean; above it a share was written as per cent


def check_target(target: float, quantity: str) -> None:
    """Refuse a budget of energy that is no share; raises ArgumentError."""
    if quantity == "energy" and target > LARGEST:
        raise ArgumentError(
            f"target must be a share of at most {LARGEST:g} of the dense ReLU network's energy, as 0.15 for 15 %, "
            f"got {target!r}"
        )


BOUNDS: Mapping[str, type[Bounds]] = {
    "neuron": NeuronBounds,
    "model": ModelBounds,
    "data": DataBounds,
    "optim.optimizer": OptimizerBounds,
    "optim.scheduler": SchedulerBounds,
    "optim.loss": LossBounds,
}
"""Place in the settings -> bounds of what is built there."""
