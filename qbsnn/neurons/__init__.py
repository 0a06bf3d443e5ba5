"""Neurons: modules that own parameters and call :mod:`qbsnn.functional`. All take currents ``[T, B, ...]``."""

from qbsnn.neurons.base import Neuron, Operations, SpikingNeuron
from qbsnn.neurons.extended import AdaptiveQB, MultiCompartment
from qbsnn.neurons.lif import IF, LIF, PLIF
from qbsnn.neurons.qb_lif import ILIF, QATQBLIF, QBLIF, BurstLIF, QuantReLU, TernaryBurst
from qbsnn.neurons.relu import LeakyIntegrator, ReLU

__all__ = [
    "IF",
    "ILIF",
    "LIF",
    "PLIF",
    "QATQBLIF",
    "QBLIF",
    "AdaptiveQB",
    "BurstLIF",
    "LeakyIntegrator",
    "MultiCompartment",
    "Neuron",
    "Operations",
    "QuantReLU",
    "ReLU",
    "SpikingNeuron",
    "TernaryBurst",
]
