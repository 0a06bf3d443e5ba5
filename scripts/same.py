"""Show that a change of the code changes no number: ``make same REF=main``, or ``python scripts/same.py ref=main``.

Trains 20 steps of five settings (``only=NAME``: of one) in the work tree and at another commit and compares the loss
of every step, all weights, and spikes, membranes and logits of the integer engine, bit for bit; exits with 1 if any
differ.
"""

import hashlib
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COMMON = (
    "trainer.max_epochs=2 +trainer.max_steps=20 trainer.num_sanity_val_steps=0 data.batch_size=32 data.limit_train=320 "
    "data.limit_val=64 data.limit_test=64 report=false callbacks.progress=null +trainer.enable_progress_bar=false"
)
SETTINGS = {
    "neurons": "model=resnet20 model.width=0.25 neuron.output=graded neuron.granularity=channel neuron.learn_tau=true",
    "models": "model=vgg9 model.width=0.25 model.norm=tdbn neuron=plif T=3",
    "events": "data=digits_dvs data.cache=none model=vgg5 model.width=0.25 neuron=ternary_burst",
    "packed": "model=vgg5 neuron.init=percentile neuron.reset=full memory=packed compile=none",
    "qat": "model=vgg5 model.width=0.25 deploy=qat deploy.epochs=1 deploy.bits=4",
}
ENGINES = ("qbsnn.deploy.engines.torch_engine", "qbsnn.deploy.engine")  # now, and in versions before the rooms


def digest(*arrays: Any) -> str:
    """A hash of the types, shapes and values of arrays or tensors."""
    sha256 = hashlib.sha256()
    for array in arrays:
        array = array.numpy() if hasattr(array, "numpy") else array
        sha256.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return sha256.hexdigest()[:16]


def measure(tree: Path, out: Path, overrides: list[str]) -> None:
    """Run ``train.py`` of a tree in this process; write a digest of everything compared, by name."""
    import lightning
    import torch

    found: dict[str, str] = {}
    name = next(name for name in ENGINES if (tree / f"{name.replace('.', '/')}.py").is_file())
    engine = importlib.import_module(name).TorchEngine
    run, backward = engine.run, lightning.LightningModule.backward

    def recorded_run(self: Any, *args: Any) -> Any:
        trace = run(self, *args)
        found[f"trace {len(found)}"] = digest(*trace.spikes, *trace.membranes, trace.logits)
        return trace

    def recorded_backward(self: Any, loss: Any, *args: Any, **options: Any) -> None:
        found[f"loss {len(found)}"] = loss.item().hex()
        backward(self, loss, *args, **options)

    engine.run, lightning.LightningModule.backward = recorded_run, recorded_backward
    sys.argv = ["train.py", *overrides, f"hydra.run.dir={out.parent}/run"]
    runpy.run_path(str(tree / "train.py"), run_name="__main__")
    for path in sorted((out.parent / "run/checkpoints").glob("*.ckpt")):
        contents = torch.load(path, weights_only=True, map_location="cpu")
        for part in ("state_dict", "grid", "float"):
            found |= {f"{path.name} {part} {key}": digest(value) for key, value in contents.get(part, {}).items()}
    out.write_text(json.dumps(found), encoding="utf-8")


def measured(tree: Path, overrides: str) -> dict[str, str]:
    """What ``measure`` finds in a process of its own; one thread adds in the same order on a busy machine."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, __file__, "measure", str(tree), str(out), *overrides.split()]
        done = subprocess.run(
            command, cwd=folder, env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}, capture_output=True
        )
        if not out.is_file():
            sys.exit(f"train.py failed in {tree}\n{done.stderr.decode()}")
        return dict(json.loads(out.read_text(encoding="utf-8")))


def main(ref: str = "main", only: str | None = None) -> int:
    """Compare every setting; returns the exit code."""
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", tree, ref], check=True)
        try:
            for name in SETTINGS if only is None else [only]:
                here, there = (measured(place, f"{COMMON} {SETTINGS[name]}") for place in (ROOT, tree))
                differ = [key for key in here | there if here.get(key) != there.get(key)]
                verdict = f"{len(differ)} differ, first {differ[0]}" if differ else "equal"
                print(f"{name}: {verdict}, {len(here)} losses, traces and weights", flush=True)
                code |= bool(differ)
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)
    return code


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
    else:
        sys.exit(main(**dict(argument.split("=", 1) for argument in sys.argv[1:])))
