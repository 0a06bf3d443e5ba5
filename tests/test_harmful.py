"""Files of settings, checkpoints and sweeps from a stranger run nothing, import nothing and write nowhere else."""

import importlib.util
import json
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from qbsnn.cli import launch
from qbsnn.errors import SettingsError
from qbsnn.sweeps.plan import written
from qbsnn.training.building import RULES, check, locate
from qbsnn.training.checkpoints import AtomicCheckpointIO, load
from qbsnn.training.run import train
from tests.tool import ROOT, TINY, one_paragraph

assert launch  # has Hydra's files checked


def target(name: object, /, *positional: object, **options: object) -> dict:
    return {"_target_": name, **({"_args_": list(positional)} if positional else {}), **options}


SHELL = target("os.system", command="touch hit")
PATH = target("pathlib.Path", "hit")
HARMFUL = {
    "callbacks.x": [
        SHELL,
        target("posix.system", command="touch hit"),
        target("subprocess.run", args=["touch", "hit"]),
        target("subprocess.Popen", args=["touch", "hit"]),
        target("subprocess.check_output", args=["touch", "hit"]),
        target("subprocess.call", "touch hit", shell=True),
        target("os.popen", cmd="touch hit"),
        target("os.mkdir", path="hit"),
        target("builtins.eval", "open('hit', 'w')"),
        target("builtins.exec", "open('hit', 'w')"),
        target("builtins.open", file="hit", mode="w"),
        target("builtins.__import__", name="harmful"),
        target("importlib.import_module", name="harmful"),
        target("runpy.run_path", path_name="harmful.py"),
        target("runpy.run_module", mod_name="harmful"),
        target("pathlib.Path.write_text", PATH, "x"),
        target("pathlib.Path.touch", PATH),
        target("shutil.copyfile", src="harmful.py", dst="hit"),
        target("logging.FileHandler", filename="hit"),
        target("pickle.loads", "x"),
        target("pickle.load", target("builtins.open", "harmful.py", "rb")),
        target("functools.partial", target("hydra.utils.get_method", path="os.system"), "touch hit"),
        target("harmful.Anything"),
        target("lightning.pytorch.callbacks.LambdaCallback", on_fit_start=SHELL),
        target("lightning.pytorch.callbacks.model_checkpoint.os.system", command="touch hit"),
        target("lightning.pytorch.callbacks.model_checkpoint.shutil.copyfile", src="harmful.py", dst="hit"),
        target("lightning.pytorch.callbacks.timer.re.compile", pattern="x"),
        target("qbsnn.callbacks.checkpoint.Path", "hit"),
        target("qbsnn.callbacks.checkpoint.Path.touch", PATH),
        target("qbsnn.callbacks.checkpoint.ModelCheckpoint.__init__.__globals__"),
        target(["os.system"], command="touch hit"),
        target({"_target_": "os.system"}, command="touch hit"),
        target(" os.system", command="touch hit"),
        target("os..system", command="touch hit"),
        target("qbsnn.callbacks.__builtins__.eval", "open('hit', 'w')"),
    ],
    "logger.x": [
        target("qbsnn.tracking.runs.Path.touch", PATH),
        target("qbsnn.tracking.wandb_logger.shutil.copyfile", src="harmful.py", dst="hit"),
        target("qbsnn.tracking.wandb_logger.write_atomically", path=PATH, content="x"),
        target("lightning.pytorch.loggers.csv_logs.os.system", command="touch hit"),
        target("qbsnn.callbacks.progress_bar"),
        target("lightning.pytorch.loggers.CSVLogger", save_dir=[SHELL]),
    ],
    "data.root": [
        SHELL,
        target("torch.load", f="harmful.py", weights_only=False),
        target("torch.hub.load", repo_or_dir=".", model="x", source="local"),
        target("torch.save", obj="x", f="hit"),
        target("numpy.save", file="hit", arr=[1]),
        target("numpy.load", file="harmful.py", allow_pickle=True),
        target("pandas.read_pickle", filepath_or_buffer="harmful.py"),
        target("qbsnn.data.base.Path.touch", PATH),
    ],
    "data.x": [[{"y": SHELL}], {"y": [{"z": SHELL}]}],
    "model.x": [SHELL, target("qbsnn.models.network.torch.load", f="harmful.py")],
    "model.neurons": [{"fc1": SHELL}],
    "neuron": [
        target("hydra.utils.get_method", path="os.system"),
        target("hydra.utils.instantiate", config=SHELL),
        target("hydra.utils.call", SHELL),
        target("hydra._internal.utils._locate", path="harmful.Anything"),
        target("qbsnn.neurons.QBLIF", s_max=SHELL, _partial_=True),
        target("qbsnn.neurons.QBLIF", _recursive_=False),
        target("qbsnn.neurons.base.nn.Module"),
    ],
    "optim.optimizer": [
        target("torch.optim.optimizer.functools.partial", SHELL),
        target("torch.hub.load", repo_or_dir=".", model="x", source="local"),
        target("torch.optim.adam.torch.load", f="harmful.py"),
    ],
    "optim.scheduler": [
        target("torch.optim.lr_scheduler.warnings.warn", message="x"),
        target("torch.optim.lr_scheduler.warnings.sys.modules.clear"),
        target("torch.optim.lr_scheduler.LambdaLR", lr_lambda=SHELL, _partial_=True),
    ],
    "optim.loss": [target("qbsnn.functional.loss.torch.load", f="harmful.py"), target("torch.nn.CrossEntropyLoss")],
    "trainer.profiler": [SHELL, target("lightning.pytorch.profilers.SimpleProfiler", dirpath=".", filename="hit")],
    "trainer.plugins": [[SHELL]],
    "deploy.x": [SHELL],
    "paths.x": [SHELL],
    "x": [SHELL],
}
CASES = [(place, node) for place, nodes in HARMFUL.items() for node in nodes]


