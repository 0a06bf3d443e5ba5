"""The run on a card: what is kept when parts fail, hang or are killed, and what is said without a card."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from benchmarks import gpu
from benchmarks.gpu import PARTS, GpuKeys, Part, main, of_benchmark, of_run, of_tests, run, text
from benchmarks.harness import BenchmarkKeys, Goal, Result
from benchmarks.train_step import CARD, add_card_rows
from qbsnn.cli.keys import read
from qbsnn.errors import SettingsError
from tests.tool import ROOT

WRITES = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
XML = '<a><testcase name="x"/><testcase name="y"><failure message="off by one"/></testcase></a>'


def part(name, code, *arguments, seconds=60.0, **more):
    return Part(name, ("-c", code, "{out}", *arguments), seconds, of_tests, **more)


def test_what_was_measured_stays_when_others_fail_or_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "GRACE", 1.0)
    out = tmp_path / "gpu.json"
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    parts = [
        part("works", WRITES, XML),
        part("fails", "print('begun\\n' * 99, end=''); raise SystemExit('no such card')"),
        part("fails, 2", f"{WRITES}; raise SystemExit('a test failed')", XML),
        part("hangs", deaf, seconds=2.0),
        part("stops", f"try: import time; time.sleep(600)\nfinally: {WRITES}", XML, seconds=2.0),
    ]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for a job in the background
    try:
        found = run(parts, out, 600, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert json.loads(out.read_text())["parts"] == found["parts"]
    works, fails, fails_too, hangs, stops = found["parts"]
    assert gpu.trouble({"parts": [works]}) and gpu.trouble({"parts": [fails]}) and gpu.trouble({"parts": [hangs]})
    assert not gpu.trouble({"parts": [{"status": "finished"}, {"status": "left out: no time"}]})
    assert {"cuda", "cudnn", "driver"} <= found.keys()
    assert works["status"] == "finished" and works["passed"] == 1 and works["failed"] == ["y: off by one"]
    assert fails["status"] == "exit code 1" and fails["output"] == ["begun"] * (gpu.LAST - 1) + ["no such card"]
    assert (tmp_path / fails["log"]).read_text().split() == ["begun"] * 99 + ["no", "such", "card"]
    assert fails_too["passed"] == 1 and fails_too["output"] == ["a test failed"] and "output" not in works
    assert fails_too["log"] == "gpu/fails_2.txt" and (tmp_path / works["log"]).read_text() == ""
    assert hangs["status"] == "out of time" and hangs["seconds"] >= 3 and "passed" not in hangs
    assert stops["status"] == "out of time" and stops["passed"] == 1  # it was interrupted, and wrote what it had
    assert "1 passed, 1 failed" in text(found) and "no such card" in text(found)


def test_parts_that_no_longer_fit_are_named(tmp_path):
    parts = [part("late", WRITES, XML, least=100), part("early", WRITES, XML)]
    late, early = run(parts, tmp_path / "gpu.json", 99 + gpu.GRACE, tmp_path)["parts"]
    assert (late["status"], early["status"]) == ("left out: no time", "finished")


def test_a_second_call_replaces_the_parts_of_the_same_name_alone(tmp_path, monkeypatch, capsys):
    out = tmp_path / "gpu.json"
    first = run([part("a", WRITES, XML), part("b", "raise SystemExit('no')")], out, 600, tmp_path)["parts"]
    second = run([part("b", WRITES, XML), part("c", WRITES, XML)], out, 600, tmp_path)["parts"]
    assert [entry["name"] for entry in second] == ["a", "b", "c"] and second[0] == first[0]
    assert [entry["status"] for entry in (*first, *second)] == ["finished", "exit code 1", *["finished"] * 3]
    assert run([part("c", WRITES, XML, least=999)], out, 600, tmp_path)["parts"] == second  # it has run already
    assert "is replaced" not in capsys.readouterr().out
    monkeypatch.setattr(gpu, "code", lambda root: "changed")
    assert [entry["name"] for entry in run([part("b", WRITES, XML)], out, 600, tmp_path)["parts"]] == ["b"]
    assert "gpu.json is replaced: another code\n" in capsys.readouterr().out
    out.write_text("[]")
    assert len(run([], out, 600, tmp_path)["parts"]) == 0 and "no summary" in capsys.readouterr().out


def test_the_code_of_a_folder_without_git_is_known_by_its_files(tmp_path):
    file = tmp_path / "qbsnn/a.py"
    file.parent.mkdir()
    found = [(file.write_text(words), gpu.code(tmp_path))[1] for words in ("x = 1", "x = 2", "x = 1")]
    assert found[0] == found[2] != found[1]


def test_a_failure_keeps_its_reason():
    lines = "\n".join(map(str, range(99)))
    found = of_tests(XML.replace('"off by one"/>', f'"off by one">{lines}</failure>'))
    assert found["reasons"] == {"y": [str(n) for n in range(99 - gpu.LAST, 99)]}
    entry = {"name": "p", "status": "exit code 1", **of_run('{"status": "failed", "error": "no memory", "seed": 1}')}
    assert entry["error"] == "no memory" and "no memory" in text({"parts": [entry]})


def test_interrupted_tests_do_not_count():
    assert of_tests(XML.replace("</a>", '<testcase time="1"/></a>'))["names"] == ["x"]


KILLED = """
from benchmarks import gpu
from pathlib import Path
code = "import os, sys, time; print(os.getpid(), file=open(sys.argv[1], 'w'), flush=True); time.sleep(600)"
parts = [gpu.Part("slow", ("-c", code, "{data}/pid"), 600.0, gpu.of_tests)]
gpu.run(parts, Path("gpu.json"), 3600, Path.cwd())
"""


def runs(pid):
    """Whether a process is there and is no zombie that waits for a parent to ask."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_kill_leaves_the_summary(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    if sys.platform == "linux":
        while runs(int(pid.read_text())) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not runs(int(pid.read_text()))
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"][0]["status"] == "running"


