"""Where runs go: every job of ``-m`` has a directory of its own, and ``paths.outputs`` moves all of them."""

import json

from qbsnn.cli.launch import job_dir
from tests.tool import one_paragraph

FIT = ("trainer.max_epochs=1", "data.limit_train=64", "data.limit_val=32", "model=mlp", "model.hidden=[8]",
       "test=false", "report=false", "callbacks=no_deploy", "callbacks.progress=null")  # fmt: skip


def statuses(tool):
    return {path.parent: json.loads(path.read_text())["status"] for path in tool.folder.rglob("result.json")}


def test_jobs_with_slashes_and_many_overrides_have_folders_of_their_own(tool, tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    many = [f"trainer.{key}" for key in ("num_sanity_val_steps=0", "log_every_n_steps=10", "accumulate_grad_batches=1",
            "gradient_clip_val=0.5", "deterministic=true")]  # fmt: skip
    many += [f"neuron.{key}" for key in ("tau=2.0", "delta=0.5", "alpha=0.5", "beta=3.0", "learn_delta=true")]
    many += [f"optim.optimizer.{key}" for key in ("lr=0.01", "weight_decay=0.001")]
    many += [f"data.{key}" for key in ("batch_size=16", "val_fraction=0.2", "num_workers=0")]
    many += [f"callbacks.bursts.{key}" for key in ("warn_dead=0.9", "warn_saturation=0.6")]
    words = [*FIT, *many, f"paths.data={data}/../{data.name}", "name=a-name", "compile=none", "deploy.bits=6"]
    assert len(words) >= 30
    assert tool("train.py", "-m", "neuron.s_max=1,2", *words) == 0
    found = statuses(tool)
    assert set(found.values()) == {"finished"} and len(found) == 2
    (parent,) = {run.parent for run in found}
    assert parent.parent == tool.folder / "outputs/sweeps"
    assert sorted(run.name[:18] for run in found) == ["0_neuron.s_max-1_t", "1_neuron.s_max-2_t"]


def test_names_of_jobs_are_short_safe_and_differ():
    words = [f"data.key_{number}=ä/../{'x' * number}\n" for number in range(100)]
    names = {job_dir(number, [*words, f"T={number}"]) for number in range(50)} | {job_dir(0, ["a=b/c"]), job_dir(0, [])}
    assert len(names) == 52
    assert all(len(name.encode()) <= 120 and name.isascii() for name in names)
    assert not [name for name in names if "/" in name or ".." in name or name.startswith(".")]
    assert job_dir(0, ["a=b/c"]) != job_dir(0, ["a=b.c"])


def test_paths_outputs_moves_runs_and_sweeps(tool):
    assert tool("train.py", *FIT, "paths.outputs=there") == 0
    assert tool("train.py", "-m", "T=2", *FIT, "paths.outputs=there") == 0
    (run,), (job,) = (tool.folder.glob(pattern) for pattern in ("there/runs/*", "there/sweeps/*/0_*"))
    assert {run, job} == set(statuses(tool)) and not (tool.folder / "outputs").exists()


def test_paths_outputs_moves_the_cells_of_a_sweep(tool, sweep):
    assert sweep("paths.outputs=there", "sweep.seeds=[0]") == 0
    assert (tool.folder / "there/sweeps/small/cells.json").is_file() and len(statuses(tool)) == 2
    assert not (tool.folder / "outputs").exists()


def test_a_bad_folder_of_hydras_own_files_is_refused(tool, capsys):
    assert tool("train.py", *FIT, "hydra.output_subdir=/") == 1
    assert "hydra.output_subdir=/" in one_paragraph(capsys.readouterr().err)
