"""Layers: input encoding, norms, and the stage (weights, norm, neuron, pool) that every network is made of."""

from qbsnn.layers.encoder import Encoder
from qbsnn.layers.norm import NORMS, BatchNorm1d, BatchNorm2d, TDBatchNorm, TemporalScale, affine
from qbsnn.layers.quantised import plain, quantise
from qbsnn.layers.stage import INPUT, Branch, Stage

__all__ = [
    "INPUT",
    "NORMS",
    "BatchNorm1d",
    "BatchNorm2d",
    "Branch",
    "Encoder",
    "Stage",
    "TDBatchNorm",
    "TemporalScale",
    "affine",
    "plain",
    "quantise",
]
