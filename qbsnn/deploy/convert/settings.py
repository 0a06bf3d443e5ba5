"""The choices of a conversion to integers, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast

from qbsnn import checks
from qbsnn.deploy.format.network import IntegerNetwork

THETAS = ("pow2", "integer")
LEAKS = ("auto", "none", "shift_floor", "shift_xylo", "mul12_to_zero")
POLICIES = ("error", "saturate", "wrap")
FIRST_LAYERS = ("float", "integer")

PROFILES: dict[str, dict[str, object]] = {
    "generic-fpga": {"leak": "shift_floor", "membrane_bits": 24, "overflow": "saturate"},
    "xylo": {"leak": "shift_xylo", "membrane_bits": 16, "overflow": "saturate"},
    "loihi2": {"leak": "mul12_to_zero", "membrane_bits": 24, "overflow": "saturate"},
    "dynapcnn": {"leak": "none", "membrane_bits": 16, "overflow": "saturate"},
}
"""Names for a set of choices; what else a target asks of a network is in :mod:`qbsnn.deploy.convert.profiles`."""


@dataclass(frozen=True)
class DeploySettings:
    """How an absorbed network becomes integers.

    bits: width of a weight, 2 to 8, so weights lie in ±(2^(bits−1) − 1). theta: thresholds are powers of two, or any
    integers, searched. leak: ``auto`` takes none where λ = 1, the floor shift where τ is a power of two and the 12-bit
    product elsewhere; any other kind is used for all neurons that leak. membrane_bits, overflow: as in
    :class:`IntegerNetwork`. first_layer: ``float`` weights, whose current is rounded once, or ``integer`` ones, which
    accumulate too and need an input of spikes or counts. profile: a key of ``PROFILES``, whose choices replace leak,
    membrane_bits and overflow. Raises SettingsError for values outside these bounds.
    """

    bits: int = 8
    theta: Literal["pow2", "integer"] = "pow2"
    leak: Literal["auto", "none", "shift_floor", "shift_xylo", "mul12_to_zero"] = "auto"
    membrane_bits: int = 32
    overflow: Literal["error", "saturate", "wrap"] = "error"
    profile: str | None = None
    first_layer: Literal["float", "integer"] = "float"

    def __post_init__(self) -> None:
        """Check every field."""
        checks.integer("bits", self.bits, 2, 8)
        checks.choice("theta", self.theta, THETAS)
        checks.choice("leak", self.leak, LEAKS)
        checks.integer("membrane_bits", self.membrane_bits, 8, 32)
        checks.choice("overflow", self.overflow, POLICIES)
        checks.choice("first_layer", self.first_layer, FIRST_LAYERS)
        if self.profile is not None:
            checks.choice("profile", self.profile, PROFILES)

    @property
    def q_max(self) -> int:
        """Largest weight, 2^(bits−1) − 1."""
        return 2 ** (self.bits - 1) - 1

    def resolved(self) -> DeploySettings:
        """With the profile's choices in place."""
        return self if self.profile is None else replace(self, **cast("dict", PROFILES[self.profile]))

    def largest_theta(self, s_max: int) -> int:
        """Thresholds stay below 2¹⁵, and so small that a narrow membrane holds twice the largest burst."""
        return min(2**15, 2 ** (self.membrane_bits - 1) // (2 * (s_max + 1)))

    def applied_to(self, net: IntegerNetwork) -> IntegerNetwork:
        """The network with this membrane register."""
        return replace(net, membrane_bits=self.membrane_bits, overflow=self.overflow)
