"""The commands of docs/scale.md are composed."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from qbsnn.cli.launch import register_resolvers
from tests.test_docs import blocks
from tests.tool import ROOT

CONF = ROOT / "conf"
LINES = [line.split("  #")[0] for block in blocks("scale.md", "sh") for line in block.splitlines()]
TRAIN = [line for line in LINES if "train.py" in line and "launcher=ray" not in line]  # ray is not in the lock


@pytest.mark.parametrize("line", TRAIN)
def test_every_training_command_composes(line):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = shlex.split(line.split("train.py", 1)[1])
    first = [
        re.sub(r"^([^\[{]*?=[^,\[{]*),.*", r"\1", word) for word in words if word != "-m"
    ]  # of a multirun's values
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", first, return_hydra_config=True)
    for word in first:
        key, value = word.split("=", 1)
        if key.startswith(("trainer.", "hydra.launcher.", "data.", "neuron.")):
            node = cfg
            for part in key.split("."):
                node = node[part]
            assert str(node).lower() == value, key
        elif key == "hydra/launcher":
            assert value.split("_")[-1] in cfg.hydra.launcher._target_.lower()


@pytest.mark.parametrize("sweep", sorted(path.stem for path in (CONF / "sweep").glob("*.yaml")))
def test_a_sweep_composes_with_the_slurm_launcher(sweep):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = [f"sweep={sweep}", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"]
        cfg = compose("train", words, return_hydra_config=True)
    assert cfg.hydra.launcher._target_.endswith("SlurmLauncher") and cfg.hydra.launcher.partition == "gpu"


def test_the_page_names_files_that_are_there():
    for name in re.findall(r"`((?:conf|tests|scripts)/[\w./]+\.(?:py|yaml))`", (ROOT / "docs/scale.md").read_text()):
        assert (ROOT / Path(name)).is_file(), name
