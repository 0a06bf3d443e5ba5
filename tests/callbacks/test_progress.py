"""The same facts on a terminal and in a log file."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from qbsnn.callbacks import progress
from qbsnn.callbacks.progress import EpochLines, FactsBar, Throughput, progress_bar, summary_table


class Tiny(LightningModule):
    def __init__(self, wait: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.wait = wait

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        loss = self.layer(batch[0]).square().mean()
        self.log("train/loss", loss.detach() * 0 + 0.25, on_step=True, on_epoch=True)
        self.log("train/acc", 0.5, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        time.sleep(self.wait)
        self.log("val/loss", 0.125)
        self.log("val/acc", 0.8125)

    def on_train_epoch_end(self) -> None:
        self.log("burst", 0.375)  # after the callbacks' hook of the same name

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def rows(count: int) -> DataLoader:
    return DataLoader(TensorDataset(torch.ones(count, 4), torch.zeros(count)), batch_size=2)


def fit(bar: FactsBar | EpochLines, model: LightningModule, epochs: int = 2) -> None:
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[bar], logger=False, enable_checkpointing=False,
        enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    assert trainer.progress_bar_callback is bar
    trainer.fit(model, rows(6), rows(4))


# Lightning advises more workers, where one process is right for six rows, and calls a deprecated torch name itself
quiet = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
]


class TestLines:
    pytestmark = quiet

    def test_one_plain_line_per_epoch(self, capsys: pytest.CaptureFixture[str]) -> None:
        bar = progress_bar()
        assert isinstance(bar, EpochLines)
        fit(bar, Tiny())
        out = capsys.readouterr().out
        assert "\x1b" not in out and "\r" not in out
        lines = [line for line in out.splitlines() if line.startswith("epoch")]
        assert len(lines) == 2
        for number, line in enumerate(lines, 1):
            assert re.fullmatch(
                rf"epoch {number}/2  loss 0\.2500  acc 50\.00%  val loss 0\.1250  val acc 81\.25%  burst 0\.3750  "
                r"images/s [\d,]+  elapsed 0:00:\d\d  ETA 0:00:\d\d",
                line,
            ), line
        assert lines[1].endswith("ETA 0:00:00")

    def test_missing_metrics_are_left_out(self, capsys: pytest.CaptureFixture[str]) -> None:
        class Mute(Tiny):
            def log(self, *args: object, **kwargs: object) -> None:  # type: ignore[override]
                pass

        fit(EpochLines(), Mute(), epochs=1)
        assert re.search(r"^epoch 1/1  images/s [\d,]+  elapsed", capsys.readouterr().out, re.MULTILINE)

    def test_an_exception_does_not_lose_the_last_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        class Failing(Tiny):
            def on_train_epoch_start(self) -> None:
                if self.current_epoch == 1:
                    raise ValueError("in the second epoch")

        with pytest.raises(ValueError, match="in the second epoch"):
            fit(EpochLines(), Failing())
        assert capsys.readouterr().out.count("epoch 1/2") == 1

    def test_validation_is_not_training_time(self) -> None:
        bar = EpochLines()
        fit(bar, Tiny(wait=0.3), epochs=1)
        assert bar.throughput._images == 6
        assert bar.throughput._seconds < 0.3

    def test_other_processes_print_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        bar = EpochLines()
        bar.disable()
        fit(bar, Tiny(), epochs=1)
        assert "epoch" not in capsys.readouterr().out


def test_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    clock = Throughput()
    assert clock.rate is None
    for seconds, act in [
        (2.0, lambda: clock.count(10)),  # 10 images in 2 s
        (1.0, clock.pause),
        (50.0, clock.resume),
        (2.0, lambda: clock.count(10)),
    ]:
        now[0] += seconds
        act()
    assert clock.rate == 5.0


def test_plain_summary(capsys: pytest.CaptureFixture[str]) -> None:
    summary_table([("accuracy", "86.60 %"), ("burst [mean]", "0.43")], "result")
    assert capsys.readouterr().out == "result\n  accuracy      86.60 %\n  burst [mean]  0.43\n"


TERMINAL = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
import test_progress as t
bar = t.progress_bar(refresh_rate=20)
assert type(bar).__name__ == "FactsBar", bar
t.fit(bar, t.Tiny())
t.summary_table([("accuracy", "86.60 %"), ("burst [mean]", "0.43")], "result [a]")
import os; os.environ["TERM"] = "dumb"
assert type(t.progress_bar()).__name__ == "EpochLines"
"""


def test_bar_and_table_under_a_terminal() -> None:
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "170", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, str(Path(__file__).parent)],
        stdin=subprocess.DEVNULL, stdout=follower, stderr=follower, env=environment,
    )  # fmt: skip
    os.close(follower)
    raw = b""
    try:
        while chunk := os.read(leader, 65536):
            raw += chunk
    except OSError:  # the other side is closed
        pass
    os.close(leader)
    text = raw.decode()
    assert process.wait(60) == 0, text
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    final = [line for line in re.split(r"[\r\n]+", plain) if line.startswith("epoch")][-1]
    for fact in ("loss: 0.2500", "acc: 50.00%", "val loss: 0.1250", "val acc: 81.25%", "burst: 0.3750", "images/s: "):
        assert fact in final, json.dumps(final)
    assert "epoch 1/2" in plain and "epoch 2/2" in plain and "3/3" in final
    assert "v_num" not in plain
    assert re.search(r"^`Trainer.fit` stopped", plain, re.MULTILINE), "Lightning's message is glued to the bar"
    assert re.search(r"accuracy +│ +86\.60 %", plain) and "result [a]" in plain and "burst [mean]" in plain
