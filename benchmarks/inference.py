"""Images per second of the integer network on int8 kernels, beside floating-point inference of the same network.

Random weights, random images; batch norm statistics are those of the images, so that spikes are realistic: the mean
burst is shown. Contenders take turns in one process on the same batch, and the median over rounds is shown.
``python benchmarks/inference.py [--models resnet19 vgg11] [--s-max 8 1] [--batch 8] [--rounds 5] [--small]``
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from qbsnn.deploy import reference
from qbsnn.deploy.absorb import absorb
from qbsnn.deploy.int8_engine import Int8Engine
from qbsnn.deploy.quantize import quantize
from qbsnn.models import SpikingNetwork, resnet, vgg
from qbsnn.models.execution import prepare
from qbsnn.neurons import QBLIF, ReLU
from qbsnn.training.allocator import keep_freed_memory
from qbsnn.training.host import host_info

FAMILIES = {"resnet19": resnet, "vgg11": vgg, "vgg16": vgg}
GOALS = {"onednn vnni": 3.0, "onednn avx2": 1.3}
"""int8 over own fp32 inference, by the unit that multiplies."""
INT8, FP32 = "int8 kernels", "own fp32, compiled neurons"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=FAMILIES, default=["resnet19", "vgg11"])
    parser.add_argument("--s-max", nargs="+", type=int, default=[8, 1])
    parser.add_argument("--steps", type=int, default=4, help="time steps T")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median is taken")
    parser.add_argument("--width", type=float, default=1.0, help="multiplies every number of channels")
    parser.add_argument("--small", action="store_true", help="narrow networks, 2 images, 1 round: to try the script")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/inference.json"))
    args = parser.parse_args()
    if args.small:
        args.width, args.batch, args.rounds, args.s_max = 0.0625, 2, 1, args.s_max[:1]
    keep_freed_memory()  # for every contender
    host = host_info()
    print(f"{host.gpu or host.cpu}, {host.cores} cores, {torch.get_num_threads()} threads, {' '.join(host.isa)}")
    print(f"torch {host.versions['torch']}, T = {args.steps}, batches of {args.batch} images of 3x32x32")
    rows = [compare(name, s_max, args) for name in args.models for s_max in args.s_max]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(
        json.dumps({"host": vars(host), "threads": torch.get_num_threads(), "rows": rows}, indent=2), encoding="utf-8"
    )
    print(f"written to {args.out}")


@torch.no_grad()
def compare(name: str, s_max: int, args: argparse.Namespace) -> dict:
    """Time one network in all forms; return the row of the file."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = torch.rand(args.batch, 3, 32, 32, device=device)
    network = build(name, lambda: QBLIF(s_max=s_max), args, x)
    twin = build(name, ReLU, args, x)
    absorbed = absorb(network)
    quantized = quantize(absorbed)
    engine = Int8Engine(quantized, device, compiled=True)
    burst, unequal = check(engine, x[:2])
    for each in (network, absorbed):
        prepare(each, "block")
    repeated = x.repeat(args.steps, 1, 1, 1)
    contenders: dict[str, Callable[[], object]] = {
        INT8: lambda: engine.predict(x),
        FP32: lambda: network(x),
        "own fp32, absorbed": lambda: absorbed(x),
        f"ReLU twin fp32, {args.steps} passes": lambda: twin(repeated),
        "ReLU twin fp32, one pass": lambda: twin(x),
    }
    if device.type == "cuda" or {"avx512_bf16", "amx_bf16"} & set(host_info().isa):
        contenders["own bf16 autocast"] = lambda: half(network, x)
    times: dict[str, list[float]] = {contender: [] for contender in contenders}
    for warm in [True] + [False] * args.rounds:
        for contender, call in contenders.items():
            seconds = clock(call, device)
            if not warm:
                times[contender].append(seconds)
    rates = {contender: args.batch / statistics.median(values) for contender, values in times.items()}
    goal = GOALS.get(engine.unit)
    print(f"\n{name}, s_max = {s_max}: int8 on {engine.unit}, mean burst {burst:.2f}, {unequal} values not exact")
    print(f"  {'':<32} {'images/s':>9} {'of own fp32':>12}")
    for contender, rate in rates.items():
        beside = f"   goal {goal:g}" if contender == INT8 and goal else ""
        print(f"  {contender:<32} {rate:9.2f} {rate / rates[FP32]:12.2f}{beside}")
    slow = {layer: text for layer, text in engine.kernels().items() if text.startswith("exact float")}
    for layer, text in slow.items():
        print(f"  {layer}: {text}")
    return {
        "model": name,
        "s_max": s_max,
        "steps": args.steps,
        "batch": args.batch,
        "unit": engine.unit,
        "kernels": engine.kernels(),
        "mean_burst": burst,
        "not_exact": unequal,
        "seconds": times,
        "images_per_second": rates,
        "ratio": rates[INT8] / rates[FP32],
        "goal": goal,
    }


def build(name: str, neuron: Callable[[], nn.Module], args: argparse.Namespace, x: Tensor) -> SpikingNetwork:
    """A network in evaluation mode whose norms have the statistics of ``x``."""
    options = {"name": name, "T": args.steps, "width": args.width}
    network = FAMILIES[name](neuron, x.shape[1:], 10, (0.5,) * 3, (0.25,) * 3, **options).to(x.device)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.momentum = None
    network.train()(x)
    return network.eval()


def check(engine: Int8Engine, pixels: Tensor) -> tuple[float, int]:
    """Mean burst, and how many logits and spikes differ from the int64 engine's."""
    current = engine.quantized.current(pixels)
    found, expected = engine.run(current), reference.run(engine.net, current)
    pairs = [(found.logits, expected.logits), *zip(found.spikes, expected.spikes, strict=True)]
    pairs.append((engine.logits(torch.from_numpy(current)).cpu().numpy(), expected.logits))
    unequal = sum(int((np.asarray(a, np.int64) != b).sum()) for a, b in pairs)
    return sum(int(s.sum()) for s in found.spikes) / sum(s.size for s in found.spikes), unequal


def half(network: nn.Module, x: Tensor) -> None:
    with torch.autocast(x.device.type, torch.bfloat16):
        network(x)


def clock(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
