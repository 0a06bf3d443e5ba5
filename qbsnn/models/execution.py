"""How a network runs: what is compiled, and what a training step keeps. The numbers stay the same, bit for bit."""

from __future__ import annotations

from qbsnn import checks
from qbsnn.models.network import SpikingNetwork
from qbsnn.neurons.base import SpikingNeuron

COMPILE = ("none", "neuron", "block")
MEMORY = ("none", "packed", "checkpoint")


def prepare(network: SpikingNetwork, compile: str = "none", memory: str = "none") -> SpikingNetwork:
    """Set how ``network`` runs, in place, and return it.

    compile: ``none``; ``neuron``, the scan over time as one kernel per direction; ``block``, norm, sum and scan as one,
    which keeps what the weights put out and neither current nor membrane. memory: ``none``; ``packed``, as ``block`` and
    bursts kept as bytes; ``checkpoint``, every stage computed again from its packed input. Raises SettingsError.

    >>> from qbsnn.models import mlp
    >>> from qbsnn.neurons import QBLIF
    >>> network = prepare(mlp(QBLIF, in_shape=(1, 8, 8), num_classes=10), compile="neuron")
    """
    compile = checks.choice("compile", compile, COMPILE)
    memory = checks.choice("memory", memory, MEMORY)
    for _, stage in network.named_stages():
        stage.fused = compile == "block" or memory != "none"
        stage.checkpointed = memory == "checkpoint" and stage.neuron is not None
        if isinstance(stage.neuron, SpikingNeuron):
            stage.neuron.compiled = compile != "none"
    network.packs = memory != "none"
    return network
