"""Every neuron's fast path against a scalar loop in float64: outputs, and the gradient by every input and parameter."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qbsnn import neurons
from qbsnn.functional import SURROGATES
from qbsnn.neurons import (
    IF,
    ILIF,
    LIF,
    PLIF,
    QATQBLIF,
    QBLIF,
    AdaptiveQB,
    BurstLIF,
    MultiCompartment,
    QuantReLU,
    ReLU,
    TernaryBurst,
)
from tests.neurons.scalar import (
    SCALES,
    Dual,
    absolute,
    dual,
    sigmoid,
    simulate,
    simulate_adaptive,
    simulate_two_compartments,
)

D = torch.float64
ALPHA = {"relsg_et": 0.5, "arctan": 2.0, "rectangular": 1.0, "triangular": 1.0, "sigmoid": 4.0, "fast_sigmoid": 25.0,
         "super_spike": 1.0, "straight_through": None}  # fmt: skip
LIF_RESET = {("soft", True): "detach", ("soft", False): "full", ("hard", True): "hard", ("hard", False): "hard_full"}


def compare(neuron: torch.nn.Module, x: torch.Tensor, oracle: Callable, parameters: dict[str, torch.Tensor]) -> None:
    """Outputs and all gradients of ``neuron`` for ``x [T, N]`` against ``oracle(x, values)``, one by one."""
    neuron = neuron.double()
    x = x.clone().requires_grad_()
    out = neuron(x[:, None])[:, 0]
    weights = torch.linspace(0.5, 1.5, out.numel(), dtype=D).view_as(out)
    flat = [x, *parameters.values()]
    grads = torch.autograd.grad((out * weights).sum(), flat, allow_unused=True)
    plain = [[float(v) for v in row] for row in x.detach()]
    values = {name: [float(v) for v in p.detach().flatten()] for name, p in parameters.items()}

    def run(seed: tuple[str, int, int] | None) -> list[list[Dual]]:
        inputs = [[Dual(v, float(seed == ("", t, n))) for n, v in enumerate(row)] for t, row in enumerate(plain)]
        known = {k: [Dual(v, float(seed == (k, 0, j))) for j, v in enumerate(vs)] for k, vs in values.items()}
        return oracle(inputs, known)

    # Counts are equal exactly; a graded output may differ in the last bits of a learned Δ.
    assert [s.v for row in run(None) for s in row] == pytest.approx(out.detach().flatten().tolist(), rel=1e-14, abs=0)
    variables = [("", t, n) for t in range(x.shape[0]) for n in range(x.shape[1])]
    variables += [(name, 0, j) for name, vs in values.items() for j in range(len(vs))]
    for variable in variables:
        derivative = sum(
            w * s.d
            for ws, row in zip(weights.tolist(), run(variable), strict=True)
            for w, s in zip(ws, row, strict=True)
        )
        name, t, n = variable
        grad = grads[0] if not name else grads[1 + list(parameters).index(name)]
        found = 0.0 if grad is None else float(grad[t, n] if not name else grad.flatten()[n])
        assert found == pytest.approx(derivative, rel=1e-9, abs=1e-12), variable


@st.composite
def currents(draw, neurons=2):
    steps = draw(st.integers(1, 16))
    seed = draw(st.integers(0, 2**31))
    x = torch.randn(steps, neurons, generator=torch.Generator().manual_seed(seed), dtype=D) * 3
    return x + 0.5


taus = st.sampled_from([1.0, 4 / 3, 2.0, 2.7, 4.0, 17.0, float("inf")])
deltas = st.floats(0.05, 3)


def options(neuron_arguments: dict) -> dict:
    """The oracle's form of common arguments."""
    name = neuron_arguments.get("surrogate", "relsg_et")
    alpha = neuron_arguments.get("alpha")
    return {"name": name, "alpha": ALPHA[name] if alpha is None else alpha,
            "beta": neuron_arguments.get("beta", 3.0), "tail": neuron_arguments.get("tail", "document")}  # fmt: skip


many = settings(max_examples=60, deadline=None, derandomize=True)
few = settings(max_examples=25, deadline=None, derandomize=True)


