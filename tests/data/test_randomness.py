import numpy as np

from qbsnn.data.randomness import Purpose, below, draw, mix, permutation


def test_splitmix64_against_published_numbers():
    # the first five outputs of the generator seeded with 1234567, as listed on Rosetta Code
    golden = np.uint64(0x9E3779B97F4A7C15)
    states = np.uint64(1234567) + golden * np.arange(5, dtype=np.uint64)
    assert mix(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_each_argument_matters_and_a_batch_is_its_samples():
    index = np.arange(1000)
    base = draw(Purpose.FLIP, 3, 5, index)
    for other in (draw(Purpose.CROP_X, 3, 5, index), draw(Purpose.FLIP, 4, 5, index), draw(Purpose.FLIP, 3, 6, index)):
        assert not np.isin(base, other).any()
    assert len(np.unique(base)) == 1000
    assert base[17] == draw(Purpose.FLIP, 3, 5, 17)[0] == draw(Purpose.FLIP, 3, np.full(1, 5), np.full(1, 17))[0]


def test_below_is_uniform():
    for limit in (1, 2, 9, 1000):
        values = below(limit, draw(Purpose.CROP_Y, 0, 0, np.arange(100 * limit)))
        counts = np.bincount(values, minlength=limit)
        assert len(counts) == limit and values.min() >= 0
        # chi-squared per degree of freedom; its standard deviation is sqrt(2/limit)
        assert ((counts - 100) ** 2 / 100).sum() / limit < 1 + 5 * np.sqrt(2 / limit)


def test_permutation():
    first = permutation(Purpose.ORDER, 5000, seed=1, epoch=0)
    assert np.array_equal(np.sort(first), np.arange(5000))
    assert np.array_equal(first, permutation(Purpose.ORDER, 5000, seed=1, epoch=0))
    # two unrelated permutations agree in about one place
    assert (first == permutation(Purpose.ORDER, 5000, seed=1, epoch=1)).sum() < 10
    assert (first == permutation(Purpose.ORDER, 5000, seed=2, epoch=0)).sum() < 10
