import math

import pytest
import torch

from qbsnn.results.statistics import Difference, paired


def test_a_paired_difference_by_hand():
    # differences 1, 2, 3: mean 2, standard error 1/√3, t = 2√3; with 2 degrees of freedom p = 1 - t/√(2 + t²)
    found = paired({0: 11.0, 1: 22.0, 2: 33.0, 7: 1.0}, {0: 10.0, 1: 20.0, 2: 30.0, 8: 1.0})
    assert found is not None and found.pairs == 3 and found.mean == 2.0
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-12)
    reach = 4.302652729911275 / math.sqrt(3)  # the 97.5 % point of Student's t with 2 degrees of freedom
    assert (found.low, found.high) == (pytest.approx(2 - reach), pytest.approx(2 + reach))


def test_where_a_test_is_not_defined():
    assert paired({0: 3.0}, {0: 1.0, 1: 5.0}) == Difference(2.0, None, None, None, 1)
    assert paired({0: 3.0}, {1: 1.0}) is None
    assert paired({0: math.nan}, {0: 1.0}) is None
    # the same difference in every pair, up to rounding: no spread to test against
    found = paired({0: 0.3, 1: 0.7}, {0: 0.1, 1: 0.5})
    assert found is not None and found.p is found.low is found.high is None


def test_accuracies_that_only_float32_tells_apart_are_equal():
    def stored(images: int) -> float:
        return torch.tensor(images / 360).item()

    better = {0: stored(340), 1: stored(351), 2: stored(346)}
    assert better[0] - stored(339) != better[1] - stored(350)
    found = paired(better, {0: stored(339), 1: stored(350), 2: stored(345)})
    assert found == Difference(pytest.approx(1 / 360, rel=1e-4), None, None, None, 3)
    exact = {seed: images / 360 for seed, images in ((0, 340), (1, 351), (2, 346))}
    assert paired(exact, better) == Difference(0.0, None, None, None, 3)
    one = paired({0: 0.9123, 1: 0.9130, 2: 0.9141}, {0: 0.9122, 1: 0.9130, 2: 0.9141})  # one image of 10,000
    assert one is not None and one.p == pytest.approx(0.42, abs=0.01)
