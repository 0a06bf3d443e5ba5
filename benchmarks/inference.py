"""Latency and throughput of the integer network on int8 kernels, beside float networks, peers and onnxruntime.

Random weights, random images; batch norm statistics are those of the images, so that spikes are realistic: the mean
burst is shown. All take turns in one process on the same batch; medians over rounds. The first batch is timed with each
number of threads, the others with the largest. For the network of the digits the exported C is timed too.
``python -m benchmarks.inference [models=resnet19,vgg9,digits] [s_max=8,1] [batch=1,64] [rounds=5] [small=true]``
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from benchmarks import onnx_twin, peers
from benchmarks.c_latency import seconds as seconds_in_c
from benchmarks.contenders import KITS, TWIN
from benchmarks.harness import BenchmarkKeys, Goal, Result, Unavailable, device, first_line, where
from benchmarks.rounds import timed
from qbsnn.cli import launch as cli
from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.engines import reference
from qbsnn.deploy.engines.c_engine import VECTORISED
from qbsnn.deploy.engines.int8_engine import Int8Engine
from qbsnn.functional.exact import full_float32
from qbsnn.models import SpikingNetwork, resnet, vgg
from qbsnn.models.execution import prepare
from qbsnn.neurons import QBLIF, ReLU
from qbsnn.training.devices.allocator import keep_freed_memory
from qbsnn.training.devices.host import host_info
from qbsnn.training.devices.precision import computes_bfloat16


class Net(NamedTuple):
    """A network by its function, the name of its table, the shape of an image and its width."""

    family: Callable[..., SpikingNetwork]
    table: str
    in_shape: tuple[int, int, int] = (3, 32, 32)
    width: float = 1.0


NETWORKS = {
    "resnet19": Net(resnet, "resnet19"),
    "vgg9": Net(vgg, "vgg9"),
    "vgg11": Net(vgg, "vgg11"),
    "digits": Net(vgg, "vgg5", (1, 8, 8), 0.5),
}
BOUNDS = {"onednn vnni": "≥ 3", "onednn avx2": "≥ 1.3"}
"""int8 over own fp32 inference in images/s, by the unit that multiplies."""
INT8, FP32, ONNX = "int8 kernels", "own fp32", "onnxruntime fp32, ReLU twin, one pass"
C_BUILDS = {"exported C, -O2": ("-O2",), f"exported C, {' '.join(VECTORISED)}": VECTORISED}


class InferenceKeys(BenchmarkKeys):
    """The keys of this benchmark."""

    models: list[Literal["resnet19", "vgg9", "vgg11", "digits"]] = Field(
        default=["resnet19", "vgg9", "digits"], description="networks: resnet19, vgg9, vgg11, digits"
    )
    s_max: list[PositiveInt] = Field(default=[8], description="largest bursts")
    steps: int = Field(default=4, ge=1, description="time steps T")
    batch: list[PositiveInt] = Field(default=[1, 64], description="images of a batch")
    threads: list[PositiveInt] = Field(default=[1, 2], description="numbers of threads")
    width: float = Field(default=1.0, gt=0, description="multiplies every number of channels")


def main(args: InferenceKeys) -> None:
    if args.small:
        tiny = {"width": 0.0625, "batch": [1, 2], "threads": [1], "rounds": 1, "s_max": args.s_max[:1]}
        args = args.model_copy(update=tiny)
    keep_freed_memory()  # for every contender
    settings = {name: getattr(args, name) for name in ("models", "s_max", "steps", "batch", "threads", "rounds")}
    result = Result("inference", settings, args.small)
    print(f"{where()}, {' '.join(host_info().isa)}", flush=True)
    with result.written(args.out):
        for name in args.models:
            for s_max in args.s_max:
                forms = Forms(result, name, s_max, args)
                for batch in args.batch:
                    for threads in args.threads if batch == args.batch[0] else [max(args.threads)]:
                        torch.set_num_threads(threads)
                        compare(result, forms, batch, threads, args)
                if name == "digits":
                    compare_c(result, forms, args)


class Forms:
    """One network in all its forms, in evaluation mode."""

    @torch.no_grad()
    def __init__(self, result: Result, name: str, s_max: int, args: InferenceKeys) -> None:
        torch.manual_seed(0)
        self.name, self.s_max, net = name, s_max, NETWORKS[name]
        self.x = torch.rand(max(args.batch), *net.in_shape, device=device())
        few = self.x[:8] if len(self.x) > 8 else self.x  # for the statistics of the norms
        self.network = build(net, lambda: QBLIF(s_max=s_max), args, few)
        self.twin = build(net, ReLU, args, few)
        self.absorbed = absorb(self.network)
        self.engine = Int8Engine(quantize(self.absorbed), device(), compiled=True)
        self.burst, self.unequal = check(self.engine, few[:2])
        for each in (self.network, self.absorbed):
            prepare(each, "block")
        self.peers: dict[str, nn.Module] = {}
        for peer in ("SpikingJelly", "snnTorch", TWIN):
            try:
                kit = peers.relu() if peer == TWIN else KITS[peer]()
                made = peers.build(kit, net.table, args.steps, net.in_shape, 10, net.width * args.width)
                made.to(self.x.device).train()(torch.cat([few, few]))
                self.peers[peer] = made.eval()
            except Exception as why:  # a peer may raise anything
                result.skip(peer, first_line(why))
        for layer, text in self.engine.kernels().items():
            if text.startswith("exact float"):
                result.skip(f"int8 for {layer} of {name}, s_max = {s_max}", text)

    def contenders(self, result: Result, batch: int, threads: int, steps: int) -> dict[str, Callable[[], object]]:
        """Every form on the same images."""
        x = self.x[:batch].contiguous()
        repeated = x.repeat(steps, 1, 1, 1)
        found: dict[str, Callable[[], object]] = {
            FP32: lambda: self.network(x),
            INT8: lambda: self.engine.predict(x),
            "own fp32, absorbed": lambda: self.absorbed(x),
            f"ReLU twin fp32, {steps} passes": lambda: self.twin(repeated),
            "ReLU twin fp32, one pass": lambda: self.twin(x),
        }
        if computes_bfloat16(device().type, host_info().isa):
            found["own bf16 autocast"] = lambda: half(self.network, x)
        found |= {f"{peer} LIF fp32": partial(network, x) for peer, network in self.peers.items() if peer != TWIN}
        if x.device.type == "cpu":
            for title, int8 in ((ONNX, False), ("onnxruntime int8, ReLU twin, one pass", True)):
                try:
                    found[title] = onnx_twin.runner(self.peers[TWIN], x, threads, int8)
                except Exception as why:
                    result.skip(title, first_line(why))
        return found


@torch.no_grad()
def compare(result: Result, forms: Forms, batch: int, threads: int, args: InferenceKeys) -> None:
    """Time all forms of one network on batches of one size: the latency of one image, the throughput of more."""
    with full_float32(), timed(result, forms.contenders(result, batch, threads, args.steps), args.rounds) as times:
        add_rows(result, forms, times, batch, threads, args)


def add_rows(
    result: Result, forms: Forms, times: dict[str, list[float]], batch: int, threads: int, args: InferenceKeys
) -> None:
    """The rows of one batch size; [] stands for a contender that failed."""
    name, first = forms.name, forms.s_max == args.s_max[0]
    what = f"{name}, s_max = {forms.s_max}, batch of {batch}, {threads} threads"
    facts = f"int8 on {forms.engine.unit}, mean burst {forms.burst:.2f}, {forms.unequal} values not exact"
    if batch == 1:
        for contender, seconds in times.items():
            wanted = contender == INT8 and name == "digits" and threads == max(args.threads) and first
            goal = Goal("latency of one digit in Python, ms", "≤ 2") if wanted else None
            if seconds or goal:
                result.add(f"Latency, {what}: {facts}", contender, [1e3 * s for s in seconds], "ms", goal=goal)
        return
    table = f"Throughput, {what}: {facts}"
    judged = first and batch == max(args.batch) and name != "digits"
    for contender, seconds in times.items():
        bound = BOUNDS.get(forms.engine.unit) if contender == INT8 and judged else None
        goal = Goal(f"int8 inference ÷ own fp32 inference, images/s, {name}", bound) if bound else None
        ratio = quotient(times[FP32], seconds)
        if ratio is not None or goal:
            rates = [] if ratio is None else [batch / value for value in seconds]
            result.add(table, contender, rates, "images/s", ratio=ratio, goal=goal)
    if times.get(ONNX):
        rates = [batch * args.steps / value for value in times[INT8]]
        goal = Goal(f"int8 inference ÷ onnxruntime fp32 ReLU twin, per time step, {name}", "≥ 1.5") if judged else None
        ratio = quotient(times[ONNX], times[INT8], args.steps)
        result.add(f"{table}; ÷ {ONNX}", f"{INT8}, time steps", rates, "steps/s", ratio=ratio, goal=goal)


def quotient(above: list[float], below: list[float], factor: float = 1.0) -> float | None:
    """Of two medians; None where a contender failed."""
    return factor * statistics.median(above) / statistics.median(below) if above and below else None


@torch.no_grad()
def compare_c(result: Result, forms: Forms, args: InferenceKeys) -> None:
    """Time the exported C on one image, one thread."""
    try:
        times = seconds_in_c(forms.engine.net, forms.engine.quantized.current(forms.x[:1]), args.rounds, C_BUILDS)
    except Unavailable as why:
        result.skip("exported C", why)
        return
    for build, seconds in times.items():
        goal = Goal("latency of one digit in C, ms", "≤ 0.2") if C_BUILDS[build] == VECTORISED else None
        table = f"Latency, {forms.name}, s_max = {forms.s_max}, one image in C"
        result.add(table, build, [1e3 * s for s in seconds], "ms", goal=goal)


def build(net: Net, neuron: Callable[[], nn.Module], args: InferenceKeys, x: Tensor) -> SpikingNetwork:
    """A network in evaluation mode whose norms have the statistics of ``x``."""
    options = {"name": net.table, "T": args.steps, "width": net.width * args.width}
    channels = net.in_shape[0]
    network = net.family(neuron, net.in_shape, 10, (0.5,) * channels, (0.25,) * channels, **options).to(x.device)
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
