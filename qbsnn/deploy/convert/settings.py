"""How a network becomes integers: the fields, bounds and meaning of ``conf/deploy`` and of ``quantize``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from qbsnn import checks
from qbsnn.checked import Checked

PROFILES: dict[str, dict[str, Any]] = {
    "generic-fpga": {"leak": "shift_floor", "membrane_bits": 24, "overflow": "saturate"},
    "xylo": {"leak": "shift_xylo", "membrane_bits": 16, "overflow": "saturate"},
    "loihi2": {"leak": "mul12_to_zero", "membrane_bits": 24, "overflow": "saturate"},
    "dynapcnn": {"leak": "none", "membrane_bits": 16, "overflow": "saturate"},
}
"""What each profile sets; what else a target asks of a network is in :mod:`qbsnn.deploy.convert.profiles`."""


class DeploySettings(Checked):
    """How a trained network becomes integers.

    Args:
        mode: ``ptq`` rounds the trained network; ``qat`` then trains it further on the grid, and keeps that if it is
            better on validation images.
        bits: width of a weight, so that weights lie in ±(2^(bits − 1) − 1).
        theta: thresholds are powers of two, or any integers, which are searched.
        leak: ``auto`` takes none where λ = 1, the floor shift where τ is a power of two and the 12-bit product
            elsewhere. Any other kind is used for all neurons that leak.
        membrane_bits: width of the register that holds V.
        overflow: what happens to a V that does not fit, see :class:`~qbsnn.deploy.format.network.IntegerNetwork`.
        profile: a key of ``PROFILES``, whose choices take the place of the defaults of leak, membrane_bits and
            overflow; other values of these beside it are refused.
        first_layer: ``float`` weights, whose current is rounded once; or ``integer`` ones, which accumulate too and
            need an input of spikes or counts.
        epochs: of training on the grid, and of the float network that it is compared with.
        lr: learning rate of that training.
        calibration_images: training images that the search for thresholds looks at; 0: it looks at the weights only.
        exit_loss: accuracy, as a share, that stopping early may cost on validation images, from which the exit margin
            of the integer network follows; ``None`` for all steps always.

    Raises:
        ArgumentError: for a value outside these bounds.

    >>> DeploySettings(bits=4).q_max
    7
    """

    mode: Literal["ptq", "qat"] = "ptq"
    bits: int = Field(default=8, ge=2, le=8)
    theta: Literal["pow2", "integer"] = "pow2"
    leak: Literal["auto", "none", "shift_floor", "shift_xylo", "mul12_to_zero"] = "auto"
    membrane_bits: int = Field(default=32, ge=8, le=32)
    overflow: Literal["error", "saturate", "wrap"] = "error"
    profile: str | None = None
    first_layer: Literal["float", "integer"] = "float"
    epochs: int = Field(default=4, ge=1)
    lr: float = Field(default=0.0002, gt=0)
    calibration_images: int = Field(default=256, ge=0)
    exit_loss: float | None = Field(default=None, ge=0, le=1)

    @field_validator("profile", mode="before")
    @classmethod
    def _known(cls, profile: object) -> object:
        return None if profile is None else checks.choice("profile", profile, PROFILES)

    @model_validator(mode="after")
    def _consistent(self) -> DeploySettings:
        if self.mode == "qat" and self.first_layer == "integer":
            raise ValueError("first_layer=integer goes with mode=ptq: training on the grid keeps the layer in float")
        for name, value in PROFILES.get(self.profile or "", {}).items():
            given = getattr(self, name)
            if given not in (value, type(self).model_fields[name].default):
                raise ValueError(f"profile={self.profile} sets {name}={value}, so {name}={given} must be left out")
        return self

    @property
    def q_max(self) -> int:
        """Largest weight, 2^(bits − 1) − 1."""
        return 2 ** (self.bits - 1) - 1

    @property
    def grid(self) -> dict[str, Any]:
        """What fixes the grid: weights that were trained under one such choice are of no use to another."""
        return self.model_dump(exclude={"mode", "epochs", "lr", "exit_loss"})

    def resolved(self) -> DeploySettings:
        """These settings with the choices of the profile in place."""
        return self if self.profile is None else self.model_copy(update=PROFILES[self.profile])

    def largest_theta(self, s_max: int) -> int:
        """The largest threshold: at most 2¹⁵, and so small that a narrow membrane holds twice the largest burst.

        0 where not even θ = 1 is small enough.
        """
        return min(2**15, 2 ** (self.membrane_bits - 1) // (2 * (s_max + 1)))
