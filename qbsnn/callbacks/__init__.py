"""Thin hooks of Lightning around deployment, energy and diagnostics."""

from qbsnn.callbacks.checkpoint import BestByValidation
from qbsnn.callbacks.diagnostics import TestDiagnostics
from qbsnn.callbacks.early_exit import EarlyExit
from qbsnn.callbacks.energy import EnergyEstimate
from qbsnn.callbacks.monitor import BurstMonitor
from qbsnn.callbacks.norms import PreciseNorms
from qbsnn.callbacks.progress import progress_bar
from qbsnn.callbacks.robustness import Robustness
from qbsnn.callbacks.safeguards import DeltaGuard, GradientNorms, StopOnDivergence, StopOnPlateau
from qbsnn.callbacks.steps import StepSchedule
from qbsnn.callbacks.verification import AbsorptionCheck, IntegerSimulation
from qbsnn.callbacks.whitening import WhitenFirstLayer

__all__ = [
    "AbsorptionCheck",
    "BestByValidation",
    "BurstMonitor",
    "DeltaGuard",
    "EarlyExit",
    "EnergyEstimate",
    "GradientNorms",
    "IntegerSimulation",
    "PreciseNorms",
    "Robustness",
    "StepSchedule",
    "StopOnDivergence",
    "StopOnPlateau",
    "TestDiagnostics",
    "WhitenFirstLayer",
    "progress_bar",
]
