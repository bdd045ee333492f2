"""Many learners on the devices of one host, in blocks of a fixed size.

A block is one single-device program: the learner, vmapped over the block's members. Blocks are dealt out to the devices
and dispatched asynchronously from one thread. Nothing is sharded over devices, so that a member's bits depend on the
block size (saved in the run) and on nothing else: not on how many devices, blocks or hosts there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from jaxrl import backend
from jaxrl.types import Metrics, Runner, TrainState

Population = list            # one TrainState per block, each on its device, leaves [block, ...]


def block_size(count: int, devices: int) -> int:
    """Members per block: all devices busy, as few and as large blocks as that allows."""
    return -(-count // min(devices, count))


class Members:
    """`count` learners driven by one Runner. The last block is filled up with copies of the last member, whose results
    are dropped."""

    def __init__(self, runner: Runner, count: int, devices: list[jax.Device], *, size: int | None = None,
                 evaluate: Callable | None = None):
        self.runner, self.count = runner, count
        self.size = size or block_size(count, len(devices))
        self.blocks = -(-count // self.size)
        self.devices = [devices[b % len(devices)] for b in range(self.blocks)]
        self.steps_per_update = runner.steps_per_update
        self.compile_seconds = 0.0
        self._programs: dict[tuple[str, jax.Device], Future] = {}
        self._threads = ThreadPoolExecutor(backend.cores())
        self._init = jax.jit(self._over_members(runner.init, (0, 0, None)))
        self._advance = jax.jit(self._over_members(runner.advance, (0, None)), donate_argnums=0)
        self._evaluate = evaluate and jax.jit(self._over_members(evaluate, (0, 0)))

    def _over_members(self, function: Callable, axes: tuple) -> Callable:
        """vmap over the block; a block of one is not vmapped, which compiles to a quicker program."""
        if self.size > 1:
            return jax.vmap(function, in_axes=axes)
        squeeze = lambda tree, axis: tree if axis is None else jax.tree.map(lambda x: x[0], tree)
        return lambda *args: jax.tree.map(lambda x: x[None], function(*map(squeeze, args, axes)))

    # ---------------------------------------------------------------- the population

    def init(self, keys: jax.Array, hyper: Any, schedule: int) -> Population:
        """Fresh members from `keys` [count] and `hyper` (leaves [count]); all made on the first device: one program."""
        first = self.devices[0]
        return [jax.device_put(self._call("init", self._init, first, *jax.device_put(parts, first), np.int32(schedule)),
                               device) for device, parts in self._deal((keys, hyper))]

    def advance(self, population: Population, updates: int) -> tuple[Population, Metrics]:
        """`updates` updates of every member; the old population is given up. Metrics are NumPy arrays [count]."""
        done = [self._call("advance", self._advance, device, state, np.int32(updates))
                for device, state in zip(self.devices, population)]
        return [state for state, _ in done], self._collect([metrics for _, metrics in done])

    def evaluate(self, population: Population, keys: jax.Array) -> np.ndarray:
        """Greedy returns [count, episodes], with `keys` [count]."""
        return self._collect([self._call("evaluate", self._evaluate, device, state.agent, key)
                              for (device, key), state in zip(self._deal(keys), population)])

    def compile(self, population: Population, keys: jax.Array) -> None:
        """Compile `advance` on every device, and begin to compile `evaluate`, which is waited for when it is used."""
        start = time.perf_counter()
        states = dict(zip(self.devices, population))
        needed = [self._program("advance", self._advance, device, state, np.int32(1))
                  for device, state in states.items()]
        for device, key in dict(self._deal(keys)).items():
            self._program("evaluate", self._evaluate, device, states[device].agent, key)
        for program in needed:
            program.result()
        self.compile_seconds += time.perf_counter() - start

    def to_host(self, population: Population) -> TrainState:
        """The real members as one TrainState of arrays [count, ...] on the first device's host."""
        blocks = [jax.device_get(jax.tree.map(_key_data, block)) for block in population]
        merged = jax.tree.map(lambda *x: np.concatenate(x)[: self.count], *blocks)
        return jax.tree.map(_like_key, population[0], merged)

    def from_host(self, state: TrainState) -> Population:
        """The inverse of `to_host`: blocks on their devices."""
        return [block for _, block in self._deal(state)]

    def template(self, keys: jax.Array, hyper: Any) -> TrainState:
        """Shapes and dtypes of `to_host`, without computing anything."""
        init = jax.vmap(self.runner.init, in_axes=(0, 0, None))
        return jax.eval_shape(init, keys, hyper, jax.ShapeDtypeStruct((), jnp.int32))

    # ---------------------------------------------------------------- blocks and devices

    def _deal(self, tree: Any):
        """Cut leaves [count, ...] into blocks on their devices: pairs (device, tree of leaves [block, ...])."""
        index = np.minimum(np.arange(self.blocks * self.size), self.count - 1).reshape(self.blocks, self.size)
        for device, rows in zip(self.devices, index):
            yield device, jax.device_put(jax.tree.map(lambda x, rows=rows: x[rows], tree), device)

    def _collect(self, blocks: list) -> Any:
        """What the blocks computed, on the host. The wait is Python's own, so that a signal is noticed in it."""
        arrays, pause = jax.tree.leaves(blocks), 2e-5
        while not all(x.is_ready() for x in arrays):
            time.sleep(pause)
            pause = min(2 * pause, 5e-4)
        return jax.tree.map(lambda *x: np.concatenate([np.asarray(a) for a in x])[: self.count], *blocks)

    def _call(self, name: str, function: Callable, device: jax.Device, *args: Any) -> Any:
        """`function` of arguments that are on `device` (or NumPy's)."""
        start = time.perf_counter()
        program = self._program(name, function, device, *args).result()
        self.compile_seconds += time.perf_counter() - start
        return program(*args)

    def _program(self, name: str, function: Callable, device: jax.Device, *args: Any) -> Future:
        """`function` compiled for arguments like these on `device`, in a thread: XLA works outside Python's lock."""
        if (name, device) not in self._programs:
            place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=SingleDeviceSharding(device))
            lowered = function.lower(*jax.tree.map(place, args))
            self._programs[name, device] = self._threads.submit(lowered.compile)
        return self._programs[name, device]


def _key_data(x: Any) -> Any:
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _like_key(like: Any, x: np.ndarray) -> Any:
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(like))
    return x
