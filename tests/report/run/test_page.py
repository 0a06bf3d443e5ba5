from __future__ import annotations

import html
import io
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qbsnn.errors import DataError
from qbsnn.report.run.page import build
from qbsnn.report.run.panels import bursts, raster, robustness
from qbsnn.report.style import render
from qbsnn.results.energy_schema import Energy
from qbsnn.results.run_files import Diagnostics
from qbsnn.results.schema import Disturbance, Integer, Layer, Robustness
from tests.report.samples import make_result, write_diagnostics, write_metrics

FIGURES = {"activity", "bursts", "confusion", "curves", "delta", "deploy", "raster"}
ROOT = Path(__file__).parents[3]


def shown(page: Path) -> str:
    """The page's text, with images, tags and style left out."""
    text = re.sub(r'"data:[^"]*"|<style>.*?</style>', "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).replace("\u00a0", " ").split())


def figures(run_dir: Path) -> set[str]:
    return {path.stem for path in (run_dir / "figures").glob("*.png")}


def test_full_run_and_the_same_page_again(run_dir: Path) -> None:
    page = build(run_dir)
    assert page == run_dir / "report.html"
    assert figures(run_dir) == FIGURES
    for name in FIGURES:
        with Image.open(run_dir / "figures" / f"{name}.png") as image:
            assert image.format == "PNG" and len(np.unique(np.asarray(image.convert("L")))) > 8
    text = shown(page)
    for number in ("97.12 %", "97.83 %", "96.88 %", "0 of 100,000 positions", "1,234,567", "3 min 24 s", "432",
                   "1.25 %", "18.8 %", "of the dense ReLU network", "best by validation",
                   "with uncommitted changes", "0123abc", "optim.lr 0.1", "vgg9",
                   "Best by validation: epoch 1 with 98.01 %"):  # fmt: skip
        assert number in text, number
    source = page.read_text(encoding="utf-8")
    assert "http://" not in source and "https://" not in source and "<script" not in source
    assert source.count("<img") == len(FIGURES) == len(re.findall(r'<img[^>]*alt="[^"]+"', source))
    assert not list(run_dir.rglob("*.part"))
    first = page.read_bytes()
    assert build(run_dir).read_bytes() == first


def test_robustness_shows_what_was_measured_and_nothing_else() -> None:
    found = [Disturbance("noise", 0.05, 0.9), Disturbance("missing", 1, 0.8), Disturbance("steps", 1, 0.93),
             Disturbance("steps", -1, skipped="T = 1: no step would be left")]  # fmt: skip
    figure = robustness(make_result(robustness=Robustness("best", 360, 0.95, found)))
    assert figure is not None
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["noise, σ = 0.05", "one step missing", "T + 1"]
    clean, dots = axes.get_lines()
    assert list(dots.get_xdata()) == [90.0, 80.0, 93.0] and list(clean.get_xdata()) == [95.0, 95.0]
    for nothing in (None, {"skipped": "no reason"}, Robustness("best", 360, 0.95, found[-1:])):
        assert robustness(make_result(robustness=nothing)) is None


def test_only_a_result(tmp_path: Path) -> None:
    make_result(absorption=None, integer=None, layers=[]).write(tmp_path / "result.json")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "raster.png").write_bytes(b"of an earlier build")
    text = shown(build(tmp_path))
    assert figures(tmp_path) == set()
    for words in ("metrics.csv is not there", "diagnostics.npz is not there", "not checked", "holds no layer table"):
        assert words in text


