"""The chip's leak beside SynSense's own simulator, which computes what Xylo does: spikes and membranes are equal.

``xylosim.json`` holds what xylosim 0.1.3 computed; ``python -m tests.deploy.engines.test_xylosim`` writes it again
where that package is installed. Synaptic currents are given, since the project's neuron has no synaptic filter.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from qbsnn.deploy.engines import neuron_step, reference, scalar
from qbsnn.deploy.format.network import Leak

RECORDED = Path(__file__).with_name("xylosim.json")
SHIFTS, CAP, LARGEST = (1, 2, 3, 5), 31, 2**15 - 1
CASES = [(shift, left) for shift in SHIFTS for left in (0, 4)]


def simulated(shift: int, weights_shift: int, seed: int) -> dict[str, object]:
    """Forty steps of five neurons: currents, membranes after the reset and spikes, ``[40, 5]`` each."""
    from xylosim.v1 import XyloLayer, XyloSynapse  # type: ignore[import-not-found]

    rng = np.random.default_rng(seed)
    thetas = [50, 90, 200, 700, 3000]
    kinds = [[XyloSynapse(j, 0, int(rng.integers(-128, 128))) for j in range(5)] for _ in range(4)]
    none: list[list[XyloSynapse]] = [[] for _ in range(5)]
    aliases: list[list[int]] = [[] for _ in range(5)]  # the simulator does not hold its lists: they stay in variables
    layer = XyloLayer(
        kinds, none, none, aliases, thetas, [], weights_shift, 0, 0, [shift] * 5, [], [[1, 1]] * 5, [], "test"
    )
    layer.evolve(rng.integers(0, 8, (40, 4)).tolist())
    found = {
        "current": layer.rec_i_syn,
        "membrane": layer.rec_v_mem,
        "spikes": np.transpose(layer.rec_recurrent_spikes),
    }
    return {"shift": shift, "theta": thetas} | {name: np.transpose(value).tolist() for name, value in found.items()}


def recorded() -> list[dict[str, list[list[int]]]]:
    return json.loads(RECORDED.read_text(encoding="utf-8"))


LEAKED = {
    "reference": reference.leaked,
    "tensors": lambda leak, v: neuron_step.leaked(leak, torch.from_numpy(v)).numpy(),
    "floating point": lambda leak, v: neuron_step.leaked(leak, torch.from_numpy(v).double()).numpy().astype(np.int64),
    "scalars": lambda leak, v: np.array([scalar.leaked(leak, int(x)) for x in v]),
}


@pytest.mark.parametrize("engine", LEAKED)
def test_spikes_and_membranes_are_those_of_the_simulator(engine):
    for run in recorded():
        theta = np.array(run["theta"])
        v = np.zeros(5, np.int64)
        for current, membrane, spikes in zip(run["current"], run["membrane"], run["spikes"], strict=True):
            v = np.clip(LEAKED[engine](Leak("shift_xylo", run["shift"]), v) + current, -LARGEST - 1, LARGEST)
            s = np.clip(v // theta, 0, CAP)
            v = v - s * theta
            assert s.tolist() == spikes and v.tolist() == membrane


def test_the_recording_reaches_what_matters():
    runs = recorded()
    membranes = np.concatenate([run["membrane"] for run in runs])
    spikes = np.concatenate([run["spikes"] for run in runs])
    assert {run["shift"] for run in runs} == set(SHIFTS)
    assert (membranes < 0).sum() > 100 and membranes.min() == -LARGEST - 1  # negative, and at the register's end
    assert len(np.unique(spikes)) > 10 and spikes.max() == CAP


def test_the_recording_is_what_the_installed_simulator_computes():
    pytest.importorskip("xylosim", reason="xylosim is not installed: pip install xylosim")
    assert recorded() == [simulated(shift, left, seed) for seed, (shift, left) in enumerate(CASES)]


if __name__ == "__main__":
    runs = [simulated(shift, left, seed) for seed, (shift, left) in enumerate(CASES)]
    RECORDED.write_text(json.dumps(runs, separators=(",", ":")) + "\n", encoding="utf-8")