def test_there_are_enough():
    assert len(CASES) >= 40


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A copy of ``conf``; where a harmful thing runs, a file appears in the folder that the test runs in."""
    (tmp_path / "harmful.py").write_text("open('hit', 'w')\nclass Anything: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    yield tmp_path / "conf"
    assert "harmful" not in sys.modules
    assert not (tmp_path / "hit").exists()


def nested(place: str, value: object) -> dict:
    first, _, rest = place.partition(".")
    return {first: nested(rest, value) if rest else value}


def run(conf: Path, *overrides: str) -> None:
    with initialize_config_dir(str(conf), version_base="1.3"):
        cfg = compose("train", [*TINY, *overrides], return_hydra_config=True)
    cfg.hydra.runtime.output_dir = "outputs/run"
    HydraConfig.instance().set_config(cfg)
    with pytest.raises(SettingsError) as refused:
        train(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]))
    assert len(str(refused.value)) < 1000


def words(node: object) -> str:
    """A node as an override; Hydra's grammar wants quotes in its own way."""
    if isinstance(node, Mapping):
        return "{" + ",".join(f"{key}:{words(value)}" for key, value in node.items()) + "}"
    return f"[{','.join(map(words, node))}]" if isinstance(node, list) else written(node)


@pytest.mark.slow
def test_no_override_runs_them(conf):
    for place, node in CASES:
        run(conf, f"++{place}={words(node)}")


@pytest.mark.slow
def test_no_experiment_file_runs_them(conf):
    for place, node in CASES:
        text = yaml.safe_dump(nested(place, node))
        (conf / "experiment/theirs.yaml").write_text(f"# @package _global_\n{text}")
        run(conf, "experiment=theirs")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Iterator[Path]:
    """A checkpoint that a run left."""
    folder = tmp_path_factory.mktemp("run")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        quiet = [
            "test=false",
            "report=false",
            "paths.outputs=x",
            "name=x",
            f"paths.data={folder}",
            "callbacks.integer=null",
        ]
        cfg = compose("train", [*TINY, *quiet, f"paths.run={folder}", "callbacks.progress=null"])
    train(cfg)
    return folder / "checkpoints/best.ckpt"


def merged(config: dict, other: Mapping) -> dict:
    return config | {
        key: merged(config[key], value) if isinstance(config.get(key), dict) and isinstance(value, Mapping)
        and "_target_" not in value else value for key, value in other.items()
    }  # fmt: skip


