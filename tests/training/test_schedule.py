import pytest
import torch

from qbsnn.errors import SettingsError
from qbsnn.training.schedule import warmup_cosine


def rates(epochs: int, warmup: int, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.8)
    schedule = warmup_cosine(optimizer, epochs, warmup)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_rate_by_hand():
    # rises by quarters of 0.8, then a cosine over 4 epochs: 1, (2 + √2)/4, 1/2, (2 − √2)/4 of it, and 0 from there
    expected = [0.2, 0.4, 0.6, 0.8, 0.8, 0.2 * (2 + 2**0.5), 0.4, 0.2 * (2 - 2**0.5), 0.0, 0.0]
    assert rates(8, 4, 10) == pytest.approx(expected)


def test_without_warmup_it_is_torchs_cosine():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.8)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    expected = []
    for _ in range(7):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert rates(7, 0, 7) == pytest.approx(expected)


def test_a_run_shorter_than_the_warmup_only_rises():
    assert rates(2, 4, 2) == pytest.approx([0.2, 0.4])


@pytest.mark.parametrize(("epochs", "warmup"), [(0, 1), (5, -1), (5, 1.5), (True, 1)])
def test_bad_numbers(epochs, warmup):
    with pytest.raises(SettingsError, match=r"(epochs|warmup) must be"):
        rates(epochs, warmup, 1)
