import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qbsnn.data.events.recordings import pack, unpack


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 5000), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_counts_come_back(size, share, seed):
    numbers = np.random.default_rng(seed)
    cells = (numbers.integers(1, 256, size) * (numbers.random(size) < share)).astype(np.uint8)
    packed = pack(cells)
    assert np.array_equal(unpack(memoryview(packed), size), cells)
    if packed[:1] == b"s":
        assert len(packed) - 1 <= size / 2  # an eighth of float32


@pytest.mark.parametrize("where", [0, 254, 255, 256, 509, 510, 511, 2047])
def test_long_gaps(where):
    cells = np.zeros(2048, np.uint8)
    cells[where] = 7
    packed = pack(cells)
    assert packed[:1] == b"s" and len(packed) <= 21
    assert np.array_equal(unpack(memoryview(packed), 2048), cells)