def test_the_goals_of_a_card_are_those_of_the_same_precision():
    times = {"ReLU twin": [9.0], "ReLU twin, bf16": [2.0], "SpikingJelly compiled, bf16": [4.0],
             "QB-LIF block, bf16": [2.06], "QB-LIF block, tf32": [5.0]}  # fmt: skip
    twin, peer = (goal.name for goal in CARD.values())
    assert goals_of(times) == {twin: (1.03, True), peer: (0.515, True)}
    times["SpikingJelly, bf16"] = [2.0]
    assert goals_of(times)[peer] == (1.03, False)  # the faster of both
    assert goals_of({**times, "SpikingJelly compiled, bf16": []})[peer] == (1.03, False)
    failed = {**times, "SpikingJelly, bf16": [], "SpikingJelly compiled, bf16": []}
    assert goals_of(failed) == {twin: (1.03, True), peer: (None, False)}
    assert goals_of({**times, "QB-LIF block, bf16": []}) == {twin: (None, False), peer: (None, False)}


def goals_of(times):
    result = Result("train_step", {})
    add_card_rows(result, times)
    return {row.goal_name: (row.ratio, row.met) for row in result.rows if row.goal}


def test_a_summary_shows_the_goals():
    result = Result("x", {})
    result.add("t", "a", [2.0], "s", goal=Goal("a goal", "≤ 1"))
    result.add("t", "failed", [], "s")
    result.add("t", "b", [2.0], "s", to="failed", goal=Goal("another", "≤ 3"))
    entry = {"name": "p", "status": "finished", "seconds": 1.0, **of_benchmark(json.dumps(result.as_dict()))}
    assert "a goal: 2, goal ≤ 1, not met" in text({"parts": [entry]})
    assert "another: no value, goal ≤ 3, not met" in text({"parts": [entry]})


@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what is said without a card")
def test_without_a_card_it_says_so():
    with pytest.raises(SettingsError, match=r"finds no CUDA device here: see docs/gpu.md; it says: \w+"):
        main(GpuKeys())


def test_the_part_of_the_tests_loads_no_plugin_that_it_does_not_name(tmp_path):
    (tests,) = (part for part in PARTS if part.read is of_tests)
    foreign = tmp_path / "foreign-1.dist-info"
    foreign.mkdir()
    (foreign / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1\n")
    (foreign / "entry_points.txt").write_text("[pytest11]\nforeign = foreign\n")
    (tmp_path / "foreign.py").write_text("raise SystemExit('a foreign plugin')")
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    collect = replace(tests, command=(*tests.command, "--collect-only", "-n", "0"),
                      environment=(*tests.environment, ("PYTHONPATH", paths)))  # fmt: skip
    found = gpu.one(collect, 300, tmp_path, tmp_path / "log.txt")
    said = (tmp_path / "log.txt").read_text()
    assert found["status"] == "finished" and "tests/test_gpu.py: " in said and "test_int8.py: 1" in said, said


def test_names_of_parts_are_different():
    assert len({part.name for part in PARTS}) == len(PARTS)


def test_the_first_training_comes_early_and_trainings_need_two_minutes():
    names = [part.name for part in PARTS]
    first = names.index("cifar10_fast_gpu")
    assert names[:first] == ["tests", "neuron"] and sum(part.seconds for part in PARTS[: first + 1]) < 0.7 * 25 * 60
    assert all(part.least == 120 for part in PARTS if part.command[0] == "train.py")


def test_the_part_of_the_tests_names_every_file_with_tests_of_a_card():
    marked = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")
              if re.search(r"^(@|pytestmark = |    )pytest\.mark\.gpu", path.read_text(), re.M)}  # fmt: skip
    assert marked == {word for word in gpu.TESTS if word.endswith(".py")}


@pytest.mark.parametrize("part", [part for part in PARTS if part.read is not of_tests], ids=lambda part: part.name)
def test_every_part_has_settings_that_are_known(part, tmp_path):
    words = [word.format(out=tmp_path / "out.json", data=tmp_path, folder=tmp_path) for word in part.command]
    if words[0] == "train.py":
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            assert compose("train", [*words[1:], f"paths.run={tmp_path}"]).trainer.accelerator == "gpu"
    else:
        module = importlib.import_module(words[1])
        keys = next(value for value in vars(module).values() if getattr(value, "__module__", "") == words[1]
                    and isinstance(value, type) and issubclass(value, BenchmarkKeys))  # fmt: skip
        assert read(keys, words[2:]).out == tmp_path / "out.json"
