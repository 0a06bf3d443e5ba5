"""Pure functions: everything that has an equation.

The numbered equations of the neuron stand once, in :mod:`qbsnn.functional.burst`; other places refer to them.
"""

from qbsnn.functional.burst import burst, burst_step
from qbsnn.functional.encode import direct, latency, rate
from qbsnn.functional.fold import absorb_scale, fold_norm
from qbsnn.functional.loss import mean_cross_entropy, tet
from qbsnn.functional.reset import RESETS
from qbsnn.functional.scan import scan
from qbsnn.functional.surrogate import arctan, relsg_et

__all__ = [
    "RESETS",
    "absorb_scale",
    "arctan",
    "burst",
    "burst_step",
    "direct",
    "fold_norm",
    "latency",
    "mean_cross_entropy",
    "rate",
    "relsg_et",
    "scan",
    "tet",
]
