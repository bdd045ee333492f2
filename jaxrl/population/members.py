"""Many learners on the devices of one host, in blocks of a fixed size.

A block is one single-device program: the learner, vmapped over the block's members. Blocks are dealt out to the devices
and dispatched asynchronously from one thread. A population is never sharded over devices, so that a member's bits
depend on the block size (saved in the run) and on nothing else: not on how many devices, blocks or hosts there are.

Where there are more devices than members, a member may have several: then its environments are sharded over them, group
by group, and the compiler sums the gradients. Its bits depend on how many (saved, too): sums are rounded in another
order.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from envs_jax.sharding import AXIS, mesh_of, sharded_over
from jaxrl import backend
from jaxrl.errors import out_of_memory
from jaxrl.types import Metrics, Runner, TrainState

Population = list            # one TrainState per block, each on its device or devices, leaves [block, ...]
Place = tuple                # the devices of a block
Raised = dict[int, Exception]    # block -> what its environment or program raised
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
        spare = max(len(devices) // self.blocks, 1) if self.size == 1 else 1
        self.shards = devices_each if devices_each and devices_each <= spare else shards(runner, spare, share)
        self._places = [tuple(devices[i: i + self.shards])
                        for i in range(0, len(devices) - self.shards + 1, self.shards)]
        self.steps_per_update = runner.steps_per_update
        self.compile_seconds = 0.0
        self.raised: Raised = {}                 # in the last `advance` or `evaluate`
        self._programs: dict[tuple[str, Place], Future] = {}
        self._threads = ThreadPoolExecutor(backend.cores())
        self._init = jax.jit(self._over_members(runner.init, (0, 0, None)))
        self._advance = jax.jit(self._over_members(runner.advance, (0, None)), donate_argnums=0)
        self._take = jax.jit(lambda agents, rows: jax.tree.map(lambda *x: jnp.concatenate(x)[rows], *agents))
        self._evaluate = evaluate and jax.jit(self._over_members(evaluate, (0, 0)))

    @property
    def places(self) -> list[Place]:
        """The place of each block."""
        return [self._places[b % len(self._places)] for b in range(self.blocks)]

    def resized(self, count: int) -> Members:
        """As many members as `count` in blocks of the same size on the same devices, by the programs of this one."""
        other = copy.copy(self)
        other.count, other.blocks, other.compile_seconds = count, -(-count // self.size), 0.0
        return other

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
        """`updates` updates of every member; the old population is given up. Metrics are NumPy arrays [count].

        A block in which the environment raises is lost, unless all do: it is in `raised`, and its metrics are not
        finite. `without` puts something in its place.
        """
        done = [self._tried("advance", self._advance, place, state, np.int32(updates))
                for place, state in zip(self.places, population)]
        states, metrics = zip(*(x if isinstance(x, tuple) else (state, x) for x, state in zip(done, population)))
        return list(states), self._spared(metrics)

    def without(self, population: Population, blocks: Iterable[int], keys: jax.Array, hyper: Any) -> Population:
        """Members that are not alive in `blocks`, made from `keys` [count] and `hyper` (leaves [count])."""
        first = self.places[0][:1]
        fresh = {b: self._put(place, self._call("init", self._init, first, *parts, np.int32(0)))
                 for b, (place, parts) in enumerate(self._deal((keys, hyper), lambda place: first)) if b in set(blocks)}
        return [fresh[b]._replace(alive=jnp.zeros_like(fresh[b].alive)) if b in fresh else state
                for b, state in enumerate(population)]

    def evaluate(self, population: Population, keys: jax.Array) -> np.ndarray:
        """Greedy returns [count, episodes], with `keys` [count]; nan where the environment raises (see `advance`)."""
        return self._spared([self._tried("evaluate", self._evaluate, place[:1], *self._alone(place, state.agent), key)
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

    def to_host(self, population: Population, *, replay: bool = True) -> TrainState:
        """The real members as one TrainState of arrays [count, ...] on the first device's host, or without replays."""
        if not replay:
            population = [block._replace(replay=()) for block in population]
        blocks = [on_host(block) for block in population]
        joined = lambda *x: (x[0] if len(x) == 1 else np.concatenate(x))[: self.count]     # of one block no second copy
        return jax.tree.map(like_key, population[0], jax.tree.map(joined, *blocks))

    def from_host(self, state: TrainState) -> Population:
        """The inverse of `to_host`: blocks on their devices."""
        return [self._put(place, block) for place, block in self._deal(state, _first)]

    def copy(self, population: Population, source: np.ndarray, hyper: Any) -> Population:
        """Member i gets the agent of member source[i], with its progress and whether it is alive, and hyperparameters
        `hyper` (leaves [count]); it keeps its key, environments, replay and recurrent state, unless it had died."""
        learned, parts = [learned_of(state) for state in population], self._deal((np.asarray(source), hyper), _first)
        taken = []
        for block, ((place, (rows, values)), state) in enumerate(zip(parts, population)):
            dead = ~np.asarray(state.alive) & (np.asarray(rows) != block * self.size + np.arange(self.size))
            here = jax.device_put(learned, place[0])
            new = state._replace(**self._call("copy", self._take, place[:1], here, rows), hyper=values)
            taken.append(self._put(place, self.renewed(new, dead)))
        return taken

    def renewed(self, state: TrainState, dead: np.ndarray) -> TrainState:
        """A block in which members that had died, bool [size], have fresh environments, recurrent states and replays:
        what they held may be what killed them. Their keys follow from those that they have, wherever this is done."""
        if not dead.any():
            return state
        first = self.places[0][:1]
        keys = jax.vmap(jax.random.fold_in)(state.key, jnp.asarray(state.progress.update))
        fresh = self._call("init", self._init, first, *jax.device_put((keys, state.hyper), first[0]), np.int32(0))
        of = lambda state: {"env": state.env, "carry": state.carry, "replay": state.replay}
        own = jax.device_put(of(state), first[0])
        pick = lambda new, old: jnp.where(dead.reshape(-1, *[1] * (new.ndim - 1)), new, old)
        return state._replace(**jax.tree.map(pick, of(fresh), own))

    def empty_replays(self, population: Population, keys: jax.Array, hyper: Any) -> Population:
        """The members with nothing in their replays."""
        fresh = self.init(keys, hyper, 0)
        return [block._replace(replay=new.replay) for block, new in zip(population, fresh)]

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

    def _tried(self, *call: Any) -> Any:
        """`_call`, or the error of a program that ran."""
        try:
            return self._call(*call)
        except jax.errors.JaxRuntimeError as error:
            return error

    def _spared(self, blocks: Sequence[Any]) -> Any:
        """`_collect` of blocks some of which may have raised."""
        self._wait(blocks)
        blocks, self.raised = spared([self._read(block) for block in blocks])
        return joined(blocks, self.count)

    def _read(self, block: Any) -> Any:
        """A block's results on the host, or what its program raised."""
        try:
            return jax.tree.map(np.asarray, block) if not isinstance(block, Exception) else block
        except jax.errors.JaxRuntimeError as error:
            return error

    def _collect(self, blocks: list) -> Any:
        """What the blocks computed, on the host."""
        self._wait(blocks)
        return joined(blocks, self.count)

    def _wait(self, blocks: Any) -> None:
        """Until all is computed. The wait is Python's own, so that a signal is noticed in it."""
        arrays, pause = [x for x in jax.tree.leaves(blocks) if isinstance(x, jax.Array)], 2e-5
        while not all(x.is_ready() for x in arrays):
            time.sleep(pause)
            pause = min(2 * pause, 5e-4)

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