@many
@given(data=st.data(), x=currents())
def test_qb_lif_in_all_its_variants(data, x):
    draw = data.draw
    name = draw(st.sampled_from(list(SURROGATES)))
    arguments = {
        "s_max": draw(st.integers(1, 15)),
        "tau": draw(taus),
        "delta": draw(deltas),
        "parametrisation": draw(st.sampled_from(list(SCALES))),
        "output": draw(st.sampled_from(["counts", "graded"])),
        "rounding": draw(st.sampled_from(["floor", "round", "to_zero"])),
        "reset": draw(st.sampled_from(["detach", "detach_s", "full"])),
        "surrogate": name,
        "alpha": draw(st.sampled_from([None, 0.3, 0.7])),
        "beta": draw(st.sampled_from([2.0, 5.0])),
        "tail": draw(st.sampled_from(["document", "continuous"])),
        "lsq": draw(st.booleans()),
        "granularity": draw(st.sampled_from(["layer", "channel"])),
    }
    learn_tau = draw(st.booleans()) and 1 < arguments["tau"] < float("inf")
    neuron = QBLIF(**arguments, learn_tau=learn_tau)
    neuron.size_to((x.shape[1],))
    shares = x.shape[1] if arguments["granularity"] == "layer" else 1  # neurons that share a scale
    factor = (shares * arguments["s_max"]) ** -0.5 if arguments["lsq"] else 1.0

    def alike(inputs, known, raw):
        return simulate(
            inputs,
            delta=SCALES[arguments["parametrisation"]](Dual(raw.v, raw.d * factor)),
            decay=1 - sigmoid(known["w"][0]) if learn_tau else dual(1 - 1 / arguments["tau"]),
            s_max=arguments["s_max"],
            rounding=arguments["rounding"],
            reset=arguments["reset"],
            graded=arguments["output"] == "graded",
            surrogate=options(arguments),
        )

    def oracle(inputs, known):
        groups = [[[row[n]] for row in inputs] for n in range(x.shape[1])] if shares == 1 else [inputs]
        found = [alike(group, known, raw) for group, raw in zip(groups, known["raw"], strict=True)]
        return [[value for row in rows for value in row] for rows in zip(*found, strict=True)]

    neuron.double()
    if shares == 1:
        neuron.delta.raw.data *= torch.linspace(0.7, 1.3, x.shape[1], dtype=D)
    parameters = {"raw": neuron.delta.raw} | ({"w": neuron.w} if learn_tau else {})
    compare(neuron, x, oracle, parameters)


@few
@given(data=st.data(), x=currents())
def test_lif_plif_if(data, x):
    kind = data.draw(st.sampled_from([LIF, PLIF, IF]))
    reset = data.draw(st.sampled_from(["soft", "hard"]))
    detach = data.draw(st.booleans())
    name = data.draw(st.sampled_from(list(SURROGATES)))
    tau, v_th = data.draw(st.floats(1.05, 20)), data.draw(deltas)
    arguments = {"v_th": v_th, "reset": reset, "detach_reset": detach, "surrogate": name}
    neuron = kind(**arguments, **({} if kind is IF else {"tau": tau})).double()
    threshold = float(neuron.v_th)

    def oracle(inputs, known):
        decay = {LIF: lambda: dual(1 - 1 / tau), IF: lambda: dual(1.0), PLIF: lambda: 1 - sigmoid(known["w"][0])}[
            kind
        ]()
        return simulate(inputs, delta=dual(threshold), decay=decay, s_max=1, rounding="floor",
                        reset=LIF_RESET[reset, detach], graded=False, surrogate=options(arguments))  # fmt: skip

    compare(neuron, x, oracle, {"w": neuron.w} if kind is PLIF else {})


