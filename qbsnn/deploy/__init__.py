"""Model in, new model out: absorption, quantization, integer engines, verification, exports. No Lightning."""
