"""Checkpoints survive kills, notice damage and refuse what is not a checkpoint."""

import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from qbsnn.errors import CheckpointError, EnvironmentFault
from qbsnn.training.checkpoints import VERSION, AtomicCheckpointIO, _HashingWriter, load, stored
from tests.tool import TINY, Tool

IO = AtomicCheckpointIO()


def state(k: int) -> dict:
    return {"k": k, "x": torch.full((500,), float(k))}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "a.ckpt"
    IO.save_checkpoint(state(1), path)
    return path


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def whole(loaded: dict) -> int:
    assert torch.equal(loaded["x"], torch.full_like(loaded["x"], loaded["k"]))
    return loaded["k"]


def test_round_trip(saved: Path) -> None:
    assert whole(load(saved)) == 1
    assert names(saved) == ["a.ckpt"]
    assert zipfile.ZipFile(saved).testzip() is None
    assert torch.load(saved, weights_only=True)["k"] == 1
    IO.save_checkpoint(state(2), saved)
    assert whole(IO.load_checkpoint(saved, map_location=lambda storage, _: storage, weights_only=None)) == 2
    IO.remove_checkpoint(saved)
    assert list(saved.parent.iterdir()) == []


@pytest.mark.parametrize("version", [VERSION + 1, 99, "99", "0.2.0", None, []])
def test_a_checkpoint_of_a_newer_version_is_refused(saved: Path, version: object) -> None:
    IO.save_checkpoint({"qbsnn": {"version": version, "config": {}}}, saved)
    if version is None:
        load(saved)
        return
    with pytest.raises(CheckpointError, match=rf"has format version {re.escape(repr(version))}; .* up to {VERSION}"):
        load(saved)


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing\.ckpt does not exist"):
        load(tmp_path / "nothing.ckpt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="must be a local file"):
        load("s3://bucket/a.ckpt")


def test_any_truncation_is_noticed(saved: Path) -> None:
    data = saved.read_bytes()
    lengths = [*range(64), *range(64, len(data), 97), *range(len(data) - 100, len(data))]
    assert len(lengths) > 50
    for length in lengths:
        saved.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"a\.ckpt is cut short or is not a checkpoint"):
            load(saved)


def test_any_flipped_bit_is_noticed(saved: Path) -> None:
    data = saved.read_bytes()
    places = [*range(0, len(data), 23), *range(len(data) - 100, len(data))]
    assert len(places) > 200
    for position in places:
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        saved.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"a\.ckpt is (damaged|cut short)"):
            load(saved)
    saved.write_bytes(data)
    assert whole(load(saved)) == 1


def test_what_is_no_checkpoint_is_refused(saved: Path) -> None:
    saved.write_text("some text, of course not a checkpoint")
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        load(saved)
    torch.save(state(1), saved)  # whole, but nothing says so
    with pytest.raises(CheckpointError, match="do not end with their digest"):
        load(saved)


PLAIN = {"paths": {"run": "/run"}, "T": 4, "stages": [1, {"a": None}]}
REFUSED = {
    "interpolation": ({"name": "${oc.env:HOME}"}, "name must be a plain value"),
    "in a list": ({"model": {"x": [1, {"y": "a ${T}"}]}}, r"model\.x\[1\]\.y must be a plain value"),
    "in a key": ({"model": {"${T}": 1}}, "must be a plain value"),
    "object": ({"T": torch.zeros(1)}, "T must be a plain value, got a Tensor"),
    "trust": ({"trust": "os"}, "says trust=os"),
    "no paths": ({"paths": None}, r"no paths\.run"),
    "no run": ({"paths": {"run": ""}}, r"no paths\.run"),
}


def test_a_stored_configuration_is_read() -> None:
    assert stored({"qbsnn": {"config": PLAIN}}, Path("a.ckpt")) == PLAIN


@pytest.mark.parametrize("case", REFUSED)
def test_a_stored_configuration_is_plain_values(case: str) -> None:
    change, message = REFUSED[case]
    with pytest.raises(CheckpointError, match=rf"a\.ckpt.*{message}"):
        stored({"qbsnn": {"config": PLAIN | change}}, Path("a.ckpt"))


