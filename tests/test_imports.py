"""Imports run one way: functional -> neurons -> layers -> models -> deploy -> energy -> training -> callbacks."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ["functional", "neurons", "layers", "models", "deploy", "energy", "training", "callbacks"]
SHARED = {"errors", "checks"}  # single files at the bottom that everything may use
# The schema of the result file has no torch in it; deploy fills it in, so it may be imported from there on.
SIDE = {"data": SHARED, "report": SHARED}


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("qbsnn.") and name != "qbsnn.__version__"}


def allowed(package: str, used: set[str]) -> set[str]:
    if package in SIDE:
        return SIDE[package] | {package}
    below = set(ORDER[: ORDER.index(package) + 1]) | SHARED
    if ORDER.index(package) >= ORDER.index("deploy"):
        below |= {"report"}
    if ORDER.index(package) >= ORDER.index("training"):
        below |= {"data"}
    return below


FILES = sorted((ROOT / "qbsnn").glob("*/*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_imports_run_one_way(path):
    used = packages(imported(path))
    assert used <= allowed(path.parent.name, used), f"{path.parent.name} may not import these"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_only_training_and_what_follows_knows_lightning(path):
    names = {name.split(".")[0] for name in imported(path)}
    if path.parent.name not in {"training", "callbacks", "data"}:
        assert not names & {"lightning", "hydra", "omegaconf", "wandb"}
    if path.parent.name == "report":
        assert "torch" not in names


@pytest.mark.parametrize("package", ["deploy", "energy"])
def test_only_the_schema_is_taken_from_report(package):
    for path in (ROOT / "qbsnn" / package).glob("*.py"):
        used = {name for name in imported(path) if name.startswith("qbsnn.report")}
        assert all(name.startswith("qbsnn.report.schema") for name in used), path


def test_the_engines_share_no_code():
    reference = imported(ROOT / "qbsnn/deploy/reference.py")
    files = ("engine", "int8_engine", "int8_kernels", "neuron_step")
    fast = set().union(*(imported(ROOT / f"qbsnn/deploy/{name}.py") for name in files))
    shared = {name for name in reference & fast if name.startswith("qbsnn")}
    plain_data = {"qbsnn.errors", "qbsnn.errors.DeployError", "qbsnn.deploy.integer"}
    assert {name for name in shared if not name.startswith("qbsnn.deploy.integer.")} <= plain_data
    assert not any(name.startswith("torch") for name in reference)


def test_every_file_can_be_read_in_one_sitting():
    long = {str(path): n for path in FILES if (n := len(path.read_text(encoding="utf-8").splitlines())) > 300}
    assert not long
