"""How a network runs: what is compiled, and what a training step keeps. The numbers stay the same, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

from qbsnn import checks
from qbsnn.errors import SettingsError

COMPILE = ("none", "neuron", "block", "model")
MEMORY = ("none", "packed", "checkpoint")


@dataclass(frozen=True)
class Execution:
    """How a network runs, one value for all of it.

    Attributes:
        compile: ``none``; ``neuron``, the scan over time as one kernel per direction; ``block``, norm, sum and scan as
            one, which keeps what the weights put out and neither current nor membrane; ``model``, all of the network
            as one graph, which takes minutes to compile.
        memory: ``none``; ``packed``, as ``block`` and bursts kept as bytes; ``checkpoint``, every stage computed again
            from its packed input.

    Raises:
        SettingsError: A value is none of these, or the two do not go together.

    >>> str(Execution("block", "packed"))
    'compile=block, memory=packed'
    """

    compile: str = "none"
    memory: str = "none"

    def __post_init__(self) -> None:
        """Check both."""
        checks.choice("compile", self.compile, COMPILE)
        checks.choice("memory", self.memory, MEMORY)
        if self.compile == "model" and self.memory != "none":
            raise SettingsError(
                f"compile=model decides by itself what is kept: use memory=none, not {self.memory}, or block"
            )

    def __str__(self) -> str:
        """As settings."""
        return f"compile={self.compile}, memory={self.memory}"

    @property
    def kernels(self) -> bool:
        """Whether neurons run as compiled kernels."""
        return self.compile in ("neuron", "block")

    @property
    def fuses(self) -> bool:
        """Whether norm, sum and scan are one function, which keeps neither current nor membrane."""
        return self.compile == "block" or self.packs

    @property
    def packs(self) -> bool:
        """Whether bursts are kept as bytes."""
        return self.memory != "none"

    @property
    def recomputes(self) -> bool:
        """Whether stages are computed again in the backward pass."""
        return self.memory == "checkpoint"


PLAIN = Execution()
"""Nothing is compiled, everything is kept."""
