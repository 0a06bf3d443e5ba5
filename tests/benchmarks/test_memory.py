"""The memory counters against tensors of known size."""

import json
import platform

import pytest
import torch

from benchmarks import memory
from benchmarks.contenders import TWIN, Problem
from benchmarks.harness import Unavailable

MIB = memory.MIB
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the counters are glibc's and Linux's")


class Exponential:
    """Keeps the exponential of 48 MiB for its gradient, and needs as much again for a moment."""

    def __init__(self):
        self.x = torch.zeros(12 * MIB, requires_grad=True)

    def rest(self):
        self.state = None

    def forward(self):
        return self.x.exp().sum()

    def step(self):
        with torch.no_grad():
            first = self.x + 1
            second = first + 1
            assert second[0] == 2


def test_saved_and_peak_bytes():
    training = Exponential()
    assert memory.saved_bytes(training) / MIB == pytest.approx(48, abs=1)
    assert memory.peak_bytes(training) / MIB == pytest.approx(96, abs=4)


def test_the_peak_does_not_count_what_rests():
    training = Exponential()
    training.weights = torch.ones(24 * MIB)
    assert memory.peak_bytes(training) / MIB == pytest.approx(96, abs=4)


@pytest.mark.slow
def test_each_contender_has_a_process_of_its_own():
    problem = Problem("vgg5", T=4, batch=16, width=0.25, in_shape=(3, 32, 32))
    found = memory.measure(TWIN, problem)
    # the twin's norms and convolutions keep their inputs: at least 64 images × 16 channels × 32² floats
    assert found["saved"] > 64 * 16 * 32**2 * 4
    assert found["peak"] > found["saved"] * 0.9


def test_a_state_of_the_step_before_is_no_part_of_the_rest():
    training = Exponential()
    training.state = torch.ones(24 * MIB)
    assert memory.peak_bytes(training) / MIB == pytest.approx(96, abs=4)


def test_an_unavailable_contender_says_so(monkeypatch, capsys):
    def refuse(*args):
        raise Unavailable("not installed")

    monkeypatch.setattr(memory, "Training", refuse)
    monkeypatch.setattr(memory, "map_every_tensor", lambda: None)
    problem = json.dumps(vars(Problem()))
    assert memory.main("SpikingJelly", problem, "fp32") == 3
    assert capsys.readouterr().out == "not installed\n"
