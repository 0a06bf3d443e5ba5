"""The plain bundle: round trips, the reader on its own, and every kind of damage."""

import hashlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from torch import nn

from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.engines import reference, scalar
from qbsnn.deploy.export import bundle, bundle_reader
from qbsnn.deploy.export.bundle_reader import ARRAYS, MANIFEST, READER, SUMS, BundleError
from qbsnn.deploy.verify.traces import identical
from qbsnn.errors import DeployError
from qbsnn.layers import INPUT, Branch, Encoder, Stage
from qbsnn.models import SpikingNetwork
from qbsnn.neurons import QBLIF
from tests.deploy import networks, spiking
from tests.deploy.export.exporting import as_trace, trained, with_front


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(networks.cases())
def test_random_networks_come_back_and_run_as_the_scalar_engine(tmp_path, case):
    net, current = case
    folder = tmp_path / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    bundle.write(with_front(net), folder, "random", ["a", "b", "c"])
    assert identical(bundle.read(folder), net)
    found = bundle_reader.read(folder).run(current)
    expected = scalar.run(net, current)
    assert networks.mismatches(as_trace(found), expected) == 0
    assume(networks.active(expected))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    quantized, pixels = trained("vgg5-max")
    folder = tmp_path_factory.mktemp("bundle")
    bundle.write(quantized, folder, "vgg", list("abcde"))
    return folder, quantized, pixels


@pytest.mark.parametrize(
    ("family", "encoding"), [("mlp", "direct"), ("mlp", "latency"), ("vgg9-avg", "latency"), ("resnet20", "direct")]
)
def test_the_reader_goes_from_pixels_to_spikes(tmp_path, family, encoding):
    quantized, pixels = trained(family, encoding=encoding)
    bundle.write(quantized, tmp_path, family, list("abcde"))
    reader = bundle_reader.read(tmp_path)
    own, current = reader.current(pixels.numpy()), quantized.current(pixels)
    assert own.dtype == np.int32 and own.shape == current.shape
    difference = np.abs(own.astype(np.int64) - current)
    # float64 against float32: a unit where a sum lies within rounding of a half, which is rare
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
    assert networks.mismatches(as_trace(reader.run(current)), reference.run(quantized.net, current)) == 0


def test_one_flipped_weight_shows(made):
    folder, quantized, pixels = made
    current = quantized.current(pixels)
    found, expected = as_trace(bundle_reader.read(folder).run(current)), reference.run(quantized.net, current)
    assert networks.mismatches(found, expected) == 0
    for changed in networks.flips(quantized.net, expected):
        assert networks.mismatches(found, reference.run(changed, current)) > 0


def test_rate_coding_is_encoded_by_the_caller(tmp_path):
    quantized, pixels = trained("mlp", encoding="rate")
    bundle.write(quantized, tmp_path, "mlp", list("abcde"))
    reader = bundle_reader.read(tmp_path)
    with pytest.raises(BundleError, match="rate coding draws random numbers"):
        reader.current(pixels.numpy())
    encoded = quantized.front.encoder(pixels)
    assert np.abs(reader.current_of(encoded.numpy()).astype(np.int64) - quantized.current_of(encoded)).max() <= 1


def test_the_copy_in_the_bundle_needs_nothing_but_numpy(made):
    folder, quantized, pixels = made
    np.save(folder.parent / "pixels.npy", pixels.numpy())
    program = [sys.executable, "-I", str(folder / "bundle_reader.py")]
    summary = subprocess.run([*program, str(folder)], capture_output=True, text=True, check=True).stdout
    assert (
        summary.startswith("vgg: QB-INT 1, T = 4, V 32 bit (error), ") and "conv1" in summary and "max pool" in summary
    )
    classes = subprocess.run(
        [*program, str(folder), str(folder.parent / "pixels.npy")], capture_output=True, text=True, check=True
    ).stdout
    expected = reference.run(quantized.net, quantized.current(pixels)).logits.argmax(1)
    assert re.findall(r"class (\d)", classes) == [str(label) for label in expected]
    alone = f"import sys; sys.path.insert(0, {str(folder)!r}); import bundle_reader as r; r.read({str(folder)!r}); "
    check = alone + "print([m for m in ('torch', 'qbsnn', 'onnx') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-I", "-c", check], capture_output=True, text=True).stdout == "[]\n"


def test_sha256sum_checks_a_bundle(made):
    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("no sha256sum here")
    done = subprocess.run([program, "-c", SUMS], cwd=made[0], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("OK") == 3


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "copy")


FILES = (MANIFEST, ARRAYS, READER, SUMS)


