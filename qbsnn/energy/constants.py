"""Every number that a price or a comparison rests on, with its source. Energies are picojoules, sizes are bytes.

[H] M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014: rough costs in 45 nm at 0.9 V.
[D] M. Dampfhoffer et al., "Are SNNs really more energy-efficient than ANNs? An in-depth hardware-aware study", IEEE
    Transactions on Emerging Topics in Computational Intelligence 7(3), 2023.
[Y] Z. Yan et al., "Reconsidering the energy efficiency of spiking neural networks", arXiv 2409.08290 (version 4).
"""

FLOAT_ADD, FLOAT_MULTIPLY = 0.9, 3.7  # [H], fp32; together the 4.6 pJ MAC of the literature's tables
FLOAT_BITS = 24  # significand of fp32: the width of its multiplier array
INT_ADD = 0.1  # [H], 32-bit accumulator
INT_MULTIPLY = 0.2  # [H], 8 bits by 8 bits
INT_BITS = 8
# A multiplier's energy goes with the product of its operands' widths: [H] has 0.2 pJ for 8×8 and 3.1 pJ for 32×32, a
# factor of 15.5 for 16 times the partial products. So a b-bit operand in a multiplier of n bits costs b/n of it.

SRAM = ((8 * 1024, 10.0), (32 * 1024, 20.0), (1024 * 1024, 100.0))  # [H], (size, energy of one 64-bit access)
SRAM_WORD = 64  # bits
DRAM = 1300.0  # [H], 1300 to 2600 per 64-bit access; the lower end caps the price of arrays that [H] does not list

WEIGHT_BITS, STATE_BITS = 8, 32  # the integer network of docs/integer_network.md: int8 weights, int32 membranes
ANALOG_BITS = 8  # pixels, and activations of the ReLU network

BREAK_EVEN = (0.15, 1.38)  # [D], spikes per synapse per inference below which an SNN wins, by ANN implementation
BREAK_EVEN_RATE = 0.057  # [Y], mean spike rate below which an SNN of T = 5 beats its quantised twin