def joined(blocks: Sequence[Any], count: int) -> Any:
    """Results of blocks as NumPy arrays [count, ...], without the copies that fill up the last block."""
    return jax.tree.map(lambda *x: np.concatenate([np.asarray(a) for a in x])[:count], *blocks)


def spared(blocks: Sequence[Any]) -> tuple[list[Any], Raised]:
    """Results of blocks, some of which may be what was raised: numbers that are not finite take their place (zero, of
    integers). Raises the first where all did, and what says that memory is short: that is no block's own fault."""
    raised = {b: x for b, x in enumerate(blocks) if isinstance(x, Exception)}
    fatal = [x for x in raised.values() if len(raised) == len(blocks) or out_of_memory(x)]
    if fatal:
        raise fatal[0]
    like = next(x for x in blocks if not isinstance(x, Exception))
    none = jax.tree.map(lambda x: np.full_like(x, np.nan if np.issubdtype(x.dtype, np.floating) else 0), like)
    return [none if b in raised else x for b, x in enumerate(blocks)], raised


def learned_of(state: TrainState) -> dict[str, Any]:
    """What a member takes over from another: leaves without its key, environments, replay and recurrent state."""
    return {"agent": state.agent, "progress": state.progress, "alive": state.alive}


def on_host(tree: Any) -> Any:
    """The tree as NumPy arrays, keys as their data."""
    data = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    return jax.device_get(jax.tree.map(data, tree))


def like_key(like: Any, x: np.ndarray) -> Any:
    """`x`, as a typed key where `like` (an array, or the shape of one) is."""
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(like) if isinstance(like, jax.Array)
                                        else None)
    return x
