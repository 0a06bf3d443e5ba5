"""Neurons: modules that own parameters and call :mod:`qbsnn.functional`. All take currents ``[T, B, ...]``."""

from qbsnn.neurons.base import Neuron, SpikingNeuron
from qbsnn.neurons.lif import LIF
from qbsnn.neurons.qb_lif import QBLIF
from qbsnn.neurons.relu import ReLU

__all__ = ["LIF", "QBLIF", "Neuron", "ReLU", "SpikingNeuron"]
