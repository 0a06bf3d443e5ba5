"""How checks are handed their batches."""

import torch
from torch.utils.data import DataLoader, TensorDataset

from qbsnn.errors import DeployError
from qbsnn.training.deployment import PART, Check, Converted, prove


class Seen(Check):
    """Remembers what it was handed."""

    block = "seen"

    def check(self, network, batches, name):
        self.batches = list(batches)
        raise DeployError("nothing to say")


def test_a_check_on_a_cpu_sees_every_sample_in_small_parts():
    samples = 2 * PART + 5
    pixels, labels = torch.rand(samples, 3), torch.arange(samples)
    trained = torch.nn.Linear(1, 1)
    seen = Seen(max_batches=1)
    loader = DataLoader(TensorDataset(pixels, labels), batch_size=samples)
    blocks = prove([seen], Converted(trained, DeployError("none"), DeployError("none")), lambda: loader, "best")
    assert blocks == {"seen": {"checkpoint": "best", "skipped": "nothing to say"}}
    assert [len(part) for _, part in seen.batches] == [PART, PART, 5]
    assert torch.equal(torch.cat([part for part, _ in seen.batches]), pixels)
    assert torch.equal(torch.cat([part for _, part in seen.batches]), labels)