def test_no_flipped_bit_and_no_cut_passes(copy):
    contents = {name: (copy / name).read_bytes() for name in FILES}
    rng = np.random.default_rng(0)
    for k in range(250):
        name = FILES[k % 4]
        content, damaged = contents[name], bytearray(contents[name])
        if k < 200:
            damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        else:
            del damaged[len(content) - 1 if k < 204 else rng.integers(len(content)) :]
        (copy / name).write_bytes(damaged)
        with pytest.raises(BundleError, match="is damaged") as refused:
            bundle_reader.read(copy)
        assert str(copy) in str(refused.value)
        (copy / name).write_bytes(content)
    bundle_reader.read(copy)


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_needed(copy, name):
    (copy / name).unlink()
    with pytest.raises(BundleError, match=re.escape(str(copy / name))):
        bundle_reader.read(copy)


def sign(folder):
    """Make the digests of the files right again, as somebody would who changes a bundle on purpose."""
    names = (MANIFEST, ARRAYS, "bundle_reader.py")
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(lines))


def stage(k, **fields):
    return lambda manifest: manifest["stages"][k].update(fields)


def branch(k, **fields):
    return lambda manifest: manifest["stages"][k]["branches"][0].update(fields)


CHANGES = {
    "format": (lambda m: m.update(format="zip"), "format must be 'qbsnn-bundle', got 'zip'"),
    "version": (lambda m: m.update(version=2), "version must be 1, got 2"),
    "margin without version": (lambda m: m.update(exit_margin=1), "version must be 2, got 1"),
    "margin": (lambda m: m.update(version=2, exit_margin=-1), "exit_margin must be 0 to 4294967295, got -1"),
    "no margin": (lambda m: m.update(version=2, exit_margin=None), "exit_margin must be 0 to .*, got None"),
    "semantics": (lambda m: m.update(semantics="QB-INT 2"), "semantics must be 'QB-INT 1'"),
    "steps": (lambda m: m.update(T=0), "T must be 1 to .*, got 0"),
    "boolean": (lambda m: m.update(T=True), "T must be 1 to .*, got True"),
    "bits": (lambda m: m.update(membrane_bits=33), "membrane_bits must be 2 to 32, got 33"),
    "policy": (lambda m: m.update(overflow="clip"), "overflow must be one of .*, got 'clip'"),
    "leak": (stage(1, leak={"kind": "half", "amount": 1}), "'conv2': leak must be one of .*, got 'half'"),
    "amount": (stage(1, leak={"kind": "shift_floor", "amount": 31}), "'conv2': amount must be 0 to 30, got 31"),
    "s_max": (stage(1, s_max=128), "'conv2': s_max must be 1 to 127, got 128"),
    "s_min": (stage(1, s_min=-3), "'conv2': s_min must be one of .*, got -3"),
    "rounding": (stage(1, rounding="up"), "'conv2': rounding must be one of .*, got 'up'"),
    "reset": (stage(1, reset="none"), "'conv2': reset must be one of .*, got 'none'"),
    "shape": (stage(1, shape=[16, 5, 4]), "conv2: a branch gives .*, the stage's shape is"),
    "pool": (stage(1, pool={"kind": "mean", "kernel": [2, 2], "stride": [2, 2], "padding": [0, 0]}), "pool must be"),
    "kind": (branch(1, kind="sparse"), "conv2: kind must be one of .*, got 'sparse'"),
    "source": (branch(1, source=1), "conv2: source must be 0 to 0, got 1"),
    "negative source": (branch(2, source=-1), "conv3: source must be 0 to 1, got -1"),
    "stride": (branch(1, stride=[2, 2]), "conv2: a branch gives"),
    "groups": (branch(1, groups=2), "conv2: array 'stages.1.branches.0.weight' does not fit its source"),
    "input twice": (branch(1, kind="input"), "'conv2': 'input' is the only branch of the first stage"),
    "array name": (branch(1, weight="nothing"), "malformed: KeyError: 'nothing'"),
    "array role": (stage(1, theta="stages.0.bias"), "theta must be 1 to 2147483647, got"),
    "array size": (stage(1, bias="readout.bias"), "array 'readout.bias' must have .* elements"),
    "no groups": (branch(1, groups=0), "layer: groups must be 1 to .*, got 0"),
    "no groups of the input": (lambda m: m["input"]["layer"].update(groups=0), "layer: groups must be 1 to .*, got 0"),
    "backwards": (branch(1, stride=[-1, -1]), "layer: stride must be 1 to .*, got -1"),
    "half a stride": (branch(1, stride=[0.5, 0.5]), "layer: stride must be 1 to .*, got 0.5"),
    "standing pool": (
        stage(1, pool={"kind": "max", "kernel": [2, 2], "stride": [0, 2], "padding": [0, 0]}),
        "layer: stride must be 1 to .*, got 0",
    ),
    "theta": (lambda m: m.update(membrane_bits=4), r"'conv1': theta must be 1 to 7, got \d+"),
    "twins": (stage(1, name="conv1"), "'conv1': its name is not unique"),
    "encoding": (lambda m: m["input"].update(encoding="foo"), "input: encoding must be one of .*, got 'foo'"),
    "no deviation": (lambda m: m["input"].update(std=[0, 0, 0]), r"std must be finite and above 0, got \[0, 0, 0\]"),
    "mean": (lambda m: m["input"].update(mean=[float("nan")] * 3), "mean must be finite and above -inf, got .nan"),
    "scale": (lambda m: m["readout"].update(scale="x"), r"scale must be finite and above 0, got \['x'\]"),
    "versions": (lambda m: m.update(versions=3), "malformed: AttributeError"),
    "no stages": (lambda m: m.update(stages=[]), "malformed"),
    "no readout": (lambda m: m.pop("readout"), "malformed: KeyError: 'readout'"),
    "classes": (lambda m: m.update(classes=["a"]), "1 class names for 5 classes"),
    "undeclared": (lambda m: m["arrays"].pop("readout.bias"), "array 'readout.bias' is not declared, but in"),
    "missing": (lambda m: m["arrays"].update(more={}), "array 'more' is missing from"),
    "declared shape": (lambda m: m["arrays"]["readout.bias"].update(shape=[4]), "'readout.bias': shape must be"),
    "declared type": (lambda m: m["arrays"]["readout.bias"].update(dtype="<i8"), "'readout.bias': dtype must be <i8"),
    "digest": (lambda m: m["arrays"]["readout.bias"].update(sha256="0"), "'readout.bias': sha256 must be 0"),
    "no object": (lambda m: m.update(arrays=[]), "malformed"),
    "huge padding": (branch(1, padding=[2**20, 2**20]), r"padding .*: values_per_image must be 1 to \d+, got"),
    "huge pool": (
        stage(1, pool={"kind": "max", "kernel": [2**21, 1], "stride": [1, 1], "padding": [2**20, 2**20]}),
        r"padding .*: values_per_image must be",
    ),
    "huge steps": (lambda m: m.update(T=2**31 - 1), "values_per_image must be"),
    "huge input": (lambda m: m["input"].update(shape=[3, 2**20, 2**20]), "input: values must be"),
    "huge stage": (stage(0, shape=[2**40, 1, 1]), "'conv1': values_per_image must be"),
    "infinite": (lambda m: m["input"].update(shape=[1, float("inf"), 1]), "input: values must be"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_signed_bundle_that_is_wrong_names_the_place(copy, name):
    change, message = CHANGES[name]
    manifest = json.loads((copy / MANIFEST).read_text())
    change(manifest)
    (copy / MANIFEST).write_text(json.dumps(manifest))
    sign(copy)
    with pytest.raises(BundleError, match=message) as refused:
        bundle_reader.read(copy)
    assert str(copy) in str(refused.value) and len(str(refused.value)) < 600
    with pytest.raises(DeployError, match=message):
        bundle.read(copy)


def test_a_weight_of_minus_128_is_refused(copy):
    with np.load(copy / ARRAYS) as file:
        arrays = {name: file[name].copy() for name in file.files}
    arrays["stages.1.branches.0.weight"].flat[0] = -128
    np.savez(copy / ARRAYS, **arrays)
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["arrays"] = {name: bundle_reader.describe(array) for name, array in arrays.items()}
    (copy / MANIFEST).write_text(json.dumps(manifest))
    sign(copy)
    with pytest.raises(BundleError, match=r"array 'stages\.1\.branches\.0\.weight' must be -127 to 127, got -128"):
        bundle_reader.read(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [  # which the standalone reader can run, but no engine of the package takes
        (
            stage(0, pool={"kind": "sum", "kernel": [4, 4], "stride": [2, 2], "padding": [1, 1]}),
            "'conv1': padding .*: 0 for a sum pool",
        ),
        (stage(1, leak={"kind": "none", "amount": 0, "more": 1}), "malformed: TypeError: .*'more'"),
    ],
)
def test_a_bundle_comes_back_only_as_a_network_that_is_right(copy, change, message):
    manifest = json.loads((copy / MANIFEST).read_text())
    change(manifest)
    (copy / MANIFEST).write_text(json.dumps(manifest))
    sign(copy)
    with pytest.raises(DeployError, match=message):
        bundle.read(copy)


def test_events_are_frames(tmp_path):
    quantized = quantize(absorb(spiking.make("mlp", QBLIF, encoding="events", T=3)))
    bundle.write(quantized, tmp_path, "mlp", list("abcde"))
    reader = bundle_reader.read(tmp_path)
    frames = np.random.default_rng(0).integers(0, 6, (2, 3, 3, 8, 8)).astype(np.uint8)
    current = quantized.current(torch.from_numpy(frames).float())
    assert np.abs(reader.current(frames).astype(np.int64) - current).max() <= 1 and current.any()
    with pytest.raises(BundleError, match=r"pixels must be numbers of shape \[B, 3, 3, 8, 8\], got \[2, 3, 8, 8\]"):
        reader.current(frames[:, 0])
    with pytest.raises(BundleError, match=r"pixels must be numbers from 0 to 255, got 251.0 to 256.0$"):
        reader.current(frames.astype(float) + 251)
    np.save(tmp_path / "frames.npy", frames)
    assert bundle_reader.main([str(tmp_path), str(tmp_path / "frames.npy")]) == 0


def test_a_dilated_first_layer_is_refused(tmp_path):
    encoder = Encoder("direct", 2, [0.5], [0.3])
    first = Stage([Branch(INPUT, nn.Conv2d(1, 8, 2, stride=2, padding=1, dilation=2))], QBLIF(s_max=4, delta=0.2))
    stages = {"first": first, "readout": Stage([Branch("first", nn.Linear(8 * 16, 5))])}
    quantized = quantize(absorb(SpikingNetwork(encoder, stages, 2, (1, 7, 7))))
    with pytest.raises(DeployError, match=r"first: a bundle has no dilation, got a convolution with \(2, 2\)"):
        bundle.write(quantized, tmp_path, "dilated", list("abcde"))


def test_pickled_and_foreign_arrays_are_refused(copy):
    with np.load(copy / ARRAYS) as file:
        arrays = dict(file)
    np.savez(copy / ARRAYS, **{**arrays, "readout.bias": np.array([{}], object)})
    sign(copy)
    with pytest.raises(BundleError, match="without pickle"):
        bundle_reader.read(copy)
    np.savez(copy / ARRAYS, **{**arrays, "readout.bias": arrays["readout.bias"] + 1})
    sign(copy)
    with pytest.raises(BundleError, match=r"array 'readout\.bias': sha256 must be"):
        bundle_reader.read(copy)
    (copy / ARRAYS).write_bytes(b"PK\3\4 nonsense")
    sign(copy)
    with pytest.raises(BundleError, match="without pickle"):
        bundle_reader.read(copy)


def test_a_manifest_of_brackets_is_refused(copy):
    (copy / MANIFEST).write_text("[" * 200_000)
    sign(copy)
    with pytest.raises(BundleError, match=r"manifest\.json: malformed: RecursionError"):
        bundle_reader.read(copy)


def test_a_listed_path_outside_the_bundle_is_refused(copy):
    (copy / SUMS).write_text((copy / SUMS).read_text() + f"{'0' * 64}  ../other\n")
    with pytest.raises(BundleError, match=r"must list .* and nothing else"):
        bundle_reader.read(copy)


def test_bad_input_is_refused(made, tmp_path, capsys):
    folder, quantized, pixels = made
    reader = bundle_reader.read(folder)
    x = pixels.numpy()
    for wrong in (x[:, :2], x[0], x[:0]):
        more = "; add a batch dimension" * (wrong.ndim == 3)
        with pytest.raises(BundleError, match=rf"numbers of shape \[B, 3, 8, 8\], got \[[\d, ]+\] of float32{more}$"):
            reader.current(wrong)
    for wrong, got in ((x * 255, r"\d.* to 2\d\d.*; divide by 255"), (x * np.nan, "nan to nan"), (x - 1, "-.* to .*")):
        with pytest.raises(BundleError, match=f"numbers from 0 to 1, got {got}$"):
            reader.current(wrong)
    current = quantized.current(pixels)
    for wrong in (current.astype(np.int64), current[:, :, :1], np.repeat(current, 3, 0), current[:, :0], current[0, 0]):
        with pytest.raises(BundleError, match="J must be int32"):
            reader.run(wrong)
    (tmp_path / "text.npy").write_text("no array")
    assert bundle_reader.main([str(folder), str(tmp_path / "text.npy")]) == 1
    assert bundle_reader.main([str(tmp_path)]) == 1
    np.savez(tmp_path / "several.npz", x=x)
    for name, wrong in (("none", np.float64(0.5)), ("words", np.array(["a", "b"])), ("complex", x.astype(complex))):
        np.save(tmp_path / f"{name}.npy", wrong)
    for name in ("several.npz", "none.npy", "words.npy", "complex.npy"):
        assert bundle_reader.main([str(folder), str(tmp_path / name)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 6 and all(line.startswith("error: ") for line in errors)
    assert bundle_reader.main([]) == 2 and bundle_reader.main(["--help"]) == 0
