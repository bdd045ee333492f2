"""Candidates of evolution strategies, played by workers of a pool, Ray actors say.

A worker has the state of every strategy once. From then on it gets numbers of blocks, and after each generation the
results of all blocks: a fitness and a number of steps for each candidate, and one set of moments for each block. It
derives the noise, takes the same step as the coordinator by the same program, and answers with a fingerprint of its
state. What is sent does not depend on how many parameters there are.
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
from jaxrl.population.generations import Generations, digest, generation, no_sums
from jaxrl.population.members import Population, on_host
from jaxrl.population.remote import PATIENCE, rebuilt


class CandidateHost:
    """What a worker is. Built by the pool from plain values."""

    def __init__(self, config: dict[str, Any]):
        """config: `jaxrl.config.to_plain` of the run's."""
        run = read(config)
        self._runner = build(run).runner
        self._programs = generation(self._runner)
        self._states: list[Any] = []
        keys, hyper = jax.random.split(jax.random.key(0), 1), jax.tree.map(lambda x: x[None], hypers(run.agent))
        self._like = Generations(self._runner, 1, jax.local_devices()[:1]).template(keys, hyper)
        self._sums = no_sums(self._runner, self._like)           # which nobody reads here

    def load(self, states: list[list[np.ndarray]]) -> list[str]:
        """Leaves of the state of every strategy -> fingerprints."""
        self._states = [jax.device_put(rebuilt(self._like, leaves)) for leaves in states]
        return list(map(digest, self._states))

    def tell(self, results: list[list[Result]]) -> list[str]:
        """Of all blocks of every strategy -> fingerprints after the step."""
        self._states = [self._programs.tell(state, self._sums, list(blocks))[0]
                        for state, blocks in zip(self._states, results)]
        return list(map(digest, self._states))

    def evaluate(self, item: tuple[int, int]) -> Result:
        """(strategy, block)"""
        strategy, block = item
        return on_host(self._programs.evaluate(self._states[strategy], np.int32(block)))


class RemoteEvaluator:
    """An `Evaluator` of Generations on the workers of `pool`. Their number, and losses of them, change no bit."""

    def __init__(self, runner: Evolution, pool: Pool, patience: float = PATIENCE):
        self._runner, self._pool, self._patience = runner, pool, patience
        self._leaves: list[list[np.ndarray]] = []
        self._results: list[list[Result]] | None = None      # of the generation before
        self.loads = 0                                       # how often whole states were sent to all

    def restore(self, worker: int) -> Sequence[tuple[str, Any]]:
        """For the pool: what a new worker needs in place of a lost one."""
        return [("load", self._pool.put(self._leaves))]

    def map(self, population: Population) -> list[list[Result]]:
        """The results of all blocks of every strategy, in their order."""
        found = [None] if self._results is None else self._pool.broadcast("tell", self._results, timeout=self._patience)
        self._leaves = [jax.tree.leaves(on_host(state)) for state in population]     # waits for the step that is ours
        own = list(map(digest, population))
        if self._results is None or any(theirs not in (None, own) for theirs in found):
            self._pool.broadcast("load", self._leaves, timeout=self._patience)
            self.loads += 1
        items = [(member, block) for member in range(len(population)) for block in range(self._runner.blocks)]
        done = dict(self._pool.map_unordered("evaluate", items, timeout=self._patience,
                                             name=lambda item: f"block {item[1]} of strategy {item[0]}"))
        self._results = [[done[member, block] for block in range(self._runner.blocks)]
                         for member in range(len(population))]
        return self._results
