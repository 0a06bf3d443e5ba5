"""A run that is stopped and started again ends with the numbers of one that is not."""

import csv
import json
import os
import shutil
import signal
import time
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import timer

from qbsnn.callbacks.checkpoint import BestByValidation
from qbsnn.data.images.resident import ImageSplit
from qbsnn.errors import DataError
from qbsnn.training import resume
from qbsnn.training.module import Classifier
from qbsnn.training.record import claim, held
from qbsnn.training.resume import unfinished
from tests.tool import TINY, Tool, one_paragraph

SHORT = (
    "model=mlp", "model.hidden=[32]", *(word for word in TINY if "width" not in word), "report=false",
    "callbacks.integer=null", "callbacks.energy=null", "data.batch_size=32",
    "trainer.limit_train_batches=null", "trainer.max_epochs=4",
)  # fmt: skip  # 4 steps in each of 4 epochs


@pytest.fixture
def stop_at(monkeypatch):
    """``stop_at(n)``: the n-th training step from now on raises; ``None``: none does."""
    honest = Classifier.training_step
    left = [None]

    def step(self, batch, batch_idx):
        if left[0] is not None:
            left[0] -= 1
            if left[0] == 0:
                raise DataError("stopped by the test")
        loss = honest(self, batch, batch_idx)
        assert self.network.encoder.epoch == self.current_epoch
        # rate coding draws by seed, epoch and sample; this draws from the generator that is to be put back
        return loss * (1 + torch.rand(())) if self.network.encoder.coding == "rate" else loss

    monkeypatch.setattr(Classifier, "training_step", step)
    return lambda n: left.__setitem__(0, n)


def numbers(result):
    return {key: result[key] for key in ("metrics", "layers", "params", "absorption", "checkpoints", "cell")}


