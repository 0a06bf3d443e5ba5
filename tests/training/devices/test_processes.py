"""Several processes: what each takes of a batch, what the norms see, and that a run is the one of a single process."""

import csv
import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qbsnn.data.loading import EpochSampler, EvalBatches, Share, train_loader
from qbsnn.errors import SettingsError
from qbsnn.training import checkpoints
from qbsnn.training.devices.processes import one_process, to_start
from tests.data.test_loading import numbered
from tests.test_configs import composed
from tests.tool import ROOT, one_paragraph

SMALL = ("data.limit_train=256", "data.limit_test=64", "model.width=0.25", "report=false", "trainer.max_epochs=2")


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 5), st.integers(1, 8), st.integers(0, 3))
def test_the_shares_of_a_training_batch_are_the_batch_of_one_process(size, world, each, epoch):
    batch = world * each
    alone = EpochSampler(size, seed=3)
    shares = [EpochSampler(size, 3, batch, Share(rank, world)) for rank in range(world)]
    for sampler in (alone, *shares):
        sampler.set_epoch(epoch)
    drawn = [list(sampler) for sampler in shares]
    order = list(alone)
    assert [len(sampler) for sampler in shares] == [len(found) for found in drawn]
    if world == 1:
        assert drawn[0] == order
        return
    assert len(drawn[0]) == size // batch * each
    for k in range(size // batch):
        parts = [found[k * each : (k + 1) * each] for found in drawn]
        assert list(chain(*parts)) == order[k * batch : (k + 1) * batch]


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 5), st.integers(1, 8))
def test_every_sample_is_evaluated_once_in_as_many_batches_per_process(size, world, each):
    if size < world:
        with pytest.raises(SettingsError, match=rf"{world} processes need a sample each to evaluate, got {size}"):
            EvalBatches(size, world * each, Share(0, world))
        return
    found = [list(EvalBatches(size, world * each, Share(rank, world))) for rank in range(world)]
    assert len({len(batches) for batches in found}) == 1
    assert all(batches and all(batches) for batches in found)
    assert sorted(index for batches in found for batch in batches for index in batch) == list(range(size))
    whole = size // (world * each)
    for k in range(whole - 1):  # a last batch may have joined the one before
        assert list(chain(*(batches[k] for batches in found))) == list(range(k * world * each, (k + 1) * world * each))


def test_an_only_batch_is_cut_to_the_number_of_processes():
    loaders = [train_loader(numbered(7), 8, 0, 0, Share(rank, 2)) for rank in (0, 1)]
    ((_, first),), ((_, second),) = (list(loader) for loader in loaders)
    assert len(first) == len(second) == 3 and len(np.unique(torch.cat([first, second]))) == 6
    with pytest.raises(SettingsError, match="2 processes need a training sample each, got 1 samples"):
        train_loader(numbered(1), 8, 0, 0, Share(0, 2))


@pytest.mark.parametrize(
    ("devices", "first"), [(4, 1), ("auto", 1), (-1, 1), ([2, 3], [2]), ("2,3", [2]), ("1,", [1]), ("3", 1)]
)
def test_one_process_takes_the_first_device(devices, first):
    given = {"devices": devices, "strategy": "ddp", "num_nodes": 2, "sync_batchnorm": True, "max_epochs": 3}
    assert one_process(given) == {
        "devices": first, "strategy": "auto", "num_nodes": 1, "sync_batchnorm": False, "max_epochs": 3,
    }  # fmt: skip


CPU = "trainer=ddp_cpu"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([CPU, "data.batch_size=63"], "data.batch_size is the batch of all processes together and must be a multiple"),
        ([CPU, "trainer.num_nodes=2"], "trainer.num_nodes=2 needs one process per device started by srun or torchrun"),
        ([CPU, "trainer.strategy=dpp"], "trainer cannot be built"),
        (["trainer=ddp"], "trainer cannot be built"),
    ],
)
def test_what_cannot_run_in_several_processes_is_refused_before_anything_is_written(tool, capsys, arguments, words):
    if torch.cuda.is_available() and arguments == ["trainer=ddp"]:
        pytest.skip("runs where there are GPUs")
    assert tool("train.py", *arguments) == 1
    assert words in one_paragraph(capsys.readouterr().err)
    assert tool.left_behind() == []


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["experiment=cifar10_fast_gpu", CPU], 2),
        (["experiment=imagenet_qb_t6", CPU], 2),
        (["trainer.accelerator=cpu", "trainer.devices=auto", "trainer.precision=auto"], 1),
    ],
)
def test_processes_are_counted_whatever_the_precision(tmp_path, arguments, count):
    assert to_start(composed(tmp_path, *arguments)) == count


