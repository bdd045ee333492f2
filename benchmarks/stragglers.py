"""Simulation of workers some of which are slow: the fraction of their time that ES and PBT use.

    python benchmarks/stragglers.py [--rounds 200]

The pool's own queue (jaxrl/distributed/actors.py) gives out the items; time is simulated.
Assumptions:

- A worker has 4 s of work in a round, in 4 or 32 blocks. The time of a block is log-normal around
  its share, with sigma 0.1.
- Straggling: 1 % of the blocks take 2 to 10 times as long (Pareto, alpha 1.5, cut at 10), on any
  machine.
- Slow machines: in some columns, 5 % of the workers are half as fast throughout.
- A call costs the coordinator 0.13 ms, one call after another, and 0.66 ms in transit (both
  measured, Ray 2.60, one host).
- Between rounds all workers wait for the last one. The coordinator then takes 20 ms (a step of ES,
  or a decision of PBT).

Not simulated: networks that saturate, workers that die, items of unequal size.

`es`: any worker takes any block. `pbt`: blocks of members stay on their workers, because their
agents would have to be sent, so no worker takes the blocks of another.
"""

import argparse
import heapq
import itertools

import numpy as np

from jaxrl.distributed.actors import _Round

CALL = 0.13e-3       # seconds of the coordinator per call
WAY = 0.66e-3        # seconds of a call, or of its reply, in transit
BETWEEN = 20e-3      # seconds of the coordinator between rounds
WORK = 4.0           # seconds of work of a worker in a round


def block_times(rng: np.random.Generator, count: int,
                mean: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the seconds of `count` blocks at usual speed, with and without straggling."""
    times = mean * rng.lognormal(0.0, 0.1, count)
    slow = rng.random(count) < 0.01
    factor = np.minimum(2.0 * (1.0 + rng.pareto(1.5, count)), 10.0)
    return times * np.where(slow, factor, 1.0), times


def one_round(rng: np.random.Generator, speed: np.ndarray, blocks: int,
              stays: bool) -> tuple[float, float]:
    """Return (seconds of a round, seconds that its blocks need at usual speed without straggling).

    speed: the speed of each worker, 1 is usual. stays: every block has its own worker.
    """
    workers = len(speed)
    count = blocks * workers
    times, usual = block_times(rng, count, WORK / blocks)
    places = [None] * count
    if stays:
        places = [item % workers for item in range(count)]
    work = _Round((), "", list(range(count)), places, timeout=None)
    free = [(0.0, worker) for worker in range(workers)]      # arrival of each worker's last reply
    now = 0.0
    busy = 0.0
    last = 0.0
    while free:
        heard, worker = heapq.heappop(free)
        item = work.take(worker)
        now = max(now, heard) + CALL                         # replies and calls, one by one
        last = max(last, now)
        if item is not None:
            busy += usual[item]
            heapq.heappush(free, (now + 2 * WAY + times[item] / speed[worker], worker))
    return last + BETWEEN, busy


def efficiency(workers: int, rounds: int, blocks: int, stays: bool, slow: float) -> float:
    """Return the fraction of the workers' time that machines of usual speed need for the blocks."""
    rng = np.random.default_rng(0)
    speed = np.where(rng.random(workers) < slow, 0.5, 1.0)
    results = [one_round(rng, speed, blocks, stays) for _ in range(rounds)]
    spent = sum(seconds for seconds, _ in results)
    busy = sum(seconds for _, seconds in results)
    return busy / (spent * workers)


def title(stays: bool, slow: float, blocks: int) -> str:
    """Return the heading of a column."""
    method = "pbt" if stays else "es"
    return f"{method} {blocks} blocks{', slow' if slow else ''}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    cases = list(itertools.product((False, True), (0.0, 0.05), (4, 32)))
    heads = [title(*case) for case in cases]
    print("  ".join(["workers", *heads]))
    for workers in (1, 8, 32, 128, 512, 1000):
        rounds = max(args.rounds * 8 // max(workers, 8), 10)
        cells = [f"{workers:>7}"]
        for head, (stays, slow, blocks) in zip(heads, cases, strict=True):
            used = efficiency(workers, rounds, blocks, stays, slow)
            cells.append(f"{used:>{len(head)}.0%}")
        print("  ".join(cells))


if __name__ == "__main__":
    main()
