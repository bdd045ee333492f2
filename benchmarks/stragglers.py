"""A simulation: how much of many workers' time is used when some are slow, in generations of ES and rounds of PBT.

    python benchmarks/stragglers.py [--rounds 200]

Items are given out by the pool's own queue (jaxrl/distributed/actors.py); time is simulated. Assumed, and where from:

- a worker has 4 s of work in a round, in 4 or 32 blocks; a block's time is log-normal around its share, sigma 0.1;
- straggling: 1 % of the blocks take 2 to 10 times as long (Pareto, alpha 1.5, cut at 10), wherever they are;
- slow machines: in some rows 5 % of the workers are half as fast throughout;
- a call costs the coordinator 0.13 ms, one after another, and 0.66 ms on the way (both measured, Ray 2.60, one host);
- between rounds everybody waits for the last; the coordinator then takes 20 ms (a step of ES, or a decision of PBT).

Not simulated: networks that saturate, workers that die, items of unequal size.

`es`: any worker takes any block. `pbt`: blocks of members stay where they are, since their agents would have to be
sent: nobody helps out.
"""

import argparse
import heapq

import numpy as np

from jaxrl.distributed.actors import _Round

CALL, WAY, BETWEEN, WORK = 0.13e-3, 0.66e-3, 20e-3, 4.0


def block_times(rng: np.random.Generator, count: int, mean: float) -> tuple[np.ndarray, np.ndarray]:
    """(seconds of `count` blocks, those without straggling) on a machine of usual speed."""
    times, slow = mean * rng.lognormal(0.0, 0.1, count), rng.random(count) < 0.01
    return times * np.where(slow, np.minimum(2.0 * (1.0 + rng.pareto(1.5, count)), 10.0), 1.0), times


def one_round(rng: np.random.Generator, speed: np.ndarray, blocks: int, stays: bool) -> tuple[float, float]:
    """(seconds, seconds that all blocks need at the usual speed, none straggling) of a round; worker i has speed[i]."""
    workers, count = len(speed), blocks * len(speed)
    times, usual = block_times(rng, count, WORK / blocks)
    places = [item % workers for item in range(count)] if stays else [None] * count
    work = _Round((), "", list(range(count)), places, timeout=None)
    free = [(0.0, worker) for worker in range(workers)]          # when the coordinator hears of each
    now, busy, last = 0.0, 0.0, 0.0
    while free:
        heard, worker = heapq.heappop(free)
        item = work.take(worker)
        now = max(now, heard) + CALL                             # replies and calls, one after another
        last = max(last, now)
        if item is not None:
            busy += usual[item]
            heapq.heappush(free, (now + 2 * WAY + times[item] / speed[worker], worker))
    return last + BETWEEN, busy


def efficiency(workers: int, rounds: int, blocks: int, stays: bool, slow: float) -> float:
    """Of the workers' time, the part that machines of usual speed need for the blocks."""
    rng = np.random.default_rng(0)
    speed = np.where(rng.random(workers) < slow, 0.5, 1.0)
    spent, busy = map(sum, zip(*(one_round(rng, speed, blocks, stays) for _ in range(rounds)), strict=True))
    return busy / (spent * workers)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    cases = [(stays, slow, blocks) for stays in (False, True) for slow in (0.0, 0.05) for blocks in (4, 32)]
    heads = [f"{'pbt' if stays else 'es'} {blocks} blocks{', slow' if slow else ''}" for stays, slow, blocks in cases]
    print("  ".join(["workers", *heads]))
    for workers in (1, 8, 32, 128, 512, 1000):
        rounds = max(args.rounds * 8 // max(workers, 8), 10)
        found = [efficiency(workers, rounds, blocks, stays, slow) for stays, slow, blocks in cases]
        print("  ".join([f"{workers:>7}", *(f"{x:>{len(head)}.0%}" for x, head in zip(found, heads, strict=True))]))


if __name__ == "__main__":
    main()
