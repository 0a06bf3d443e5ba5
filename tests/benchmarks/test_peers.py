"""The peers' networks are the same network: sizes, shapes, gradients, and with the same weights the same logits."""

import pytest
import torch

from benchmarks import peers
from benchmarks.contenders import KITS, TWIN, Problem, network, trainings
from benchmarks.harness import Unavailable
from qbsnn.models import resnet, vgg
from qbsnn.neurons import LIF, QBLIF, ReLU

# Norse and snnTorch script functions when they are imported
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")

SHAPES = [Problem("resnet19", 2, 2, 1 / 16, (3, 8, 8)), Problem("vgg5", 2, 2, 1 / 8, (3, 8, 8))]
EAGER = [name for name in KITS if "compiled" not in name]


def own(neuron, problem):
    family = resnet if problem.name == "resnet19" else vgg
    torch.manual_seed(0)
    return family(
        neuron, problem.in_shape, 10, [0.0] * 3, [1.0] * 3, name=problem.name, T=problem.T, width=problem.width
    )


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("problem", SHAPES, ids=lambda problem: problem.name)
@pytest.mark.parametrize("name", [TWIN, *EAGER])
def test_sizes_shapes_and_gradients(name, problem):
    try:
        made = network(name, problem)
    except Unavailable as why:
        pytest.skip(str(why))
    assert size(made) == size(own(LIF, problem))
    scales = sum(1 for _ in own(QBLIF, problem).spiking_stages())
    assert size(own(QBLIF, problem)) == size(made) + scales
    images = torch.randn(problem.batch * (problem.T if name == TWIN else 1), *problem.in_shape)
    logits = made.train()(images)
    assert logits.shape == ((1, 4, 10) if name == TWIN else (2, 2, 10))
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())
    assert any(p.grad.abs().sum() > 0 for p in made.stem.parameters())


@pytest.mark.parametrize("problem", SHAPES, ids=lambda problem: problem.name)
@pytest.mark.parametrize("name", ["SpikingJelly", TWIN])
def test_the_same_weights_give_the_same_logits(name, problem):
    try:
        theirs = network(name, problem)
    except Unavailable as why:
        pytest.skip(str(why))
    ours = own(LIF if name == "SpikingJelly" else ReLU, problem)
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.mul_(1.5)  # livelier, so that late layers spike
            other.copy_(mine)
    images = torch.randn(4, *problem.in_shape, generator=torch.Generator().manual_seed(3))
    logits = ours.train()(images)
    assert logits.std() > 0
    assert torch.allclose(logits, theirs.train()(images), rtol=1e-4, atol=1e-5)


def test_full_size_resnet19_has_its_published_size():
    # 12.63 million for ten classes (arXiv 2202.11946, with the hidden layer of 256)
    assert size(peers.build(peers.relu(), "resnet19", 4, (3, 32, 32), 10, 1.0)) == pytest.approx(12.63e6, rel=5e-3)


def test_an_absent_mode_or_package_is_reported(monkeypatch):
    heard = []
    monkeypatch.setitem(KITS, "absent", lambda: (_ for _ in ()).throw(Unavailable("not installed")))
    found = trainings(
        (TWIN, "absent"), SHAPES[1], torch.device("cpu"), lambda name, why: heard.append((name, str(why)))
    )
    assert list(found) == [TWIN] and heard == [("absent", "not installed")]


def test_modes_reach_the_network():
    made = network("QB-LIF packed", SHAPES[1])
    assert made.packs and all(neuron.compiled for _, _, neuron in made.spiking_stages())
