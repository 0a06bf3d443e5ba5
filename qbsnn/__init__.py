"""Quantized burst spiking networks: train them, absorb their scales, prove the integer network."""

__version__ = "0.1.0"
