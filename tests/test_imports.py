"""The house: which room may import which. Each room imports itself and rooms before it in ``ROOMS``, nothing else."""

import ast
from collections.abc import Iterable
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ROOMS = [
    "errors",
    "checks",
    "checked",
    "bounds",
    "functional",
    "results",
    "report",
    "report.run",
    "report.runs",
    "report.tables",
    "kernels",
    "neurons",
    "layers",
    "models",
    "data",
    "data.images",
    "data.events",
    "deploy.format",
    "deploy.convert",
    "deploy.engines",
    "deploy.verify",
    "deploy.export",
    "energy",
    "tracking",
    "training",
    "training.devices",
    "callbacks",
    "sweeps",
    "cli",
]
"""From the ground up; a file directly below ``qbsnn`` is a room of its own."""

TOGETHER = {"training.devices": "training", "report.run": "report"}
"""Rooms that share a floor with the one they lie in: circles between single modules are looked for apart."""

FILES = sorted(path for path in (ROOT / "qbsnn").rglob("*.py") if path.name != "__init__.py")
"""Modules. An ``__init__`` re-exports what lies below it, so ``import qbsnn.data`` needs all of its rooms."""


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


MODULES = {dotted(path): path for path in FILES}


@cache
def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, inside functions and under TYPE_CHECKING too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(names: set[str]) -> set[str]:
    """The modules of the project among imported names."""
    return names & MODULES.keys()


def room(module: str) -> str:
    """The room of ``qbsnn.a.b.c``: the longest entry of ROOMS that its dotted name begins with."""
    name = module.removeprefix("qbsnn.")
    return max((entry for entry in ROOMS if f"{name}.".startswith(f"{entry}.")), key=len)


def floor(module: str) -> int:
    return ROOMS.index(TOGETHER.get(room(module), room(module)))


def test_imports_run_one_way():
    upwards = [f"{here} <- {name}" for here, path in MODULES.items() for name in own(imported(path))
               if floor(name) > floor(here)]  # fmt: skip
    assert not upwards


def test_no_circle_among_modules():
    waiting = {name: own(imported(path)) - {name} for name, path in MODULES.items()}
    while ready := {name for name, needs in waiting.items() if not needs & waiting.keys()}:
        waiting = {name: needs for name, needs in waiting.items() if name not in ready}
    assert not waiting, "these wait for one another"


def floors(folder: str) -> int:
    """The longest chain of imports among the modules below a folder."""
    inside = {name: own(imported(path)) for name, path in MODULES.items() if name.startswith(f"{folder}.")}

    def height(name: str) -> int:
        return 1 + max((height(other) for other in inside[name] & inside.keys()), default=0)

    return max(map(height, inside))


def test_deploy_has_at_most_six_floors():
    assert floors("qbsnn.deploy") <= 6


def test_lightning_and_hydra_stay_upstairs():
    for module, path in MODULES.items():
        names = {name.split(".")[0] for name in imported(path)}
        here = room(module).split(".")[0]
        if here not in {"data", "tracking", "training", "callbacks", "sweeps", "cli"}:
            assert not names & {"lightning", "hydra", "omegaconf", "wandb"}, module
        assert here not in {"results", "report"} or "torch" not in names, module


def reached(names: Iterable[str]) -> set[str]:
    """These modules and all modules of the project that they import, directly or through others."""
    seen: set[str] = set()
    waiting = set(names)
    while waiting:
        seen |= waiting
        waiting = own(set().union(*(imported(MODULES[name]) for name in waiting))) - seen
    return seen


ENGINES = {
    "reference": ["engines.reference"],
    "scalar": ["engines.scalar"],
    "torch": [f"engines.{name}" for name in ("torch_engine", "int8_engine", "int8_kernels", "neuron_step")],
    "onnx": [f"engines.onnx_{name}" for name in ("engine", "exit", "graph", "neuron", "nodes")],
    "grid": ["convert.grid"],
}


@pytest.mark.parametrize("pair", list(combinations(ENGINES, 2)), ids="-".join)
def test_the_engines_share_no_code(pair):
    """Plain data and its validation apart: an engine that reaches into another one would confirm its faults."""
    one, two = (reached(f"qbsnn.deploy.{name}" for name in ENGINES[engine]) for engine in pair)
    allowed = {"qbsnn.errors", "qbsnn.checks", "qbsnn.deploy.format.network", "qbsnn.deploy.format.validation"}
    if pair == ("torch", "grid"):
        # The analog first layer makes the J of every engine. Both ask which floating-point type holds a bound.
        allowed |= reached({"qbsnn.deploy.convert.quantized", "qbsnn.deploy.format.bounds", "qbsnn.functional.exact"})
    assert one & two <= allowed


def test_the_yardstick_needs_no_torch():
    names = set().union(*(imported(MODULES[name]) for name in reached({"qbsnn.deploy.engines.reference"})))
    assert not any(name.startswith("torch") for name in names)


def test_every_file_can_be_read_in_one_sitting():
    long = {str(path): n for path in FILES if (n := len(path.read_text(encoding="utf-8").splitlines())) > 300}
    assert not long


def test_no_folder_holds_more_than_14_modules():
    counts = {}
    for path in FILES:
        counts[path.parent] = counts.get(path.parent, 0) + 1
    assert max(counts.values()) <= 14, counts