def harmful(checkpoint: Path, change: Mapping, path: Path) -> Path:
    contents = load(checkpoint)
    contents["qbsnn"]["config"] = merged(contents["qbsnn"]["config"], change)
    AtomicCheckpointIO().save_checkpoint(contents, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("script", ["evaluate.py", "scripts/verify.py", "scripts/export.py"])
def test_no_checkpoint_runs_them(conf, checkpoint, tool, capsys, script):
    for place, node in CASES:
        if place.startswith("logger"):
            continue  # the loggers of a checkpoint are left aside
        path = harmful(checkpoint, nested(place, node), tool.folder / "theirs.ckpt")
        assert tool(script, f"ckpt={path}", *(["format=bundle"] if "export" in script else [])) == 1
        one_paragraph(capsys.readouterr().err)
        assert not (tool.folder / "outputs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "${oc.env:HOME}"}, "name must be a plain value"),
        (
            {"callbacks": {"diagnostics": {"folder": "/tmp"}}},
            "callbacks.diagnostics.folder must be a folder in the run",
        ),
        (
            {"callbacks": {"checkpoint": {"dirpath": "../.."}}},
            "callbacks.checkpoint.dirpath must be a folder in the run",
        ),
        ({"trainer": {"default_root_dir": "~"}}, "trainer.default_root_dir must be a folder in the run"),
        ({"trust": "harmful"}, "says trust=harmful"),
        ({"callbacks": {"x": SHELL}}, "callbacks.x._target_ may not be 'os.system'"),
    ],
)
def test_a_checkpoint_s_settings_are_plain_and_stay_in_the_run(conf, checkpoint, tool, capsys, change, message):
    path = harmful(checkpoint, change, tool.folder / "theirs.ckpt")
    assert tool("evaluate.py", f"ckpt={path}") == 1
    assert message in one_paragraph(capsys.readouterr().err)
    assert not (tool.folder / "outputs").exists()


