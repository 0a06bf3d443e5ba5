"""ReLU: the analog baseline in the same networks; and the leaky membrane that may read a network out."""

from __future__ import annotations

from functools import partial

from torch import Tensor
from torch.nn import functional as F

from qbsnn.bounds import ModelBounds
from qbsnn.functional.arguments import real_current
from qbsnn.functional.burst import leaky_step
from qbsnn.functional.parameters import decay_of
from qbsnn.functional.scan import scan
from qbsnn.neurons.base import Neuron, Operations


class ReLU(Neuron):
    """Rectified linear unit, ``[T, B, ...]`` to the same shape. Stateless, so static images pass once, not T times."""

    stateful = False
    no_integer_form = "puts out real numbers"

    def operations(self) -> Operations:
        """One comparison with 0."""
        return Operations(compares=1)

    def forward(self, current: Tensor) -> Tensor:
        """max(I, 0)."""
        return F.relu(real_current(current))


class LeakyIntegrator(Neuron):
    """A membrane that never fires: V_t = (1 − 1/τ)·V_{t−1} + I_t, for a membrane readout.

    >>> import torch
    >>> LeakyIntegrator(tau=2.0)(torch.tensor([[1.0], [1.0], [0.0]])).flatten().tolist()
    [1.0, 1.5, 0.75]
    """

    no_integer_form = "puts out a real-valued membrane"

    def __init__(self, tau: float = 2.0) -> None:
        super().__init__()
        self.tau = ModelBounds.check("readout_tau", tau)

    def operations(self) -> Operations:
        """One membrane, which leaks unless λ is 0."""
        return Operations(leaks=int(self.tau > 1), keeps=True)

    def forward(self, current: Tensor) -> Tensor:
        """V ``[T, B, ...]`` for currents ``[T, B, ...]``."""
        return scan(partial(leaky_step, decay=decay_of(self.tau)), real_current(current))[0]
