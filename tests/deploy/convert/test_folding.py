"""The list of what folds: everything on it is compared with the trained network, everything else is refused by name."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.folding import NORMS, POOLS, WEIGHTS
from qbsnn.deploy.convert.grid import GridNetwork
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.deploy.verify.absorption import check_absorption
from qbsnn.errors import ArgumentError, DeployError
from qbsnn.functional import Reset
from qbsnn.layers import INPUT, BatchNorm1d, BatchNorm2d, Branch, Encoder, Stage, TDBatchNorm, TemporalScale, quantise
from qbsnn.models import SpikingNetwork, mlp
from qbsnn.neurons import ILIF, LIF, PLIF, QBLIF, QuantReLU, TernaryBurst
from tests.deploy.spiking import batches, lively


def network(weight=None, norm=None, pool=None, neuron=QBLIF, shortcut=False) -> SpikingNetwork:
    """Maps of 8 channels and 6×6; the layer in question is "middle", between spikes and spikes."""
    torch.manual_seed(0)
    weight = nn.Conv2d(8, 8, 3, padding=1) if weight is None else weight()
    if isinstance(weight, nn.Linear):
        weight.weight.data *= 3  # else it is silent
    x = torch.zeros(1, 8, 6, 6)
    shape = tuple(weight(x.flatten(1) if isinstance(weight, nn.Linear) else x).shape[1:])
    first, middle, last = neuron(), neuron(), neuron()
    first.size_to((8, 6, 6))
    middle.size_to(shape)
    stages = {
        "first": Stage([Branch(INPUT, nn.Conv2d(3, 8, 3, padding=1), BatchNorm2d(8))], first),
        "middle": Stage(
            [Branch("first", weight, None if norm is None else norm()), *([Branch("first")] if shortcut else [])],
            middle,
            None if pool is None else pool(),
        ),
    }
    encoder = Encoder("direct", 3, [0.5] * 3, [0.3] * 3)
    with torch.no_grad():
        spikes = stages["first"].eval()([encoder(torch.rand(1, 3, 6, 6))], 3)
        features = stages["middle"].eval()([spikes] * len(stages["middle"].sources), 3).flatten(2).shape[2]
    last.size_to((20,))
    stages |= {
        "after": Stage([Branch("middle", nn.Linear(features, 20), BatchNorm1d(20))], last),
        "readout": Stage([Branch("after", nn.Linear(20, 5))]),
    }
    return lively(SpikingNetwork(encoder, stages, 3, (3, 6, 6))).eval()


def quantised(bits):
    layer = nn.Conv2d(8, 8, 3, padding=1)
    quantise(layer, bits)
    return layer


WEIGHT_CASES = {
    "plain": None,
    "without bias": partial(nn.Conv2d, 8, 8, 3, padding=1, bias=False),
    "strided": partial(nn.Conv2d, 8, 12, 3, stride=2, padding=1),
    "grouped": partial(nn.Conv2d, 8, 16, 3, groups=4),
    "depthwise": partial(nn.Conv2d, 8, 8, 3, padding=1, groups=8),
    "dilated": partial(nn.Conv2d, 8, 8, 3, padding=2, dilation=2),
    "oblong": partial(nn.Conv2d, 8, 8, (1, 3), padding=(0, 1), stride=(2, 1)),
    "quantised": partial(quantised, 4),
    "linear": partial(nn.Linear, 288, 8),
    "linear without bias": partial(nn.Linear, 288, 8, bias=False),
}
NORM_CASES = {
    "torch's 2d": partial(nn.BatchNorm2d, 8),
    "2d": partial(BatchNorm2d, 8),
    "tdbn": partial(TDBatchNorm, 8, 0.7, 2),
    "cumulative": partial(BatchNorm2d, 8, momentum=None),
    "another ε": partial(nn.BatchNorm2d, 8, eps=0.1),
}
LINEAR_NORM_CASES = {"torch's 1d": partial(nn.BatchNorm1d, 8), "1d": partial(BatchNorm1d, 8)}
POOL_CASES = {
    "max": partial(nn.MaxPool2d, 2),
    "padded max": partial(nn.MaxPool2d, 3, 2, 1),
    "average": partial(nn.AvgPool2d, 2),
    "overlapping average": partial(nn.AvgPool2d, 3, 2),
    "padded average": partial(nn.AvgPool2d, 3, 2, 1),
    "another divisor": partial(nn.AvgPool2d, 2, divisor_override=3),
}
CASES = {
    **{f"{name} weight": {"weight": case} for name, case in WEIGHT_CASES.items()},
    **{f"{name} norm": {"norm": case} for name, case in NORM_CASES.items()},
    **{f"{n} norm": {"norm": case, "weight": WEIGHT_CASES["linear"]} for n, case in LINEAR_NORM_CASES.items()},
    **{f"{name} pool": {"pool": case, "norm": NORM_CASES["2d"]} for name, case in POOL_CASES.items()},
    "shortcut": {"shortcut": True, "norm": NORM_CASES["2d"]},
}
NEURONS = {
    "counts": partial(QBLIF, s_max=4),
    "graded by channel": partial(QBLIF, s_max=4, output="graded", granularity="channel"),
    "hard": partial(LIF, reset="hard"),
    "plif": PLIF,
    "ilif": ILIF,
    "signed": TernaryBurst,
    "levels": partial(QuantReLU, bits=3),
    "own reset": partial(QBLIF, reset=Reset(lambda v, s, delta: v - delta * s, "soft")),
}


def test_every_class_of_the_list_has_a_case():
    groups = (WEIGHT_CASES, NORM_CASES, LINEAR_NORM_CASES, POOL_CASES)
    made = {type(case()) for group in groups for case in group.values() if case}
    assert made >= {*WEIGHTS, *NORMS, *POOLS}


USUAL = {"plain weight", "linear weight", "2d norm", "max pool"}
PAIRS = [
    pytest.param(case, neuron, marks=() if neuron in ("counts", "signed") or case in USUAL else pytest.mark.slow)
    for case in CASES
    for neuron in NEURONS
]


@pytest.mark.parametrize(("case", "neuron"), PAIRS)
def test_what_is_on_the_list_folds_exactly(case, neuron):
    trained = network(**CASES[case], neuron=NEURONS[neuron]).double()
    found = check_absorption(trained, absorb(trained), batches(trained, dtype=torch.float64))
    assert found.passed and found.spike_mismatches == found.free_running_mismatches == 0
    trained = trained.float()
    found = check_absorption(trained, absorb(trained), batches(trained))
    assert found.passed and found.ties <= found.positions // 1000


class Twice(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


class Tired(QBLIF):
    def bound_step(self):
        return super().bound_step()


def pruned(what):
    return prune.random_unstructured(nn.Conv2d(8, 8, 3), what, amount=0.5)


def parametrized():
    layer = nn.Conv2d(8, 8, 3)
    nn.utils.parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


def infinite(what):
    layer = nn.Conv2d(8, 8, 3)
    getattr(layer, what).data.view(-1)[0] = float("inf")
    return layer


REFUSED = {
    "transposed": ({"weight": partial(nn.ConvTranspose2d, 8, 8, 3)}, "a ConvTranspose2d cannot be folded, but Conv2d"),
    "subclass": ({"weight": partial(Twice, 8, 8, 3)}, "a Twice cannot be folded"),
    "parametrized": ({"weight": parametrized}, "its weight is parametrized by Doubled"),
    "weight norm": ({"weight": lambda: parametrizations.weight_norm(nn.Conv2d(8, 8, 3))}, "is parametrized by _Weight"),
    "pruned": (
        {"weight": partial(pruned, "weight")},
        r"its weight is made by a hook; .*remove\(layer, 'weight'\)",
    ),
    "pruned bias": (
        {"weight": partial(pruned, "bias")},
        r"its bias is made by a hook; .*remove\(layer, 'bias'\)",
    ),
    "same": ({"weight": partial(nn.Conv2d, 8, 8, 3, padding="same")}, "pads with 'same': give the padding as numbers"),
    "reflect": ({"weight": partial(nn.Conv2d, 8, 8, 3, padding=1, padding_mode="reflect")}, "pads with 'reflect'"),
    "infinite": ({"weight": partial(infinite, "weight")}, "weights, norm or scale are infinite"),
    "infinite bias": ({"weight": partial(infinite, "bias")}, "weights, norm or scale are infinite"),
    "affine": ({"norm": partial(nn.BatchNorm2d, 8, affine=False)}, "its norm cannot be folded: it has affine=False"),
    "own affine": ({"norm": partial(BatchNorm2d, 8, affine=False)}, "its norm cannot be folded: it has affine=False"),
    "batch": ({"norm": partial(nn.BatchNorm2d, 8, track_running_stats=False)}, "it has track_running_stats=False"),
    "instance": ({"norm": partial(nn.InstanceNorm2d, 8)}, "InstanceNorm2d is none of BatchNorm1d and BatchNorm2d"),
    "layer": ({"norm": partial(nn.GroupNorm, 1, 8)}, "layer norm divides by the deviation of each sample"),
    "dilated pool": ({"pool": partial(nn.MaxPool2d, 2, dilation=2)}, "without dilation.* got dilation=2"),
    "ceiled pool": ({"pool": partial(nn.MaxPool2d, 4, ceil_mode=True)}, "without dilation, ceil_mode .*ceil_mode=True"),
    "ceiled average": ({"pool": partial(nn.AvgPool2d, 4, ceil_mode=True)}, "only with a constant divisor"),
    "uncounted": ({"pool": partial(nn.AvgPool2d, 3, 2, 1, count_include_pad=False)}, "only with a constant divisor"),
    "adaptive": ({"pool": partial(nn.AdaptiveAvgPool2d, 2)}, "a AdaptiveAvgPool2d between spikes and weights"),
    "own step": ({"neuron": Tired}, "Tired computes a step of its own and does not say"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_on_the_list_is_refused_with_its_name(case):
    parts, words = REFUSED[case]
    with pytest.raises(DeployError, match=f"^{'first' if 'neuron' in parts else 'middle'}: .*{words}"):
        absorb(network(**parts))


def test_a_scale_per_step_and_what_two_stages_share_are_refused():
    scaled = network()
    scaled.stages["middle"].branches[0].temporal = TemporalScale(3)
    with pytest.raises(DeployError, match="middle: TEBN scales every step by its own factor"):
        absorb(scaled)
    shared = network()
    shared.stages["middle"].branches.append(shared.stages["middle"].branches[0])
    with pytest.raises(DeployError, match="middle: shares its branches with middle"):
        absorb(shared)
    branch = Branch("first", nn.Conv2d(8, 8, 3, padding=1))
    stages = {
        "first": Stage([Branch(INPUT, nn.Conv2d(3, 8, 3, padding=1))], QBLIF()),
        "second": Stage([branch], QBLIF()),
        "third": Stage([branch], QBLIF()),
        "readout": Stage([Branch("third", nn.Linear(288, 5))]),
    }
    shared = SpikingNetwork(Encoder("direct", 3, [0.5] * 3, [0.3] * 3), stages, 3, (3, 6, 6))
    with pytest.raises(DeployError, match="third: shares its branches with second"):
        absorb(shared)


class Uneven(QBLIF):
    """What a spike is worth differs along a row."""

    def emission_scale(self):
        return torch.linspace(1, 2, 6)


class Many(QBLIF):
    """A neuron with a time constant per channel."""

    @property
    def decay(self):
        return torch.linspace(0.1, 0.9, 8).view(8, 1, 1)


@pytest.mark.parametrize(("shape", "found"), [((8,), r"\[8\]"), ((8, 6), r"\[8, 1\]"), ((6, 8, 6), r"\[6, 1, 1\]")])
def test_a_scale_per_channel_of_another_shape_is_refused(shape, found):
    by_channel = network(neuron=partial(QBLIF, granularity="channel"))
    absorb(by_channel)
    delta = by_channel.stages["middle"].neuron.delta
    delta.raw = nn.Parameter(torch.linspace(0.5, 2, shape[0]))
    delta.dims = len(shape) - 1  # as size_to(shape) leaves them
    with pytest.raises(DeployError, match=rf"^middle: its Δ must be one number or \[8, 1, 1\], .* got {found}"):
        absorb(by_channel)


def test_a_scale_per_feature_of_another_shape_is_refused():
    by_channel = network(neuron=partial(QBLIF, granularity="channel"))
    by_channel.stages["after"].neuron.delta.dims = 2
    with pytest.raises(DeployError, match=r"^after: its Δ must be one number or \[20\], .* got \[20, 1, 1\]"):
        absorb(by_channel)


def test_what_a_spike_is_worth_may_differ_by_channel_only():
    with pytest.raises(
        DeployError, match=r"^first: its emission scale must be one number or \[8, 1, 1\], .* got \[6\]"
    ):
        absorb(network(neuron=Uneven))


def test_a_time_constant_per_channel_is_refused():
    with pytest.raises(DeployError, match=r"^first: its λ must be one number, .* got one of shape \[8, 1, 1\]"):
        absorb(by_hand(readout=reads("first"), neuron=Many))


def by_hand(neuron=QBLIF, **stages) -> SpikingNetwork:
    """A first stage of spiking maps [8, 6, 6], then these."""
    first = Stage([Branch(INPUT, nn.Conv2d(3, 8, 3, padding=1))], neuron())
    return SpikingNetwork(Encoder("direct", 3, [0.5] * 3, [0.3] * 3), {"first": first, **stages}, 3, (3, 6, 6)).eval()


def to(channels, source="first", inputs=8):
    return Branch(source, nn.Conv2d(inputs, channels, 1))


def reads(source, features=288):
    return Stage([Branch(source, nn.Linear(features, 5))])


UNFOLDABLE = {
    "no neuron in the middle": (
        lambda: {"m": Stage([to(4)]), "b": Stage([to(8, "m", 4)], QBLIF()), "readout": reads("b")},
        "m: it has no neuron, and only the last stage, which reads out, may have none",
    ),
    "two readouts": (
        lambda: {"aux": reads("first"), "readout": reads("first")},
        "aux: it has no neuron, and only the last stage",
    ),
    "one channel to all": (
        lambda: {"b": Stage([to(8), to(1)], QBLIF()), "readout": reads("b")},
        "b: its branches must put out as many channels as one another, got Conv2d to 8 and Conv2d to 1",
    ),
    "one class to all": (
        lambda: {"readout": Stage([*reads("first").parts, Branch("first", nn.Linear(288, 1))])},
        "readout: its branches must put out .*, got Linear to 5 and Linear to 1",
    ),
}
WITHOUT_INTEGERS = {
    "readout of two": (
        lambda: {"b": Stage([to(8)], QBLIF()), "readout": Stage([*reads("first").parts, *reads("b").parts])},
        "readout: QB-INT 1 reads out by one layer of weights, got 2 branches",
    ),
    "readout by a shortcut": (
        lambda: {"readout": Stage([Branch("first")])},
        "readout: QB-INT 1 reads out by one layer of weights, got a branch without",
    ),
    "shortcuts only": (
        lambda: {"b": Stage([Branch("first")], QBLIF()), "readout": reads("b")},
        "b: QB-INT 1 takes the thresholds of a stage from its weights, and its branches have none",
    ),
    "readout by a convolution": (
        lambda: {"readout": Stage([Branch("first", nn.Conv2d(8, 5, 6))])},
        "readout: a linear weight must be int8 with 2 dimensions",
    ),
}


@pytest.mark.parametrize("case", UNFOLDABLE)
def test_wiring_that_does_not_fold_is_refused_with_the_stage(case):
    stages, words = UNFOLDABLE[case]
    built = by_hand(**stages())
    with pytest.raises(DeployError, match=f"^{words}"):
        absorb(built)


@pytest.mark.parametrize("case", WITHOUT_INTEGERS)
@pytest.mark.parametrize("theta", ["pow2", "integer"])
def test_wiring_that_folds_and_has_no_integer_form_is_refused_with_the_stage(case, theta):
    stages, words = WITHOUT_INTEGERS[case]
    built = by_hand(**stages())
    absorbed, pixels = absorb(built), torch.rand(2, 3, 6, 6)
    assert torch.allclose(absorbed(pixels), built(pixels), atol=1e-5)
    with pytest.raises(DeployError, match=f"^{words}"):
        quantize(absorbed, DeploySettings(theta=theta), pixels)


def test_a_network_that_does_not_end_with_its_readout_is_refused():
    built = by_hand(readout=reads("first"))
    built.stages["b"] = Stage([to(8)], QBLIF())  # behind the back of the constructor
    with pytest.raises(DeployError, match=r"^readout: it has no neuron, and only the last stage, which reads out, may"):
        absorb(built)
    built = by_hand(readout=reads("first"))
    built.stages["readout"].neuron = QBLIF()
    with pytest.raises(DeployError, match=r"^the network needs at least one spiking stage and a readout"):
        quantize(absorb(built))


class TwiceBranch(Branch):
    def part(self, x, frozen=False):
        found = super().part(x, frozen)
        return found._replace(y=2 * found.y)


class Called(Stage):
    def __call__(self, *inputs, **more):
        return super().__call__(*inputs, **more)


class Negative(SpikingNetwork):
    def forward(self, pixels, tap=None):
        return super().forward(1 - pixels, tap)


class Named(SpikingNetwork):
    """Computes what its base computes."""

    def __init__(self, stages):
        super().__init__(Encoder("direct", 3, [0.5] * 3, [0.3] * 3), stages, 3, (3, 6, 6))

    def extra_repr(self):
        return "mine"

    def classes(self, pixels):
        return self.decide(self(pixels)).argmax(1)


def parts():
    """Stages of their own classes."""
    return {
        "first": Stage([Branch(INPUT, nn.Conv2d(3, 8, 3, padding=1))], QBLIF()),
        "b": Stage([to(8)], QBLIF()),
        "readout": reads("b"),
    }


def own_class(what):
    stages = parts()
    if what is TwiceBranch:
        stages["b"] = Stage([TwiceBranch("first", nn.Conv2d(8, 8, 1))], QBLIF())
    elif what is Called:
        stages["b"] = Called([to(8)], QBLIF())
    network = (Negative if what is Negative else SpikingNetwork)(
        Encoder("direct", 3, [0.5] * 3, [0.3] * 3), stages, 3, (3, 6, 6)
    )
    return network.eval()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (TwiceBranch, "b: TwiceBranch has a part of its own, and what folds is what a Branch computes"),
        (Called, "b: Called has a __call__ of its own, and what folds is what a Stage computes"),
        (Negative, "network: Negative has a forward of its own, and what folds is what a SpikingNetwork computes"),
    ],
)
def test_classes_that_compute_something_else_are_refused(what, words):
    with pytest.raises(DeployError, match=f"^{words}"):
        absorb(own_class(what))


def test_the_network_that_is_trained_on_the_grid_does_not_fold():
    plain = network()
    with pytest.raises(DeployError, match=r"^network: GridNetwork has a forward of its own"):
        absorb(GridNetwork(quantize(absorb(plain))))


def test_a_method_that_was_replaced_in_one_object_is_refused():
    built = own_class(None)
    built.stages["b"].emit = lambda output: -output
    with pytest.raises(DeployError, match=r"^b: Stage has a emit of its own"):
        absorb(built)


def test_a_class_that_computes_what_its_base_does_folds():
    torch.manual_seed(0)
    built = Named(parts()).eval()
    assert torch.allclose(absorb(built)(torch.ones(1, 3, 6, 6)), built(torch.ones(1, 3, 6, 6)), atol=1e-5)


def test_hooks_are_refused_wherever_they_are():
    built = network(norm=NORM_CASES["2d"], pool=POOL_CASES["max"])
    middle = built.stages["middle"]
    places = {
        "network": built,
        "middle": [middle, middle.parts[0], middle.parts[0].weight, middle.parts[0].norm, middle.neuron, middle.pool],
        "readout": built.stages["readout"].parts[0].weight,
    }
    for where, modules in places.items():
        for module in modules if isinstance(modules, list) else [modules]:
            for register in (module.register_forward_hook, module.register_forward_pre_hook):
                handle = register(lambda *_: None)
                with pytest.raises(DeployError, match=rf"^{where}: its {type(module).__name__} has a forward hook"):
                    absorb(built)
                handle.remove()
    built.encoder.register_forward_hook(lambda *_: None)  # stays where it is
    absorb(built)


def test_a_forward_pass_that_is_not_that_of_the_stages_is_noticed():
    built = own_class(None)
    absorbed = absorb(built)
    given = batches(built)
    assert check_absorption(built, absorbed, given).layers
    other = Negative(built.encoder, dict(built.stages), 3, (3, 6, 6)).eval()
    words = r"^network: its forward pass gives other logits than its stages do, for 12 of 12 samples"
    with pytest.raises(DeployError, match=words):
        check_absorption(other, absorbed, given)
    built.stages["b"].neuron.register_forward_hook(lambda neuron, inputs, output: output * 2)
    with pytest.raises(DeployError, match=words):
        check_absorption(built, absorbed, given)


def test_a_dilated_convolution_folds_and_has_no_integer_form():
    with pytest.raises(DeployError, match=r"middle: QB-INT 1 has no dilation, got a convolution with \(2, 2\)"):
        quantize(absorb(network(weight=WEIGHT_CASES["dilated"])))


def test_a_branch_without_weight_has_nothing_to_normalise():
    with pytest.raises(ArgumentError, match="norm and temporal must be None in a branch without weight"):
        Branch("first", None, BatchNorm2d(8))


def test_a_scale_that_waits_for_its_first_batch_is_refused():
    network = mlp(partial(QBLIF, init="percentile"), (1, 4, 4), 3, [0.5], [0.3], hidden=(8, 8))
    with pytest.raises(DeployError, match=r"^fc1: its Δ still waits for the first training batch \(init=percentile\)"):
        absorb(network)
    network(torch.rand(4, 1, 4, 4))
    absorb(network)
