"""Rounds, medians, ratios and goals, against numbers worked out by hand."""

import doctest
import json
from dataclasses import replace

import pytest
import torch

from benchmarks import data, gpu_summary, harness, loops, scaling
from benchmarks.contenders import Problem, trainings
from benchmarks.harness import Goal, Result, goal_met
from benchmarks.rounds import interleaved, timed
from benchmarks.time_to_accuracy import OURS, PEER, TASKS, add_rows, small
from qbsnn.cli.keys import read
from qbsnn.data.loading import EpochSampler
from qbsnn.errors import SettingsError
from qbsnn.kernels import compiled


@pytest.mark.parametrize("module", [gpu_summary, harness, scaling])
def test_examples_hold(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_contenders_take_turns_and_the_first_round_does_not_count():
    order = []

    def timer(call):
        order.append(call())
        return float(len(order))

    times = interleaved({"a": lambda: "a", "b": lambda: "b", "c": lambda: "c"}, 2, timer)
    rounds = ["".join(order[i : i + 3]) for i in (0, 3, 6)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds) and len(set(rounds)) > 1
    assert times == {name: [4.0 + rounds[1].index(name), 7.0 + rounds[2].index(name)] for name in "abc"}


def test_a_contender_that_fails_is_named_and_has_no_seconds():
    calls, why = [], []
    contenders = {"good": lambda: calls.append("good"), "bad": lambda: [calls.append("bad"), 1 / 0]}
    times = interleaved(contenders, 2, report=lambda *line: why.append(line))
    assert len(times["good"]) == 2 and times["bad"] == [] and calls.count("bad") == 1
    assert why == [("bad", "division by zero")]
    with pytest.raises(ZeroDivisionError):
        interleaved(contenders, 2)


def test_an_interrupted_measurement_keeps_its_whole_rounds():
    def counting(stop):
        calls = iter(range(99))

        def timer(call):
            if next(calls) == stop:
                raise KeyboardInterrupt
            return 1.0

        return timer

    contenders = {name: lambda: None for name in "abc"}
    result, seen = Result("trial", {}), []
    with pytest.raises(KeyboardInterrupt), timed(result, contenders, 5, counting(11)) as times:
        seen.append(dict(times))
    assert seen == [{name: [1.0] * 2 for name in "abc"}]  # a round that does not count, two, and two turns
    assert result.skipped == ["the other rounds: interrupted after 2 rounds"]
    with pytest.raises(KeyboardInterrupt), timed(result, contenders, 5, counting(4)):
        seen.append("a body without a round")
    assert len(seen) == 1
    with timed(result, contenders, 5, counting(None)) as times:
        assert {len(values) for values in times.values()} == {5}


def test_a_contender_that_cannot_be_made_does_not_end_the_others(monkeypatch):
    def made(contender, *given):
        return {"good": 1}[contender]

    monkeypatch.setattr("benchmarks.contenders.Training", made)
    why = []
    assert trainings(("bad", "good"), Problem(), torch.device("cpu"), lambda *line: why.append(line)) == {"good": 1}
    assert why == [("bad", "'bad'")]


def test_a_loader_that_fails_is_skipped(monkeypatch):
    def broken(*given):
        raise ValueError("no such loader")

    monkeypatch.setattr(data, "train_loader", broken)
    monkeypatch.setattr(data, "DataLoader", lambda *given, **more: [1])
    result = Result("data", {})
    data.pictures(result, 8, 1)
    assert result.skipped == ["ours, on cpu: no such loader"]
    assert [row.met for row in result.rows if row.goal] == [False] and len(result.rows) == 5


@pytest.mark.parametrize("given", [True, False])
def test_an_interrupted_benchmark_writes_what_it_has_into_a_given_file(tmp_path, monkeypatch, given):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    result = Result("trial", {})
    with pytest.raises(KeyboardInterrupt), result.written(tmp_path / "part.json" if given else None) as more:
        result.add("speed", "ours", [1.0], "s")
        more["curves"] = {}
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["part.json"] * given
    if given:
        found = json.loads((tmp_path / "part.json").read_text(encoding="utf-8"))
        assert [row["name"] for row in found["rows"]] == ["ours"] and found["curves"] == {}
        assert found["skipped"] == ["the rest: KeyboardInterrupt"]


def test_medians_ratios_and_goals():
    result = Result("trial", {})
    result.add("speed", "twin", [2.0, 4.0, 3.0], "s", to="twin")
    row = result.add("speed", "ours", [1.5, 9.0, 1.0], "s", to="twin", goal=Goal("time", "≤ 0.5"))
    assert (row.median, row.low, row.high, row.ratio, row.met) == (1.5, 1.0, 9.0, 0.5, True)
    assert (row.goal, row.goal_name) == ("≤ 0.5", "time")
    assert result.rows[0].ratio == 1.0 and result.rows[0].met is None
    assert not result.add("speed", "slow", [1.6], "s", to="twin", goal=Goal("time", "≤ 0.5")).met
    assert result.add("rate", "int8", [6.0], "images/s", ratio=3.0, goal=Goal("int8", "≥ 3")).met
    text = result.text()
    assert "goal ≤ 0.5: met" in text and "goal ≤ 0.5: not met" in text and "0.5 × twin" in text


def test_a_goal_without_a_value_is_not_met():
    row = Result("trial", {}).add("speed", "ours", [], "s", goal=Goal("time", "≤ 1"))
    assert row.median is None and row.met is False


def test_a_goal_of_compiled_kernels_is_not_judged_where_they_run_eagerly(monkeypatch):
    result = Result("trial", {})
    assert result.add("speed", "before", [9.0], "s", goal=Goal("time", "≤ 1"), compiled=True).met is False
    monkeypatch.setattr(compiled, "_failed", {"BackendCompilerFailed"})
    row = result.add("speed", "ours", [9.0], "s", goal=Goal("time", "≤ 1"), compiled=True)
    assert (row.goal, row.met, row.median) == (None, None, 9.0)
    assert result.skipped == ["goal: time: neurons do not compile here: BackendCompilerFailed"]
    assert result.add("speed", "twin", [9.0], "s", goal=Goal("time", "≤ 1")).met is False
    assert result.as_dict()["kernels"]["failed"] == ["BackendCompilerFailed"]
    monkeypatch.setattr(compiled, "_failed", set())
    monkeypatch.setattr(harness, "_divides_exactly", lambda: False)
    assert result.add("speed", "ours", [9.0], "s", goal=Goal("time", "≤ 1"), compiled=True).goal is None


@pytest.mark.parametrize("goal", ["< 5", "5", "≤ fast", "≤5"])
def test_a_goal_of_another_form_is_refused(goal):
    with pytest.raises(SettingsError, match="a goal must be"):
        goal_met(goal, 1.0)


def test_an_unknown_reference_is_refused():
    result = Result("trial", {})
    result.add("speed", "twin", [1.0], "s")
    with pytest.raises(SettingsError, match="no row 'tiwn' in table 'speed'; its rows: twin, ours"):
        result.add("speed", "ours", [1.0], "s", to="tiwn")


def test_the_file_names_machine_versions_and_commit(tmp_path, capsys):
    result = Result("trial", {"T": 4}, small=True)
    result.add("speed", "ours", [1.0], "s")
    result.skip("peer", "not installed")
    result.skip("peer", "not installed")
    result.write(tmp_path / "deep/trial.json", curves={"T": []})
    read = json.loads((tmp_path / "deep/trial.json").read_text(encoding="utf-8"))
    assert read["small"] and read["curves"] == {"T": []} and read["skipped"] == ["peer: not installed"]
    assert read["host"]["cpu"] and read["versions"]["torch"] and read["started"]
    assert {"git_commit", "git_dirty", "command"} <= read.keys()
    assert capsys.readouterr().out.count("skipped peer") == 1


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_rounds_must_be_positive(text):
    with pytest.raises(SettingsError, match=rf"rounds must be an integer of at least 1, got '{text}'"):
        read(harness.BenchmarkKeys, [f"rounds={text}"])


def test_the_stopwatch_leaves_pauses_out(monkeypatch):
    now = iter([10.0, 13.0, 100.0, 104.0, 200.0, 201.0])
    monkeypatch.setattr(loops, "_now", lambda: next(now))
    clock = loops.Stopwatch((0.8, 0.9))
    clock.start()
    clock.pause()
    assert not clock.check(0.89) and clock.reached == [3.0, None]
    clock.start()
    clock.pause()
    assert clock.check(0.9) and clock.reached == [3.0, 7.0]
    clock.start()
    clock.pause()
    assert clock.check(0.1) and clock.reached == [3.0, 7.0]


def test_a_network_of_equal_size_is_found():
    widths = [loops.equal_width(lambda width: torch.nn.Linear(round(64 * width), 10), size) for size in (10, 330, 5000)]
    assert widths == [1 / 64, 0.5, 2.0]  # 10 n + 10 parameters: n = 1, 32, and at most 128


def entry(*reached):
    return {"reached": [*reached], "parameters": 9, "compile": 1.0, "step": 0.1, "epochs": 2.0, "test": 0.95}


def test_a_missed_target_is_no_time():
    result = Result("time_to_accuracy", {})
    add_rows(result, TASKS["digits"], {PEER: [entry(4.0), entry(6.0)], OURS: [entry(1.0), entry(None)]})
    theirs, ours = result.rows[:2]
    assert (theirs.median, ours.median, ours.met) == (5.0, None, False)
    assert result.skipped == ["QB-LIF on digits: 1 of 2 runs missed 97%"]


def test_a_peer_that_was_stopped_bounds_the_ratio():
    task = TASKS["cifar10"]
    assert task.longest(60.0) == pytest.approx(200.0) and task.longest(None) is None
    assert TASKS["digits"].longest(60.0) is None  # trains until it is there
    clock = loops.Stopwatch((0.8, 0.88), longest=200.0)
    clock.seconds = 199.0
    assert not clock.check(0.85) and clock.reached == [199.0, None]
    clock.seconds = 201.0
    assert clock.check(0.86) and clock.reached == [199.0, None]
    result = Result("time_to_accuracy", {})
    add_rows(result, task, {OURS: [entry(40.0, 60.0)], PEER: [entry(100.0, None) | {"seconds": 201.0}]})
    theirs, ours = result.rows[2:4]
    assert (theirs.name, theirs.median) == ("SpikingJelly, stopped without it", 201.0)
    assert ours.ratio == pytest.approx(60 / 201) and ours.met and result.rows[1].ratio == 0.4
    assert result.skipped == ["SpikingJelly on cifar10: 1 of 1 runs missed 88%"]


def test_the_peer_trains_on_another_order_in_every_epoch(tmp_path, monkeypatch):
    pytest.importorskip("spikingjelly")
    told, tell = [], EpochSampler.set_epoch
    monkeypatch.setattr(EpochSampler, "set_epoch", lambda self, epoch: [told.append(epoch), tell(self, epoch)])
    task = replace(small(TASKS["digits"]), targets=(1.1,), epochs=2)
    loops.peer(task, 0, tmp_path, tmp_path, loops.Stopwatch(task.targets))
    assert told == [0, 1]


def test_half_the_time_meets_the_goal():
    result = Result("time_to_accuracy", {})
    add_rows(result, TASKS["digits"], {PEER: [entry(4.0)], OURS: [entry(2.0)]})
    assert result.rows[1].ratio == 0.5 and result.rows[1].met
    add_rows(result, TASKS["cifar10"], {OURS: [entry(1.0, 3.0)], PEER: [entry(4.0, 8.0)]})
    rows = {row.table: (row.ratio, row.goal, row.met) for row in result.rows if row.name == OURS}
    assert rows["cifar10: time to 80% validation accuracy"] == (0.25, "≤ 0.3", True)
    assert rows["cifar10: time to 88% validation accuracy"] == (0.375, "≤ 0.3", False)


def test_fits_over_time_steps():
    base = scaling.Problem("vgg5", T=4, batch=2, width=1 / 64, in_shape=(1, 8, 8))
    # conv1 1×8×8, then halved: conv2 and conv3 2×4×4 each, fc1 4; two images, a byte a burst
    packed = (64 + 32 + 32 + 4) * 2
    assert scaling.packed_bytes(base) == packed
    points = [
        {"T": t, "seconds": {"QB-LIF block": 0.5 * t}, "bytes": {"QB-LIF checkpoint": 1000 + 2 * packed * t}}
        for t in (1, 2, 4)
    ]
    result = Result("scaling", {})
    scaling.fit(result, points, base)
    time, memory = result.rows
    assert time.median == 1.0 and time.met
    assert memory.ratio == pytest.approx(2.0) and not memory.met