@few
@given(data=st.data(), x=currents(), s_max=st.integers(1, 15), delta=deltas, tau=taus)
def test_the_neurons_that_are_settings_of_qb_lif(data, x, s_max, delta, tau):
    kind = data.draw(st.sampled_from([BurstLIF, ILIF, TernaryBurst, QATQBLIF]))
    neuron = kind(s_max=s_max, delta=delta, tau=tau).double()
    rounding = {ILIF: "round", TernaryBurst: "to_zero"}.get(kind, "floor")
    learned = kind in (TernaryBurst, QATQBLIF)
    fixed = float(neuron.delta.raw.detach())

    def oracle(inputs, known):
        return simulate(
            inputs,
            delta=absolute(known["raw"][0]) if learned else dual(fixed),
            decay=dual(1 - 1 / tau),
            s_max=s_max,
            rounding=rounding,
            reset="full" if kind is ILIF else "detach",
            graded=False,
            surrogate=options({"surrogate": "rectangular"} if kind is ILIF else {}),
        )

    compare(neuron, x, oracle, {"raw": neuron.delta.raw} if learned else {})


@few
@given(x=currents(), bits=st.integers(1, 4), delta=deltas)
def test_quant_relu(x, bits, delta):
    neuron = QuantReLU(bits=bits, delta=delta).double()
    neuron.size_to((x.shape[1],))
    factor = (x.shape[1] * (2**bits - 1)) ** -0.5

    def oracle(inputs, known):
        raw = Dual(known["raw"][0].v, known["raw"][0].d * factor)
        return simulate(inputs, delta=absolute(raw), decay=dual(0.0), s_max=2**bits - 1, rounding="round",
                        reset="detach", graded=True, surrogate=options({"surrogate": "rectangular"}))  # fmt: skip

    compare(neuron, x, oracle, {"raw": neuron.delta.raw})


@few
@given(x=currents(neurons=3), s_max=st.integers(1, 15), delta=deltas, tau=taus, seed=st.integers(0, 99),
       graded=st.booleans())  # fmt: skip
def test_adaptive_qb(graded, x, s_max, delta, tau, seed):
    torch.manual_seed(seed)
    output = "graded" if graded else "counts"
    neuron = AdaptiveQB(s_max=s_max, delta=delta, tau=tau, hidden=3, reset="full", output=output).double()
    names = {"w1": "0.weight", "b1": "0.bias", "w2": "2.weight", "b2": "2.bias"}

    def oracle(inputs, known):
        w1 = known["w1"]
        net = (list(zip(w1[::2], w1[1::2], strict=True)), known["b1"], [known["w2"]], known["b2"])
        return simulate_adaptive(inputs, delta=absolute(known["raw"][0]), decay=dual(1 - 1 / tau), s_max=s_max,
                                 reset="full", graded=graded, surrogate=options({}), net=net)  # fmt: skip

    net = {name: neuron.cap_net.get_parameter(place) for name, place in names.items()}
    compare(neuron, x, oracle, {"raw": neuron.delta.raw} | net)


@few
@given(data=st.data(), x=currents(), s_max=st.integers(1, 15), delta=deltas)
def test_multi_compartment(data, x, s_max, delta):
    reset = data.draw(st.sampled_from(["detach", "detach_s", "full"]))
    neuron = MultiCompartment(s_max=s_max, delta=delta, reset=reset, gamma=0.3).double()
    neuron.coupling.data = torch.tensor(data.draw(st.tuples(st.floats(-2, 2), st.floats(-2, 2))), dtype=D)

    def oracle(inputs, known):
        delta = absolute(known["raw"][0])
        return simulate_two_compartments(inputs, delta=delta, couplings=known["coupling"], gamma=0.3, s_max=s_max,
                                         reset=reset, graded=True, surrogate=options({}))  # fmt: skip

    compare(neuron, x, oracle, {"raw": neuron.delta.raw, "coupling": neuron.coupling})


def test_relu():
    x = torch.tensor([[-1.0, 0.5], [2.0, -0.1]], dtype=D)
    compare(ReLU(), x, lambda inputs, known: [[i if i.v > 0 else Dual(0.0) for i in row] for row in inputs], {})


def test_no_neuron_is_left_out():
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    abstract = {"Neuron", "SpikingNeuron", "LeakyIntegrator"}  # the last is tested by its example
    assert set(neurons.__all__) - abstract - {"Operations"} <= used
