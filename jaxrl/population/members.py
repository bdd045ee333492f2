"""Many learners on the devices of one host, in blocks of a fixed size.

A block is one single-device program: the learner, vmapped over the block's members. Blocks are dealt out to the devices
and dispatched asynchronously from one thread. Nothing is sharded over devices, so that a member's bits depend on the
block size (saved in the run) and on nothing else: not on how many devices, blocks or hosts there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

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
        self._programs: dict[tuple, Any] = {}
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
        """Fresh members from `keys` [count] and `hyper` (leaves [count])."""
        schedule = jnp.asarray(schedule, jnp.int32)
        return [self._call("init", self._init, device, key, value, schedule)
                for device, key, value in self._deal((keys, hyper))]

    def advance(self, population: Population, updates: int) -> tuple[Population, Metrics]:
        """`updates` updates of every member; the old population is given up. Metrics are NumPy arrays [count]."""
        updates = jnp.asarray(updates, jnp.int32)
        done = [self._call("advance", self._advance, device, state, updates)
                for device, state in zip(self.devices, population)]
        return [state for state, _ in done], self._collect([metrics for _, metrics in done])

    def evaluate(self, population: Population, keys: jax.Array) -> np.ndarray:
        """Greedy returns [count, episodes], with `keys` [count]."""
        return self._collect([self._call("evaluate", self._evaluate, device, state.agent, key)
                              for (device, key), state in zip(self._deal(keys, True), population)])

    def compile(self, population: Population) -> None:
        """Compile `advance` for every device at once, so that the first chunk runs at full speed."""
        updates = jnp.asarray(1, jnp.int32)
        jobs = {device: (self._advance, device, (state, updates))
                for device, state in zip(self.devices, population)}
        self._compile([("advance", *job) for job in jobs.values()])

    def to_host(self, population: Population) -> TrainState:
        """The real members as one TrainState of arrays [count, ...] on the first device's host."""
        blocks = [jax.device_get(jax.tree.map(_key_data, block)) for block in population]
        merged = jax.tree.map(lambda *x: np.concatenate(x)[: self.count], *blocks)
        return jax.tree.map(_like_key, population[0], merged)

    def from_host(self, state: TrainState) -> Population:
        return [block for _, block in self._deal(state, True)]

    def template(self, keys: jax.Array, hyper: Any) -> TrainState:
        """Shapes and dtypes of `to_host`, without computing anything."""
        init = jax.vmap(self.runner.init, in_axes=(0, 0, None))
        return jax.eval_shape(init, keys, hyper, jax.ShapeDtypeStruct((), jnp.int32))

    # ---------------------------------------------------------------- blocks and devices

    def _deal(self, tree: Any, whole: bool = False):
        """Cut leaves [count, ...] into blocks on their devices; yields (device, *parts), or (device, tree) if `whole`."""
        index = np.minimum(np.arange(self.blocks * self.size), self.count - 1).reshape(self.blocks, self.size)
        for device, rows in zip(self.devices, index):
            part = jax.device_put(jax.tree.map(lambda x: x[rows], tree), device)
            yield (device, part) if whole else (device, *part)

    def _collect(self, blocks: list) -> Any:
        return jax.tree.map(lambda *x: np.concatenate([np.asarray(a) for a in x])[: self.count], *blocks)

    def _call(self, name: str, function: Callable, device: jax.Device, *args: Any) -> Any:
        if (name, device) not in self._programs:
            self._compile([(name, function, device, args)])
        args = jax.device_put(args, device)
        return self._programs[name, device](*args)

    def _compile(self, jobs: list[tuple]) -> None:
        """Compile (name, function, device, arguments), all at once: XLA works outside Python's lock."""
        start = time.perf_counter()

        def place(x, device):
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=SingleDeviceSharding(device))

        lowered = [((name, device), function.lower(*jax.tree.map(lambda x, d=device: place(x, d), args)))
                   for name, function, device, args in jobs]
        with ThreadPoolExecutor(len(jobs)) as pool:
            compiled = pool.map(lambda job: job[1].compile(), lowered)
            self._programs.update(zip([name for name, _ in lowered], compiled))
        self.compile_seconds += time.perf_counter() - start


def _key_data(x: Any) -> Any:
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _like_key(like: Any, x: np.ndarray) -> Any:
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(like))
    return x
