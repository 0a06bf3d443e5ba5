"""What the command line says to a newcomer: its help, its completion, and what it answers to a slip."""

import re
import subprocess

import pytest
from hydra import compose, initialize_config_dir

from tests.tool import ROOT, one_paragraph

CONF = ROOT / "conf"
GROUPS = [path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir()]
SHORT = ("trainer.max_epochs=1", "model.width=0.25", "data.limit_train=64", "data.limit_val=32", "data.limit_test=32")
SHOWN = sorted(group for group in GROUPS if group.partition("/")[0] not in {"hydra", "paths", "search"})


def options(group: str) -> set[str]:
    return {path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_")}


def test_help_lists_every_group_and_option(tool, capsys):
    assert tool("train.py", "--help", "model=vgg9") == 0
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= 110
    for group in SHOWN:
        found = re.search(rf"^  {group} +\S.*\n((?: {{14}}.*\n)+)", text, re.MULTILINE)
        assert found, group
        assert set(re.findall(r"[\w-]+", found[1])) == options(group), group
    assert "[vgg9]" in text and "[vgg5]" not in text and "[digits]" in text
    assert tool.left_behind() == []


def test_help_shows_commands_and_settings_that_work(tool, capsys):
    assert tool("train.py", "--help", "neuron=lif", "T=6") == 0
    text = capsys.readouterr().out
    assert "T=6 " in text and "neuron.s_max=none" in text
    commands = re.findall(r"^ +python train\.py((?: +[\w./]+=\S+)+)", text.replace(" -m ", " "), re.MULTILINE)
    used = text.partition("the most used:")[2].partition("All settings")[0]
    keys = set(re.findall(r"([\w.]+)=", used)) - {"neuron.s_max"}
    assert len(commands) == 4 and len(keys) >= 10
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for command in commands:
            compose("train", [part.split(",")[0] for part in command.split()])
        compose("train", [f"{key}=1" for key in sorted(keys)])
    for page in re.findall(r"\b(\w+\.md|docs/)", text):
        assert (ROOT / page).exists()


def test_hydras_own_help_is_there(tool, capsys):
    assert tool("train.py", "--hydra-help") == 0
    assert "--shell-completion" in capsys.readouterr().out


def test_completion_of_bash_knows_groups_and_keys(tool, capsys, monkeypatch):
    assert tool("train.py", "--shell-completion", "install=bash") == 0
    written = capsys.readouterr().out
    assert "complete -o" in written
    subprocess.run(["bash", "-n"], input=written, text=True, check=True, timeout=20)
    for line, expected in [
        ("neuron=qb", "neuron=qb_lif"),
        ("neuron.s_m", "neuron.s_max="),
        ("data=cifar100", "data=cifar100"),
    ]:
        monkeypatch.setenv("COMP_LINE", f"python train.py {line}")
        monkeypatch.setenv("COMP_POINT", str(len(line) + 16))
        assert tool("train.py", "--shell-completion", "query=bash") == 0
        assert expected in capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["modell=vgg5"], "modell is not a setting: did you mean model?"),
        (["modle=vgg5"], "modle is not a setting: did you mean model?"),
        (["experimnt=digits"], "experimnt is not a setting: did you mean experiment?"),
        (["optim/los=tet"], "optim/los is no group: did you mean optim/loss?"),
        (["optim/loss=tett"], "optim/loss=tett: no such optim/loss; did you mean tet?"),
        (["experiment=digits_smok"], "did you mean digits_smoke?"),
        (["model="], "model=: no such model; there are: fast, mlp, resnet18"),
        (["neurn.s_max=3"], "neurn.s_max is not a setting: did you mean neuron.s_max?"),
        (["optim.optimiser.lr=1"], "optim.optimiser.lr is not a setting: did you mean optim.optimizer.lr?"),
        (["neuron=lif", "neuron.s_max=4"], "neuron.s_max is not a setting: "),
        (["~trainer.max_epoch"], "trainer.max_epoch is not a setting: did you mean trainer.max_epochs?"),
        (["+model=mlp"], "model is chosen already: write model=OPTION once, without +"),
        (["T"], "T has no value: write T=VALUE"),
        (["T="], "T must be an integer from 1 to 1024, got ''"),
        (["neuron.s_max="], "neuron.s_max must be an integer from 1 to 127, got ''"),
        (["T=four"], "T must be an integer from 1 to 1024, got 'four'"),
        (["-m", "neuron.s_maxx=1,2"], "neuron.s_maxx is not a setting: did you mean neuron.s_max?"),
        (["-m", "T=1,2", "modell=vgg5"], "modell is not a setting: did you mean model?"),
        (["neuron.smax=4"], "neuron.smax is not a setting: did you mean neuron.s_max?"),
        (["lr=0.1"], "lr is not a setting: did you mean deploy.lr or optim.optimizer.lr?"),
        (["optimizer.lr=0.1"], "did you mean optim.optimizer.lr?"),
        (["model.s_max=4"], "model.s_max is not a setting: did you mean neuron.s_max?"),
        (["nope=4"], "nope is not a setting: there are: "),
        (["+trainer.nope=4"], "trainer does not take 'nope': there are: "),
        (
            ["logger=null"],
            "logger=null: logger takes the name of an option, write ~logger to do without; there are: csv",
        ),
        (["callbacks=null"], "write ~callbacks to do without; there are: default, early_exit, early_stopping, fast"),
        (["neuron=null"], "neuron=null: neuron takes the name of an option, a run needs one; there are: adaptive_qb"),
        (["neuron=5"], "neuron=5: neuron takes the name of an option"),
        (["neuron=[nope]"], "neuron=nope: no such neuron; there are: "),
        (
            ["hydra.run.dir=a/lr=0.1"],
            "stands in quotes, and the word in further ones for the shell: 'hydra.run.dir=\"a/lr=0.1\"'",
        ),
        (["-m", "T"], "T has no value: write T=VALUE"),
    ],
)
def test_a_slip_is_answered_in_one_paragraph(tool, capsys, arguments, words):
    assert tool("train.py", *arguments) == 1
    message = one_paragraph(capsys.readouterr().err)
    assert words in message and "_base" not in message and len(message) <= 1000
    assert "hydra.cc" not in message and "search path" not in message and "did you mean nope" not in message
    assert not list(tool.folder.rglob("result.json"))


def test_a_run_does_without_loggers_and_callbacks(tool):
    assert tool("train.py", *SHORT, "~logger", "~callbacks", "report=false") == 0
    assert tool.result()["status"] == "finished"
