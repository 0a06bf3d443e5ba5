"""Train a network and prove its integer network: ``python train.py model=resnet19 data=cifar10 neuron.s_max=8``.

``python train.py resume=RUN [trainer.max_epochs=N]`` goes on with the run in the directory RUN, with its settings.
"""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from qbsnn.cli import launch as cli
from qbsnn.cli.keys import ResumeKeys
from qbsnn.results.schema import Result
from qbsnn.training.settings import screen


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Run one configuration; returns the metric that a search optimises, measured on validation data.

    ``sweep=NAME`` runs the cells of a sweep file instead, those that are not done; ``--list`` only lists them.
    """
    if cfg.get("sweep"):
        return cli.sweep(cfg)

    result = cli.guarded(train, cfg)
    if result is None:
        return None
    cli.conclude(result)
    return result.metrics.best.get("val/acc")


def train(cfg: DictConfig) -> Result | None:
    """Answer wrong settings before PyTorch and Lightning are imported, which takes seconds; then train."""
    screen(cfg)

    with cli.heavy_imports():
        from qbsnn.training import run as story

    return story.train(cfg)


def go_on(given: ResumeKeys) -> None:
    """Go on with a run, or extend it."""
    with cli.heavy_imports():
        from qbsnn.cli.resuming import resumed
        from qbsnn.training.run import train

    cli.log_to_stdout()
    result = train(resumed(given, Path(__file__).parent / "conf/logger"))
    if result is not None:
        cli.conclude(result)


if __name__ == "__main__":
    if any(word.startswith("resume=") for word in sys.argv[1:]):
        cli.script(go_on, ResumeKeys, __doc__)
    else:
        cli.launch(main, Path(__file__).parent / "conf", "train")
