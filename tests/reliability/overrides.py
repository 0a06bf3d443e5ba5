"""Random wrong overrides: each run ends well, or it is refused in a few lines before data are read."""

import random
import re
import resource
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from qbsnn.data import DataModule
from tests.reliability.runs import begin, ended, remove, shown, stop
from tests.tool import ROOT

BASE = (
    "model=mlp", "model.hidden=[8]", "data.limit_train=64", "data.limit_val=32", "data.limit_test=32", "T=2",
    "data.batch_size=32", "data.download=false", "trainer=cpu", "trainer.max_epochs=1", "report=false",
    "callbacks.integer.onnx_images=0", "callbacks.progress=null", "+trainer.enable_progress_bar=false",
    "hydra.run.dir=outputs/run",
)  # fmt: skip
SECONDS, LINES, MEMORY = 600, 20, 6 * 2**30
OUTSIDE = ("paths", "hydra", "data.root", "data.cache_dir", "name")
"""Their values are paths that a command line may choose freely, or names."""
NUMBERS = ["-1", "0", "1.5", "-0.5", "1e-300", "1e30", "nan", "inf", "-inf", "2147483648", "9223372036854775808"]
WORDS = ["nope", "''", "true", "[]", "[1,2]", "{a: 1}", "{}", "null", "'1'", "ß", "x" * 3000, "a/b", "../x", "-"]
TARGETS = ["nope", "os.system", "torch.nn.Linear", "qbsnn.Nope", "''", "7", "null", "qbsnn.neurons", "torch.optim.Adam"]
BROKEN = ["{}=[1", "{}={{a:", "{}='x", "{}=1,2", "={}", "{}", "+{}", "{}==", "{}=${{", "{} =1", "~{}=1", "++{}", "@{}"]
LINKS = ["${nope}", "${oc.env:NOPE}", "${oc.env:HOME}", "${neuron}", "${.nope}", "${uid:1}", "${oc.decode:x}"]
KINDS = ("number", "word", "misspelt", "added", "option", "node", "deleted", "target", "grammar", "link", "hydra")


