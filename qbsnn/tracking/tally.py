"""Sums over the samples of an epoch, from which its metrics are taken."""

from __future__ import annotations

import torch
from torch import Tensor


class Tally:
    """Sums of what batches gave, kept on their device: adding waits for nothing, reading the means does.

    >>> tally = Tally()
    >>> tally.add(torch.tensor(1.0), torch.tensor(3), 4)
    >>> tally.add(torch.tensor(4.0), torch.tensor(0), 2)
    >>> {name: float(value) for name, value in tally.means().items()}, tally.samples
    ({'loss': 2.0, 'acc': 0.5}, 6)
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.loss: Tensor | float = 0.0
        self.right: Tensor | int = 0
        self.spent: Tensor | float = 0.0
        self.samples = 0

    def add(self, loss: Tensor, right: Tensor, samples: int) -> None:
        """Add a batch: the mean loss over its ``samples``, and how many of them were classified rightly. Scalars."""
        self.loss = self.loss + loss * samples
        self.right = self.right + right
        self.samples += samples

    def charge(self, spent: Tensor, samples: int) -> None:
        """Add what the ``samples`` of a batch spent of a budget in the mean. A scalar."""
        self.spent = self.spent + spent * samples

    def means(self) -> dict[str, Tensor | float]:
        """``loss`` and ``acc`` per sample; empty before the first batch."""
        if not self.samples:
            return {}
        return {"loss": self.loss / self.samples, "acc": self.right / self.samples}

    def sums(self, device: torch.device) -> Tensor:
        """Loss summed over samples, right ones, what was spent, samples: ``[4]``, to be added up over processes."""
        values = (self.loss, self.right, self.spent, self.samples)
        return torch.stack([torch.as_tensor(value, device=device).float() for value in values])
