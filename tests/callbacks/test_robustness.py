"""Accuracy on disturbed samples, against networks whose readout is worked out by hand."""

import copy

import pytest
import torch
from torch import nn

from qbsnn.callbacks import Robustness
from qbsnn.callbacks.robustness import disturbances, with_steps, without_step
from qbsnn.errors import ArgumentError
from qbsnn.layers import INPUT, Branch, Encoder, Stage
from qbsnn.models import mlp, vgg
from qbsnn.models.network import SpikingNetwork
from qbsnn.neurons import IF, LIF, QBLIF, ReLU
from qbsnn.results.reading import read_result
from qbsnn.training.module import Classifier
from tests.tool import TINY, one_paragraph


def identity(size, scale=1.0):
    layer = nn.Linear(size, size, bias=False)
    with torch.no_grad():
        layer.weight.copy_(scale * torch.eye(size))
    return layer


def by_hand(steps, neuron, coding="direct", decision="mean"):
    """Two pixels, a neuron behind each, a logit for each neuron's output."""
    encoder = Encoder(coding, steps, [0.0], [1.0])
    stages = {"fc1": Stage([Branch(INPUT, identity(2))], neuron), "readout": Stage([Branch("fc1", identity(2))])}
    return SpikingNetwork(encoder, stages, steps, (2, 1, 1), decision).eval()


def measured(network, batches, **options):
    """The block of a listener that hears these batches of a test."""
    module = Classifier(network, 2, loss=None, optimizer=None, scheduler=None, config={})
    listener = Robustness(**options)
    with torch.inference_mode():  # as Lightning tests
        listener.on_test_start(None, module)
        for index, (pixels, labels) in enumerate(batches):
            predicted = network.decide(network(pixels)).argmax(1)
            listener.on_test_batch_end(None, module, {"predicted": predicted}, (pixels, labels), index)
    return listener.found("best")


def test_a_missing_step_by_hand():
    # without leak V = 0.5, 1.0, 0.5, 1.0: spikes in steps 2 and 4; 0.75: V = 0.75, 1.5, 1.25, 1.0: in 2, 3 and 4
    network = by_hand(4, IF())
    pixels = torch.tensor([0.5, 0.75]).view(1, 2, 1, 1)
    assert network(pixels)[:, 0].T.tolist() == [[0, 1, 0, 1], [0, 1, 1, 1]]
    # step 2 missing: V = 0.5, 0.5, 1.0, 0.5: a spike in step 3; 0.75: V = 0.75, 0.75, 1.5, 1.25: in 3 and 4
    assert without_step(network, pixels, 1)[:, 0].T.tolist() == [[0, 0, 1, 0], [0, 0, 1, 1]]
    assert without_step(network, pixels, 0)[:, 0].T.tolist() == [[0, 0, 1, 0], [0, 0, 1, 1]]
    assert without_step(network, pixels, 3)[:, 0].T.tolist() == [[0, 1, 0, 0], [0, 1, 1, 0]]


def test_the_accuracy_with_a_step_missing_is_the_mean_over_the_step():
    # T = 2, decided by the last step. Neurons of 0.6 and 0.4 without leak: V = 0.6, 1.2 and 0.4, 0.8: class 0 by one
    # spike. Without either step no neuron fires, and of equal logits the lowest class, 0, decides. 0.4 and 1.0: class 1
    # fires in both steps; without the first it fires in the last, without the last in none, so class 0 is said.
    network = by_hand(2, IF(), decision="last")
    pixels = torch.tensor([[0.6, 0.4], [0.4, 1.0]]).view(2, 2, 1, 1)
    found = measured(network, [(pixels, torch.tensor([0, 1]))])
    assert found.accuracy == 1.0 and found.images == 2
    assert found.missing == (2 + 1) / 4
    # ReLU gives what it gets, in every step: with the last one missing both logits are 0
    assert measured(by_hand(2, ReLU(), decision="last"), [(pixels, torch.tensor([0, 1]))]).missing == 3 / 4


