"""Plans against numbers worked out by hand."""

import json

import pytest

from qbsnn.errors import DataError, SettingsError
from qbsnn.report.budget import Inputs, Rate, measured, plan
from tests.report.samples import make_result
from tests.tool import one_paragraph

GOOD = {"rates": [Rate("a", 500.0), Rate("b", 250.0)], "seeds": 3, "images": 900_000, "epochs": 2, "devices": 2,
        "at_once": 2, "efficiency": 0.8, "price": 1.5, "checkpoint_bytes": 100, "other_bytes": 7}  # fmt: skip


def test_hours_cost_and_storage_by_hand():
    # 1.8 million images; a: 500·2·0.8 = 800 images/s, 2250 s = 0.625 h; b: half as fast, 1.25 h
    # device hours: a 3·0.625·2 = 3.75, b 7.5; cost at 1.5: 5.625 and 11.25
    found = plan(Inputs(**GOOD))
    assert [(c.name, c.job_hours, c.device_hours, c.cost) for c in found.cells] == [
        ("a", 0.625, 3.75, pytest.approx(5.625)),
        ("b", 1.25, 7.5, pytest.approx(11.25)),
    ]
    assert found.jobs == 6 and found.device_hours == 11.25 and found.cost == pytest.approx(16.875)
    # two places: a a | a b | b b -> 0.625, 0.625 | 1.25, 1.875 | 2.5, 3.125
    assert found.wall_hours == 3.125
    assert found.storage_bytes == 6 * 207


def test_one_place_is_the_sum_and_a_place_per_job_the_longest():
    assert plan(Inputs(**{**GOOD, "at_once": 1})).wall_hours == 3 * 0.625 + 3 * 1.25
    assert plan(Inputs(**{**GOOD, "at_once": 99})).wall_hours == 1.25


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": 0}, "seeds must be an integer of at least 1, got 0"),
        ({"epochs": True}, "epochs must be an integer of at least 1, got True"),
        ({"rates": [Rate("a", 0.0)]}, "the throughput of a must be a number above 0, got 0.0"),
        ({"rates": []}, "at least one table cell"),
        ({"efficiency": 1.1}, "efficiency must be above 0 and at most 1, got 1.1"),
        ({"price": -1.0}, "price must be a number of at least 0, got -1.0"),
        ({"price": float("nan")}, "price must be a number of at least 0, got nan"),
    ],
)
def test_inputs_that_make_no_plan_are_refused(change, words):
    with pytest.raises(SettingsError, match=words.replace(".", r"\.")):
        plan(Inputs(**{**GOOD, **change}))


def test_the_rate_and_the_sizes_are_those_of_the_run(tmp_path):
    result = make_result(config={"name": "net", "neuron": {"s_max": 4}, "T": 2})
    result.timing.train_images_per_second = 321.5
    result.write(tmp_path / "result.json")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").write_bytes(b"x" * 1000)
    (tmp_path / "checkpoints/best.ckpt").write_bytes(b"x" * 1001)
    (tmp_path / "metrics.csv").write_bytes(b"y" * 50)
    found = measured(tmp_path / "result.json")
    assert found.rate.rate == 321.5 and found.device == (result.host.gpu or result.host.cpu)
    assert found.rate.name == "net s_max=4 T=2"
    assert found.checkpoint_bytes == 1001
    assert found.other_bytes == 50 + (tmp_path / "result.json").stat().st_size
    content = json.loads((tmp_path / "result.json").read_text())
    for change, words in [({"status": "failed"}, "status failed"), ({"timing": {}}, "must be above 0, got 0.0")]:
        (tmp_path / "result.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(DataError, match=words):
            measured(tmp_path / "result.json")


def test_the_script_says_what_is_an_input_and_what_follows(tool, capsys):
    given = ["throughput=500", "cells=4", "seeds=3", "images=900000", "epochs=2", "price=2", "checkpoint_mb=100"]
    assert tool("scripts/plan.py", *given, "other_mb=1", "at_once=12") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "throughput given by hand, not measured, 3 seeds, 900,000 images, 2 epochs" in shown
    # one hour a job, 12 jobs, 3 device hours and 6.00 a cell, 201 MB a job
    assert "12 jobs, 12.00 device hours, 1.00 hours from start to end, 2.412 GB, cost 24.00" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give either measured=RESULT.json"),
        (["throughput=1", "measured=a.json"], "give either measured=RESULT.json"),
        (["measured=a.json", "cells=2"], "cells goes with throughput"),
        (["measured=a.json"], "a.json cannot be read"),
        (["throughput=fast"], "throughput must be a number, got fast"),
        (["throughput=1", "seeds=1.5"], "seeds must be an integer, got 1.5"),
        (["throughput=1", "sedes=3"], "arguments are key=value with keys measured, cells"),
        (["throughput=0"], "must be a number above 0, got 0.0"),
    ],
)
def test_bad_arguments_are_explained(tool, capsys, arguments, words):
    assert tool("scripts/plan.py", *arguments) == 1
    assert words in one_paragraph(capsys.readouterr().err)
