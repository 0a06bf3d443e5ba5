"""The energy section: figures beside published ones, bars that add up, and the word estimate at every energy."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from qbsnn.report.run.energy import facts, panels, relative
from qbsnn.report.run.page import build
from tests.report.run.test_page import shown
from tests.report.samples import LAYERS, make_energy, make_result


def section(run_dir: Path) -> str:
    source = build(run_dir).read_text(encoding="utf-8")
    return source.partition('<h2 id="energy">')[2].partition('<h2 id="provenance">')[0]


def test_bars_are_parts_of_the_largest() -> None:
    fp32, memory = panels(make_energy())
    assert [bar.network for bar in fp32.total] == ["network", "relu", "quantized", "relu_dense"]
    assert [bar.value for bar in fp32.total] == ["4\xa0nJ", "8\xa0nJ", "2\xa0nJ", "16\xa0nJ"]
    # 4 of 16 nJ: three quarters are synapses
    assert fp32.total[0].segments == [("synapses", "0.000", "18.750"), ("neurons", "18.750", "6.250"),
                                      ("memory", "25.000", "0.000")]  # fmt: skip
    assert [name for name, _ in fp32.layers] == list(LAYERS)
    for _, bars in (*fp32.layers, *memory.layers):  # the dense network would hide the others
        assert [bar.network for bar in bars] == ["network", "relu", "quantized"]
        assert sum(float(width) for *_, width in bars[1].segments) == pytest.approx(100)
    assert memory.total[0].tip == [
        "whole network, this network",
        "4\xa0nJ per image: estimate, 45 nm, with SRAM",
        "synapses: 400\xa0pJ (10.0\xa0%)",
        "bias, state, pool, shortcut: 400\xa0pJ (10.0\xa0%)",
        "memory: 3.2\xa0nJ (80.0\xa0%)",
    ]


def test_a_relu_network_keeps_its_only_comparison() -> None:
    block = make_energy(levels=None, level_bits=None, spikes_per_synapse=None, mean_rate=None)
    for networks in (*block.totals.values(), *(e for layer in block.layers for e in layer.estimates.values())):
        del networks["relu"], networks["quantized"]
    (panel, _) = panels(block)
    assert [bar.network for bar in panel.layers[0][1]] == ["network", "relu_dense"]
    assert [tone for tone, _ in facts(block)] == ["note", "note"]


@pytest.mark.parametrize(
    ("value", "tone", "where"),
    [(0.149, "good", "below"), (0.15, "note", "within"), (1.38, "note", "within"), (1.39, "warn", "above")],
)
def test_break_even(value: float, tone: str, where: str) -> None:
    found = facts(make_energy(spikes_per_synapse=value))[1]
    assert found[0] == tone and f"{where} the published break-even of 0.15 to 1.38" in found[1]


@pytest.mark.parametrize(("rate", "tone"), [(0.0569, "good"), (0.057, "warn"), (2.5, "warn")])
def test_mean_rate(rate: float, tone: str) -> None:
    assert facts(make_energy(mean_rate=rate))[2][0] == tone


def test_the_page_shows_all_of_it(tmp_path: Path) -> None:
    make_result().write(tmp_path / "result.json")
    source = section(tmp_path)
    text = shown(tmp_path / "report.html")
    for words in ("0.1 spikes per synapse and inference", "Mean rate 2.50 %", "33 levels, 6 bits", "18.75 %", "123,456",
                  "Counted on 512 test images", "45 nm, fp32 50.0 % 200.0 % 25.0 %"):  # fmt: skip
        assert words in text, words
    assert relative(make_energy())[0] == ("45 nm, fp32", ["50.0\xa0%", "200.0\xa0%", "25.0\xa0%"])
    # Bars: 4 in all and 3 per layer, for each model; every one can be reached and says what it is.
    bars = re.findall(r'<div class="bar" tabindex="0" role="img" aria-label="([^"]*)"', source)
    assert len(bars) == 2 * (4 + 2 * 3) == source.count('<span class="tip"')
    for index, words in enumerate(bars):
        model = "45 nm, fp32" if index < 10 else "45 nm, with SRAM"
        assert f"per image: estimate, {model}" in html.unescape(words)
    # Models: a radio button each, the first one chosen, and a rule that shows its panel.
    buttons = re.findall(
        r'<input type="radio" name="energy-model" id="(energy-\d)"( checked)?><label for="\1">', source
    )
    assert buttons == [("energy-1", " checked"), ("energy-2", "")]
    style = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(f"#energy-{n}:checked ~ .panel-{n} {{ display: block; }}" in style for n in (1, 2))
    assert all(f'class="panel panel-{n}"' in source for n in (1, 2))
    assert "<script" not in source


def test_without_counts_the_page_says_why(tmp_path: Path) -> None:
    for energy, words in (
        (None, "result.json holds no energy"),
        ({"checkpoint": "best", "skipped": "a: no such pool"}, "No operations were counted: a: no such pool."),
    ):
        make_result(energy=energy).write(tmp_path / "result.json")
        assert words in html.unescape(section(tmp_path)) and '<div class="bar"' not in section(tmp_path)
