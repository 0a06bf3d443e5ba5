"""Resets: what the membrane is after a burst, and what the gradient sees of it.

In U = V − Δ·s the gradient always passes V. ``detach`` hides Δ and s from it, ``detach_s`` hides s alone, ``full``
hides nothing: equations (G4) and (G5). In a trial at T = 4, hiding s overstated the input gradients of early steps 1.7
to 3.3 times; ``full`` was nearly unbiased.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ResetFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(V, s, Δ) -> U, all of one shape; Δ may be smaller and broadcast."""


@dataclass(frozen=True)
class Reset:
    """A reset is a value: a function, and the kind of reset that its forward pass is.

    Attributes:
        function: Gives U for V, s and Δ. Its gradient is its own affair.
        kind: ``soft`` if U = V − Δ·s; ``hard`` if U = 0 after a spike and V otherwise; ``None`` for anything else,
            which trains but has no integer form.
    """

    function: ResetFunction
    kind: Literal["soft", "hard"] | None = None

    def __call__(self, v: Tensor, s: Tensor, delta: Tensor) -> Tensor:
        """U of V, s and Δ."""
        return self.function(v, s, delta)

    def __str__(self) -> str:
        """The name in ``RESETS``, or the function's."""
        known = (name for name, reset in RESETS.items() if reset == self)
        return next(known, getattr(self.function, "__name__", repr(self.function)))


def _detach(v: Tensor, s: Tensor, delta: Tensor) -> Tensor:
    return v - (delta * s).detach()


def _detach_s(v: Tensor, s: Tensor, delta: Tensor) -> Tensor:
    return v - delta * s.detach()


def _full(v: Tensor, s: Tensor, delta: Tensor) -> Tensor:
    return v - delta * s


def _hard(v: Tensor, s: Tensor, delta: Tensor) -> Tensor:
    return v * (1 - s.detach().abs().clamp(max=1))


def _hard_full(v: Tensor, s: Tensor, delta: Tensor) -> Tensor:
    size = torch.where(s.signbit(), -s, s)  # unlike abs, with a derivative at 0: its sign is that of V
    return v * (1 - size.clamp(max=1))


RESETS = {
    "detach": Reset(_detach, "soft"),
    "detach_s": Reset(_detach_s, "soft"),
    "full": Reset(_full, "soft"),
    "hard": Reset(_hard, "hard"),
    "hard_full": Reset(_hard_full, "hard"),
}
"""The resets by their names. The hard ones hide s from the gradient, or do not."""