def test_one_step_more_or_fewer_by_hand():
    # 0.35 without leak: V = 0.35, 0.7, 1.05: the third step is the first with a spike
    pixels = torch.tensor([0.0, 0.35]).view(1, 2, 1, 1)
    found = measured(by_hand(3, IF()), [(pixels, torch.tensor([1]))])
    assert (found.accuracy, found.longer, found.shorter) == (1, 1, 0)
    found = measured(by_hand(2, IF()), [(pixels, torch.tensor([1]))])
    assert (found.accuracy, found.longer, found.shorter) == (0, 1, 0)


@pytest.mark.parametrize("encoding", ["direct", "rate", "latency"])
@pytest.mark.parametrize("neuron", [LIF, QBLIF])
@pytest.mark.parametrize("steps", [2, 4])
def test_other_steps_are_a_network_of_so_many_steps(encoding, neuron, steps):
    def built(T):
        return vgg(neuron, name="vgg5", width=0.1, in_shape=(1, 8, 8), num_classes=4, mean=(0.5,), std=(0.5,), T=T,
                   encoding=encoding)  # fmt: skip

    torch.manual_seed(0)
    trained, other = built(3).eval(), built(steps).eval()
    other.load_state_dict(trained.state_dict())
    pixels = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(with_steps(trained, pixels, steps), other(pixels))
    assert trained.T == trained.encoder.steps == 3


def test_noise_is_cut_and_the_same_in_any_batches():
    torch.manual_seed(0)
    network = mlp(QBLIF, in_shape=(1, 8, 8), num_classes=4, mean=(0.5,), std=(0.5,), T=2, hidden=[16]).eval()
    seen = []
    network.encoder.register_forward_hook(lambda _, pixels, __: seen.append(pixels[0].clone()))
    pixels, labels = torch.rand(13, 1, 8, 8), torch.randint(0, 4, (13,))
    whole = measured(network, [(pixels, labels)], sigmas=[0, 0.5])
    # the ordinary test, then σ = 0 and σ = 0.5 on a copy of the network, which has the hook too
    assert torch.equal(seen[1], pixels) and whole.noise["0"] == whole.accuracy
    noise = (seen[2] - pixels)[(seen[2] > 0) & (seen[2] < 1)]
    assert len(noise) > 300 and seen[2].min() >= 0 and seen[2].max() <= 1 and 0.2 < noise.std() < 0.5
    noisy, seen[:] = seen[2], []
    parts = list(zip(pixels.split(5), labels.split(5), strict=True))
    assert measured(network, parts, sigmas=[0.5]).noise == {"0.5": whole.noise["0.5"]}
    again = [seen_ for seen_ in seen if any(torch.equal(seen_, part) for part in noisy.split(5))]
    assert len(again) == 3
    other = measured(network, [(pixels, labels)], sigmas=[0.5], seed=1)
    assert not any(torch.equal(seen_, noisy) for seen_ in seen) and other.images == 13


def test_the_network_and_the_random_state_are_as_before():
    torch.manual_seed(0)
    network = vgg(QBLIF, name="vgg5", width=0.1, in_shape=(1, 8, 8), num_classes=4, mean=(0.5,), std=(0.5,), T=3)
    network.train()
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    network.eval()
    measured(network, [(torch.full((5, 1, 8, 8), 0.5), torch.zeros(5, dtype=torch.int64))])
    assert torch.equal(torch.get_rng_state(), random)
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], value) for name, value in before.items())
    assert network.T == network.encoder.steps == 3 and not any(part.training for part in network.modules())
    assert not any(part._forward_hooks for part in network.modules())


def reasons(network):
    return [(each.kind, each.value, each.skipped) for each in disturbances(network, [0.1]) if each.skipped]


