"""What a run shows while it trains: a bar on a terminal, one line per epoch in a log file, the same facts in both."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from lightning import pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.progress_bar import ProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import (
    BatchesProcessedColumn,
    CustomBarColumn,
    CustomTimeColumn,
    RichProgressBarTheme,
)
from rich.console import Console
from rich.progress import TextColumn
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from qbsnn.results.formatting import clock
from qbsnn.training.module import Classifier

# metric -> (label, share): shares are fractions that are shown in per cent
_FACTS = {
    "train/loss": ("loss", False),
    "train/acc": ("acc", True),
    "val/loss": ("val loss", False),
    "val/acc": ("val acc", True),
    "train/energy": ("energy", True),
    "train/accumulates": ("accumulates per synapse", False),
    "burst": ("burst", False),
}

# The terminal's own foreground for text and two colours that stand out on white and on black: Lightning's violet and
# its dimmed text vanish on a dark, respectively a light, background.
_THEME = RichProgressBarTheme(
    progress_bar="magenta",
    progress_bar_finished="green",
    progress_bar_pulse="magenta",
    time="",
    processing_speed="",
    metrics="",
    metrics_text_delimiter="  ",
)


class Throughput:
    """Training images per second of the current epoch: the clock stands still while the network is validated."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin an epoch."""
        self._images = 0
        self._seconds = 0.0
        self._since = time.perf_counter()

    def pause(self) -> None:
        """Forget the time until :meth:`resume`; what passed since the last batch is not training either."""
        self._since = math.nan

    def resume(self) -> None:
        """Go on counting."""
        self._since = time.perf_counter()

    def count(self, images: int) -> None:
        """Add a finished batch, with the time it took and the time waited for it."""
        now = time.perf_counter()
        if not math.isnan(self._since):
            self._seconds += now - self._since
        self._since = now
        self._images += images

    @property
    def rate(self) -> float | None:
        """Images per second, ``None`` before the first batch."""
        return self._images / self._seconds if self._seconds > 0 else None


class _Facts(ProgressBar):
    """Collects the facts; the two classes below show them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.throughput = Throughput()

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.throughput.start()
        super().on_train_epoch_start(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.throughput.count(len(batch[1]) * trainer.world_size)  # a batch is (inputs, labels)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.throughput.pause()
        super().on_validation_start(trainer, pl_module)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        self.throughput.resume()

    def facts(self, trainer: pl.Trainer, live: Mapping[str, float] | None = None) -> Iterator[tuple[str, str]]:
        """Label and value of every fact that exists so far; ``live``: those of the last batch, by label."""
        metrics: dict[str, Any] = {**trainer.progress_bar_metrics, **trainer.callback_metrics}
        for name, (label, share) in _FACTS.items():
            if live and label in live:
                metrics[name] = live[label]
            if name in metrics:
                value = float(metrics[name])
                yield label, f"{100 * value:.2f}%" if share else f"{value:.4f}"
        if (rate := self.throughput.rate) is not None:
            yield "images/s", f"{rate:,.0f}"


class FactsBar(_Facts, RichProgressBar):
    """Lightning's Rich bar with our facts, one bar left on the screen per epoch."""

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=True, theme=_THEME)
        self._shown: dict[str, Any] = {}
        self._shown_at = -math.inf
        self._live = False

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._live = True
        super().on_train_epoch_start(trainer, pl_module)

    @override
    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The facts as ``label: value``; no ``v_num``.

        Lightning asks after every batch, and reading a metric waits for the GPU: between two refreshes of the screen
        the answer is the last one.
        """
        if trainer.sanity_checking:  # an untrained network's validation is no news
            return {}
        now = time.monotonic()
        if now - self._shown_at >= 1 / self.refresh_rate:
            live = pl_module.live() if self._live and isinstance(pl_module, Classifier) else None
            self._shown, self._shown_at = dict(self.facts(trainer, live)), now
        return self._shown

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._shown_at = -math.inf
        super().on_validation_end(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._shown_at, self._live = -math.inf, False
        super().on_train_epoch_end(trainer, pl_module)
        self._stop_progress()  # so that what is logged between two epochs begins on a line of its own

    @override
    def configure_columns(self, trainer: pl.Trainer) -> list:
        """A bar that is short where the terminal is narrow, so that the facts stay on its line."""
        width = self._console.width if self._console is not None else 80
        return [
            TextColumn("[progress.description]{task.description}"),
            CustomBarColumn(
                bar_width=min(40, max(5, width - 130)),
                complete_style=self.theme.progress_bar,
                finished_style=self.theme.progress_bar_finished,
                pulse_style=self.theme.progress_bar_pulse,
            ),
            BatchesProcessedColumn(style=self.theme.batch_progress),
            CustomTimeColumn(style=self.theme.time),
        ]

    @override
    def _get_train_description(self, current_epoch: int) -> str:
        total = f"/{self.trainer.max_epochs}" if _limited(self.trainer) else ""
        return f"epoch {current_epoch + 1}{total}"


class EpochLines(_Facts):
    """One line per epoch, without escape sequences, for log files and batch systems.

    A :class:`ProgressBar`, so that ``Trainer`` takes it in place of its own. The line is printed when the next epoch
    begins or the fit ends: only then have all hooks of the epoch logged their metrics.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._begun = time.monotonic()
        self._first = 0
        self._waiting: int | None = None

    def enable(self) -> None:
        """Print from now on."""
        self._enabled = True

    def disable(self) -> None:
        """Print nothing from now on."""
        self._enabled = False

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begun = time.monotonic()
        self._first = trainer.current_epoch
        self._waiting = None

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer)
        super().on_train_epoch_start(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._waiting = trainer.current_epoch + 1

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._print(trainer)

    def _print(self, trainer: pl.Trainer) -> None:
        done, self._waiting = self._waiting, None
        if done is None or not self._enabled:
            return
        elapsed = time.monotonic() - self._begun
        head = f"epoch {done}"
        tail = f"elapsed {clock(elapsed)}"
        if _limited(trainer):
            assert trainer.max_epochs is not None
            head += f"/{trainer.max_epochs}"
            tail += f"  ETA {clock(elapsed / (done - self._first) * (trainer.max_epochs - done))}"
        print("  ".join([head, *(f"{label} {value}" for label, value in self.facts(trainer)), tail]), flush=True)


def progress_bar(refresh_rate: int = 1) -> FactsBar | EpochLines:
    """The progress callback for this standard output: a bar on a terminal, else lines.

    Args:
        refresh_rate: how often the bar is redrawn, per second; without effect on the lines.
    """
    return FactsBar(refresh_rate) if _on_terminal() else EpochLines()


def summary_table(rows: list[tuple[str, str]], title: str) -> None:
    """Print names and values under a title: a framed table on a terminal, else aligned plain text."""
    if _on_terminal():
        table = Table("", "", title=Text(title, style="bold"), show_header=False, title_justify="left")
        for name, value in rows:
            table.add_row(Text(name), Text(value))  # as text, so that brackets are no markup
        Console().print(table)
        return
    width = max((len(name) for name, _ in rows), default=0)
    print("\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows)]), flush=True)


def _on_terminal() -> bool:
    return sys.stdout.isatty() and not Console().is_dumb_terminal


def _limited(trainer: pl.Trainer) -> bool:
    return trainer.max_epochs is not None and trainer.max_epochs > 0
