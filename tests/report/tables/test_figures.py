"""Figures of sweeps whose numbers are known: what is drawn where."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from qbsnn.errors import DataError
from qbsnn.report.tables.figures import FIGURES, figures, write
from qbsnn.report.tables.points import lines, pareto, points
from qbsnn.results.energy_schema import Parts
from qbsnn.results.sweeps import Plan, cells_frame, read_cells
from tests.report.samples import make_energy
from tests.report.sweeps import BOTH, LIF, NEURONS, write_sweep

QB = NEURONS["QB"]
SOME = Plan("table_some", "t", figure="rows")


def grid_sweep(tmp_path, figure: str, settings: dict, spread: float = 0.01, seeds: int = 3, **changes) -> tuple:
    """A sweep without rows: a cell's accuracy is 0.5 + 0.01·(its place) + spread·(seed − 1)."""
    accuracies = {
        label: {seed: 0.5 + 0.01 * place + spread * (seed - 1) for seed in range(seeds)}
        for place, label in enumerate(settings)
    }
    folder = write_sweep(tmp_path, accuracies, settings, "grid", **changes) / "grid"
    cells = json.loads((folder / "cells.json").read_text())
    (folder / "cells.json").write_text(json.dumps([{**cell, "row": ""} for cell in cells]))
    return Plan("grid", "A grid", figure=figure), cells_frame(read_cells(folder))


def drawn(figure) -> dict[str, tuple[list, list]]:
    """The named lines of the first axes, rounded."""
    found = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
    return {line.get_label(): (list(line.get_xdata()), np.round(line.get_ydata(), 6).tolist()) for line in found}


@pytest.mark.parametrize(("figure", "key"), [("timesteps", "T"), ("s_max", "s_max")])
def test_accuracy_against_steps_and_burst_size(tmp_path, figure, key):
    settings = {}
    for value in (1, 2, 8):
        for other in (3, 4):
            config = {"neuron": {**QB, "s_max": value}, "T": other} if key == "s_max" else {
                "neuron": {**QB, "s_max": other}, "T": value}  # fmt: skip
            settings[f"{value}, {other}"] = config
    found = figures(*grid_sweep(tmp_path, figure, settings))
    assert next(iter(found)) == figure
    other = "T" if key == "s_max" else "s_max"
    assert drawn(found[figure]) == {
        f"QB-LIF, {other} = 3": ([1, 2, 8], [50.0, 52.0, 54.0]),
        f"QB-LIF, {other} = 4": ([1, 2, 8], [51.0, 53.0, 55.0]),
    }  # fmt: skip
    band = found[figure].axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(49) and band[:, 1].max() == pytest.approx(55)  # sd 1
    assert "n = 3" in found[figure].axes[0].get_ylabel()


def test_neurons_without_the_setting_are_not_on_its_axis(tmp_path):
    settings = {"a": {"neuron": QB}, "b": {"neuron": {**QB, "s_max": 2}}, "c": {"neuron": NEURONS["LIF"]}}
    assert list(lines(points(grid_sweep(tmp_path, "s_max", settings)[1]), "s_max")) == ["QB-LIF"]


def test_the_map_of_alpha_and_beta(tmp_path):
    settings = {f"{a} {b}": {"neuron": {**QB, "alpha": a, "beta": b}} for a in (0.3, 0.5) for b in (2.0, 3.0, 5.0)}
    figure = figures(*grid_sweep(tmp_path, "alpha_beta", settings))["alpha_beta"]
    # rows are β from below, columns α: places 0 to 5 run over β first
    assert np.round(figure.axes[0].images[0].get_array(), 6).tolist() == [[50, 53], [51, 54], [52, 55]]
    assert [text.get_text() for text in figure.axes[0].texts] == [f"{50 + k:.2f}\n± 1.00" for k in range(6)]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["2", "3", "5"]


def test_the_pareto_front(tmp_path):
    front = pareto(pd.Series([1, 2, 3, 2, 4, 5]), pd.Series([1, 3, 2, 2, 3, 4]))
    assert front.to_numpy().tolist() == [[1, 1], [2, 3], [5, 4]]
    totals = {"fp32": {"network": Parts(1e6, 1e6, 0.0)}}
    sweep = grid_sweep(tmp_path, "energy", {"a": {}, "b": {"T": 2}}, energy=make_energy(totals=totals))
    found = drawn(figures(*sweep)["energy"])
    # both cost 2 µJ, so only the better one is on the front, which ends at the right border
    assert found["a"] == ([2.0], [50.0]) and found["b"] == ([2.0], [51.0])
    assert found["Pareto front"] == ([2.0, 2.1], [51.0, 51.0])


def test_the_scale_over_training_has_a_panel_per_row_that_learns_it(tmp_path):
    sweep = write_sweep(tmp_path, BOTH) / "table_some"
    for number in range(3):  # of LIF: a scale that never moves
        (path,) = sweep.glob(f"{number}_*/metrics.csv")
        path.write_text(path.read_text().replace("0.51", "0.5").replace("0.52", "0.5"))
    figure = figures(SOME, cells_frame(read_cells(sweep)))["delta"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["QB-LIF, T = 4"]
    assert drawn(figure)["stem.neuron"] == ([0, 1, 2], [0.5, 0.51, 0.52])


def test_rows_show_every_seed(tmp_path):
    cells = cells_frame(read_cells(write_sweep(tmp_path, BOTH) / "table_some"))
    axes = figures(SOME, cells)["rows"].axes[0]
    dots = [np.round(line.get_xdata(), 6).tolist() for line in axes.lines if len(line.get_xdata()) == 3]
    assert dots == [[90, 91, 92], [91, 93, 95]]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["LIF, T = 4", "QB-LIF, T = 4"]


def test_files_are_written_for_print_and_are_the_same_each_time(tmp_path):
    cells = cells_frame(read_cells(write_sweep(tmp_path, BOTH) / "table_some"))
    paths = write(figures(SOME, cells)["rows"], tmp_path / "a")
    assert [path.name for path in paths] == ["a.png", "a.pdf"]
    with Image.open(paths[0]) as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.5) and image.width >= 1500
    assert paths[1].read_bytes().startswith(b"%PDF-")
    again = write(figures(SOME, cells)["rows"], tmp_path / "b")
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]


def test_a_figure_that_is_none_or_has_nothing_to_draw_is_refused(tmp_path):
    cells = cells_frame(read_cells(write_sweep(tmp_path, LIF) / "table_some"))
    with pytest.raises(DataError, match=r"figure must be one of timesteps, s_max, .*, got 'smax'"):
        figures(replace(SOME, figure="smax"), cells)
    for name in set(FIGURES) - {"rows", "delta"}:
        with pytest.raises(DataError, match=f"do not give the figure {name}"):
            figures(replace(SOME, figure=name), cells)


def test_a_single_seed_has_no_bar(tmp_path):
    seeds = {"LIF, T = 4": {0: 0.9, 1: 0.92}, "QB-LIF, T = 4": {0: 0.95}}
    cells = cells_frame(read_cells(write_sweep(tmp_path, seeds) / "table_some"))
    found = points(cells)
    assert found["sd"].isna().tolist() == found["cost_sd"].isna().tolist() == [False, True]
    for name in ("rows", "energy"):
        bars = [path.vertices for each in figures(SOME, cells)[name].axes[0].collections for path in each.get_paths()]
        drawn = [bar for bar in bars if np.isfinite(bar).all()]
        assert drawn and all(90 <= bar.max() < 93 or name == "energy" for bar in drawn)
        assert len(drawn) < len(bars)