def test_norms_that_are_computed_twice_are_not_reduced():
    trainer = {"_target_": "lightning.Trainer", "accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    plain = {"trainer": {**trainer, "sync_batchnorm": True}, "data": {"batch_size": 64}}
    assert to_start(plain) == to_start({**plain, "memory": "packed"}) == 2
    assert to_start({**plain, "trainer": {**trainer, "devices": 1}}) == 1
    with pytest.raises(SettingsError, match="memory=checkpoint computes norms again"):
        to_start({**plain, "memory": "checkpoint"})


def test_a_slurm_job_of_one_task_starts_its_processes_and_one_of_many_is_left_alone(monkeypatch):
    trainer = {"_target_": "lightning.Trainer", "accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    plain = {"trainer": trainer, "data": {"batch_size": 64}}
    for name in ("JOB_ID", "NODEID", "LOCALID", "PROCID"):
        monkeypatch.setenv(f"SLURM_{name}", "0")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert to_start(plain) == 2
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    assert to_start(plain) == 1


def test_processes_from_outside_need_one_run_directory(tool, capsys, monkeypatch):
    outside = {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**outside, "GROUP_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert tool("train.py", CPU) == 1
    assert "give all of them one, hydra.run.dir=outputs/runs/NAME" in one_paragraph(capsys.readouterr().err)


NORMS = """
import sys
import torch
from torch import distributed as dist, nn
from qbsnn.layers.norm import BatchNorm1d, BatchNorm2d, TDBatchNorm
from qbsnn.neurons.scale import Scale
from qbsnn.training.devices.sync_norm import SyncNorm

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
for norm, plain, shape in [
    (BatchNorm1d(3), nn.BatchNorm1d(3), (10, 3)),
    (BatchNorm2d(3), nn.BatchNorm2d(3), (10, 3, 4, 5)),
    (TDBatchNorm(3, 0.7, 2), nn.BatchNorm2d(3), (10, 3, 4, 5)),
    (BatchNorm1d(3, momentum=None), nn.BatchNorm1d(3, momentum=None), (10, 3)),
]:
    torch.manual_seed(0)
    x, weights = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    norm, plain = norm.double(), plain.double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.5, -0.5, 2.0])), norm.bias.copy_(torch.tensor([0.1, 0.2, -0.3]))
        plain.weight.copy_(norm.weight * norm.gain), plain.bias.copy_(norm.bias)
    own = type(norm)
    SyncNorm().apply(norm)
    share = slice(0, 4) if rank == 0 else slice(4, 10)
    mine, whole = x[share].clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = norm(mine), plain(whole)
    (found * weights[share]).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(found, expected[share])
    torch.testing.assert_close(mine.grad, whole.grad[share])
    gamma = norm.weight.grad.clone()
    dist.all_reduce(gamma)
    torch.testing.assert_close(gamma, plain.weight.grad * norm.gain)
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    torch.testing.assert_close(norm.running_var, plain.running_var)
    assert not torch.allclose(found, nn.functional.batch_norm(x[share], None, None, plain.weight, plain.bias, True))
    torch.testing.assert_close(norm.eval()(x), plain.eval()(x))
    SyncNorm().revert(norm)
    assert type(norm) is own
    torch.testing.assert_close(norm(x), plain(x))
    assert norm.num_batches_tracked == plain.num_batches_tracked == 1
bare, plain = (kind(3, affine=False, track_running_stats=False).double() for kind in (BatchNorm2d, nn.BatchNorm2d))
SyncNorm().apply(bare)
torch.testing.assert_close(bare(x[share, :, None, None]), plain(x[:, :, None, None])[share])
current = torch.arange(48.0).view(2, 4, 6)  # [T, B, F]
scale = Scale(0.5, s_max=4, init="percentile", percentile=50.0)
scale.settle(current[:, 2 * rank : 2 * rank + 2])
assert torch.equal(scale.raw, torch.tensor(6.0)), scale.raw  # the median of 1 to 47 is 24
dist.destroy_process_group()
print("equal")
"""


def environment() -> dict:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_synced_norms_and_scales_see_the_whole_batch(tmp_path):
    command = [sys.executable, "-c", NORMS]
    both = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], env=environment(), stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    assert [process.communicate(timeout=300)[0] for process in both] == ["equal\n", "equal\n"]


def curves(run: Path) -> dict[str, list[float]]:
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    names = ("train/loss", "val/loss", "train/acc", "val/acc", "test/loss", "test/acc")
    return {name: [float(row[name]) for row in rows if row.get(name)] for name in names}


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        # float64 with spikes: sums in another order round differently, and a flipped spike changes all after it
        ["model.norm=none", "trainer.precision=64-true"],
        ["model.norm=bn", "trainer.precision=64-true"],
        ["model.norm=none", "neuron=relu"],
        ["model.norm=bn", "neuron=relu", "data.limit_val=45"],
        ["model.norm=bn", "trainer.precision=64-true", "+callbacks.norms._target_=qbsnn.callbacks.PreciseNorms"],
    ],
    ids=["spikes-float64", "spikes-bn-float64", "relu", "relu-bn", "precise-norms"],
)
def test_two_processes_end_with_the_losses_and_weights_of_one(tool, network):
    for trainer in ("cpu", "ddp_cpu"):
        assert tool("train.py", f"trainer={trainer}", *SMALL, *network, "callbacks=no_deploy", "seed=1") == 0
    alone, together = tool.runs()
    first, second = curves(alone), curves(together)
    assert len(first["train/loss"]) == len(first["val/loss"]) == 2
    assert first["train/loss"][0] != first["train/loss"][1]
    for name, values in first.items():
        assert second[name] == pytest.approx(values, abs=1e-5, rel=0), name
    one, two = (checkpoints.load(run / "checkpoints/last.ckpt")["state_dict"] for run in (alone, together))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=0, msg=name)
    results = [json.loads((run / "result.json").read_text()) for run in (alone, together)]
    assert results[0]["data"] == results[1]["data"]


