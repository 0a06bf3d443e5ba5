"""Images per second of the integer network on int8 kernels, beside floating-point inference of the same network.

Random weights, random images; batch norm statistics are those of the images, so that spikes are realistic: the mean
burst is shown. All take turns in one process on the same batch; medians over rounds.
``python -m benchmarks.inference [models=resnet19,vgg11] [s_max=8,1] [batch=8] [rounds=5] [small=true]``
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from benchmarks.contenders import bf16_supported
from benchmarks.harness import BenchmarkKeys, Goal, Result, device, interleaved, where
from qbsnn.cli import launch as cli
from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.engines import reference
from qbsnn.deploy.engines.int8_engine import Int8Engine
from qbsnn.models import SpikingNetwork, resnet, vgg
from qbsnn.models.execution import prepare
from qbsnn.neurons import QBLIF, ReLU
from qbsnn.training.devices.allocator import keep_freed_memory
from qbsnn.training.devices.host import host_info

FAMILIES = {"resnet19": resnet, "vgg11": vgg, "vgg16": vgg}
BOUNDS = {"onednn vnni": "≥ 3", "onednn avx2": "≥ 1.3"}
"""int8 over own fp32 inference in images/s, by the unit that multiplies."""
INT8, FP32 = "int8 kernels", "own fp32"


class InferenceKeys(BenchmarkKeys):
    """The keys of this benchmark."""

    models: list[Literal["resnet19", "vgg11", "vgg16"]] = Field(
        default=["resnet19", "vgg11"], description="networks: resnet19, vgg11, vgg16"
    )
    s_max: list[PositiveInt] = Field(default=[8, 1], description="largest bursts")
    steps: int = Field(default=4, ge=1, description="time steps T")
    batch: int = Field(default=8, ge=1, description="images")
    width: float = Field(default=1.0, gt=0, description="multiplies every number of channels")


def main(args: InferenceKeys) -> None:
    if args.small:
        args = args.model_copy(update={"width": 0.0625, "batch": 2, "rounds": 1, "s_max": args.s_max[:1]})
    keep_freed_memory()  # for every contender
    settings = {name: getattr(args, name) for name in ("models", "s_max", "steps", "batch", "width", "rounds")}
    result = Result("inference", {**settings, "threads": torch.get_num_threads()}, args.small)
    print(f"{where()}, {torch.get_num_threads()} threads, {' '.join(host_info().isa)}", flush=True)
    for name in args.models:
        for s_max in args.s_max:
            compare(result, name, s_max, args)
    result.write(args.out)


@torch.no_grad()
def compare(result: Result, name: str, s_max: int, args: InferenceKeys) -> None:
    """Time one network in all forms."""
    torch.manual_seed(0)
    x = torch.rand(args.batch, 3, 32, 32, device=device())
    network = build(name, lambda: QBLIF(s_max=s_max), args, x)
    twin = build(name, ReLU, args, x)
    absorbed = absorb(network)
    engine = Int8Engine(quantize(absorbed), device(), compiled=True)
    burst, unequal = check(engine, x[:2])
    for each in (network, absorbed):
        prepare(each, "block")
    repeated = x.repeat(args.steps, 1, 1, 1)
    contenders: dict[str, Callable[[], object]] = {
        FP32: lambda: network(x),
        INT8: lambda: engine.predict(x),
        "own fp32, absorbed": lambda: absorbed(x),
        f"ReLU twin fp32, {args.steps} passes": lambda: twin(repeated),
        "ReLU twin fp32, one pass": lambda: twin(x),
    }
    if bf16_supported(device(), host_info().isa):
        contenders["own bf16 autocast"] = lambda: half(network, x)
    times = interleaved(contenders, args.rounds)
    table = (
        f"Inference, {name}, s_max = {s_max}, batch of {args.batch}: int8 on {engine.unit}, mean burst {burst:.2f}, "
        f"{unequal} values not exact"
    )
    fp32 = statistics.median(times[FP32])
    for contender, seconds in times.items():
        bound = BOUNDS.get(engine.unit) if contender == INT8 and s_max == args.s_max[0] else None
        goal = Goal(f"int8 inference ÷ own fp32 inference, images/s, {name}", bound) if bound else None
        rates = [args.batch / value for value in seconds]
        result.add(table, contender, rates, "images/s", ratio=fp32 / statistics.median(seconds), goal=goal)
    for layer, text in engine.kernels().items():
        if text.startswith("exact float"):
            result.skip(f"int8 for {layer} of {name}, s_max = {s_max}", text)


def build(name: str, neuron: Callable[[], nn.Module], args: InferenceKeys, x: Tensor) -> SpikingNetwork:
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


if __name__ == "__main__":
    cli.script(main, InferenceKeys, __doc__)