def test_damaged_inputs_are_named_and_not_fatal(run_dir: Path) -> None:
    (run_dir / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    (run_dir / "diagnostics.npz").write_bytes(b"PK")
    text = shown(build(run_dir))
    assert "metrics.csv is left out" in text and "diagnostics.npz is left out" in text
    assert figures(run_dir) == {"deploy"}


def test_failed_run_says_so(tmp_path: Path) -> None:
    result = make_result(status="failed", error="DataError: no data at /data", absorption=None, integer=None)
    result.metrics.last.clear()
    result.metrics.best.clear()
    result.write(tmp_path / "result.json")
    text = shown(build(tmp_path))
    assert "The run failed" in text and "DataError: no data at /data" in text
    assert "not in result.json" in text and "%" not in text.partition("What was proven")[0]


def test_a_run_that_was_not_proven_says_why(tmp_path: Path) -> None:
    make_result(status="unproven", error="3 of 10 spikes differ").write(tmp_path / "result.json")
    assert "The run is unproven: 3 of 10 spikes differ" in shown(build(tmp_path))


def test_skipped_integer_shows_the_reason(tmp_path: Path) -> None:
    make_result(integer={"skipped": "tau = 3 is no power of two"}).write(tmp_path / "result.json")
    text = shown(build(tmp_path))
    assert "Skipped: tau = 3 is no power of two" in text
    assert "independent int64 engine in every spike" not in text
    assert "deploy" in figures(tmp_path)


def test_failed_check_makes_its_key_figure_red(tmp_path: Path) -> None:
    result = make_result()
    assert isinstance(result.integer, Integer)
    result.integer.flip_mismatches = 0
    result.write(tmp_path / "result.json")
    source = build(tmp_path).read_text(encoding="utf-8")
    assert '<div class="bad"><dt>Integer mismatches</dt><dd>0</dd>' in source
    assert '<div class="good"><dt>Absorbed mismatches</dt><dd>0</dd>' in source


def test_silent_layer_is_marked(tmp_path: Path) -> None:
    make_result(layers=[Layer("stem", "LIF", None, 0.0, 0.0, 1.0)]).write(tmp_path / "result.json")
    source = build(tmp_path).read_text(encoding="utf-8")
    assert re.search(r'<tr class="bad"><th scope="row">stem <span class="badge failed">silent</span>', source)


def test_hostile_strings_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>$\\frac{$_x\n漢字"
    result = make_result(
        command=evil, status="failed", error=evil, config={evil: {"a": evil}}, checkpoints={evil: evil}
    )
    result.layers[0].name = evil
    assert not isinstance(result.absorption, dict) and result.absorption is not None
    assert isinstance(result.energy, Energy)
    result.energy.layers[0].name = result.energy.models["fp32"] = evil
    result.absorption.layers[0].name = evil
    result.write(tmp_path / "result.json")
    write_metrics(tmp_path / "metrics.csv", (evil.replace("\n", ""), "_hidden"))
    names = np.array([evil, "b"])
    write_diagnostics(tmp_path / "diagnostics.npz", ("$x^", "_hidden", "a&b\"'"), class_names=names)
    source = build(tmp_path).read_text(encoding="utf-8")
    assert "<script" not in source and "&lt;script&gt;alert(1)&lt;/script&gt;" in source
    assert figures(tmp_path) == FIGURES


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_image_keeps_its_colours_on_dark_pages(channels: int) -> None:
    data = Diagnostics(rasters={"a": np.ones((2, 3), np.uint8)}, image=np.full((channels, 4, 8), 0.9))
    images = render(partial(raster, data))
    assert images is not None
    light, dark = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int) for png in images[:2])
    assert light.shape == dark.shape == (images.height, images.width, 3)
    assert (light[80, 60] == dark[80, 60]).all() and (light[80, 60] != 255).any()
    assert (light[0, 0] == 255).all() and (dark[0, 0] == (0x1A, 0x20, 0x29)).all()


def test_largest_burst_and_many_layers() -> None:
    counts = {f"layer{index}.a.rather.long.name.for.a.neuron": np.arange(128) for index in range(21)}
    assert render(partial(bursts, Diagnostics(histograms=counts)))
    assert bursts(Diagnostics()) is None and raster(Diagnostics()) is None


def test_no_torch_and_lazy_matplotlib() -> None:
    code = "import sys, qbsnn.results.reading; assert 'matplotlib' not in sys.modules; import qbsnn.report.run.page; "
    code += "bad = {m for m in sys.modules if m in ('torch', 'matplotlib.pyplot')}; assert not bad, bad"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_a_directory_without_a_result(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"result\.json cannot be read"):
        build(tmp_path)