def test_what_is_not_defined_says_why():
    assert reasons(by_hand(2, LIF())) == []
    none = "T = 1: no step would be left"
    assert reasons(by_hand(1, LIF())) == [("missing", 1, none), ("steps", -1, none)]
    found = reasons(by_hand(2, LIF(), "events"))
    assert [each[:2] for each in found] == [("noise", 0.1), ("steps", 1), ("steps", -1)]
    assert "counts of events" in found[0][2] and "T = 2" in found[1][2]
    network = mlp(QBLIF, in_shape=(1, 8, 8), num_classes=4, mean=(0.5,), std=(0.5,), T=2, hidden=[16], norm="tebn")
    assert [each[:2] for each in reasons(network)] == [("steps", 1), ("steps", -1)]
    assert "tebn" in reasons(network)[0][2]
    labels = torch.tensor([1])
    block = measured(network.eval(), [(torch.rand(1, 1, 8, 8), labels)], sigmas=[0.1])
    assert (block.longer, block.shorter) == (None, None) and block.missing in (0, 0.5, 1) and len(block.noise) == 1
    frames = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).view(1, 2, 2, 1, 1)  # [B, T, C, H, W]
    block = measured(by_hand(2, IF(), "events"), [(frames, labels)])
    # one spike of class 1 is left whichever frame is missing
    assert (block.accuracy, block.missing, block.noise, block.longer) == (1, 1, {}, None)


def test_a_run_and_an_evaluation_say_what_disturbances_cost(tool, capsys):
    options = ["callbacks=robustness", "callbacks.robustness.sigmas=[0,0.1]", "report=false"]
    tool.trained(*TINY, *options)
    out = capsys.readouterr().out
    for line in ("accuracy under noise", "% (0.1)", "accuracy, a step missing", "accuracy with T + 1"):
        assert line in out
    run = tool.runs()[-1]
    result = read_result(run / "result.json")
    found = result.robustness
    assert found.images == 64 and found.checkpoint == "checkpoints/best.ckpt"
    assert found.accuracy == found.noise["0"] == pytest.approx(result.metrics.best["test/acc"], abs=1e-6)
    assert list(found.noise) == ["0", "0.1"] and None not in (found.missing, found.longer, found.shorter)

    plain = tool.folder / "outputs/plain"
    tool.trained(*TINY, "report=false", f"hydra.run.dir={plain}")
    same = read_result(plain / "result.json")
    assert same.metrics == result.metrics and same.layers == result.layers and same.energy == result.energy
    assert same.robustness is None

    added = ["+callbacks.robustness._target_=qbsnn.callbacks.Robustness", "+callbacks.robustness.sigmas=[0,0.1]"]
    for checkpoint, more in ((run, []), (plain, added)):
        code = tool("evaluate.py", f"ckpt={checkpoint / 'checkpoints/best.ckpt'}", *more)
        again = read_result(tool.runs()[-1] / "result.json")
        assert (code, again.status) in ((0, "finished"), (1, "unproven")), again.error
        assert again.robustness.disturbances == found.disturbances


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("sigmas=[-0.1]", "callbacks.robustness.sigmas[0] must be a number of at least 0, got -0.1"),
        ("sigmas=[]", "callbacks.robustness.sigmas must be a list of at least one number, such as [0.1], got []"),
        ("sigmas=0.1", "callbacks.robustness.sigmas must be a list of at least one number, such as [0.1], got 0.1"),
        ("sigmas=[0.1,nan]", "callbacks.robustness.sigmas.1 must be a finite number, got nan"),
        ("sigmas=[0.1,0.2,1e-1]", "callbacks.robustness.sigmas must differ from each other, got 0.1 twice"),
        ("seed=-1", "callbacks.robustness.seed must be an integer of at least 0, got -1"),
    ],
)
def test_bad_values(tool, capsys, given, message):
    assert tool("train.py", *TINY, "callbacks=robustness", f"callbacks.robustness.{given}") == 1
    assert message in one_paragraph(capsys.readouterr().err)


def test_bad_values_in_python():
    for bad in ([float("nan")], [], "0.1", None, [True]):
        with pytest.raises(ArgumentError, match="sigmas"):
            Robustness(sigmas=bad)
