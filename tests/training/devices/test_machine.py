"""What compiling saves and takes is measured once, kept, and measured again where the file is no use."""

import json
import math
import subprocess

import pytest
import torch

from qbsnn.models import mlp
from qbsnn.models.execution import Costs
from qbsnn.neurons import QBLIF
from qbsnn.training.devices import auto, machine
from tests.test_configs import composed

MEASURED = Costs(eager=10e-9, kernel=8.0)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The file of the cache, in an empty folder, and a clock that counts what it is asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "asked", [], raising=False)
    monkeypatch.setattr(machine, "eager_seconds", lambda: machine.asked.append(1) or MEASURED.eager)
    monkeypatch.setattr(machine, "kernel_seconds", lambda: MEASURED.kernel)
    return tmp_path / "qbsnn" / machine.FILE


def test_a_machine_is_measured_once(cache):
    assert machine.costs() == machine.costs() == MEASURED
    assert len(machine.asked) == 1
    (key,) = json.loads(cache.read_text())
    assert f"{torch.get_num_threads()} threads, torch {torch.__version__}" in key
    assert [path.name for path in cache.parent.iterdir()] == [machine.FILE]


def test_another_count_of_threads_is_another_machine(cache, monkeypatch):
    machine.costs()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1000)
    assert machine.costs() == MEASURED
    assert len(machine.asked) == 2 == len(json.loads(cache.read_text()))


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b'{"KEY": 3}', b'{"KEY": {"eager": -1, "kernel": 2}}',
                                    b'{"KEY": {"eager": NaN, "kernel": 2}}', b'{"KEY": {"eager": 1e-9}}'])  # fmt: skip
def test_a_damaged_cache_is_written_anew(cache, damage):
    machine.costs()
    (key,) = json.loads(cache.read_text())
    cache.write_bytes(damage.replace(b"KEY", key.encode()))
    assert machine.costs() == machine.costs() == MEASURED
    assert len(machine.asked) == 2


def test_a_cache_that_cannot_be_written_is_none(cache):
    cache.parent.write_text("a file where the folder should be")
    assert machine.costs() == machine.costs() == MEASURED
    assert len(machine.asked) == 2


def test_a_compiler_that_fails_is_not_remembered(cache, monkeypatch):
    monkeypatch.setattr(machine, "kernel_seconds", lambda: math.inf)
    assert machine.costs().kernel == math.inf and not cache.exists()


def test_a_source_that_does_not_compile_takes_for_ever(monkeypatch):
    monkeypatch.setattr(machine, "SOURCE", "no C++")
    assert machine.kernel_seconds() == math.inf
    monkeypatch.setattr(machine, "compiler", lambda: "/no/compiler")
    assert machine.kernel_seconds() == math.inf


def test_a_kernel_costs_a_multiple_of_the_source(monkeypatch):
    ticks = iter([3.0, 3.5])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(subprocess, "run", lambda *args, **more: None)
    assert machine.kernel_seconds() == 5.5


def test_an_eager_stage_saves_half_of_its_median(monkeypatch):
    monkeypatch.setattr(machine, "SHAPE", (2, 2, 5, 5, 1))
    monkeypatch.setattr(machine, "_median", lambda work: work() or 4.0)
    assert machine.eager_seconds() == 0.5 * 4.0 / 100


def test_measuring_leaves_torch_as_it_was(monkeypatch):
    monkeypatch.setattr(machine, "SHAPE", (2, 2, 4, 4, 4))

    def state():
        return torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()

    with torch.no_grad():
        before, random = state(), torch.get_rng_state()
        assert machine.eager_seconds() > 0
        assert state() == before and torch.equal(torch.get_rng_state(), random)


def run(tmp_path, monkeypatch, *settings, costs=None):
    """A fit of one epoch; returns the trainer's weights and what was decided."""
    from qbsnn.training.setup import build

    monkeypatch.setattr(machine, "costs", costs or machine.costs)
    tmp_path.mkdir()
    plain = composed(tmp_path, "trainer=cpu", "trainer.max_epochs=1", "data.limit_train=128", "data.limit_val=64",
                     "model.width=0.25", "callbacks=no_deploy", "~logger", "callbacks.checkpoint=null",
                     "trainer.enable_checkpointing=false", *settings)  # fmt: skip
    parts = build(plain)
    parts.trainer.fit(parts.module, datamodule=parts.data)
    return parts.module.network.state_dict(), str(parts.execution)


def test_deciding_changes_no_number_of_a_run(tmp_path, monkeypatch):
    def never():
        raise AssertionError("so short a run measures nothing")

    plain, said = run(tmp_path / "a", monkeypatch, "compile=none")
    assert said == "compile=none, memory=none"
    decided, said = run(tmp_path / "b", monkeypatch, "compile=auto", "memory=auto", costs=never)
    assert said == "compile=none, memory=none"
    assert all(torch.equal(value, decided[name]) for name, value in plain.items())


def test_what_does_not_fit_is_packed_and_trains_the_same(tmp_path, monkeypatch):
    plain, _ = run(tmp_path / "a", monkeypatch, "compile=none", "memory=packed")
    sizes = iter([3.0, 1.0])
    monkeypatch.setattr(auto.memory, "kept_bytes", lambda *args: next(sizes))
    monkeypatch.setattr(auto.memory, "free_bytes", lambda device: 4)
    decided, said = run(tmp_path / "b", monkeypatch, "compile=none", "memory=auto")
    assert said == "compile=none, memory=packed"
    assert all(torch.equal(value, decided[name]) for name, value in plain.items())


def test_a_fit_that_goes_on_runs_as_it_began():
    network = mlp(QBLIF, (1, 4, 4), 3, mean=[0.5], std=[0.5])
    began = auto.Execution("auto", "auto", network)
    began.compile, began.memory = "block", "packed"
    resumed, told = auto.Execution("auto", "auto", network), auto.Execution("none", "checkpoint", network)
    for execution in (resumed, told):
        execution.load_state_dict(began.state_dict())
    assert str(resumed) == "compile=block, memory=packed" and str(told) == "compile=none, memory=checkpoint"