def curves(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def starts(run):
    lines = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    return [(line["epoch"], line["step"]) for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that is not stopped."""
    with pytest.MonkeyPatch.context() as patch:
        tool = Tool(patch, tmp_path_factory.mktemp("whole"))
        assert tool("train.py", *SHORT, "hydra.run.dir=outputs/whole") == 0
        return tool.folder / "outputs/whole"


def whole_and_parts(tool, stop_at, step, *words):
    """The folders of a run that is not stopped, and of one that is stopped at a step and started again."""
    assert tool("train.py", *words, "hydra.run.dir=outputs/whole") == 0
    stop_at(step)
    assert tool("train.py", *words, "hydra.run.dir=outputs/parts") == 1
    stop_at(None)
    assert tool("train.py", *words, "hydra.run.dir=outputs/parts") == 0
    return tool.folder / "outputs/whole", tool.folder / "outputs/parts"


def read(run):
    return json.loads((run / "result.json").read_text())


HARD = {
    "plain": [],
    "random": ["model.encoding=rate", "neuron.init=percentile", "callbacks.delta.penalty=0.1", "data.crop=1"],
    "max_steps": ["+trainer.max_steps=14"],  # within the fourth epoch
    "float64": ["trainer.precision=64-true", "callbacks.checkpoint.every_minutes=1e-9"],
}


@pytest.mark.parametrize("settings", HARD.values(), ids=HARD.keys())
def test_a_stopped_run_goes_on_to_the_same_numbers(tool, stop_at, monkeypatch, settings, whole):
    monkeypatch.setattr(resume, "time", SimpleNamespace(perf_counter=count().__next__))  # a second passes at each look
    if settings:
        whole = tool.folder / "outputs/whole"
        assert tool("train.py", *SHORT, *settings, "hydra.run.dir=outputs/whole") == 0
    for step in (7, 8):  # of the second epoch, then of the fourth
        stop_at(step)
        assert tool("train.py", *SHORT, *settings, "hydra.run.dir=outputs/parts") == 1
        assert tool.result()["status"] == "failed"
    stop_at(None)
    assert tool("train.py", *SHORT, *settings, "hydra.run.dir=outputs/parts") == 0
    result = tool.result()
    assert result["status"] == "finished" and result["timing"]["epochs"] == 4
    assert numbers(result) == numbers(read(whole))
    run = tool.folder / "outputs/parts"
    assert starts(whole) == [(0, 0), (1, 4), (2, 8), (3, 12)]
    if "callbacks.checkpoint.every_minutes=1e-9" in settings:  # saved after each step, it goes on behind the last one
        assert starts(run) == [(0, 0), (1, 4), (1, 6), (2, 8), (3, 12), (3, 13)]
    else:
        assert starts(run) == [(0, 0), (1, 4), (1, 4), (2, 8), (2, 8), (3, 12)]
    assert curves(run) == curves(whole)
    if settings:
        ours, theirs = (torch.load(place / "checkpoints/last.ckpt", weights_only=True) for place in (run, whole))
        assert ours["resumption"]["seconds"] == theirs["resumption"]["seconds"] >= 4
        assert ours["global_step"] == theirs["global_step"] == (14 if "+trainer.max_steps=14" in settings else 16)


AVERAGED = ["+callbacks.ema._target_=lightning.pytorch.callbacks.EMAWeightAveraging", "+callbacks.ema.decay=0.5"]


@pytest.mark.parametrize("averaged", [[], AVERAGED], ids=["plain", "averaged"])
def test_a_fit_that_was_complete_is_not_trained_again(tool, stop_at, monkeypatch, averaged):
    from qbsnn.callbacks.verification import AbsorptionCheck

    honest = AbsorptionCheck.check
    arguments = [*SHORT, *averaged, "callbacks=early_stopping", "callbacks.early_stopping.patience=1",
                 "+callbacks.early_stopping.min_delta=1"]  # fmt: skip
    assert tool("train.py", *arguments, "hydra.run.dir=outputs/whole") == 0
    whole = tool.result()
    assert whole["timing"]["epochs"] == 2  # nothing is better by 1 than the first epoch

    def fail(self, *given):
        raise DataError("stopped by the test")

    monkeypatch.setattr(AbsorptionCheck, "check", fail)
    assert tool("train.py", *arguments, "hydra.run.dir=outputs/parts") == 1
    monkeypatch.setattr(AbsorptionCheck, "check", honest)
    folder = tool.folder / "outputs/parts/checkpoints"
    shutil.copyfile(folder / "last.ckpt", folder / "resume.ckpt")  # as after a kill right before it goes,
    left = [folder / ".resume.ckpt.part", folder.parent / ".result.json.1.part"]  # and after kills within writes
    for part in left:
        part.write_bytes(b"PK")
    stop_at(1)
    assert tool("train.py", *arguments, "hydra.run.dir=outputs/parts") == 0
    assert numbers(tool.result()) == numbers(whole)
    assert tool.result()["timing"]["epochs"] == 2
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert not any(part.exists() for part in left)


def test_an_average_follows_the_weights_until_its_first_update(tool, whole):
    late = [*SHORT, *AVERAGED, "hydra.run.dir=outputs/late"]
    assert tool("train.py", *late, "+callbacks.ema.update_starting_at_step=14") == 0
    epochs, others = ([row for row in curves(run) if row["val/loss"]] for run in (tool.folder / "outputs/late", whole))
    assert epochs[:3] == others[:3] and epochs[3]["val/loss"] != others[3]["val/loss"]


@pytest.mark.parametrize(("key", "value"), [("update_starting_at_step", 16), ("update_every_n_steps", 0)])
def test_an_average_that_never_starts_is_refused_before_training(tool, capsys, stop_at, key, value):
    stop_at(1)
    assert tool("train.py", *SHORT, *AVERAGED, f"+callbacks.ema.{key}={value}") == 1
    message = one_paragraph(capsys.readouterr().err)
    assert "callbacks.ema averages nothing in 16 steps with " in message and f"{key}={value}" in message


@pytest.mark.parametrize("every", [0, 1])
def test_an_average_by_epochs_is_refused_since_nobody_would_validate_it(tool, capsys, stop_at, every):
    stop_at(1)
    words = [f"+callbacks.ema.update_every_n_steps={every}", "+callbacks.ema.update_starting_at_epoch=2"]
    assert tool("train.py", *SHORT, *AVERAGED, *words) == 1
    message = one_paragraph(capsys.readouterr().err)
    assert f"callbacks.ema averages at the end of epochs with update_every_n_steps={every}, " in message
    assert "update_starting_at_epoch=2" in message and "must be null" in message
    assert "update_starting_at_step" in message


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_share_below_one_batch_is_refused_before_training(tool, capsys, part):
    limit = f"trainer.limit_{part}_batches"
    words = [word for word in SHORT if limit not in word]
    assert tool("train.py", *words, f"{limit}=1e-3", "hydra.run.dir=outputs/share") == 1
    error = one_paragraph(capsys.readouterr().err)
    assert f"limit_{part}_batches" in error and "at least" in error.lower()
    result = tool.result()
    assert result["status"] == "failed" and not result["timing"]["epochs"]


def test_a_run_behind_a_link_to_a_deeper_folder_finds_its_checkpoints(tool):
    deep = tool.folder / "one/two/three/four"
    deep.mkdir(parents=True)
    (tool.folder / "outputs").mkdir()
    (tool.folder / "outputs/link").symlink_to(deep)
    assert tool("train.py", *SHORT, "trainer.max_epochs=1", "hydra.run.dir=outputs/link/a") == 0
    result = read(deep / "a")
    assert result["status"] == "finished"
    assert result["checkpoints"] == {"last": "checkpoints/last.ckpt", "best": "checkpoints/best.ckpt"}


def test_damage_to_the_newest_checkpoint_leads_back_to_the_one_before(tool, stop_at, capsys, whole):
    stop_at(14)
    assert tool("train.py", *SHORT, "hydra.run.dir=outputs/parts") == 1
    last = tool.folder / "outputs/parts/checkpoints/last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    stop_at(None)
    capsys.readouterr()
    assert tool("train.py", *SHORT, "hydra.run.dir=outputs/parts") == 0
    assert "last.ckpt is damaged" in "".join(capsys.readouterr())
    assert numbers(tool.result()) == numbers(read(whole))
    assert starts(tool.folder / "outputs/parts")[:4] == [(0, 0), (1, 4), (2, 8), (3, 12)]


def test_without_its_best_epoch_a_run_starts_over_and_says_so_and_resume_refuses(tool, stop_at, capsys, whole):
    stop_at(14)
    assert tool("train.py", *SHORT, "hydra.run.dir=outputs/parts") == 1
    run = tool.folder / "outputs/parts"
    (run / "checkpoints/best.ckpt").unlink()
    kept = (run / "checkpoints/last.ckpt").read_bytes()
    stop_at(None)
    capsys.readouterr()
    assert tool("train.py", "resume=outputs/parts") == 1
    error = one_paragraph(capsys.readouterr().err)
    assert "best.ckpt, the best epoch so far, is absent or damaged: put it back" in error
    assert (run / "checkpoints/last.ckpt").read_bytes() == kept
    assert tool("train.py", *SHORT, "hydra.run.dir=outputs/parts") == 0
    assert "is absent or damaged: the run starts over" in "".join(capsys.readouterr())
    assert numbers(tool.result()) == numbers(read(whole))


def test_a_run_whose_time_was_over_goes_on_when_it_is_given_more(tool, monkeypatch, whole):
    honest, waited = Classifier.training_step, [0]

    def step(self, batch, batch_idx):
        if self.trainer.global_step == 5:
            waited[0] = 300
        return honest(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", step)
    monkeypatch.setattr(timer, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + waited[0]))
    assert tool("train.py", *SHORT, "trainer.max_time={minutes: 5}", "hydra.run.dir=outputs/parts") == 1
    result = tool.result()
    assert result["status"] == "incomplete" and "was over; resume=" in result["error"]
    assert tool("train.py", "resume=outputs/parts", "trainer.max_time={minutes: 9}") == 0
    assert numbers(tool.result()) == numbers(read(whole))


def test_another_experiment_in_a_used_directory_is_refused_unless_it_may_overwrite(tool, stop_at, capsys):
    stop_at(6)
    assert tool("train.py", *SHORT, "hydra.run.dir=outputs/parts") == 1
    stop_at(None)
    kept = {path: path.read_bytes() for path in (tool.folder / "outputs/parts/checkpoints").iterdir()}
    capsys.readouterr()
    assert tool("train.py", *SHORT, "seed=1", "trainer.max_epochs=3", "hydra.run.dir=outputs/parts") == 1
    text = one_paragraph(capsys.readouterr().err)
    assert "holds another experiment" in text and "trainer.max_epochs (4 there, 3 here)" in text
    assert "seed (0 there, 1 here)" in text and "overwrite=true" in text
    assert tool("train.py", *SHORT, "callbacks.absorption=null", "hydra.run.dir=outputs/parts") == 1
    text = one_paragraph(capsys.readouterr().err)
    assert 'callbacks.absorption._target_ ("qbsnn.callbacks.AbsorptionCheck" there, absent here)' in text
    assert {path: path.read_bytes() for path in kept} == kept
    assert tool("train.py", *SHORT, "seed=1", "overwrite=true", "hydra.run.dir=outputs/parts") == 0
    assert starts(tool.folder / "outputs/parts") == [(0, 0), (1, 4), (2, 8), (3, 12)]
    assert len(curves(tool.folder / "outputs/parts")) == 4


def test_what_is_overwritten_is_there_again_if_training_does_not_begin(tool, stop_at, whole):
    run = tool.folder / "outputs/parts"
    shutil.copytree(whole, run)

    def files():
        paths = [path for path in run.rglob("*") if path.is_file() and path.parent.name != ".hydra"]
        return {path: path.read_bytes() for path in paths if path.name not in ("train.log", ".lock")}

    before = files()
    words = [*SHORT, "seed=1", "overwrite=true", "hydra.run.dir=outputs/parts"]
    stop_at(1)
    assert tool("train.py", *words) == 1
    assert files() == before
    claim(run, {}, overwrite=True)  # by a process that is killed then
    assert not any((run / name).exists() for name in ("result.json", "checkpoints"))
    with held(run):
        assert files() == before
    stop_at(6)
    assert tool("train.py", *words) == 1
    assert (read(run)["status"], read(run)["seed"]) == ("failed", 1)
    assert not list(run.glob(".*.before"))


def test_ctrl_c_says_how_to_go_on(tool, monkeypatch, capsys):
    def step(self, batch, batch_idx):
        if self.trainer.global_step == 5:
            raise KeyboardInterrupt
        return honest(self, batch, batch_idx)

    honest, handler = Classifier.training_step, signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Classifier, "training_step", step)
    try:
        assert tool("train.py", *SHORT, "hydra.run.dir=outputs/parts") == 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning switches it off
    said = capsys.readouterr().out
    assert "INFO: folder: outputs/parts\n" in said
    assert "INFO: stopped; go on with: python train.py resume=outputs/parts\n" in said
    assert tool.result()["status"] == "interrupted"
    monkeypatch.setattr(Classifier, "training_step", honest)
    assert tool("train.py", "resume=outputs/parts") == 0


def test_sigterm_ends_a_run_after_its_batch_with_an_exit_code_and_saves_it(tool, monkeypatch, whole):
    honest = Classifier.training_step

    def step(self, batch, batch_idx):
        if self.trainer.global_step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return honest(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", step)
    assert tool("train.py", *SHORT, "hydra.run.dir=outputs/parts") == 128 + signal.SIGTERM
    run = tool.folder / "outputs/parts"
    assert tool.result()["status"] == "interrupted"
    assert (run / "checkpoints/resume.ckpt").is_file()
    monkeypatch.setattr(Classifier, "training_step", honest)
    assert tool("train.py", *SHORT, "hydra.run.dir=outputs/parts") == 0
    assert starts(run)[2:] == [(1, 6), (2, 8), (3, 12)]
    assert numbers(tool.result()) == numbers(read(whole)) and curves(run) == curves(whole)
    assert not (run / "checkpoints/resume.ckpt").exists()


@pytest.mark.parametrize("each", [1, 2, 3])
def test_images_per_second_count_every_image_of_accumulated_gradients(tool, each):
    assert tool("train.py", *SHORT, f"trainer.accumulate_grad_batches={each}", "test=false") == 0
    timing = tool.result()["timing"]
    assert timing["train_images_per_second"] * timing["fit_seconds"] == pytest.approx(4 * 4 * 32)


def test_images_per_second_of_a_set_smaller_than_a_batch_count_the_set(tool):
    words = [word for word in SHORT if "limit_train" not in word and "batch_size" not in word]
    assert tool("train.py", *words, "data.limit_train=20", "data.batch_size=64", "test=false") == 0
    timing = tool.result()["timing"]
    assert timing["train_images_per_second"] * timing["fit_seconds"] == pytest.approx(timing["epochs"] * 20)


def test_a_run_that_validates_within_its_epochs_goes_on_behind_the_last_validation(tool, stop_at):
    twice = [*SHORT, "+trainer.val_check_interval=0.5"]
    whole, parts = whole_and_parts(tool, stop_at, 8, *twice)
    assert starts(parts) == [(0, 0), (1, 4), (1, 6), (2, 8), (3, 12)]
    assert numbers(read(parts)) == numbers(read(whole))


FIVE = ["data.batch_size=24"]  # 5 batches in an epoch


def test_a_run_that_goes_on_behind_the_last_validation_of_an_epoch_has_it_in_its_row(tool, stop_at):
    words = [*SHORT, *FIVE, "+trainer.val_check_interval=0.4"]
    whole, parts = whole_and_parts(tool, stop_at, 10, *words)
    assert starts(parts)[:3] == [(0, 0), (1, 5), (1, 9)]
    assert curves(parts) == curves(whole) and all(row["val/loss"] for row in curves(whole))
    assert numbers(read(parts)) == numbers(read(whole))


def test_a_validation_between_the_batches_of_one_step_saves_nothing(tool, stop_at):
    """Validations follow every second batch; in the second epoch of five they come between the batches of a step."""
    words = [*SHORT, *FIVE, "trainer.accumulate_grad_batches=2", "+trainer.val_check_interval=2",
             "+trainer.check_val_every_n_epoch=null"]  # fmt: skip
    whole, parts = whole_and_parts(tool, stop_at, 9, *words)
    assert starts(parts)[:3] == [(0, 0), (1, 3), (1, 3)]
    assert curves(parts) == curves(whole) and numbers(read(parts)) == numbers(read(whole))


@pytest.mark.parametrize("rare", ["+trainer.val_check_interval=0.5", "+trainer.check_val_every_n_epoch=2"])
def test_the_end_of_a_validated_epoch_is_gone_on_from_with_its_row(tool, stop_at, rare):
    whole, parts = whole_and_parts(tool, stop_at, 9, *SHORT, rare)
    assert starts(parts) == [(0, 0), (1, 4), (2, 8), (2, 8), (3, 12)]
    assert curves(parts) == curves(whole) and len(curves(whole)) == 4
    assert numbers(read(parts)) == numbers(read(whole))
    assert tool("train.py", *SHORT, rare, "hydra.run.dir=outputs/parts") == 0  # tested again alone
    assert curves(parts) == curves(whole) and numbers(read(parts)) == numbers(read(whole))


@pytest.mark.parametrize(("more", "last"), [("+trainer.val_check_interval=0.5", 7), ("+trainer.max_steps=6", 5)])
def test_sigterm_in_the_last_step_of_an_epoch_or_run_waits_for_its_row(tool, monkeypatch, more, last):
    assert tool("train.py", *SHORT, more, "hydra.run.dir=outputs/whole") == 0
    honest = Classifier.training_step

    def step(self, batch, batch_idx):
        if self.trainer.global_step == last:
            os.kill(os.getpid(), signal.SIGTERM)
        return honest(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", step)
    assert tool("train.py", *SHORT, more, "hydra.run.dir=outputs/parts") == 128 + signal.SIGTERM
    monkeypatch.setattr(Classifier, "training_step", honest)
    assert tool("train.py", *SHORT, more, "hydra.run.dir=outputs/parts") == 0
    whole, parts = tool.folder / "outputs/whole", tool.folder / "outputs/parts"
    assert curves(parts) == curves(whole) and numbers(read(parts)) == numbers(read(whole))


def test_the_last_epoch_is_kept_though_it_was_not_validated(tool):
    words = [*SHORT, "+trainer.check_val_every_n_epoch=3", "hydra.run.dir=outputs/a"]
    assert tool("train.py", *words) == 0
    assert torch.load(tool.folder / "outputs/a/checkpoints/last.ckpt", weights_only=True)["epoch"] == 3


def test_sigterm_between_two_steps_loses_nothing(tool, monkeypatch, whole):
    honest, calls = ImageSplit.fetch, []

    def fetch(self, *given):
        calls.append(len(self.kept))
        if calls.count(128) == 6:  # of the training images, which are four batches: within the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return honest(self, *given)

    monkeypatch.setattr(ImageSplit, "fetch", fetch)
    assert tool("train.py", *SHORT, "hydra.run.dir=outputs/parts") == 128 + signal.SIGTERM
    assert (tool.folder / "outputs/parts/checkpoints/resume.ckpt").is_file()
    monkeypatch.setattr(ImageSplit, "fetch", honest)
    assert tool("train.py", *SHORT, "hydra.run.dir=outputs/parts") == 0
    assert numbers(tool.result()) == numbers(read(whole))


def test_what_may_be_overwritten_is_not_gone_on_with(tool, whole):
    settings = read(whole)["config"]
    assert unfinished(settings) is not None
    assert unfinished({**settings, "overwrite": True}, first=False) is None


@pytest.mark.parametrize(("loaded", "stays"), [("last.ckpt", False), ("resume.ckpt", True), (None, False)])
def test_the_checkpoint_that_an_idle_fit_was_given_stays(tmp_path, loaded, stays):
    gone = []
    trainer = SimpleNamespace(
        ckpt_path=loaded and str(tmp_path / loaded),
        strategy=SimpleNamespace(remove_checkpoint=lambda path: gone.append(path.name)),
    )
    BestByValidation(str(tmp_path)).on_fit_end(trainer, None)
    assert gone == ([] if stays else ["resume.ckpt"])
    (tmp_path / "link").symlink_to(tmp_path)  # a folder is known by its place, not by its name
    gone.clear()
    BestByValidation(str(tmp_path / "link")).on_fit_end(trainer, None)
    trainer.ckpt_path = loaded and str(tmp_path / "link" / loaded)
    BestByValidation(str(tmp_path / "link")).on_fit_end(trainer, None)
    assert gone == ([] if stays else ["resume.ckpt"] * 2)


def test_what_epochs_are_compared_by_is_kept(tmp_path):
    ours, theirs = (BestByValidation(str(tmp_path)) for _ in range(2))
    ours.best_loss, ours.best_excess = 0.25, 0.5
    theirs.load_state_dict(ours.state_dict())
    assert (theirs.best_loss, theirs.best_excess) == (0.25, 0.5)
