"""Loggers never prompt and never hang."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from qbsnn.tracking.connection import unreachable
from qbsnn.tracking.loggers import close_loggers
from qbsnn.tracking.wandb_file import read_records, values

FAKE_KEY = "0123456789abcdef" * 3


def values_logged(run_file: Path) -> dict[str, float]:
    """The last value of every metric in a W&B transaction log, and the exit code."""
    found: dict[str, float] = {}
    for record in read_records(run_file):
        if record.HasField("exit"):
            found["exit code"] = record.exit.exit_code
        found |= values(record.history.item)
    return found


@pytest.mark.parametrize(("choice", "names"), [("csv", []), ("wandb", ["wandb"])])
def test_config(tmp_path: Path, choice: str, names: list[str]) -> None:
    folder = Path(__file__).parents[2] / "conf"
    with initialize_config_dir(str(folder), version_base="1.3"):
        config = compose(overrides=[f"+logger={choice}", f"+paths.run={tmp_path}", "+name=x", "+seed=0"])
    if choice == "wandb":
        config.logger.wandb.choices = ["digits", "vgg5", "lif"]  # they come from Hydra's own settings of a run
    loggers = {name: instantiate(one) for name, one in config.logger.items()}
    assert list(loggers) == names
    assert all(Path(logger.save_dir) == tmp_path for logger in loggers.values())


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A server that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(20)
        yield server.getsockname()[1]


def test_reachability(monkeypatch: pytest.MonkeyPatch, silent_server: int) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert unreachable(f"http://127.0.0.1:{silent_server}", 2) is None
    assert "refused" in str(unreachable(f"http://127.0.0.1:{closed_port()}", 2))
    assert "names no server" in str(unreachable("nonsense", 2))
    # with a proxy, it is the proxy that must answer
    open_proxy, closed_proxy = f"127.0.0.1:{silent_server}", f"http://127.0.0.1:{closed_port()}"
    assert unreachable("https://wandb.invalid", 2, {"https": open_proxy}) is None
    monkeypatch.setenv("HTTPS_PROXY", closed_proxy)
    assert f"no connection to {closed_proxy.removeprefix('http://')}" in str(unreachable("https://wandb.invalid", 2))
    assert unreachable(f"https://127.0.0.1:{silent_server}", 2) is None  # loopback goes past the proxy
    monkeypatch.setenv("NO_PROXY", "wandb.invalid")
    assert "wandb.invalid:443" in str(unreachable("https://wandb.invalid", 2))


def test_slow_name_server_does_not_exceed_the_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*args: object, **kwargs: object) -> None:
        time.sleep(1)
        raise OSError("too late")

    monkeypatch.setattr(socket, "create_connection", slow)
    start = time.monotonic()
    assert "within 0.2 s" in str(unreachable("https://wandb.invalid", 0.2, {"https": None}))
    assert time.monotonic() - start < 0.9


# One process imports Lightning, which takes seconds, and forks one child per case: wandb keeps its state per process.
FORKS = """
import json, logging, os, pty, sys, time
import qbsnn.tracking.loggers as loggers
from lightning.pytorch.utilities.rank_zero import rank_zero_only

def run(folder, failed, rank):
    logging.basicConfig(level=logging.INFO, format="LOG %(message)s")
    loggers.close_loggers(failed=False)
    logger = loggers.wandb_logger(folder, name="n", group="g", tags=("t",), init_timeout=2, connect_timeout=1)
    rank_zero_only.rank = rank
    start = time.monotonic()
    logger.log_hyperparams({"seed": 3})
    for step in range(3):
        logger.log_metrics({"val/acc": 0.5 + step / 8, "name": "x" * 40_000}, step=step)
    if rank:
        print("experiment", logger.experiment.anything())
        return
    print("mode", logger.experiment.settings.mode, os.environ.get("WANDB_MODE"))
    loggers.close_loggers(failed)
    print("seconds", time.monotonic() - start)
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        print("children", file.read().split())
    loggers.close_loggers(failed=True)

def child(case):
    os.environ.update(case["environment"])
    try:
        run(case["folder"], case["failed"], case["rank"])
    except BaseException as error:
        print("RAISED", repr(error))
    sys.stdout.flush()
    os._exit(0)