def settings() -> tuple[list[str], list[str], list[str]]:
    """Dotted keys of the default configuration: leaves, nodes, and those that are groups."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", list(BASE[:-1])), resolve=False)
    leaves, nodes = [], []

    def walk(node: Any, where: str) -> None:
        for key, value in node.items():
            at = f"{where}{key}"
            if isinstance(value, dict) and value:
                nodes.append(at)
                walk(value, f"{at}.")
            else:
                leaves.append(at)

    walk(config, "")
    groups = sorted(path.name for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name != "hydra")
    return [leaf for leaf in leaves if not leaf.startswith(OUTSIDE)], nodes, groups


def generate(count: int, seed: int) -> list[tuple[str, str]]:
    """Different overrides with the kind of each, the same for the same seed; kinds take turns."""
    rng = random.Random(seed)
    made = _endless(rng, *settings())
    found: dict[str, str] = {}
    while len(found) < count:
        kind, override = next(made)
        found.setdefault(override, kind)
    return [(kind, override) for override, kind in found.items()]


def _endless(rng: random.Random, leaves: list[str], nodes: list[str], groups: list[str]) -> Iterator[tuple[str, str]]:
    plain = [leaf for leaf in leaves if not leaf.endswith(("_target_", "_partial_"))]
    targets = [leaf for leaf in leaves if leaf.endswith("_target_")]
    while True:
        for kind in KINDS:
            key, node = rng.choice(plain), rng.choice([node for node in nodes if not node.startswith(OUTSIDE)])
            yield (
                kind,
                {
                    "number": lambda key=key: f"{key}={rng.choice(NUMBERS)}",
                    "word": lambda key=key: f"{key}={rng.choice(WORDS)}",
                    "misspelt": lambda key=key: f"{_misspelt(key, rng)}={rng.choice(NUMBERS + WORDS[:4])}",
                    "added": lambda key=key, node=node: (
                        f"+{rng.choice([key, node])}.{rng.choice(['x', 'nope', '0'])}={rng.choice(NUMBERS + WORDS)}"
                    ),
                    "option": lambda: (
                        f"{rng.choice(groups)}={rng.choice(['nope', '../x', '1', 'null', '[a,b]', 'train'])}"
                    ),
                    "node": lambda node=node: f"{node}={rng.choice(NUMBERS + WORDS)}",
                    "deleted": lambda key=key, node=node: f"~{rng.choice([key, node])}",
                    "target": lambda: f"{rng.choice(targets)}={rng.choice(TARGETS)}",
                    "grammar": lambda key=key: rng.choice(BROKEN).format(key),
                    "link": lambda key=key: f"{key}={rng.choice(LINKS)}",
                    "hydra": lambda: (
                        f"hydra.{rng.choice(['job', 'run', 'sweep', 'nope', 'launcher', 'job_logging'])}"
                        f"{rng.choice(['', '.x', '.chdir', '.env_set'])}={rng.choice(NUMBERS[:3] + WORDS[:8])}"
                    ),
                }[kind](),
            )


def _misspelt(key: str, rng: random.Random) -> str:
    place = rng.randrange(len(key))
    return key[:place] + rng.choice(["", key[place] * 2, "x"]) + key[place + 1 :]


def try_one(folder: Path, override: str) -> tuple[str, str]:
    """Run with one override.

    Returns:
        What became of it and what there is to say: ``ran``, ``refused``, ``ended`` (a status of its own after training
        began), or what is wrong: ``trace``, ``late``, ``long``, ``left``, ``hung``.
    """
    folder.mkdir()
    mark = folder.with_name(f"{folder.name}.data")
    pid = begin(folder, (*BASE, override), partial(_prepare, mark))
    code = ended(pid, SECONDS)
    if code is None:
        stop(pid)
    text = shown(folder, "err").read_text(errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    read = mark.exists()
    said = lines[-1] if lines else ""
    results = list(folder.rglob("result.json"))
    if "Traceback" in text or (code is not None and code < 0):
        return "trace", f"exit {code}: {said}"
    if code is None:
        return ("ran", "was stopped after some minutes") if read else ("hung", said)
    if code == 0:
        return "ran", ""
    if len(lines) > LINES or len(text) > 3000 or not any(line.startswith("error: ") for line in lines):
        return "long", text[:500]
    if read:
        told = results and re.search(r'"status": "(incomplete|unproven|failed)"', results[0].read_text())
        return ("ended", f"{told[1]}: {said}") if told else ("late", said)
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    return ("left", f"{files}: {said}") if files else ("refused", said)


def _prepare(mark: Path) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    honest = DataModule.setup

    def setup(self: DataModule, stage: str | None = None) -> None:
        mark.touch()
        honest(self, stage)

    DataModule.setup = setup  # type: ignore[method-assign]


WELL = ("ran", "refused", "ended")


def measure(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Try ``count`` overrides.

    Returns:
        ``asked``, ``well``, ``outcomes`` and ``kinds`` (how many of each), ``ended`` and ``wrong`` (override, outcome,
        what was said).
    """
    outcomes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    ended_so, wrong = [], []
    for number, (kind, override) in enumerate(generate(count, seed)):
        outcome, said = try_one(folder / str(number), override)
        outcomes[outcome] += 1
        kinds[kind] += 1
        row = [override[:200], outcome, said[:300]]
        if outcome == "ended":
            ended_so.append(row)
        if outcome not in WELL:
            wrong.append(row)
            print(f"\n{row}", flush=True)
        remove(folder / str(number))
        print(f"\roverrides: {number + 1 - len(wrong)}/{number + 1}", end="", flush=True)
    print()
    return {
        "asked": count,
        "well": count - len(wrong),
        "outcomes": dict(sorted(outcomes.items())),
        "kinds": dict(sorted(kinds.items())),
        "ended": ended_so,
        "wrong": wrong,
    }
