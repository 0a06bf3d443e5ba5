"""Products, bytes of weights and hardware profiles: what a target has to do, and what does not fit it."""

import math
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import torch

from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.profiles import LIMITS, findings
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.convert.settings import PROFILES, DeploySettings
from qbsnn.deploy.format.network import IntPool, Leak
from qbsnn.deploy.format.operations import multiplying_stages, weight_bytes
from qbsnn.deploy.verify.integer import check_integer
from qbsnn.errors import DeployError, SettingsError
from qbsnn.neurons import LIF, QBLIF
from tests.deploy import networks
from tests.deploy.spiking import FAMILIES, batches, make
from tests.tool import ROOT


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_multiplies_behind_the_first_layer(family):
    net = quantize(absorb(make(family, QBLIF))).net
    assert multiplying_stages(net) == []


@pytest.mark.parametrize("encoding", ["rate", "latency"])
@pytest.mark.parametrize("family", ["mlp", "vgg5-max", "resnet20"])
def test_a_first_layer_of_integers_accumulates_spikes(family, encoding):
    network = make(family, QBLIF, encoding=encoding, T=3)
    absorbed = absorb(network)
    found = quantize(absorbed, DeploySettings(first_layer="integer"))
    # J against int64 sums over integers that are recovered from the weights, in numpy.
    first, theta = next(iter(found.front.named_stages()))[1].parts[0].weight, found.net.stages[0].theta
    shape = (-1, *[1] * (first.weight.dim() - 1))
    q = first.weight.detach().double().numpy() * theta.reshape(shape)
    b = first.bias.detach().double().numpy() * theta
    assert (q == np.rint(q)).all() and np.abs(q).max() <= 127 and (b == np.rint(b)).all()
    x = found.front.encoder(batches(network)[0][0]).to(torch.int64).numpy()
    assert set(np.unique(x)) == {0, 1}
    if family == "mlp":
        expected = x.reshape(*x.shape[:2], -1) @ q.astype(np.int64).T + b.astype(np.int64)
    else:
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0),) * 3 + ((1, 1),) * 2), (3, 3), (3, 4))
        expected = np.einsum("tbchwij,ocij->tbohw", windows, q.astype(np.int64)) + b.astype(np.int64)[:, None, None]
    current = found.current(batches(network)[0][0])
    assert np.array_equal(current, expected)
    checked = check_integer(found, batches(network), onnx_images=4)
    assert checked.passed and checked.first_layer == "integer" and all(layer.spikes for layer in checked.layers)
    assert absorbed.stages is not found.front.stages


def test_a_first_layer_of_integers_needs_whole_numbers():
    with pytest.raises(DeployError, match=r"fc1: deploy.first_layer=integer needs an input of spikes or counts"):
        quantize(absorb(make("mlp", QBLIF)), DeploySettings(first_layer="integer"))
    with pytest.raises(SettingsError, match=r"first_layer must be one of float, integer, got 'int'"):
        DeploySettings(first_layer="int")
    with pytest.raises(SettingsError, match=r"first_layer=integer goes with mode=ptq"):
        DeploySettings(mode="qat", first_layer="integer")


def test_the_leak_that_multiplies_is_named_layer_by_layer():
    net = quantize(absorb(make("mlp", partial(QBLIF, tau=3.0)))).net
    assert multiplying_stages(net) == ["fc1", "fc2"]
    mixed = replace(net, stages=(replace(net.stages[0], leak=Leak("shift_floor", 1)), net.stages[1]))
    assert multiplying_stages(mixed) == ["fc2"]


def test_bytes_of_weights_worked_by_hand():
    net, _, _ = networks.worked_by_hand()
    assert weight_bytes(net, 8) == 4 and weight_bytes(net, 4) == 2 and weight_bytes(net, 2) == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_set_their_choices_and_are_proven(profile):
    tau = {"dynapcnn": float("inf")}.get(profile, 2.0)
    neuron = partial(QBLIF, s_max=8, tau=2.0)
    if profile == "dynapcnn":
        with pytest.raises(DeployError, match=r"fc1: its neurons leak \(tau = 2\), and profile=dynapcnn has no leak"):
            quantize(absorb(make("mlp", neuron)), DeploySettings(profile=profile))
        network = make("mlp", neuron, T=1)
    else:
        network = make("mlp", neuron)
    quantized = quantize(absorb(network), DeploySettings(profile=profile))
    chosen = PROFILES[profile]
    assert (quantized.net.membrane_bits, quantized.net.overflow) == (chosen["membrane_bits"], chosen["overflow"])
    assert {stage.leak.kind for stage in quantized.net.stages} == {"none" if tau > 2 else chosen["leak"]}
    found = check_integer(quantized, batches(network), onnx_images=24)
    assert found.passed and found.profile == profile and found.register_bits == chosen["membrane_bits"]
    assert not [f for f in found.findings if f.what in ("leak", "burst", "weight", "membrane register")]


