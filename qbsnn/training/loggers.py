"""Loggers that never stop a run: a CSV file always, and Weights & Biases that goes offline by itself.

``wandb`` is imported when a run is opened, not with this module: the import takes a second or more, and most runs do
not use it.
"""

from __future__ import annotations

import csv
import logging
import socket
import sys
import threading
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment

if TYPE_CHECKING:
    from wandb import Settings

log = logging.getLogger(__name__)

_FINISH_SECONDS = 120.0  # wandb's own default waits for ever when the network is lost during a run
_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


class _AppendingWriter(ExperimentWriter):
    """Continues an existing ``metrics.csv`` where Lightning would delete it, so a resumed run keeps its curves."""

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if not whole:
            path.unlink()
            return
        if len(whole) < len(data):  # a killed run left half a row, and the next row would be glued to it
            with path.open("r+b") as file:
                file.truncate(len(whole))
        with path.open(newline="", encoding="utf-8") as lines:
            self.metrics_keys = next(csv.reader(lines))


class RunCSVLogger(CSVLogger):
    """Lightning's CSV logger, writing into a directory that holds other files and possibly earlier rows."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer, made when first used."""
        if self._experiment is None:
            Path(self.root_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = _AppendingWriter(log_dir=self.log_dir)
        return self._experiment


def csv_logger(save_dir: str | Path) -> RunCSVLogger:
    """Log to ``<save_dir>/metrics.csv``; rows are appended if the file exists."""
    return RunCSVLogger(save_dir, name="", version="")


class OfflineCapableWandbLogger(WandbLogger):
    """Lightning's W&B logger, which decides before ``wandb.init`` whether the run is offline.

    ``wandb.init`` on its own asks for a key on a terminal, fails without one elsewhere, and waits minutes for a server
    that is not there. Arguments as in :func:`wandb_logger`.
    """

    def __init__(
        self,
        save_dir: str | Path,
        offline: bool | Literal["auto"] = "auto",
        base_url: str | None = None,
        init_timeout: float = 10,
        connect_timeout: float = 2.0,
        **init: Any,
    ) -> None:
        super().__init__(save_dir=save_dir, **init)
        del self._wandb_init["anonymous"]  # wandb warns about this argument whatever its value
        self._wanted = offline
        self._base_url = base_url
        self._init_timeout = init_timeout
        self._connect_timeout = connect_timeout

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, opened when first used, on the first process only."""
        import wandb

        # Lightning's own lines take over a run that exists, in this process or in the one that pickled this logger.
        if self._experiment is None and wandb.run is None and getattr(self, "_attach_id", None) is None:
            self._experiment = self._open()
        return super().experiment

    def _open(self) -> Any:
        import wandb

        Path(str(self._save_dir)).mkdir(parents=True, exist_ok=True)
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
        return wandb.Settings(**wanted)


def wandb_logger(
    save_dir: str | Path,
    project: str = "qbsnn",
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    entity: str | None = None,
    offline: bool | Literal["auto"] = "auto",
    base_url: str | None = None,
    init_timeout: float = 10,
    connect_timeout: float = 2.0,
    **init: Any,
) -> OfflineCapableWandbLogger:
    """Log to Weights & Biases, to files under ``<save_dir>/wandb`` when there is no key or no server.

    ``offline="auto"`` looks for the key as wandb does and opens a TCP connection to the server (or to the proxy) for at
    most ``connect_timeout`` seconds; ``False`` skips the connection test; ``True``, like ``WANDB_MODE=offline``, asks
    nothing. A key is needed in every case, since ``wandb.init`` would ask for it on the terminal. ``init_timeout``
    bounds ``wandb.init`` itself, after which the run is opened offline. ``base_url`` goes before ``WANDB_BASE_URL``.
    Other arguments go to ``wandb.init``.
    """
    return OfflineCapableWandbLogger(
        save_dir=save_dir,
        project=project,
        name=name,
        group=group,
        tags=[str(tag) for tag in tags],
        entity=entity,
        offline=offline,
        base_url=base_url,
        init_timeout=init_timeout,
        connect_timeout=connect_timeout,
        **init,
    )


def missing_credentials(base_url: str) -> str | None:
    """Why there are no credentials for ``base_url`` (environment, netrc, wandb's settings), or ``None``."""
    import wandb

    try:
        from wandb.sdk.lib import wbauth
    except ImportError:
        return f"wandb {wandb.__version__} is too old to be asked for its key; 0.31 works"
    try:
        found = wbauth.authenticate_session(host=base_url, source="qbsnn", prompt=False, update_session=False)
    except (wandb.Error, ValueError) as error:
        return f"the credentials cannot be used: {error}"
    return None if found else f"no API key for {base_url}"


def unreachable(base_url: str, timeout: float, proxies: dict[str, str | None] | None = None) -> str | None:
    """Why no TCP connection to ``base_url``, or to the proxy in force for it, opens in ``timeout`` s, or ``None``.

    ``proxies`` by scheme go before those of the environment.
    """
    target = urlsplit(base_url)
    if target.hostname is None:
        return f"{base_url} names no server"
    known = urllib.request.getproxies_environment()
    known.update({scheme: url for scheme, url in (proxies or {}).items() if url})
    proxy = known.get(target.scheme)
    # wandb's service is a Go program, and Go never sends loopback addresses through a proxy
    loopback = target.hostname in ("localhost", "::1") or target.hostname.startswith("127.")
    if proxy and not loopback and not urllib.request.proxy_bypass(target.hostname):
        target = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if target.hostname is None:
            return f"the proxy {proxy!r} names no server"
    host, port = target.hostname, target.port or _DEFAULT_PORTS.get(target.scheme, 443)
    answer: list[str | None] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=timeout).close()
            answer.append(None)
        except OSError as error:
            answer.append(f"no connection to {host}:{port}: {error}")

    # in a thread, because the time-out of create_connection does not cover the look-up of the name
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout + 0.1)
    return answer[0] if answer else f"no connection to {host}:{port} within {timeout:g} s"


def close_loggers(failed: bool) -> None:
    """Finish an open W&B run, marked as failed or not, and end wandb's service process. Raises nothing.

    For a ``finally`` around a run: an exception must neither leave the run open nor be hidden by one from here.
    """
    wandb = sys.modules.get("wandb")
    if wandb is None:
        return
    code = int(failed)
    for close in (
        lambda: wandb.finish(exit_code=code) if wandb.run is not None else None,
        lambda: wandb.teardown(code),
    ):
        try:
            close()
        except (Exception, SystemExit) as error:  # teardown calls sys.exit when the service ended with a code
            log.warning("closing W&B failed: %s", error)
