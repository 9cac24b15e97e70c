"""Blocks of steps, interleaved between the cases (A B C A B C ...), in wall and in CPU seconds.

    results = measure({"mixup": run_mixup, "sem": run_sem}, steps=20, blocks=7)
    results["sem"].wall_ms.median

A machine that does other work too slows all cases of a round alike, so ratios are taken between the blocks of one
round and are steadier than the times; CPU seconds leave out waiting for a core.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """Of the blocks: median, and the interquartile range in parts of it."""

    median: float
    iqr: float


class Timing(NamedTuple):
    """Per step."""

    wall: np.ndarray  # f64[blocks], milliseconds
    cpu: np.ndarray  # f64[blocks], milliseconds of all threads

    @property
    def wall_ms(self) -> Spread:
        return spread(self.wall)

    @property
    def cpu_ms(self) -> Spread:
        return spread(self.cpu)


def spread(values: np.ndarray) -> Spread:
    low, middle, high = np.percentile(values, (25, 50, 75))
    return Spread(float(middle), float((high - low) / middle) if middle else 0.0)


def measure(
    runs: Mapping[str, Callable[[int], None]], *, steps: int, blocks: int, warmup: int = 3
) -> dict[str, Timing]:
    """Times every run in turn, `blocks` times, after warming all of them up.

    Args:
      runs: by name, a function of the number of steps that returns when they are done (`block_until_ready`,
        `torch.cuda.synchronize`).
      steps: per block.
      blocks: rounds over all runs.
      warmup: steps of each before the first block.
    """
    for run in runs.values():
        run(warmup)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(blocks):
        for name, run in runs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run(steps)
            taken[name].append(((time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps))
    return {name: Timing(*(1e3 * np.asarray(values).T)) for name, values in taken.items()}


def ratio(a: Timing, b: Timing, *, cpu: bool) -> Spread:
    """a / b, block by block."""
    return spread(a.cpu / b.cpu if cpu else a.wall / b.wall)
