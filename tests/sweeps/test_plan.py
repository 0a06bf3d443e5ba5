"""Sweep files and the cells that they stand for."""

import json
import os
import re

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from qbsnn.errors import SettingsError
from qbsnn.results.fingerprint import fingerprint
from qbsnn.sweeps.plan import Sweep, cells, folder_name, read, written
from qbsnn.sweeps.state import FAILED, write_failure
from qbsnn.training.settings import identify
from tests.test_configs import CONF, composed

FILES = sorted((CONF / "sweep").glob("*.yaml"))


def test_cells_are_rows_times_grid_times_seeds_in_this_order():
    rows = [{"label": "A", "overrides": ["neuron=lif"]}, {"label": "B"}]
    plan = Sweep.model_validate(
        {"title": "t", "overrides": ["T=4", "a=1"], "grid": {"T": [1, 2], "b": [None]}, "rows": rows, "seeds": [7, 9]}
    )
    found = cells(plan, ["a=2", "c=3"])
    assert [(cell.label, cell.row, cell.seed) for cell in found] == [
        (f"{row}, T={steps}, b=null", row, seed) for row in "AB" for steps in (1, 2) for seed in (7, 9)
    ]
    assert found[0].overrides == ("neuron=lif", "T=1", "b=null", "a=2", "c=3", "seed=7")
    assert found[-1].overrides == ("T=2", "b=null", "a=2", "c=3", "seed=9")
    names = [folder_name(cell.axes, "f") for cell in found]
    assert names[0] == "neuron-lif_T-1_b-null_seed-7_f" and len(set(names)) == len(found)


def test_without_rows_and_grid_there_is_a_cell_per_seed():
    (only,) = cells(Sweep(title="t"))
    assert (only.row, only.label, only.seed, only.overrides) == ("", "t", 0, ("seed=0",))


VALUES = [
    None, True, 0, -3, 2.0, 1e-5, "lif", "null", "1", "a b", "it's", "café", "日本", "a\\b", "a\\", "a\\'b", "a,b",
    "x=1", "${T}", [1, "a b"], {"k": [1]},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_a_value_of_the_file_is_what_hydra_reads(value):
    override = OverridesParser.create().parse_override(f"key={written(value)}")
    assert not override.is_sweep_override()
    read_back = override.value()
    assert read_back == value and type(read_back) is type(value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"title": ""}, "sweep.title"),
        (
            {"sedes": [1]},
            "sweep.sedes is not a key; there are title, overrides, grid, rows, seeds, baseline, figure, list",
        ),
        ({"seeds": [True]}, "sweep.seeds.0"),
        ({"seeds": []}, "sweep.seeds"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"grid": {"T": []}}, "grid.T needs at least one value"),
        ({"grid": {"T": 4}}, "sweep.grid.T must be a list, got 4"),
        ({"grid": [1]}, "sweep.grid must be a mapping, {KEY: VALUE}, got [1]"),
        ({"overrides": [3]}, "sweep.overrides.0 must be a text, got 3"),
        ({"rows": [{"overrides": []}]}, "sweep.rows.0.label is missing"),
        ({"rows": [{"label": "A", "override": []}]}, "is not a key; there are label, overrides, published"),
        ({"title": ""}, "sweep.title must be a text that is not empty, got ''"),
        ({"rows": [{"label": "A", "overrides": ["seed=3"]}]}, "seed=3 is overruled by the seeds of the sweep"),
        ({"overrides": ["++seed=3"]}, "++seed=3 is overruled by the seeds of the sweep"),
        ({"grid": {"seed": [1, 2]}}, "seed is overruled by the seeds of the sweep: write them as seeds: [0, 1]"),
        ({"rows": [{"label": "A"}, {"label": "A"}]}, "rows must have different labels"),
        ({"rows": [{"label": "A", "override": []}]}, "sweep.rows.0.override is not a key"),
        ({"rows": [{"label": "A"}], "baseline": "B"}, "one of ['A'], got 'B'"),
    ],
)
def test_a_bad_file_is_refused_with_its_key(changes, words):
    with pytest.raises(SettingsError) as error:
        read({"title": "t", **changes}, "name")
    assert words in str(error.value) and str(error.value).startswith("sweep=name: ")
    assert "Input should" not in str(error.value) and "'title': 't'" not in str(error.value)  # the file is no value


@pytest.mark.parametrize("plan", [
    {"rows": [{"label": "A", "overrides": ["T=2", "neuron=lif"]}, {"label": "B", "overrides": ["neuron=lif", "T=2"]}]},
    {"rows": [{"label": "A"}, {"label": "B"}]}, {"grid": {"T": [2, 2]}},
    {"rows": [{"label": "A", "overrides": ["T=1"]}, {"label": "B", "overrides": ["T=2"]}], "grid": {"T": [4]}},
])  # fmt: skip
def test_two_cells_of_the_same_settings_are_refused(plan):
    with pytest.raises(SettingsError, match=r"(A|T=2).* and (B|T=2).* \(seed 0\) are the same run"):
        cells(Sweep.model_validate({"title": "t", **plan}))


KINDS = {"LIF": "Binary", "QBLIF": "QB-LIF", "ReLU": "ANN", "QuantReLU": "Quantised", "BurstLIF": "Burst",
         "ILIF": "I-LIF"}  # fmt: skip  # how the labels of tables begin


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_cell_of_every_file_composes_to_an_experiment_of_its_own(tmp_path, path):
    plan = read(yaml.safe_load(path.read_text(encoding="utf-8")), path.stem)
    marks = set()
    for cell in cells(plan.model_copy(update={"seeds": plan.seeds[:1]})):
        if any(word.startswith("teacher=") for word in cell.overrides):
            with pytest.raises(SettingsError, match=r"^teacher: checkpoint .*/teacher does not exist$"):
                composed(tmp_path, *cell.overrides)
            marks.add(cell.label)
            continue
        plain = composed(tmp_path, *cell.overrides)
        assert plain["seed"] == cell.seed == plan.seeds[0]
        marks.add(fingerprint(identify(plain)))
        if path.stem.startswith("table_"):
            kind = plain["neuron"]["_target_"].rpartition(".")[2]
            assert cell.label.startswith(KINDS[kind])
            steps = re.search(r", T = (\d+)", cell.label)
            assert steps is None or plain["T"] == int(steps[1])
    assert len(marks) == len(cells(plan)) // len(plan.seeds)
    if path.stem.startswith("table_"):
        assert len(plan.rows) >= 2 and len(plan.seeds) >= 3


def test_the_seeds_of_a_sweep_are_experiments_of_their_own(tmp_path):
    plan = read(yaml.safe_load((CONF / "sweep/seeds.yaml").read_text(encoding="utf-8")), "seeds")
    marks = {fingerprint(identify(composed(tmp_path, *cell.overrides))) for cell in cells(plan)}
    assert len(marks) == len(plan.seeds) >= 2


def test_the_sweeps_of_the_documents_are_there():
    wanted = {"s_max", "timesteps", "alpha_beta", "surrogates", "delta_learning", "neurons", "seeds"}
    assert wanted <= {path.stem for path in FILES}


def test_the_reason_of_a_failure_may_name_a_file_that_no_text_can_hold(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_failure(tmp_path, f"{name} cannot be read")
    assert json.loads((tmp_path / FAILED).read_text(encoding="utf-8")) == {"error": f"{name} cannot be read"}
