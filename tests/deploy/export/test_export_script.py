"""``scripts/export.py`` from the command line to the files it leaves, or does not leave."""

import json
import os
import re
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from qbsnn.deploy.engines import onnx_graph
from qbsnn.deploy.export import bundle, bundle_reader
from qbsnn.deploy.export import write as exports
from qbsnn.deploy.export.write import FORMATS, Format
from qbsnn.deploy.verify.traces import identical
from qbsnn.errors import ArgumentError, DeployError
from tests.deploy import networks
from tests.deploy.export.exporting import trained
from tests.tool import TINY, Tool, one_paragraph

SCRIPT = "scripts/export.py"
QUICK = ("callbacks.absorption=null", "callbacks.integer=null", "callbacks.diagnostics=null", "report=false", "T=2")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small trained network."""
    with pytest.MonkeyPatch.context() as patch:
        tool = Tool(patch, tmp_path_factory.mktemp("run"))
        assert tool("train.py", *TINY, *QUICK) == 0
        return tool.runs()[-1] / "checkpoints/best.ckpt"


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_written_and_proved(tool, capsys, checkpoint, kind):
    extra = []
    if kind == "nir":
        pytest.importorskip("nir")
        extra = ["allow_metadata_only=true"]
    if kind == "onnx" and onnx_graph.available():
        pytest.skip("no onnxruntime here")
    if kind == "c" and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler here")
    assert tool(SCRIPT, f"ckpt={checkpoint}", f"format={kind}", "images=3", *extra) == 0
    shown = capsys.readouterr().out
    (out,) = (tool.folder / "outputs/export").glob("*/*")
    assert out.name == f"digits-vgg5-qb_lif-{kind}{FORMATS[kind].suffix}" and out.is_dir() is FORMATS[kind].folder
    assert shown.startswith(f"{out.relative_to(tool.folder)}: digits-vgg5-qb_lif, T = 2, 4 layers; ")
    counted = re.search(r"checked on 3 test images: ([\d,]+) spikes, 0 of ([\d,]+) values differ\n", shown)
    assert counted and all(int(number.replace(",", "")) > 0 for number in counted.groups())
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    wanted = {"bundle": {"manifest.json", "arrays.npz", "bundle_reader.py", "SHA256SUMS"},
              "c": {"qbsnn_net.h", "main.c", "current.txt", "expected.txt"}}  # fmt: skip
    assert names == wanted.get(kind, set())


def test_out_names_the_place_and_keys_change_the_configuration(tool, checkpoint):
    assert tool(SCRIPT, f"ckpt={checkpoint}", "format=bundle", "out=here/net", "T=3", "deploy.bits=4", "name=four") == 0
    assert {path.parent.name for path in tool.left_behind()} == {"net"}
    manifest = json.loads((tool.folder / "here/net/manifest.json").read_text())
    assert (manifest["T"], manifest["name"], manifest["classes"]) == (3, "four", list("0123456789"))
    weights = [array for name, array in bundle_reader.read(tool.folder / "here/net").arrays.items() if "weight" in name]
    assert max(int(np.abs(array).max()) for array in weights if array.dtype == np.int8) == 7


def test_what_does_not_fit_the_profile_is_said(tool, capsys, checkpoint):
    words = ("neuron.s_max=64", "deploy.profile=xylo")
    assert tool(SCRIPT, f"ckpt={checkpoint}", "format=bundle", *words) == 0
    said = capsys.readouterr().out
    assert "\nwarning: does not fit xylo: conv1: burst 64, allowed: at most 31\n" in said
    assert (
        "\nwarning: neuron.s_max was 8 in training and is 64 here: this is not the network that was trained\n" in said
    )
    assert "\nprofile xylo, rules: the leak is the chip's; every synapse" in said


def test_an_export_that_is_ended_leaves_nothing(tool, checkpoint, monkeypatch):
    def ended(job, current, path):
        assert path.exists()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setitem(FORMATS, "bundle", FORMATS["bundle"]._replace(run=ended))
    assert tool(SCRIPT, f"ckpt={checkpoint}", "format=bundle") == 128 + signal.SIGTERM
    assert tool.left_behind() == []


def test_what_a_killed_export_left_is_removed_by_a_later_one(tmp_path, job):
    old, new = (f".{digit * 16}.export" for digit in "12")
    for name, age in ((old, 4000), (new, 0), (".mine.export", 4000)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    exports.export(job, "bundle", tmp_path / "net")
    assert sorted(path.name for path in tmp_path.iterdir()) == [new, ".mine.export", "net"]


def test_exports_of_one_process_at_a_time_do_not_meet(tmp_path, job):
    names = [f"net{i}" for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        proofs = list(pool.map(lambda name: exports.export(job, "bundle", tmp_path / name), names))
    assert len(proofs) == 4 and sorted(path.name for path in tmp_path.iterdir()) == names


def test_what_exists_is_not_overwritten(tool, capsys, checkpoint):
    (tool.folder / "net").write_text("precious")
    assert tool(SCRIPT, f"ckpt={checkpoint}", "format=bundle", "out=net") == 1
    assert one_paragraph(capsys.readouterr().err).startswith("error: net exists already; name another path")
    assert (tool.folder / "net").read_text() == "precious" and len(tool.left_behind()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "ckpt is missing: write ckpt=PATH; format is missing: write format=VALUE"),
        (["format=c"], "ckpt is missing: write ckpt=PATH"),
        (["ckpt={}"], "format is missing: write format=VALUE; --help shows all keys"),
        (["ckpt={}", "format=c", "fast"], "fast is no key=value"),
        (["ckpt={}", "format=zip"], "format must be one of onnx, bundle, nir, c, got 'zip'"),
        (["ckpt={}", "format=c", "images=0"], "images must be an integer of at least 1, got '0'"),
        (["ckpt={}", "format=c", "images=few"], "images must be an integer of at least 1, got 'few'"),
        (
            ["ckpt={}", "format=c", "allow_metadata_only=perhaps"],
            "allow_metadata_only must be true or false, got 'perhaps'",
        ),
        (["ckpt=nowhere.ckpt", "format=c"], "checkpoint .*nowhere.ckpt does not exist"),
        (["ckpt={}", "format=c", "imagse=3"], "imagse is not a setting of this checkpoint"),
        (["ckpt={}", "format=c", "deploy.bits=9"], "deploy.bits must be an integer from 2 to 8, got 9"),
        (["ckpt={}", "format=bundle", "out=/proc/net"], "/proc/net exists already|cannot be written"),
    ],
)
def test_a_bad_argument_is_one_paragraph_and_leaves_nothing(tool, capsys, checkpoint, arguments, message):
    assert tool(SCRIPT, *(argument.format(checkpoint) for argument in arguments)) == 1
    assert re.search(message, one_paragraph(capsys.readouterr().err))
    assert tool.left_behind() == []


def test_nir_refuses_bursts_and_leaves_nothing(tool, capsys, checkpoint):
    pytest.importorskip("nir")
    assert tool(SCRIPT, f"ckpt={checkpoint}", "format=nir", "out=deep/net.nir") == 1
    error = one_paragraph(capsys.readouterr().err)
    assert "a plain NIR reader would misread this network: bursts of up to 8 (conv1, conv2, conv3, fc1)" in error
    assert "allow_metadata_only=true" in error
    assert tool.left_behind() == [] and not (tool.folder / "deep").exists()


@pytest.mark.parametrize("kind", ["nir", "onnx"])
def test_a_missing_package_says_which_extra_to_install(tool, capsys, checkpoint, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, kind, None)
    assert tool(SCRIPT, f"ckpt={checkpoint}", f"format={kind}") == 1
    extra = {"nir": "nir", "onnx": "deploy"}[kind]
    assert re.search(rf"{kind} cannot be imported .* install qbsnn\[{extra}\]", one_paragraph(capsys.readouterr().err))
    assert tool.left_behind() == []


def test_a_missing_compiler_leaves_nothing(tool, capsys, checkpoint, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert tool(SCRIPT, f"ckpt={checkpoint}", "format=c") == 1
    assert "no C compiler: no-such-compiler not found" in one_paragraph(capsys.readouterr().err)
    assert tool.left_behind() == []


def off_by_one(run):
    """A runner that reports one membrane wrongly."""

    def wrong(job, current, path):
        trace, remark = run(job, current, path)
        trace.membranes[-1].flat[0] += 1
        return trace, remark

    return wrong


def test_an_export_that_does_something_else_is_not_left(tool, capsys, checkpoint, monkeypatch):
    good = FORMATS["bundle"]
    monkeypatch.setitem(FORMATS, "bundle", Format("", True, good.write, off_by_one(good.run)))
    assert tool(SCRIPT, f"ckpt={checkpoint}", "format=bundle") == 1
    error = one_paragraph(capsys.readouterr().err)
    assert re.search(r"the export differs from the numpy engine in 1 of \d+ values", error)
    assert tool.left_behind() == []


def test_a_bundle_of_another_network_is_noticed(tool, capsys, checkpoint, monkeypatch):
    read = bundle.read
    monkeypatch.setattr(bundle, "read", lambda path: networks.flip(read(path), -1, (0, 0)))
    assert tool(SCRIPT, f"ckpt={checkpoint}", "format=bundle") == 1
    assert "read back is not the one that was written" in one_paragraph(capsys.readouterr().err)
    assert tool.left_behind() == []


@pytest.fixture(scope="module")
def job():
    quantized, pixels = trained("mlp")
    return exports.Job(quantized, quantized.front.encoder(pixels), "mlp", list("abcde"))


@pytest.mark.parametrize("form", ["bundle", "onnx"])
@pytest.mark.parametrize("place", ["file/net", "file/deep/net", "dangling", "x" * 300, "new/" + "x" * 300])
def test_a_place_that_cannot_be_written_is_named_and_left_as_it_was(tmp_path, job, form, place):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DeployError, match=rf"{re.escape(str(tmp_path / place))} (cannot be written|exists already)"):
        exports.export(job, form, tmp_path / place)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "dangling"}
    assert (tmp_path / "file").read_text() == "precious" and (tmp_path / "dangling").is_symlink()


def test_a_long_name_is_a_name(tmp_path, job):
    exports.export(job, "bundle", tmp_path / "new" / ("x" * 250))
    assert (tmp_path / "new" / ("x" * 250) / bundle_reader.MANIFEST).is_file()


def test_folders_that_were_made_for_a_refused_network_go_again(tmp_path, job, monkeypatch):
    def refuse(job, current, path):
        raise DeployError("no such form")

    monkeypatch.setitem(FORMATS, "bundle", Format("", True, refuse, FORMATS["bundle"].run))
    (tmp_path / "kept").mkdir()
    with pytest.raises(DeployError, match="no such form"):
        exports.export(job, "bundle", tmp_path / "kept/a/b/net")
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]


def test_identical_sees_every_field():
    net = networks.make(np.random.default_rng(0), "residual")
    same = networks.make(np.random.default_rng(0), "residual")
    assert identical(net, same)
    assert not identical(net, networks.flip(net, 1, (0, 0, 0, 0)))
    assert not identical(net, networks.make(np.random.default_rng(0), "residual", rounding="round"))
    assert not identical(net, networks.make(np.random.default_rng(0), "residual", T=4))
    assert not identical(np.zeros(1, np.int8), np.zeros(1, np.int32))
    assert not identical(1, True) and not identical((1,), (1, 2))


def test_help_is_the_docstring(tool, capsys):
    assert tool(SCRIPT, "--help") == 0
    assert "format=onnx|bundle|nir|c" in capsys.readouterr().out


@pytest.mark.parametrize("kind", FORMATS)
def test_what_cannot_be_proved_or_named_is_refused_before_anything_is_written(tmp_path, kind):
    quantized, pixels = trained("mlp")
    encoded = quantized.front.encoder(pixels)
    for images, classes, message in (
        (encoded[:, :0], "abcde", r"encoded must be images \[T or 1, B, C, H, W\], got \[1, 0, 3, 8, 8\]"),
        (encoded, "abc", "classes must be the names of 5 classes, got 3"),
    ):
        with pytest.raises(ArgumentError, match=message):
            exports.export(exports.Job(quantized, images, "mlp", list(classes)), kind, tmp_path / "out")
    assert not list(tmp_path.iterdir())