@pytest.mark.slow
def test_no_sweep_file_runs_them(conf, tool):
    rows = [{"label": f"row {i}", "overrides": [f"++{place}={words(node)}"]} for i, (place, node) in enumerate(CASES)]
    sweep = {"title": "theirs", "overrides": list(TINY), "rows": rows}
    (conf / "sweep/theirs.yaml").write_text(yaml.safe_dump(sweep, allow_unicode=True))
    shutil.copyfile(ROOT / "train.py", tool.folder / "train.py")
    done = subprocess.run(
        [sys.executable, "train.py", "sweep=theirs"], cwd=tool.folder, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{tool.folder}", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("failed: row") == len(CASES) and "Traceback" not in done.stderr
    assert not list(tool.folder.rglob("result.json"))


HYDRA = {
    "callbacks": {"x": SHELL},
    "job": {"env_set": {"LD_PRELOAD": "harmful.so"}},
    "job_logging": {"handlers": {"x": {"class": "subprocess.Popen", "args": ["touch", "hit"]}}},
    "hydra_logging": {"handlers": {"x": {"()": "os.system", "command": "touch hit"}}},
    "run": {"dir": "elsewhere"},
    "output_subdir": "/tmp/elsewhere",
    "launcher": SHELL,
    "sweeper": SHELL,
    "overrides": {"task": ["trust=harmful"]},
}
HEADERS = [(f"# @package {package}", node) for package, node in [
    ("_global_", {"trust": "harmful"}), ("_global_", {"trust": ["harmful"]}), ("hydra.callbacks", {"x": SHELL}),
    ("hydra", {"callbacks": {"x": SHELL}}), ("_global_", {"paths": {"run": "elsewhere"}}),
]] + [("# @package _global_", {"hydra": {key: node}}) for key, node in HYDRA.items()]  # fmt: skip


@pytest.mark.parametrize("group", ["experiment", "sweep", "neuron", "data"])
def test_a_file_says_nothing_of_hydra_of_trust_or_of_where_runs_are_written(conf, tool, capsys, group):
    for header, node in HEADERS if group == "experiment" else HEADERS[:4]:
        (conf / f"{group}/theirs.yaml").write_text(f"{header}\n{yaml.safe_dump(node)}")
        assert tool("train.py", f"--config-dir={conf}", f"{group}=theirs") == 1
        assert f"{group}/theirs.yaml may not set" in one_paragraph(capsys.readouterr().err)
        assert (
            tool.left_behind() and not (tool.folder / "outputs").exists() and not (tool.folder / "elsewhere").exists()
        )


@pytest.mark.parametrize(
    "override",
    ["hydra.run.dir=/tmp/x", "+hydra.callbacks.x={_target_:os.system}", "++hydra/launcher=joblib", " ++hydra.job.x=1",
     "trust=harmful", "++trust=[harmful]", "paths.run=/tmp/x", "~hydra.job", "hydra@x=y"],
)  # fmt: skip
def test_overrides_in_a_sweep_file_neither(override):
    from qbsnn.sweeps.plan import read
    from qbsnn.sweeps.search import SearchSettings

    key = override.partition("=")[0]
    for sweep in ({"overrides": [override]}, {"rows": [{"label": "a", "overrides": [override]}]}, {"grid": {key: [1]}}):
        with pytest.raises(SettingsError, match="belongs on the command line"):
            read({"title": "theirs", **sweep}, "theirs")
    with pytest.raises(ValueError, match="belongs on the command line"):
        SearchSettings(name="a", n_trials=1, seed=0, space={key: [1, 2]}, sampler={})


@pytest.mark.parametrize("name", ["sampler", "pruner"])
def test_a_search_builds_samplers_and_pruners_alone(name):
    with pytest.raises(SettingsError, match=rf"search\.{name}\._target_ may not be 'os.system'"):
        check(SHELL, (), f"search.{name}")


MINE = """
from qbsnn.neurons import QBLIF
from os import system
class Mine(QBLIF): ...
def make(s_max=8): return QBLIF(s_max=s_max)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mine", None)


@pytest.mark.parametrize("name", ["mine.Mine", "mine.make"])
def test_the_user_s_own_package_is_trusted_by_name(mine, name):
    settings = {"neuron": {"_target_": name, "_partial_": True}}
    with pytest.raises(SettingsError, match="trust=PACKAGE"):
        check(settings)
    assert "mine" not in sys.modules
    with pytest.raises(SettingsError, match="trust=PACKAGE"):
        check(settings, ["mi"])
    check(settings, ["mine"])


@pytest.mark.parametrize("name", ["mine.system", "mine.QBLIF", "mine.nothing", "mine.make.__globals__"])
def test_what_a_trusted_package_merely_imports_is_not_its_own(mine, name):
    with pytest.raises(SettingsError, match=r"neuron\._target_"):
        check({"neuron": {"_target_": name}}, ["mine"])


def test_a_run_with_a_package_of_one_s_own_leaves_files_that_trust_nobody(mine, tool, capsys):
    own = ("neuron._target_=mine.Mine", "test=false", "report=false", "callbacks.integer=null")
    assert tool("train.py", *TINY, *own) == 1
    assert "trust=PACKAGE" in one_paragraph(capsys.readouterr().err)
    assert tool("train.py", *TINY, *own, "trust=mine", "hydra.run.dir=outputs/one") == 0
    result = json.loads((tool.folder / "outputs/one/result.json").read_text())
    assert "trust" not in result["config"]
    capsys.readouterr()
    checkpoint = f"ckpt={tool.folder / 'outputs/one/checkpoints/best.ckpt'}"
    assert tool("evaluate.py", checkpoint) == 1
    assert "trust=PACKAGE" in one_paragraph(capsys.readouterr().err)
    assert tool("evaluate.py", checkpoint, "trust=[another,mine]") == 0


@pytest.mark.parametrize("trust", ["trust=1", "trust=[a,2]", "trust='a b'", "trust={a: b}", "trust=''"])
def test_trust_names_packages(conf, trust):
    run(conf, trust)


def test_every_rule_names_what_exists():
    for place, rule in RULES.items():
        if place.startswith("search") and importlib.util.find_spec("optuna") is None:
            continue
        for name in rule.functions:
            assert callable(locate(place, name))
        for name in rule.bases:
            assert isinstance(pkgutil.resolve_name(name), type)


def test_nothing_else_of_the_project_instantiates():
    users = [path for path in [*(ROOT / "qbsnn").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
             if " instantiate" in path.read_text(encoding="utf-8")]  # fmt: skip
    assert users == [ROOT / "qbsnn/training/building.py"]
