"""Pure functions: everything that has an equation.

The numbers of equations are those of docs/mathematical_derivations.md.
"""

from qbsnn.functional.burst import QUANTISERS, adaptive_step, burst, burst_step, two_compartment_step
from qbsnn.functional.encode import direct, latency, rate
from qbsnn.functional.fold import absorb_scale, fold_norm
from qbsnn.functional.loss import DECISIONS, decided_cross_entropy, tet
from qbsnn.functional.reset import RESETS, Reset
from qbsnn.functional.scan import scan
from qbsnn.functional.surrogate import SURROGATES, arctan, relsg_et, surrogate

__all__ = [
    "DECISIONS",
    "QUANTISERS",
    "RESETS",
    "SURROGATES",
    "Reset",
    "absorb_scale",
    "adaptive_step",
    "arctan",
    "burst",
    "burst_step",
    "decided_cross_entropy",
    "direct",
    "fold_norm",
    "latency",
    "rate",
    "relsg_et",
    "scan",
    "surrogate",
    "tet",
    "two_compartment_step",
]
