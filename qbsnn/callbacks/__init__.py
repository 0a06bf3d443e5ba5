"""Thin hooks of Lightning around deployment, energy and diagnostics."""

from qbsnn.callbacks.checkpoint import BestByValidation
from qbsnn.callbacks.diagnostics import BurstMonitor, TestDiagnostics
from qbsnn.callbacks.energy import EnergyEstimate
from qbsnn.callbacks.progress import progress_bar
from qbsnn.callbacks.verification import AbsorptionCheck, IntegerSimulation

__all__ = [
    "AbsorptionCheck",
    "BestByValidation",
    "BurstMonitor",
    "EnergyEstimate",
    "IntegerSimulation",
    "TestDiagnostics",
    "progress_bar",
]
