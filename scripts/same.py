"""Show that a change of the code changes no number: ``make same REF=main``, or ``python scripts/same.py ref=main``.

Trains 20 steps of five settings in the work tree and at another commit and compares the loss of every step, all
weights, and spikes, membranes and logits of the integer engine, bit for bit; exits with 1 if any differ.
"""

import hashlib
import importlib
import json
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

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


def digest(*arrays: Any) -> str:
    """A hash of the types, shapes and values of arrays or tensors."""
    parts = (f"{array.dtype}{array.shape}".encode() + array.tobytes() for array in map(np.asarray, arrays))
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def measure(tree: Path, out: Path, overrides: list[str]) -> None:
    """Run ``train.py`` of a tree in this process; write a digest of everything compared, by name."""
    import torch
    from lightning import LightningModule

    now = (tree / "qbsnn/deploy/engines").is_dir()
    engine = importlib.import_module("qbsnn.deploy.engines.torch_engine" if now else "qbsnn.deploy.engine").TorchEngine
    found: dict[str, str] = {}
    run, backward = engine.run, LightningModule.backward

    def recorded_run(self: Any, *args: Any) -> Any:
        trace = run(self, *args)
        found[f"trace {len(found)}"] = digest(*trace.spikes, *trace.membranes, trace.logits)
        return trace

    def recorded_backward(self: Any, loss: Any, *args: Any, **options: Any) -> None:
        found[f"loss {len(found)}"] = loss.item().hex()
        backward(self, loss, *args, **options)

    engine.run, LightningModule.backward = recorded_run, recorded_backward  # type: ignore[method-assign]
    sys.argv = ["train.py", *overrides, f"hydra.run.dir={out.parent}/run"]
    runpy.run_path(str(tree / "train.py"), run_name="__main__")
    for path in sorted((out.parent / "run/checkpoints").glob("*.ckpt")):
        contents = torch.load(path, weights_only=True, map_location="cpu")
        for part in ("state_dict", "grid", "float"):
            found |= {f"{path.name} {part} {key}": digest(value) for key, value in contents.get(part, {}).items()}
    out.write_text(json.dumps(found), encoding="utf-8")


def measured(tree: Path, name: str) -> dict[str, str]:
    """What ``measure`` finds in a process of its own; one thread adds in the same order on a busy machine."""
    with tempfile.TemporaryDirectory() as folder:
        out, start = Path(folder, "found.json"), ["env", f"PYTHONPATH={tree}", "OMP_NUM_THREADS=1", sys.executable]
        command = [*start, __file__, "measure", str(tree), str(out), *COMMON.split(), *SETTINGS[name].split()]
        done = subprocess.run(command, cwd=folder, capture_output=True)
        if not out.is_file():
            sys.exit(f"train.py failed in {tree}\n{done.stderr.decode()}")
        return dict(json.loads(out.read_text(encoding="utf-8")))


def main(ref: str) -> None:
    """Compare every setting; exit with 1 where any differs."""
    worktree, code = ["git", "-C", str(ROOT), "worktree"], 0
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*worktree, "add", "--quiet", "--detach", f"{folder}/tree", ref], check=True)
        try:
            for name in SETTINGS:
                here, there = measured(ROOT, name), measured(Path(folder, "tree"), name)
                differ = [key for key in here | there if here.get(key) != there.get(key)]
                kinds = sorted({key.split(".")[-1] for key in differ})
                print(f"{name}: {len(differ)} of {len(here)} numbers differ", *kinds[:5], flush=True)
                code |= bool(differ)
        finally:
            subprocess.run([*worktree, "remove", "--force", f"{folder}/tree"], check=True)
    sys.exit(code)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:  # with the qbsnn of another commit
        measure(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
        sys.exit()
    from qbsnn.cli import keys, launch

    launch.script(lambda given: main(given.ref), keys.ComparisonKeys, __doc__)
