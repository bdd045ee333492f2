"""Candidates of evolution strategies, played by the workers of a pool, for example Ray actors.

A worker receives the state of every strategy once. From then on it receives numbers of blocks and,
after each generation, the results of all blocks: a fitness and a number of steps for each
candidate, and one set of moments for each block. It derives the noise, takes the same step as the
coordinator with the same program, and answers with a fingerprint of its state. The size of the
messages does not depend on the number of parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxrl.config.reading import read
from jaxrl.declare import hypers
from jaxrl.distributed.pool import Pool
from jaxrl.drivers.build import build
from jaxrl.drivers.evolution import Evolution, Result
from jaxrl.population.generations import digest, generation, no_sums
from jaxrl.population.members import on_host, template
from jaxrl.population.protocol import Blocks
from jaxrl.population.remote import PATIENCE, rebuilt


class CandidateHost:
    """The object in a worker, made by the pool from plain values."""

    def __init__(self, config: dict[str, Any]):
        """config: the run's, as `jaxrl.config.to_plain` returns it."""
        run = read(config)
        learner: Any = build(run)
        self._runner: Evolution = learner.runner
        self._programs = generation(self._runner)
        self._states: list[Any] = []
        keys = jax.random.split(jax.random.key(0), 1)
        hyper = jax.tree.map(lambda x: x[None], hypers(run.agent))
        self._like = template(self._runner, keys, hyper)
        self._sums = no_sums(self._runner, self._like)           # required by `tell`, never read

    def load(self, states: list[list[np.ndarray]]) -> list[str]:
        """Replace the states of all strategies, given by their leaves; return fingerprints."""
        self._states = [jax.device_put(rebuilt(self._like, leaves)) for leaves in states]
        return list(map(digest, self._states))

    def tell(self, results: list[list[Result]]) -> list[str]:
        """Take a step with the results of all blocks of every strategy; return fingerprints."""
        self._states = [self._programs.tell(state, self._sums, list(blocks))[0]
                        for state, blocks in zip(self._states, results)]
        return list(map(digest, self._states))

    def evaluate(self, item: tuple[int, int]) -> Result:
        """Return the results of an item (strategy, block)."""
        strategy, block = item
        return on_host(self._programs.evaluate(self._states[strategy], np.int32(block)))


class RemoteEvaluator:
    """An `Evaluator` for Generations on the workers of a pool.

    Neither their number nor the loss of a worker changes a bit.
    """

    def __init__(self, runner: Evolution, pool: Pool, patience: float = PATIENCE):
        """patience: seconds for one call of a worker, compilation included."""
        self._runner = runner
        self._pool = pool
        self._patience = patience
        self._leaves: list[list[np.ndarray]] = []
        self._results: list[list[Result]] | None = None      # of the previous generation
        self.loads = 0                                       # times whole states were sent

    def restore(self, worker: int) -> Sequence[tuple[str, Any]]:
        """Return the calls that bring a worker up to date which replaces a lost one."""
        return [("load", self._pool.put(self._leaves))]

    def map(self, population: Blocks) -> list[list[Result]]:
        """Return the results of all blocks of every strategy, in order."""
        found = [None]
        if self._results is not None:
            found = self._pool.broadcast("tell", self._results, timeout=self._patience)
        # waits for the coordinator's own step
        self._leaves = [jax.tree.leaves(on_host(state)) for state in population]
        own = list(map(digest, population))
        if self._results is None or any(digests not in (None, own) for digests in found):
            self._pool.broadcast("load", self._leaves, timeout=self._patience)
            self.loads += 1
        strategies = range(len(population))
        blocks = range(self._runner.blocks)
        items = [(strategy, block) for strategy in strategies for block in blocks]
        done = dict(self._pool.map_unordered("evaluate", items, timeout=self._patience,
                                             name=_named))
        self._results = [[done[strategy, block] for block in blocks] for strategy in strategies]
        return self._results


def _named(item: tuple[int, int]) -> str:
    strategy, block = item
    return f"block {block} of strategy {strategy}"
