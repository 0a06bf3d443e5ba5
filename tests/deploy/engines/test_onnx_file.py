"""ONNX files end with a digest, which their reader checks and other readers take for metadata."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from qbsnn.deploy.format.seal import opened, sealed
from qbsnn.errors import DeployError
from tests.deploy import networks

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from qbsnn.deploy.engines.onnx_engine import OnnxEngine  # noqa: E402 (after the skip)
from qbsnn.deploy.engines.onnx_graph import ENTRY, export  # noqa: E402


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "net.onnx"
    model = export(networks.worked_by_hand()[0], path)
    return path, model.SerializeToString()


def test_the_digest_is_an_entry_of_the_metadata(written):
    path, model = written
    found = onnx.load(path)
    onnx.checker.check_model(found, full_check=True)
    entries = {entry.key: entry.value for entry in found.metadata_props}
    assert entries["sha256"] == hashlib.sha256(model).hexdigest() and entries["semantics"] == "QB-INT 1"
    assert opened(path, ENTRY) == path.read_bytes()


def test_no_flipped_bit_and_no_cut_passes(written):
    path, _ = written
    net, current, expected = networks.worked_by_hand()
    assert networks.mismatches(OnnxEngine(net, model=path).run(current), expected) == 0
    content, rng = path.read_bytes(), np.random.default_rng(0)
    ends = [len(content) - 1, len(content) - 64, len(content) - 76, *rng.integers(len(content), size=47)]
    for k in range(250):
        damaged = bytearray(content)
        if k < 200:
            damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        else:
            del damaged[ends[k - 200] :]
        path.write_bytes(damaged)
        with pytest.raises(DeployError, match=r"net\.onnx is (damaged|cut short)"):
            OnnxEngine(net, model=path)


def test_the_file_of_another_network_is_refused(written):
    path, _ = written
    net = networks.worked_by_hand()[0]
    weight = net.readout.branch.weight.copy()
    weight.flat[0] += 1
    readout = replace(net.readout, branch=replace(net.readout.branch, weight=weight))
    for other in (replace(net, readout=readout), replace(net, T=net.T + 1), replace(net, exit_margin=1)):
        with pytest.raises(DeployError, match=r"net\.onnx is that of another network"):
            OnnxEngine(other, model=path)
    with pytest.raises(DeployError, match=r"net\.onnx is that of another network, or not static"):
        OnnxEngine(net, static=True, model=path)


def test_a_file_that_does_not_say_of_which_network_it_is_runs_as_before(written):
    path, _ = written
    net, current, expected = networks.worked_by_hand()
    model = export(net)
    entries = [entry for entry in model.metadata_props if entry.key != "network"]
    del model.metadata_props[:]
    model.metadata_props.extend(entries)
    path.write_bytes(sealed(model.SerializeToString(), ENTRY))
    assert networks.mismatches(OnnxEngine(net, model=path).run(current), expected) == 0


def test_a_file_without_a_digest_and_an_absent_one_are_refused(written):
    path, model = written
    for content in (model, b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(DeployError, match=r"net\.onnx is cut short or was not written by"):
            opened(path, ENTRY)
    path.unlink()
    with pytest.raises(DeployError, match=r"net\.onnx cannot be read"):
        opened(path, ENTRY)
