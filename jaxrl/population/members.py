"""Many learners on the devices of one host, in blocks of a fixed size.

A block is one single-device program: the learner, vmapped over the block's members. Blocks are dealt out to the devices
and dispatched asynchronously from one thread. A population is never sharded over devices, so that a member's bits
depend on the block size (saved in the run) and on nothing else: not on how many devices, blocks or hosts there are.

Where there are more devices than members, a member may have several: then its environments are sharded over them, group
by group, and the compiler sums the gradients. Its bits depend on how many (saved, too): sums are rounded in another
order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from envs_jax.sharding import AXIS, mesh_of, sharded_over
from jaxrl import backend
from jaxrl.types import Metrics, Runner, TrainState

Population = list            # one TrainState per block, each on its device or devices, leaves [block, ...]
Place = tuple                # the devices of a block
PAYS = 1024                  # environments per device, from which on it pays to share a learner among devices


def block_size(count: int, devices: int) -> int:
    """Members per block: all devices busy, as few and as large blocks as that allows."""
    return -(-count // min(devices, count))


def shards(runner: Runner, devices: int, asked: bool) -> int:
    """Devices for each of the blocks: as many of `devices` as groups of environments can be dealt out to evenly.

    asked: the user wants that many; else only as many as it pays for.
    """
    least = 1 if asked else PAYS
    fits = lambda n: runner.groups % n == 0 and (n == 1 or runner.num_envs >= n * least)
    return next(n for n in range(devices, 0, -1) if fits(n))


class Members:
    """`count` learners driven by one Runner. The last block is filled up with copies of the last member, whose results
    are dropped."""

    def __init__(self, runner: Runner, count: int, devices: list[jax.Device], *, size: int | None = None,
                 devices_each: int | None = None, share: bool = False, evaluate: Callable | None = None):
        """size, devices_each: the layout of a stored run; the second gives way where there are fewer devices.

        share: let a learner have the devices that are left even where it is too small to gain by it.
        """
        self.runner, self.count = runner, count
        self.size = size or block_size(count, len(devices))
        self.blocks = -(-count // self.size)
        spare = len(devices) // self.blocks if self.size == 1 else 1
        self.shards = devices_each if devices_each and devices_each <= spare else shards(runner, spare, share)
        deal = [tuple(devices[i: i + self.shards]) for i in range(0, len(devices) - self.shards + 1, self.shards)]
        self.places: list[Place] = [deal[b % len(deal)] for b in range(self.blocks)]
        self.steps_per_update = runner.steps_per_update
        self.compile_seconds = 0.0
        self._programs: dict[tuple[str, Place], Future] = {}
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

    @property
    def devices(self) -> list[jax.Device]:
        """Those in use."""
        return list(dict.fromkeys(device for place in self.places for device in place))

    # ---------------------------------------------------------------- the population

    def init(self, keys: jax.Array, hyper: Any, schedule: int) -> Population:
        """Fresh members from `keys` [count] and `hyper` (leaves [count]); all made on the first device: one program."""
        first = self.places[0][:1]
        return [self._put(place, self._call("init", self._init, first, *parts, np.int32(schedule)))
                for place, parts in self._deal((keys, hyper), lambda place: first)]

    def advance(self, population: Population, updates: int) -> tuple[Population, Metrics]:
        """`updates` updates of every member; the old population is given up. Metrics are NumPy arrays [count]."""
        done = [self._call("advance", self._advance, place, state, np.int32(updates))
                for place, state in zip(self.places, population)]
        return [state for state, _ in done], self._collect([metrics for _, metrics in done])

    def evaluate(self, population: Population, keys: jax.Array) -> np.ndarray:
        """Greedy returns [count, episodes], with `keys` [count]."""
        return self._collect([self._call("evaluate", self._evaluate, place[:1], *self._alone(place, state.agent), key)
                              for (place, key), state in zip(self._deal(keys, _first), population)])

    def play(self, agent: Any, keys: jax.Array) -> np.ndarray:
        """`evaluate` of agent states [count, ...] that are on the host."""
        return self._collect([self._call("evaluate", self._evaluate, place[:1], *block)
                              for place, block in self._deal((agent, keys), _first)])

    def compile(self, population: Population, keys: jax.Array) -> None:
        """Compile `advance` on every device, and begin to compile `evaluate`, which is waited for when it is used."""
        start = time.perf_counter()
        states = dict(zip(self.places, population))
        needed = [self._program("advance", self._advance, place, state, np.int32(1))
                  for place, state in states.items()]
        for place, key in dict(self._deal(keys, _first)).items():
            self._program("evaluate", self._evaluate, place[:1], *self._alone(place, states[place].agent), key)
        for program in needed:
            program.result()
        self.compile_seconds += time.perf_counter() - start

    def to_host(self, population: Population) -> TrainState:
        """The real members as one TrainState of arrays [count, ...] on the first device's host."""
        blocks = [on_host(block) for block in population]
        merged = jax.tree.map(lambda *x: np.concatenate(x)[: self.count], *blocks)
        return jax.tree.map(_like_key, population[0], merged)

    def from_host(self, state: TrainState) -> Population:
        """The inverse of `to_host`: blocks on their devices."""
        return [self._put(place, block) for place, block in self._deal(state, _first)]

    def template(self, keys: jax.Array, hyper: Any) -> TrainState:
        """Shapes and dtypes of `to_host`, without computing anything."""
        init = jax.vmap(self.runner.init, in_axes=(0, 0, None))
        return jax.eval_shape(init, keys, hyper, jax.ShapeDtypeStruct((), jnp.int32))

    # ---------------------------------------------------------------- blocks and devices

    def _deal(self, tree: Any, where: Callable[[Place], Place]):
        """Cut leaves [count, ...] into blocks: pairs (place, leaves [block, ...] on the one device of where(place))."""
        index = np.minimum(np.arange(self.blocks * self.size), self.count - 1).reshape(self.blocks, self.size)
        for place, rows in zip(self.places, index):
            yield place, jax.device_put(jax.tree.map(lambda x, rows=rows: x[rows], tree), where(place)[0])

    def _put(self, place: Place, state: TrainState) -> TrainState:
        """A block's state on its devices: whole on one, the environments' part of it shared among several."""
        return jax.device_put(state, self._shardings(place, state) if len(place) > 1 else place[0])

    def _shardings(self, place: Place, state: TrainState) -> Any:
        """A sharding for each leaf of a block on several devices."""
        spec = lambda shared: PartitionSpec(None, AXIS) if shared else PartitionSpec()
        return jax.tree.map(lambda shared: NamedSharding(mesh_of(place), spec(shared)), self.runner.shared(state))

    def _alone(self, place: Place, *trees: Any) -> tuple:
        """What every device of a place holds whole, on its first one."""
        return trees if len(place) == 1 else jax.device_put(trees, place[0])

    def _collect(self, blocks: list) -> Any:
        """What the blocks computed, on the host. The wait is Python's own, so that a signal is noticed in it."""
        arrays, pause = jax.tree.leaves(blocks), 2e-5
        while not all(x.is_ready() for x in arrays):
            time.sleep(pause)
            pause = min(2 * pause, 5e-4)
        return jax.tree.map(lambda *x: np.concatenate([np.asarray(a) for a in x])[: self.count], *blocks)

    def _call(self, name: str, function: Callable, place: Place, *args: Any) -> Any:
        """`function` of arguments that are on the devices of `place` (or NumPy's)."""
        start = time.perf_counter()
        program = self._program(name, function, place, *args).result()
        self.compile_seconds += time.perf_counter() - start
        return program(*args)

    def _program(self, name: str, function: Callable, place: Place, *args: Any) -> Future:
        """`function` compiled for arguments like these on `place`, in a thread: XLA works outside Python's lock."""
        if (name, place) not in self._programs:
            self._programs[name, place] = self._threads.submit(self._lower(function, place, *args).compile)
        return self._programs[name, place]

    def _lower(self, function: Callable, place: Place, *args: Any) -> Any:
        if len(place) == 1:
            placed = lambda x: _aval(x, SingleDeviceSharding(place[0]))
            return function.lower(*jax.tree.map(placed, args))
        state, *rest = args          # only `advance` runs on several devices
        shardings, whole = self._shardings(place, state), NamedSharding(mesh_of(place), PartitionSpec())
        args = jax.tree.map(_aval, state, shardings), *(_aval(x, whole) for x in rest)
        with sharded_over(place):
            return jax.jit(function, donate_argnums=0, out_shardings=(shardings, whole)).lower(*args)


def _first(place: Place) -> Place:
    return place[:1]


def _aval(x: Any, sharding: Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def on_host(tree: Any) -> Any:
    """The tree as NumPy arrays, keys as their data."""
    data = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    return jax.device_get(jax.tree.map(data, tree))


def _like_key(like: Any, x: np.ndarray) -> Any:
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(like))
    return x
