"""Strategies on the devices of one host, driven generation by generation from the host.

A generation of a strategy is cut into blocks of candidates. An `Evaluator` plays them, here on all devices by
asynchronous dispatch; one program on the strategy's own device then takes their results in order. A block is always
the same single-device program, so that the parameters are the same bits on any number of devices, whatever plays it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.drivers.evolution import Evolution, Result, Sums
from jaxrl.population.members import Members, Population, on_host
from jaxrl.types import Metrics


class Evaluator(Protocol):
    """Who plays the candidates of a generation.

    One that is elsewhere needs the state of a strategy once. From then on the number of the generation, the blocks to
    play and the results of all blocks of the generation before are enough: it derives the noise, and keeps up by the
    same `Generation`; equal `digest`s show that it still holds the same parameters.
    """

    def map(self, population: Population) -> list[list[Result]]:
        """The results of all blocks of every strategy, in their order: of arrays on any device, or NumPy's."""


class Generation(NamedTuple):
    """A generation in two programs, of a state as `Generations` holds it. Who takes part runs just these: the same
    functions inside another program may round otherwise.

    evaluate  (state, block) -> Result
    tell      (state, sums, the Results of all blocks in order) -> (state, sums)
    """

    evaluate: Callable
    tell: Callable


def generation(runner: Evolution) -> Generation:
    """The programs of a runner, to be compiled on each device."""
    def tell(state: Any, sums: Sums, results: list[Result]) -> tuple[Any, Sums]:
        new, sums = runner.tell(_only(state), sums, jax.tree.map(lambda *x: jnp.stack(x), *results))
        return jax.tree.map(lambda x: x[None], new), sums

    return Generation(jax.jit(lambda state, block: runner.evaluate(_only(state), block)), jax.jit(tell))


def no_sums(runner: Evolution, state: Any) -> Sums:
    """Where the sums of `Generation.tell` begin, as NumPy arrays."""
    shapes = jax.eval_shape(lambda state: runner.zeros(_only(state)), state)
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


class Generations(Members):
    """`count` independent strategies: `Members` in blocks of one, but for how they advance."""

    def __init__(self, runner: Evolution, count: int, devices: list[jax.Device], *, evaluate: Callable | None = None,
                 evaluator: Evaluator | None = None):
        super().__init__(runner, count, devices, size=1, devices_each=1, evaluate=evaluate)
        self._workers = [(device,) for device in devices]
        self.generation = generation(runner)
        self._report = jax.jit(lambda sums: jax.tree.map(lambda x: x[None], runner.reported(sums)))
        self.evaluator = evaluator               # None: the devices of this host

    @property
    def devices(self) -> list[jax.Device]:
        """Those in use."""
        used = self.count * self.runner.blocks
        return [device for (device,) in self._workers[:used]]

    def advance(self, population: Population, updates: int) -> tuple[Population, Metrics]:
        """`updates` generations of every strategy. Metrics are NumPy arrays [count]."""
        sums = [jax.device_put(no_sums(self.runner, state), place[0]) for place, state in zip(self.places, population)]
        for _ in range(updates):
            results = (self.evaluator or self).map(population)
            told = [self._call("tell", self.generation.tell, place, state, total, jax.device_put(blocks, place[0]))
                    for place, state, total, blocks in zip(self.places, population, sums, results)]
            population, sums = (list(x) for x in zip(*told))
        return population, self._collect([self._call("report", self._report, place, total)
                                          for place, total in zip(self.places, sums)])

    def map(self, population: Population) -> list[list[Result]]:
        """Every block of every strategy on the devices of this host in turn, none of which is waited for."""
        blocks = self.runner.blocks
        turns = [(member, block, self._workers[(member * blocks + block) % len(self._workers)])
                 for member in range(len(population)) for block in range(blocks)]
        copies = {}
        for member, _, worker in turns:
            if (member, worker) not in copies:
                copies[member, worker] = jax.device_put(_acting(population[member]), worker[0])
        results = [self._call("block", self.generation.evaluate, worker, copies[member, worker], np.int32(block))
                   for member, block, worker in turns]
        return [results[i: i + blocks] for i in range(0, len(results), blocks)]

    def compile(self, population: Population, keys: jax.Array) -> None:
        """Compile what a generation needs on every device, and begin to compile `evaluate`."""
        start = time.perf_counter()
        needed = []
        if self.evaluator is None:
            needed = [self._program("block", self.generation.evaluate, (device,), _acting(population[0]), np.int32(0))
                      for device in self.devices]
        for place, state in dict(zip(self.places, population)).items():
            results = [jax.eval_shape(self.generation.evaluate, _acting(state), jnp.int32(0))] * self.runner.blocks
            sums = no_sums(self.runner, state)
            needed += [self._program("tell", self.generation.tell, place, state, sums, results),
                       self._program("report", self._report, place, sums)]
        for place, key in dict(self._deal(keys, lambda place: place)).items():
            state = next(state for at, state in zip(self.places, population) if at == place)
            self._program("evaluate", self._evaluate, place, state.agent, key)
        for program in needed:
            program.result()
        self.compile_seconds += time.perf_counter() - start


def digest(state: Any) -> str:
    """A fingerprint of every bit of a state: equal on every machine that holds the same parameters."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(on_host(state)):
        array = np.ascontiguousarray(leaf)
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _only(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[0], tree)


def _acting(state: Any) -> Any:
    """A state without what only `tell` reads."""
    agent = state.agent
    return state._replace(agent=agent._replace(optimizer=())) if hasattr(agent, "optimizer") else state
