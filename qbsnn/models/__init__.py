"""Networks, one file per family. An architecture is a table of numbers; the neuron is passed in as a factory."""

from qbsnn.models.fast import fast
from qbsnn.models.mlp import mlp
from qbsnn.models.network import SpikingNetwork
from qbsnn.models.resnet import resnet
from qbsnn.models.vgg import vgg

__all__ = ["SpikingNetwork", "fast", "mlp", "resnet", "vgg"]
