"""A teacher: its loss by hand, what it is known by, and what it must be."""

import json
import math
import shutil

import pytest
import torch
from omegaconf import OmegaConf

from qbsnn.errors import CheckpointError
from qbsnn.functional.loss import soft_targets
from qbsnn.training import checkpoints
from qbsnn.training.settings import DistillationSettings, identify, validate
from qbsnn.training.teacher import Teacher
from tests.test_configs import composed
from tests.tool import TINY, one_paragraph
from tests.training.test_resume import SHORT, numbers, stop_at  # noqa: F401  # a fixture


def test_the_loss_by_hand():
    # τ = 2: the teacher's (2 ln 3, 0) gives ¾ and ¼, the student's (0, 0) a half each
    wanted, logits = torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2, requires_grad=True)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    found = soft_targets(logits, wanted, 2.0)
    assert found.item() == pytest.approx(4 * divergence, rel=1e-6)
    found.backward()  # τ²·(½ − ¾)/τ
    assert logits.grad.tolist() == [pytest.approx([-0.5, 0.5])]
    assert soft_targets(torch.stack([logits[0].detach()] * 3), wanted.expand(3, 2), 2.0).item() == pytest.approx(
        4 * divergence, rel=1e-6
    )


class Wise(torch.nn.Module):
    """Gives one step of logits (2 ln 3, 0)."""

    def forward(self, pixels):
        return torch.tensor([[[2 * math.log(3), 0.0]]]).expand(1, len(pixels), 2)

    def decide(self, logits):
        return logits.mean(0)


def test_the_share_mixes_both_losses():
    teacher = Teacher(Wise(), DistillationSettings(share=0.25, temperature=2.0))
    soft = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    found = teacher(torch.tensor(8.0), torch.zeros(3, 1), torch.zeros(3, 2))
    assert found.item() == pytest.approx(0.75 * 8 + 0.25 * soft, rel=1e-6)


@pytest.fixture
def twin(tool):
    """The checkpoint of a trained ReLU twin."""
    assert tool("train.py", *SHORT, "neuron=relu", "trainer.max_epochs=1", "hydra.run.dir=outputs/twin") == 0
    return tool.folder / "outputs/twin/checkpoints/best.ckpt"


def test_a_student_is_known_by_its_teacher_and_resumes_exactly(tool, twin, stop_at):  # noqa: F811
    moved = tool.folder / "elsewhere.ckpt"
    shutil.copy(twin, moved)
    more = ["distillation.temperature=2.0", "distillation.share=0.75", "callbacks.ema=null"]
    more = [*SHORT, *more[:2]]
    assert tool("train.py", *more, f"teacher={twin}", "hydra.run.dir=outputs/whole") == 0
    whole = tool.result()
    identity = {key: value for key, value in whole["identity"].items() if "teacher" in key or "distil" in key}
    assert identity == {"distillation.share": 0.75, "distillation.temperature": 2.0,
                        "teacher_digest": checkpoints.digest(twin)}  # fmt: skip
    contents = checkpoints.load(tool.folder / "outputs/whole/checkpoints/last.ckpt")
    assert not [name for name in contents["state_dict"] if "teacher" in name]
    plain = checkpoints.load(twin)["state_dict"].keys()
    assert len(contents["state_dict"]) < 2 * len(plain) + 10
    stop_at(7)
    assert tool("train.py", *more, f"teacher={moved}", "hydra.run.dir=outputs/parts") == 1
    stop_at(None)
    assert tool("train.py", *more, f"teacher={moved}", "hydra.run.dir=outputs/parts") == 0
    assert numbers(tool.result()) == numbers(whole)
    # evaluating a student needs no teacher; its loss without one is another
    moved.unlink()
    twin.rename(twin.with_name("gone.ckpt"))
    best = tool.folder / "outputs/parts/checkpoints/best.ckpt"
    assert tool("evaluate.py", f"ckpt={best}") == 0
    assert tool("train.py", *SHORT, "hydra.run.dir=outputs/alone") == 0
    assert tool.result()["metrics"]["last"]["val/loss"] != whole["metrics"]["last"]["val/loss"]
    assert tool.result()["cell"] != whole["cell"]


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tool, twin):
    more = ["neuron=relu", "model.norm=none", "callbacks=no_deploy", f"teacher={twin}"]
    for trainer in ("cpu", "ddp_cpu"):
        small = ("data.limit_train=128", "data.limit_test=64", "model=mlp", "model.hidden=[32]", "report=false")
        assert tool("train.py", f"trainer={trainer}", *small, *more, "trainer.max_epochs=2") == 0
    one, two = (checkpoints.load(run / "checkpoints/last.ckpt")["state_dict"] for run in tool.runs()[-2:])
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=0, msg=name)


