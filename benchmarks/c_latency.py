"""Seconds per image of the exported C, timed inside the program."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Unavailable
from qbsnn.deploy.engines import c_engine, c_source
from qbsnn.deploy.format.network import IntegerNetwork
from qbsnn.errors import DeployError

PROGRAM = """#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <time.h>
#include "qbsnn_net.h"
static int32_t current[QBSNN_INPUTS];
int main(void)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < 2; i++)
        if (scanf("%d", (int *)&sum) != 1)
            return 2;
    for (int32_t i = 0; i < QBSNN_INPUTS; i++)
        if (scanf("%d", (int *)&current[i]) != 1)
            return 2;
    for (int round = 0; round < ROUNDS; round++) {
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (int n = 0; n < 20; n++) {
            qbsnn_reset();
            for (int t = 0; t < QBSNN_STEPS; t++)
                qbsnn_step(current);
            sum += qbsnn_class();
        }
        clock_gettime(CLOCK_MONOTONIC, &end);
        printf("%.9f\\n", ((double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec)) / 20);
    }
    printf("%d\\n", (int)sum);
    return 0;
}
"""


def seconds(
    net: IntegerNetwork, current: NDArray[np.int32], rounds: int, builds: dict[str, Sequence[str]]
) -> dict[str, list[float]]:
    """Seconds per image, by build (name -> flags of the compiler), of one image ``[1, 1, ...]``; a round is 20 images.

    Every build must first print what the int64 engine computes; one that the compiler refuses has no seconds. Raises
    Unavailable where no build can be made.
    """
    times: dict[str, list[float]] = {name: [] for name in builds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        c_source.write(net, folder, current)
        (folder / "timing.c").write_text(PROGRAM, encoding="ascii")
        text, expected = ((folder / file).read_text() for file in (c_source.CURRENT, c_source.EXPECTED))
        why: object = "no build was asked for"
        for build, flags in builds.items():
            try:
                for source in (c_source.MAIN, "timing.c"):
                    out = str(folder / f"{build}-{source}.program")
                    command = [*c_engine.compiler(), "-std=c99", f"-DROUNDS={rounds + 1}", *flags, str(folder / source)]
                    c_engine.execute([*command, "-o", out])
                if c_engine.execute([str(folder / f"{build}-{c_source.MAIN}.program")], text) != expected:
                    raise RuntimeError(f"the C program built with {' '.join(flags)} is wrong")
                lines = c_engine.execute([str(folder / f"{build}-timing.c.program")], text).split()
            except DeployError as error:
                why = error
            else:
                times[build] = [float(line) for line in lines[1:-1]]
    if not any(times.values()):
        raise Unavailable(why)
    return times