@pytest.mark.parametrize("contents", [{}, {"qbsnn": 1}, {"qbsnn": {}}, {"qbsnn": {"config": "text"}}])
def test_without_a_configuration_it_is_not_ours(contents: dict) -> None:
    with pytest.raises(CheckpointError, match=r"a\.ckpt carries no qbsnn configuration"):
        stored(contents, Path("a.ckpt"))


def test_python_objects_are_refused(saved: Path) -> None:
    IO.save_checkpoint({"model": nn.Linear(1, 1)}, saved)
    with pytest.raises(CheckpointError, match="holds Python objects"):
        IO.load_checkpoint(saved, weights_only=False)
    IO.save_checkpoint([1, 2], saved)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="must hold a dict, got list"):
        load(saved)


def test_link_is_checked_against_its_target(saved: Path) -> None:
    link = saved.with_name("last.ckpt")
    link.symlink_to("a.ckpt")
    assert whole(load(link)) == 1
    saved.write_bytes(saved.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"last\.ckpt is cut short"):
        load(link)
    IO.save_checkpoint(state(3), link)
    assert not link.is_symlink()
    assert whole(load(link)) == 3


def test_full_disk_leaves_the_old_state(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qbsnn.training.checkpoints._HashingWriter.write", full)
    with pytest.raises(EnvironmentFault, match=r"cannot be written: .*No space left"):
        IO.save_checkpoint(state(2), saved)
    assert whole(load(saved)) == 1
    assert names(saved) == ["a.ckpt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_what_torch_makes_of_a_full_disk_is_told_as_one(saved: Path) -> None:
    part = saved.with_name(".a.ckpt.part")
    part.symlink_to("/dev/full")
    with pytest.raises(EnvironmentFault, match=r"a\.ckpt cannot be written: .*No space left"):
        IO.save_checkpoint({"x": torch.zeros(1 << 20)}, saved)
    assert whole(load(saved)) == 1


class Signalled:
    """A SHA-256 that meets a signal in its n-th update."""

    def __init__(self, digest: Any, left: list[int], number: int) -> None:
        self.digest, self.left, self.number = digest, left, number

    def update(self, data: bytes) -> None:
        self.left[0] -= 1
        if self.left[0] == 0:
            os.kill(os.getpid(), self.number)
        self.digest.update(data)

    def hexdigest(self) -> str:
        return str(self.digest.hexdigest())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_within_a_write_ends_the_run_as_interrupted(
    tool: Tool, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    honest, left, handler = _HashingWriter.__init__, [60], signal.getsignal(signal.SIGINT)

    def begin(self: _HashingWriter, file: Any) -> None:
        honest(self, file)
        self.sha256 = Signalled(self.sha256, left, number)  # type: ignore[assignment]

    monkeypatch.setattr(_HashingWriter, "__init__", begin)
    words = (*TINY, "model=mlp", "model.hidden=[16]", "report=false", "hydra.run.dir=outputs/a")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run of another test may have switched it off
    try:
        assert tool("train.py", *(word for word in words if "width" not in word)) == code
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning switches it off
    assert left[0] <= 0 and tool.result()["status"] == "interrupted"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_signal_at_the_begin_of_a_write_is_no_fault_of_the_disk(
    saved: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    honest, left = _HashingWriter.write, [7]  # torch answers with an error of its own

    def write(self: _HashingWriter, data: bytes) -> int:
        left[0] -= 1
        if left[0] == 0:
            raise kind(143)
        return honest(self, data)

    monkeypatch.setattr(_HashingWriter, "write", write)
    with pytest.raises(kind):
        IO.save_checkpoint(state(2), saved)
    assert whole(load(saved)) == 1
    assert names(saved) == ["a.ckpt"]


def test_remains_of_killed_saves_are_not_loaded_and_do_not_accumulate(saved: Path) -> None:
    saved.with_name(".a.ckpt.part").write_bytes(b"half")
    assert whole(load(saved)) == 1
    IO.save_checkpoint(state(2), saved)
    assert names(saved) == ["a.ckpt"]


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from qbsnn.training.checkpoints import AtomicCheckpointIO, load

io, path, size = AtomicCheckpointIO(), Path(sys.argv[1]) / "a.ckpt", 20_000
save = lambda k: io.save_checkpoint({"k": k, "x": torch.full((size,), float(k))}, path)

def look():
    state = load(path)
    assert state["x"].shape == (size,) and bool((state["x"] == state["k"]).all())
    return state["k"]

def child(act):
    pid = os.fork()
    if pid == 0:
        act()
        os._exit(0)
    return pid

def die_at(step):  # just before the step-th call that reaches the disk
    left = [step]
    def guard(call):
        def guarded(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)
        return guarded
    os.fsync, Path.replace, Path.unlink = guard(os.fsync), guard(Path.replace), guard(Path.unlink)

# before each of the calls that matter, twice in a row
seen = set()
for step in range(1, 7):
    save(1)
    for k in (2, 3):
        _, status = os.waitpid(child(lambda: (die_at(step), save(k))), 0)
        seen.add((os.WIFSIGNALED(status), look()))
assert {(True, 1), (True, 3), (False, 3)} <= seen, seen

# at random moments of endless saving
random.seed(0)
kinds = set()
def forever():
    for k in range(10, 1 << 24):
        save(k)
for _ in range(int(sys.argv[2])):
    save(1)
    pid = child(forever)
    time.sleep(random.uniform(0.002, 0.08))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    kinds.add(look() > 1)
assert True in kinds, kinds
save(5)
assert os.listdir(sys.argv[1]) == ["a.ckpt"], os.listdir(sys.argv[1])
print("survived")
"""


def test_killed_at_any_moment_it_is_old_or_new(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path), "12"], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.endswith("survived\n"), done.stderr


def test_reader_beside_a_writer_sees_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    IO.save_checkpoint(state(1), path)
    writer = os.fork() if sys.platform == "linux" and sys.version_info < (3, 12) else None  # later ones warn at fork
    if writer is None:
        pytest.skip("needs fork")
    if writer == 0:
        for k in range(2, 300):
            IO.save_checkpoint(state(k), path)
        os._exit(0)
    reads = 0
    while os.waitpid(writer, os.WNOHANG) == (0, 0):
        whole(load(path))
        reads += 1
    assert reads > 0
    assert whole(load(path)) == 299


class Tiny(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        loss = self.layer(batch).square().mean()
        self.log("val/acc", float(self.current_epoch))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(torch.ones(4, 4), batch_size=2)


# Lightning advises more workers, where one process is right for four rows, and calls a deprecated torch name itself
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("save_last", [True, "link"])
def test_trainer_saves_prunes_and_resumes(tmp_path: Path, save_last: bool | str) -> None:
    def trainer(epochs: int) -> Trainer:
        keep = ModelCheckpoint(
            tmp_path, filename="{epoch}", monitor="val/acc", mode="max", save_last=save_last, save_top_k=1
        )
        return Trainer(
            max_epochs=epochs, accelerator="cpu", callbacks=[keep], plugins=[AtomicCheckpointIO()], logger=False,
            enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
        )  # fmt: skip

    torch.manual_seed(0)
    model = Tiny()
    trainer(2).fit(model)
    assert names(tmp_path / "last.ckpt") == ["epoch=1.ckpt", "last.ckpt"]
    assert load(tmp_path / "last.ckpt")["epoch"] == 1

    resumed = Tiny()
    with pytest.warns(UserWarning, match="exists and is not empty"):
        trainer(4).fit(resumed, ckpt_path=tmp_path / "last.ckpt")
    torch.manual_seed(0)
    straight = Tiny()
    Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, log_every_n_steps=1,
    ).fit(straight)  # fmt: skip
    assert torch.equal(resumed.layer.weight, straight.layer.weight)
    assert not torch.equal(resumed.layer.weight, model.layer.weight)