def test_a_teacher_of_other_samples_is_refused(tool, twin, tmp_path, capsys):
    contents = checkpoints.load(twin)
    other = composed(tmp_path / "other", "data=mnist", "neuron=relu")
    contents["qbsnn"]["config"]["data"] = other["data"]
    path = tool.folder / "mnist.ckpt"
    checkpoints.AtomicCheckpointIO().save_checkpoint(contents, path)
    capsys.readouterr()
    assert tool("train.py", *TINY, f"teacher={path}", "hydra.run.dir=outputs/no") == 1
    text = one_paragraph(capsys.readouterr().err)
    assert "learned from mnist, samples [1, 28, 28] of 10 classes; digits has samples [1, 8, 8] of 10 classes" in text
    assert not (tool.folder / "outputs/no").exists()
    contents["qbsnn"]["config"]["neuron"]["_target_"] = "os.system"
    checkpoints.AtomicCheckpointIO().save_checkpoint(contents, path)
    assert tool("train.py", *TINY, f"teacher={path}") == 1
    assert "may not be 'os.system'" in one_paragraph(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("setting", "words"),
    [("teacher=nothing.ckpt", "error: teacher: checkpoint nothing.ckpt does not exist"),
     ("init_from=nothing.ckpt", "error: init_from: checkpoint nothing.ckpt does not exist"),
     ("teacher=.", "checkpoints/best.ckpt does not exist"),
     ("init_from=.", "checkpoints/best.ckpt does not exist"),
     ("teacher=", "error: teacher must be the path of a checkpoint, or null for none, got ''"),
     ("init_from=", "error: init_from must be the path of a checkpoint, or null for none, got ''"),
     ("distillation.share=0.25", "distillation.share=0.25 has no effect without a teacher: give teacher=CHECKPOINT"),
     ("distillation.share=2", "distillation.share"), ("distillation.temperature=0", "distillation.temperature"),
     ("+distillation.tau=1", "distillation.tau")],
)  # fmt: skip
def test_bad_values(tool, capsys, setting, words):
    assert tool("train.py", *TINY, setting) == 1
    assert words in one_paragraph(capsys.readouterr().err)


def test_what_training_starts_from_is_known_by_its_content(tmp_path):
    first, moved, other = (tmp_path / name for name in ("a.ckpt", "b.ckpt", "c.ckpt"))
    checkpoints.AtomicCheckpointIO().save_checkpoint({"state_dict": {"a": torch.zeros(1)}}, first)
    checkpoints.AtomicCheckpointIO().save_checkpoint({"state_dict": {"a": torch.ones(1)}}, other)
    shutil.copy(first, moved)
    settings = [composed(tmp_path / "run", f"init_from={path}") for path in (first, moved, other)]
    found = [identify(each) for each in settings]
    assert found[0] == found[1] != found[2] and "init_from" not in found[0]
    assert found[0]["init_from_digest"] == checkpoints.digest(first)
    first.unlink()  # a stored configuration keeps what it said
    assert identify(validate(OmegaConf.create(settings[0])))["init_from_digest"] == found[0]["init_from_digest"]


def test_a_teacher_that_holds_no_network_is_named(tmp_path):
    path = tmp_path / "a.ckpt"
    checkpoints.AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, path)
    with pytest.raises(CheckpointError, match=r"^teacher: checkpoint .* carries no qbsnn configuration"):
        Teacher.asked(composed(tmp_path, f"teacher={path}"))
    assert Teacher.asked(composed(tmp_path)) is None


def test_a_file_without_a_digest_is_no_teacher(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="it does not end with its digest"):
        checkpoints.digest(tmp_path / "a.ckpt")


def test_evaluation_keeps_what_is_known_of_a_teacher_that_is_gone(tmp_path):
    settings = {**composed(tmp_path), "teacher": str(tmp_path / "gone.ckpt"), "teacher_digest": "01ab"}
    kept = validate(OmegaConf.create(json.loads(json.dumps(settings))))
    assert identify(kept)["teacher_digest"] == "01ab"
    assert "teacher_digest" not in identify(validate(OmegaConf.create({**settings, "teacher": None})))
