"""Strategies on the devices of one host, driven generation by generation from the host.

A generation of a strategy is divided into blocks of candidates. An `Evaluator` plays them, by
default on all devices by asynchronous dispatch. One program on the strategy's own device then takes
their results in order. A block is always the same single-device program, so that the parameters
have the same bits on any number of devices, and with any evaluator.
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
from jaxrl.population.members import Members, Place, on_host
from jaxrl.population.protocol import Blocks, HostMetrics
from jaxrl.types import TrainState


class Evaluator(Protocol):
    """Plays the candidates of a generation.

    An evaluator elsewhere needs the state of a strategy once. From then on the number of the
    generation, the blocks to play and the results of all blocks of the previous generation suffice:
    it derives the noise, and keeps up with the same `Generation`. Equal values of `digest` show
    that it still holds the same parameters.
    """

    def map(self, population: Blocks) -> list[list[Result]]:
        """Return the results of all blocks of every strategy, in order.

        Their leaves are arrays on any device, or NumPy arrays.
        """


class Generation(NamedTuple):
    """A generation as two programs, of a state with the leading axis 1 that `Generations` holds.

    Every process that takes part runs these: the same functions inside another program may round
    differently.

    evaluate  (state, block) -> Result
    tell      (state, sums, [Result of each block]) -> (state, sums)
    """

    evaluate: Callable
    tell: Callable


def generation(runner: Evolution) -> Generation:
    """Return the programs of a runner, to be compiled on each device."""
    def evaluate(state: TrainState, block: jax.Array) -> Result:
        return runner.evaluate(_squeeze(state), block)

    def tell(state: TrainState, sums: Sums, results: list[Result]) -> tuple[TrainState, Sums]:
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *results)
        new, sums = runner.tell(_squeeze(state), sums, stacked)
        return jax.tree.map(lambda x: x[None], new), sums

    return Generation(jax.jit(evaluate), jax.jit(tell))


def no_sums(runner: Evolution, state: TrainState) -> Sums:
    """Return the sums of no generation, as NumPy arrays."""
    shapes = jax.eval_shape(lambda state: runner.zeros(_squeeze(state)), state)
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


class Generations(Members):
    """A population of independent strategies, in blocks of one, that advances by generations."""

    runner: Evolution

    def __init__(self, runner: Evolution, count: int, devices: list[jax.Device], *,
                 evaluate: Callable | None = None, evaluator: Evaluator | None = None):
        """evaluator: plays the candidates; None for the devices of this process."""
        super().__init__(runner, count, devices, size=1, devices_each=1, evaluate=evaluate)
        self._workers: list[Place] = [(device,) for device in devices]
        self.generation = generation(runner)
        self._report = jax.jit(lambda sums: jax.tree.map(lambda x: x[None], runner.reported(sums)))
        self.evaluator = evaluator

    @property
    def devices(self) -> list[jax.Device]:
        """Devices in use."""
        used = self.count * self.runner.blocks
        return [device for (device,) in self._workers[:used]]

    def advance(self, population: Blocks, updates: int) -> tuple[Blocks, HostMetrics]:
        """Run `updates` generations of every strategy."""
        sums = [jax.device_put(no_sums(self.runner, state), place[0])
                for place, state in zip(self.places, population)]
        for _ in range(updates):
            results = (self.evaluator or self).map(population)
            told = [self._tell(place, *each)
                    for place, *each in zip(self.places, population, sums, results)]
            population = [state for state, _ in told]
            sums = [total for _, total in told]
        return population, self._collect([self._call("report", self._report, place, total)
                                          for place, total in zip(self.places, sums)])

    def _tell(self, place: Place, state: TrainState, sums: Sums,
              results: list[Result]) -> tuple[TrainState, Sums]:
        results = jax.device_put(results, place[0])
        return self._call("tell", self.generation.tell, place, state, sums, results)

    def map(self, population: Blocks) -> list[list[Result]]:
        """Return the results of every block of every strategy, without waiting for them.

        The blocks are dispatched to the devices of this process in turn.
        """
        copies: dict[tuple[int, Place], TrainState] = {}
        results: list[list[Result]] = []
        turn = 0
        for member, state in enumerate(population):
            results.append([])
            for block in range(self.runner.blocks):
                worker = self._workers[turn % len(self._workers)]
                turn += 1
                if (member, worker) not in copies:
                    copies[member, worker] = jax.device_put(_acting(state), worker[0])
                results[member].append(self._call(
                    "block", self.generation.evaluate, worker, copies[member, worker],
                    np.int32(block)))
        return results

    def compile(self, population: Blocks, keys: jax.Array) -> None:
        """Compile the programs of a generation, and begin to compile `evaluate`."""
        start = time.perf_counter()
        needed = []
        if self.evaluator is None:
            acting = _acting(population[0])
            needed = [self._program("block", self.generation.evaluate, (device,), acting,
                                    np.int32(0)) for device in self.devices]
        states = dict(zip(self.places, population))
        for place, state in states.items():
            result = jax.eval_shape(self.generation.evaluate, _acting(state), jnp.int32(0))
            results = [result] * self.runner.blocks
            sums = no_sums(self.runner, state)
            needed += [
                self._program("tell", self.generation.tell, place, state, sums, results),
                self._program("report", self._report, place, sums)]
        for place, key in dict(self._deal(keys, lambda place: place)).items():
            self._program("evaluate", self._evaluate, place, states[place].agent, key)
        for program in needed:
            program.result()
        self.compile_seconds += time.perf_counter() - start


def digest(state: Any) -> str:
    """Return a fingerprint of every bit of a state, equal on machines that hold the same one."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(on_host(state)):
        array = np.ascontiguousarray(leaf)
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _squeeze(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[0], tree)


def _acting(state: TrainState) -> TrainState:
    """Return a state without the optimizer of its strategy, which only `tell` reads."""
    if not hasattr(state.agent, "optimizer"):
        return state
    return state._replace(agent=state.agent._replace(optimizer=()))
