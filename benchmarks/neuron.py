"""Time of one neuron layer, forward and backward, in copies of its input tensor.

The unit is one plain copy of the tensor into existing memory, measured in the same run: contenders take turns, and the
median over rounds is shown. ``python benchmarks/neuron.py [--steps 4] [--rounds 7] [--small]``
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from qbsnn.neurons import LIF, QBLIF, ReLU
from qbsnn.training.allocator import keep_freed_memory
from qbsnn.training.host import host_info

SHAPE = (32, 64, 32, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4, help="time steps T")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, of which the median is taken")
    parser.add_argument("--small", action="store_true", help="a batch of 2 instead of 32, to try the script")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/neuron.json"))
    args = parser.parse_args()
    keep_freed_memory()  # for every contender
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = torch.randn(args.steps, *((2, *SHAPE[1:]) if args.small else SHAPE), device=device)
    target = torch.empty_like(x)
    contenders: dict[str, Callable[[], object]] = {"copy": lambda: target.copy_(x)}
    for name, neuron in contestants(device).items():
        contenders[f"{name}, inference"] = lambda neuron=neuron: infer(neuron, x)
        contenders[f"{name}, forward + backward"] = lambda neuron=neuron: step(neuron, x)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for warm in [True] + [False] * args.rounds:
        for name, call in contenders.items():
            seconds = clock(call, device)
            if not warm:
                times[name].append(seconds)
    unit = statistics.median(times["copy"])
    rows = {name: statistics.median(values) / unit for name, values in times.items()}
    host = host_info()
    print(f"{host.gpu or host.cpu}, {host.cores} cores, torch {host.versions['torch']}, {list(x.shape)} float32")
    print(f"one copy: {unit * 1e3:.2f} ms; everything below in copies, median of {args.rounds}")
    for name, ratio in rows.items():
        print(f"  {name:<48} {ratio:7.1f}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(
        json.dumps({"host": vars(host), "shape": list(x.shape), "seconds": times, "copies": rows}, indent=2),
        encoding="utf-8",
    )
    print(f"written to {args.out}")


def contestants(device: torch.device) -> dict[str, nn.Module]:
    neurons = {"ReLU": ReLU(), "QB-LIF, s_max = 8": QBLIF(s_max=8), "QB-LIF, s_max = 1": QBLIF(s_max=1), "LIF": LIF()}
    for name, neuron in (("QB-LIF, s_max = 8, compiled", QBLIF(s_max=8)), ("LIF, compiled", LIF())):
        neuron.compiled = True
        neurons[name] = neuron
    neurons |= peers()
    return {name: neuron.to(device) for name, neuron in neurons.items()}


def peers() -> dict[str, nn.Module]:
    """SpikingJelly's multi-step LIF, where the ``peers`` extra is installed."""
    try:
        from spikingjelly.activation_based.neuron import LIFNode
    except ImportError:
        print("SpikingJelly is not installed (pip install 'qbsnn[peers]'): its row is left out")
        return {}
    return {"SpikingJelly LIF, torch backend": LIFNode(tau=2.0, detach_reset=True, step_mode="m")}


def infer(neuron: nn.Module, x: Tensor) -> None:
    forget(neuron)
    with torch.no_grad():
        neuron(x)


def forget(neuron: nn.Module) -> None:
    """Clear the state that a peer keeps between calls."""
    if hasattr(neuron, "reset") and callable(neuron.reset):
        neuron.reset()


def step(neuron: nn.Module, x: Tensor) -> None:
    forget(neuron)
    leaf = x.detach().requires_grad_()
    neuron(leaf).backward(x)


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