@pytest.mark.slow
def test_a_multirun_of_two_processes_leaves_all_that_one_process_leaves(tool, capfd):
    code = tool("train.py", "-m", CPU, *SMALL, "neuron.s_max=2,4", "report=true", "hydra.sweep.dir=outputs/both")
    shown = capfd.readouterr()
    assert code == 0
    assert shown.out.count("epoch 2/2") == 2 and shown.out.count("test accuracy") == 2, shown.out
    assert "Traceback" not in shown.err and "sync_dist" not in shown.err
    assert len(tool.runs()) == 2
    for run, s_max in zip(tool.runs(), (2, 4), strict=True):
        result = json.loads((run / "result.json").read_text())
        assert result["status"] == "finished" and result["config"]["neuron"]["s_max"] == s_max
        assert result["command"].startswith("train.py -m trainer=ddp_cpu")
        for name in ("absorption", "integer"):
            assert result[name]["passed"] and result[name]["images"] == 64 and result[name]["spikes"] > 0
        assert result["energy"]["totals"]
        assert (run / "report.html").stat().st_size > 100_000
        assert len(curves(run)["train/loss"]) == 2
        assert {path.name for path in (run / "checkpoints").iterdir()} >= {"best.ckpt", "last.ckpt"}
    # the checkpoint of several processes is evaluated by one
    assert tool("evaluate.py", f"ckpt={run / 'checkpoints/best.ckpt'}") == 0
    assert tool.result()["metrics"]["best"]["test/acc"] == result["metrics"]["best"]["test/acc"]


@pytest.mark.slow
def test_what_fails_in_a_process_is_told_once_and_recorded(tool, capfd):
    assert tool("train.py", CPU, *SMALL, "optim.optimizer.lr=1e30", "trainer.gradient_clip_val=null") == 1
    assert "training diverged at step" in one_paragraph(capfd.readouterr().err)
    assert tool.result()["status"] == "failed" and tool.result()["error"].startswith("DivergenceError: ")
    before = len(tool.left_behind())
    assert tool("train.py", CPU, *SMALL, "neuron.s_max=0") == 1
    assert "neuron.s_max must be an integer from 1 to 127, got 0" in one_paragraph(capfd.readouterr().err)
    assert len(tool.left_behind()) == before