def test_findings_name_layer_property_value_and_limit():
    quantized = quantize(absorb(make("vgg5-max", partial(QBLIF, s_max=63), T=1)), DeploySettings(membrane_bits=16))
    found = [asdict(finding) for finding in findings(quantized, "xylo")]
    assert {"layer": "conv2", "what": "burst", "value": "63", "limit": "at most 31"} in found
    assert "leak" not in {f["what"] for f in found}  # a single step leaks nothing on any target
    lasting = quantize(absorb(make("mlp", partial(QBLIF, tau=math.inf), T=2)), DeploySettings(membrane_bits=16))
    assert [(f.layer, f.value, f.limit) for f in findings(lasting, "xylo") if f.what == "leak"] == [
        ("fc1", "none", "shift_xylo"),
        ("fc2", "none", "shift_xylo"),
    ]
    pools = [f for f in findings(quantized, "dynapcnn") if f.what == "pool"]
    assert [(f.layer, f.value) for f in pools] == [("conv1", "max 2x2"), ("conv3", "max 2x2")]
    wide = findings(quantize(absorb(make("mlp", QBLIF))), "xylo")
    assert {f.what for f in wide} >= {"membrane register", "leak"}
    assert {f.layer for f in wide if f.what == "membrane register"} == {"fc1", "fc2"}


def test_every_limit_can_be_exceeded():
    """One network changed in one respect at a time: each change adds its own finding and no other."""
    quantized = quantize(absorb(make("vgg5-max", LIF, T=1)), DeploySettings(membrane_bits=16, overflow="saturate"))
    base = {(f.layer, f.what) for f in findings(quantized, "dynapcnn")}
    conv2 = quantized.net.stages[1]
    (branch,) = conv2.branches
    changes = {
        "leak": {"leak": Leak("shift_floor", 1)},
        "burst": {"s_min": -1},
        "stride": {"branches": (replace(branch, stride=(3, 3)),)},
        "padding": {"branches": (replace(branch, padding=(8, 8)),)},
        "pool": {"pool": IntPool("sum", (3, 3), (3, 3))},
    }
    for what, change in changes.items():
        stages = (quantized.net.stages[0], replace(conv2, **change), *quantized.net.stages[2:])
        found = findings(replace(quantized, net=replace(quantized.net, stages=stages)), "dynapcnn")
        assert ("conv2", what) in {(f.layer, f.what) for f in found} - base
    deep = quantize(absorb(make("resnet20", LIF, T=1)), DeploySettings(membrane_bits=16, overflow="saturate"))
    assert ("network", "layers") in {(f.layer, f.what) for f in findings(deep, "dynapcnn")}


@pytest.mark.parametrize("given", [{"membrane_bits": 12}, {"overflow": "wrap"}, {"leak": "none"}])
def test_a_choice_beside_a_profile_that_makes_another_one_is_refused(given):
    ((name, value),) = given.items()
    wanted = PROFILES["generic-fpga"][name]
    with pytest.raises(
        SettingsError, match=f"profile=generic-fpga sets {name}={wanted}, so {name}={value} must be left"
    ):
        DeploySettings(profile="generic-fpga", **given)
    assert DeploySettings(profile="generic-fpga", **{name: wanted}).resolved().membrane_bits == 24


def test_an_unknown_profile_is_refused():
    assert set(LIMITS) == set(PROFILES)
    with pytest.raises(SettingsError, match=r"profile must be one of generic-fpga, .*got 'tpu'"):
        findings(quantize(absorb(make("mlp", LIF))), "tpu")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_says_what_it_promises(profile):
    page = (ROOT / "docs/hardware.md").read_text(encoding="utf-8")
    assert f"| `{profile}` | {LIMITS[profile].promise} | {PROFILES[profile]['leak']} |" in page
    network = make("mlp", partial(LIF, tau=math.inf if PROFILES[profile]["leak"] == "none" else 2.0))
    checked = check_integer(quantize(absorb(network), DeploySettings(profile=profile)), batches(network), onnx_images=0)
    assert checked.promise.startswith(f"{LIMITS[profile].promise}: ")
