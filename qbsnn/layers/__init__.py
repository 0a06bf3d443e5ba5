"""Layers: input encoding, norms, and the stage (weights, norm, neuron, pool) that every network is made of."""

from qbsnn.layers.encoder import Encoder
from qbsnn.layers.norm import NORMS, TDBatchNorm, affine
from qbsnn.layers.stage import INPUT, Branch, Stage

__all__ = ["INPUT", "NORMS", "Branch", "Encoder", "Stage", "TDBatchNorm", "affine"]
