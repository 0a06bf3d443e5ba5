"""Lightning's W&B logger, made safe: it never asks, never waits long, never stops a run, and continues its own run.

``wandb`` is imported when a run is opened, not with this module: the import takes a second or more, and most runs do
not use it.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import DummyExperiment, rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from qbsnn.results.files import write_atomically
from qbsnn.tracking import wandb_file
from qbsnn.tracking.connection import missing_credentials, unreachable

if TYPE_CHECKING:
    from wandb import Settings

log = logging.getLogger(__name__)

ID_FILE = "wandb_id"
"""In the run directory: the id of the W&B run, which a resumed run continues."""
_LONGEST = {"group": 128, "tags": 64}  # characters that W&B takes
_FLUSH_SECONDS = 1.0  # what a kill takes with it at most; wandb's own default is 15
_FINISH_SECONDS = 120.0  # wandb's own default waits for ever when the network is lost during a run


class OfflineCapableWandbLogger(WandbLogger):
    """Lightning's W&B logger, which decides before ``wandb.init`` whether the run is offline, and never stops a run.

    ``wandb.init`` on its own asks for a key on a terminal, fails without one elsewhere, and waits minutes for a server
    that is not there. The first error of wandb is a warning, and nothing more is logged. The run's id is kept in
    ``<save_dir>/wandb_id``; where that file exists its run is continued.

    ``offline="auto"`` looks for the key as wandb does and opens a TCP connection to the server (or to the proxy) for at
    most ``connect_timeout`` seconds; ``False`` skips the connection test; ``True``, like ``WANDB_MODE=offline``, asks
    nothing. A run that is offline goes to files under ``<save_dir>/wandb``. A key is needed in every case, since
    ``wandb.init`` would ask for it on the terminal. ``init_timeout`` bounds ``wandb.init`` itself, after which the run
    is opened offline. ``base_url`` goes before ``WANDB_BASE_URL``. ``choices`` are tags too. ``log_checkpoint`` puts
    ``best.ckpt`` into the run's artifact. Other arguments (``name``, ``group``, ``entity``, ``id``, ``job_type``,
    ``notes``, ...) go to ``wandb.init``.
    """

    def __init__(
        self,
        save_dir: str | Path,
        project: str = "qbsnn",
        tags: Sequence[str] = (),
        choices: Sequence[str] = (),
        offline: bool | Literal["auto"] = "auto",
        base_url: str | None = None,
        init_timeout: float = 10,
        connect_timeout: float = 2.0,
        log_checkpoint: bool = False,
        **init: Any,
    ) -> None:
        super().__init__(save_dir=save_dir, project=project, tags=[str(tag) for tag in (*choices, *tags)], **init)
        del self._wandb_init["anonymous"]  # wandb warns about this argument whatever its value
        self._wanted = offline
        self._base_url = base_url
        self._init_timeout = init_timeout
        self._connect_timeout = connect_timeout
        self._given_up = False
        self.log_checkpoint = log_checkpoint

    def describe(self, group: str, tags: Sequence[str]) -> None:
        """Name the group where the settings name none, and add tags. Before the run is opened."""
        init = self._wandb_init
        init["group"] = (init.get("group") or group)[: _LONGEST["group"]]
        every = [tag[: _LONGEST["tags"]] for tag in (*(init.get("tags") or ()), *tags) if tag]
        init["tags"] = list(dict.fromkeys(every))

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, opened when first used, on the first process only; a dummy after wandb failed."""
        try:
            import wandb

            # Lightning's own lines take over a run that exists, in this process or in the one that pickled this logger.
            unopened = self._experiment is None and wandb.run is None and getattr(self, "_attach_id", None) is None
            if unopened and not self._given_up:
                self._experiment = self._open()
            return DummyExperiment() if self._given_up else super().experiment
        except Exception as error:
            self._give_up(error)
            return DummyExperiment()

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Put the settings into the run's config."""
        self._attempt(lambda: super(OfflineCapableWandbLogger, self).log_hyperparams(params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log one row."""
        self._attempt(lambda: super(OfflineCapableWandbLogger, self).log_metrics(metrics, step))

    @rank_zero_only
    def log_bursts(self, histograms: Mapping[str, Sequence[int]], step: int) -> None:
        """Log ``bursts/<layer>``: how often each burst size from −s_max to s_max occurred, int [2·s_max + 1] a layer.

        The negative half is left out where a layer has no negative bursts.
        """

        def histogram(counts: Sequence[int]) -> Any:
            import wandb

            middle = len(counts) // 2
            first = -middle if any(counts[:middle]) else 0
            sizes = list(counts)[first + middle :]
            edges = [first - 0.5 + at for at in range(len(sizes) + 1)]
            return wandb.Histogram(np_histogram=(np.asarray(sizes), np.asarray(edges)))

        self._attempt(
            lambda: super(OfflineCapableWandbLogger, self).log_metrics(
                {f"bursts/{name}": histogram(counts) for name, counts in histograms.items()}, step
            )
        )

    @rank_zero_only
    def log_files(self, files: Sequence[Path], figures: Sequence[Path], metadata: Mapping[str, Any]) -> None:
        """Log ``files`` as one artifact of type ``run`` and ``figures`` (PNG) as images ``figures/<name>``.

        The artifact is made of copies inside W&B's own directory of the run, because an offline run is uploaded later,
        when the originals may have changed.
        """

        def log_all() -> None:
            run = self.experiment
            if self._given_up or run.disabled:
                return
            import wandb

            folder = Path(run.settings.sync_dir) / "artifact"
            folder.mkdir(parents=True, exist_ok=True)
            artifact = wandb.Artifact(f"run-{run.id}", type="run", metadata=dict(metadata))
            for path in files:
                # under other names: whoever looks for the result files of runs must not find these
                copy = shutil.copyfile(path, folder / f"{path.name}.copy")
                artifact.add_file(str(copy), name=path.name, policy="immutable", skip_cache=True)
            run.log_artifact(artifact)
            if figures:
                run.log({f"figures/{path.stem}": wandb.Image(str(path)) for path in figures})

        self._attempt(log_all)

    def _attempt(self, action: Callable[[], object]) -> None:
        """Do something with the run unless wandb failed before."""
        if self._given_up:
            return
        try:
            action()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if not self._given_up:
            self._given_up = True
            log.warning("W&B failed, and the run goes on without it: %s", " ".join(f"{error!r}".split()))

    def _open(self) -> Any:
        import wandb

        folder = Path(str(self._save_dir))
        folder.mkdir(parents=True, exist_ok=True)
        self._wandb_init["id"] = self._wandb_init.get("id") or run_id(folder)
        from wandb.sdk.wandb_setup import singleton  # reads wandb's settings without starting its service

        found = singleton().settings
        asked = self._wanted is True or found.mode in ("offline", "dryrun")
        mode: Literal["offline"] | None = "offline" if asked else None
        if mode is None and found.mode != "disabled":
            why = missing_credentials(self._base_url or found.base_url)
            if why is None and self._wanted == "auto":
                proxies = {"http": found.http_proxy, "https": found.https_proxy}
                why = unreachable(self._base_url or found.base_url, self._connect_timeout, proxies)
            if why is not None:
                mode = self._fall_back(why)
        try:
            run = wandb.init(mode=mode, settings=self._settings(), **self._wandb_init)
        except Exception as error:
            if mode == "offline":
                raise
            mode = self._fall_back(f"wandb.init failed: {' '.join(str(error).split())}")
            run = wandb.init(mode=mode, settings=self._settings(), **self._wandb_init)
        if mode is None and found.mode == "online":
            log.info("W&B run: %s", run.url)
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        if run.disabled:
            return run
        # The server does not know the rows of an earlier part that ran offline; this part's would begin at their steps.
        if step := wandb_file.next_step(folder / "wandb", run.id):
            run.log({}, step=step)
        write_atomically(folder / ID_FILE, f"{run.id}\n".encode())
        return run

    def _fall_back(self, why: str) -> Literal["offline"]:
        log.warning("W&B runs offline (%s). Upload it later: wandb sync %s/wandb/offline-run-*", why, self._save_dir)
        return "offline"

    def _settings(self) -> Settings:
        import wandb

        # console "off": wandb's capture of the terminal breaks Rich's progress bars
        wanted: dict[str, Any] = {"console": "off", "silent": True, "init_timeout": self._init_timeout}
        if self._base_url is not None:
            wanted["base_url"] = self._base_url
        if "finish_timeout" in wandb.Settings.model_fields:
            wanted["finish_timeout"] = _FINISH_SECONDS
        if "x_transaction_log_flush_interval" in wandb.Settings.model_fields:
            wanted["x_transaction_log_flush_interval"] = _FLUSH_SECONDS
        return wandb.Settings(**wanted)


def run_id(folder: Path) -> str | None:
    """The id of the W&B run that was logged from a run directory; ``None`` where there is none or it is unreadable."""
    try:
        text = (folder / ID_FILE).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return text if re.fullmatch(r"[\w\-]{1,64}", text) else None