assert "wandb" not in sys.modules, "importing our module must not import wandb"
import wandb
cases = json.loads(sys.argv[1])
started = {}
for name, case in cases.items():
    if case["terminal"]:
        pid, end = pty.fork()
    else:
        end, inner = os.pipe()
        if (pid := os.fork()) == 0:
            os.dup2(inner, 1), os.dup2(inner, 2)
        else:
            os.close(inner)
    if pid == 0:
        child(case)
    started[name] = end
texts = {}
for name, end in started.items():
    text = b""
    try:
        while chunk := os.read(end, 65536):
            text += chunk
    except OSError:  # a terminal ends so
        pass
    texts[name] = text.decode()
print(json.dumps(texts))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Folder and terminal output of a short run for each case; all of them run at the same time."""
    if not Path("/proc/self/task").exists():
        pytest.skip("needs /proc")
    root = tmp_path_factory.mktemp("wandb")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(20)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        (root / ".netrc").write_text(f"machine {address}\n  login user\n  password {FAKE_KEY}\n")
        (root / ".netrc").chmod(0o600)
        closed = {"WANDB_BASE_URL": f"http://127.0.0.1:{closed_port()}", "WANDB_API_KEY": FAKE_KEY}
        environments = {
            "no key": {"TERM": "xterm"},
            "closed port": closed,
            "bad key": {**closed, "WANDB_API_KEY": "short"},
            "told so": {**closed, "WANDB_MODE": "offline"},
            "silent server": {"WANDB_BASE_URL": f"http://{address}"},
            "second process": closed,
        }
        cases = {
            name: {
                "environment": environment,
                "folder": str(root / name),
                "terminal": name == "no key",
                "failed": name == "silent server",
                "rank": int(name == "second process"),
            }
            for name, environment in environments.items()
        }
        clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB") and not k.lower().endswith("_proxy")}
        done = subprocess.run(
            [sys.executable, "-c", FORKS, json.dumps(cases)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150,
            env={**clean, "HOME": str(root), "WANDB_ERROR_REPORTING": "false"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {name: (root / name, text) for name, text in json.loads(done.stdout).items()}


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("no key", "no API key for https://"),
        ("closed port", "refused"),
        ("bad key", "the credentials cannot be used"),
        ("silent server", "wandb.init failed"),
        ("told so", None),
    ],
)
def test_run_goes_offline_in_seconds_and_asks_nothing(
    outcomes: dict[str, tuple[Path, str]], case: str, reason: str | None
) -> None:
    folder, text = outcomes[case]
    assert "RAISED" not in text, text
    said = [line for line in text.splitlines() if "W&B runs offline" in line]
    assert len(said) == (reason is not None), text
    assert all(str(reason) in line and f"wandb sync {folder}" in line for line in said), text
    # Lightning's own offline flag would leave WANDB_MODE behind for the next run of a sweep
    assert f"mode offline {'offline' if case == 'told so' else None}" in text, text
    assert "choice" not in text.lower(), text
    assert float(text.split("seconds ")[1].split()[0]) < 30, text
    assert "children []" in text, "the wandb service is still there"
    (run_file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found = values_logged(run_file)
    assert (found["val/acc"], found["trainer/global_step"], found["name"]) == (0.75, 2, "x" * 40_000)
    assert found["exit code"] == (case == "silent server")


def test_second_process_logs_nothing(outcomes: dict[str, tuple[Path, str]]) -> None:
    folder, text = outcomes["second process"]
    assert text == "experiment None\n"
    assert not folder.exists()


def test_close_survives_a_broken_wandb(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        run = object()

        def finish(self, exit_code: int) -> None:
            raise RuntimeError(f"no service, code {exit_code}")

        def teardown(self, code: int) -> None:
            raise SystemExit(7)

    monkeypatch.setitem(sys.modules, "wandb", Broken())
    close_loggers(failed=True)
    assert [record.getMessage() for record in caplog.records] == [
        "closing W&B failed: no service, code 1",
        "closing W&B failed: 7",
    ]
