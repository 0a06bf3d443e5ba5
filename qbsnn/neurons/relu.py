"""ReLU: the analog baseline in the same networks."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from qbsnn.neurons.base import Neuron


class ReLU(Neuron):
    """Rectified linear unit, ``[T, B, ...]`` to the same shape. Stateless, so static images pass once, not T times."""

    stateful = False

    def forward(self, current: Tensor) -> Tensor:
        """max(I, 0)."""
        return F.relu(current)
