"""Many learners on the devices of one host, in blocks of a fixed size.

A block is one single-device program: the learner, vmapped over the members of the block. Blocks are
divided among the devices and dispatched asynchronously from one thread. A population is never
sharded, so that the bits of a member depend on the block size (stored in the run) and not on the
number of devices, blocks or hosts.

If there are more devices than members, several devices may share a member. Its environments are
then sharded over them, group by group, and the compiler sums the gradients. Sums are rounded in
another order, so that the bits depend on that number of devices (stored as well).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from envs_jax.sharding import AXIS, mesh_of, sharded_over
from envs_jax.sizes import ceil_div
from jaxrl import backend
from jaxrl.errors import out_of_memory
from jaxrl.population.protocol import Blocks, HostMetrics, Population, Raised
from jaxrl.types import Runner, TrainState

Place = tuple                # the devices of a block
PAYS = 1024                  # environments per device from which sharing a learner is faster


def block_size(count: int, devices: int) -> int:
    """Return the members per block that keep all devices busy with as few blocks as possible."""
    return ceil_div(count, min(devices, count))


def shards(runner: Runner, devices: int, asked: bool) -> int:
    """Return the number of devices, at most `devices`, that share one block.

    It divides the groups of environments. asked: the user asked for that many devices; otherwise
    there are only as many as make training faster.
    """
    least = 1 if asked else PAYS
    for n in range(devices, 1, -1):
        if runner.groups % n == 0 and runner.num_envs >= n * least:
            return n
    return 1


class Members(Population):
    """The population on the devices of this process."""

    def __init__(self, runner: Runner, count: int, devices: list[jax.Device], *,
                 size: int | None = None, devices_each: int | None = None, share: bool = False,
                 evaluate: Callable | None = None):
        """size, devices_each: the layout of a stored run; fewer devices may override the latter.

        share: let spare devices share a learner even if it is too small to become faster.
        evaluate: (agent state, key) -> returns [episodes].
        """
        self.runner = runner
        self.count = count
        self.size = size or block_size(count, len(devices))
        self.blocks = ceil_div(count, self.size)
        spare = max(len(devices) // self.blocks, 1) if self.size == 1 else 1
        if devices_each and devices_each <= spare:
            self.shards = devices_each
        else:
            self.shards = shards(runner, spare, share)
        self._places = [tuple(devices[i: i + self.shards])
                        for i in range(0, len(devices) - self.shards + 1, self.shards)]
        self.steps_per_update = runner.steps_per_update
        self.compile_seconds = 0.0
        self.raised: Raised = {}
        self._programs: dict[tuple[str, Place], Future] = {}
        self._threads = ThreadPoolExecutor(backend.cores())
        self._init = jax.jit(self._over_members(runner.init, (0, 0, None)))
        self._advance = jax.jit(self._over_members(runner.advance, (0, None)), donate_argnums=0)
        self._take = jax.jit(_take)
        self._evaluate: Any = evaluate and jax.jit(self._over_members(evaluate, (0, 0)))

    @property
    def places(self) -> list[Place]:
        """The place of each block."""
        return [self._places[b % len(self._places)] for b in range(self.blocks)]

    @property
    def devices(self) -> list[jax.Device]:
        """Devices in use."""
        return list(dict.fromkeys(device for place in self.places for device in place))

    def resized(self, count: int) -> Members:
        other = copy.copy(self)
        other.count = count
        other.blocks = ceil_div(count, self.size)
        other.compile_seconds = 0.0
        return other

    def _over_members(self, function: Callable, axes: tuple) -> Callable:
        """Return `function` over a block: vmapped, or for a block of one a quicker program."""
        if self.size > 1:
            return jax.vmap(function, in_axes=axes)

        def squeeze(tree: Any, axis: int | None) -> Any:
            return tree if axis is None else jax.tree.map(lambda x: x[0], tree)

        return lambda *args: jax.tree.map(lambda x: x[None], function(*map(squeeze, args, axes)))

    # ---------------------------------------------------------------- the population

    def init(self, keys: jax.Array, hyper: Any, schedule: int) -> Blocks:
        """Return fresh members; all are made on the first device, by one program."""
        return [self._put(place, fresh)
                for place, fresh in self._fresh(keys, hyper, schedule, range(self.blocks))]

    def advance(self, population: Blocks, updates: int) -> tuple[Blocks, HostMetrics]:
        states = []
        metrics = []
        for place, state in zip(self.places, population):
            done = self._tried("advance", self._advance, place, state, np.int32(updates))
            if isinstance(done, tuple):
                state, done = done
            states.append(state)
            metrics.append(done)
        return states, self._spared(metrics)

    def without(self, population: Blocks, blocks: Iterable[int], keys: jax.Array,
                hyper: Any) -> Blocks:
        states = list(population)
        lost = sorted(set(blocks))
        for b, (place, fresh) in zip(lost, self._fresh(keys, hyper, 0, lost)):
            state = self._put(place, fresh)
            states[b] = state._replace(alive=jnp.zeros_like(state.alive))
        return states

    def _fresh(self, keys: jax.Array, hyper: Any, schedule: int,
               blocks: Iterable[int]) -> Iterator[tuple[Place, TrainState]]:
        """Yield (its place, fresh members on the first device) of each of `blocks`, ascending."""
        wanted = set(blocks)
        first = self.places[0][:1]
        dealt = self._deal((keys, hyper), lambda place: first)
        for b, (place, parts) in enumerate(dealt):
            if b in wanted:
                yield place, self._call("init", self._init, first, *parts, np.int32(schedule))

    def evaluate(self, population: Blocks, keys: jax.Array) -> np.ndarray:
        returns = []
        for (place, key), state in zip(self._deal(keys, _first), population):
            agent = self._on_first(place, state.agent)
            returns.append(self._tried("evaluate", self._evaluate, place[:1], agent, key))
        return self._spared(returns)

    def play(self, agent: Any, keys: jax.Array) -> np.ndarray:
        """Return greedy returns [count, episodes] of agent states [count, ...] on the host."""
        return self._collect([self._call("evaluate", self._evaluate, place[:1], *block)
                              for place, block in self._deal((agent, keys), _first)])

    def compile(self, population: Blocks, keys: jax.Array) -> None:
        start = time.perf_counter()
        states = dict(zip(self.places, population))
        needed = [self._program("advance", self._advance, place, state, np.int32(1))
                  for place, state in states.items()]
        for place, key in dict(self._deal(keys, _first)).items():
            agent = self._on_first(place, states[place].agent)
            self._program("evaluate", self._evaluate, place[:1], agent, key)
        for program in needed:
            program.result()
        self.compile_seconds += time.perf_counter() - start

    def to_host(self, population: Blocks, *, replay: bool = True) -> TrainState:
        if not replay:
            population = [block._replace(replay=()) for block in population]
        blocks = [on_host(block) for block in population]

        def members_of(*x: np.ndarray) -> np.ndarray:
            whole = x[0] if len(x) == 1 else np.concatenate(x)       # of one block no second copy
            return whole[: self.count]

        return jax.tree.map(like_key, population[0], jax.tree.map(members_of, *blocks))

    def from_host(self, state: TrainState) -> Blocks:
        return [self._put(place, block) for place, block in self._deal(state, _first)]

    def copy(self, population: Blocks, source: np.ndarray, hyper: Any) -> Blocks:
        learned = [learned_of(state) for state in population]
        dealt = self._deal((np.asarray(source), hyper), _first)
        copied = []
        for b, ((place, (rows, values)), state) in enumerate(zip(dealt, population)):
            own_rows = b * self.size + np.arange(self.size)
            dead = ~np.asarray(state.alive) & (np.asarray(rows) != own_rows)
            here = jax.device_put(learned, place[0])
            taken = self._call("copy", self._take, place[:1], here, rows)
            state = state._replace(**taken, hyper=values)
            copied.append(self._put(place, self.renewed(state, dead)))
        return copied

    def renewed(self, state: TrainState, dead: np.ndarray) -> TrainState:
        """Return a block in which members marked in `dead`, bool [size], start in a fresh world.

        Their environments, recurrent states and replays are replaced, since what these held may be
        what killed the members. The keys follow from their own, so that workers do the same.
        """
        if not dead.any():
            return state
        first = self.places[0][:1]
        keys = jax.vmap(jax.random.fold_in)(state.key, jnp.asarray(state.progress.update))
        args = jax.device_put((keys, state.hyper), first[0])
        fresh = self._call("init", self._init, first, *args, np.int32(0))

        def pick(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(dead.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        own = jax.device_put(world_of(state), first[0])
        return state._replace(**jax.tree.map(pick, world_of(fresh), own))

    def empty_replays(self, population: Blocks, keys: jax.Array, hyper: Any) -> Blocks:
        fresh = self.init(keys, hyper, 0)
        return [block._replace(replay=new.replay) for block, new in zip(population, fresh)]

    def template(self, keys: jax.Array, hyper: Any) -> TrainState:
        return template(self.runner, keys, hyper)

    # ---------------------------------------------------------------- blocks and devices

    def _deal(self, tree: Any, where: Callable[[Place], Place]) -> Iterator[tuple[Place, Any]]:
        """Yield (place, leaves [size, ...] of its block) from leaves [count, ...].

        The leaves of a block lie on the one device of where(place).
        """
        for place, rows in zip(self.places, rows_of_blocks(self.count, self.size)):
            block = jax.tree.map(lambda x, rows=rows: x[rows], tree)
            yield place, jax.device_put(block, where(place)[0])

    def _put(self, place: Place, state: TrainState) -> TrainState:
        """Return a block's state on its devices; several devices share the environments."""
        where = self._shardings(place, state) if len(place) > 1 else place[0]
        return jax.device_put(state, where)

    def _shardings(self, place: Place, state: TrainState) -> Any:
        """Return a sharding for each leaf of a block on several devices."""
        whole = NamedSharding(mesh_of(place), PartitionSpec())
        split = NamedSharding(mesh_of(place), PartitionSpec(None, AXIS))
        return jax.tree.map(lambda shared: split if shared else whole, self.runner.shared(state))

    def _on_first(self, place: Place, tree: Any) -> Any:
        """Return a tree that every device of a place holds whole, on the first device."""
        return tree if len(place) == 1 else jax.device_put(tree, place[0])

    def _tried(self, *call: Any) -> Any:
        """Return the result of `_call`, or the exception of the program."""
        try:
            return self._call(*call)
        except jax.errors.JaxRuntimeError as error:
            return error

    def _spared(self, blocks: Sequence[Any]) -> Any:
        """Return the joined results of blocks, some of which may have raised (see `spared`)."""
        self._wait(blocks)
        blocks, self.raised = spared([_read(block) for block in blocks])
        return joined(blocks, self.count)

    def _collect(self, blocks: list) -> Any:
        """Return the joined results of blocks, none of which may have raised."""
        self._wait(blocks)
        return joined(blocks, self.count)

    def _wait(self, blocks: Any) -> None:
        """Wait until all is computed, in Python, so that signals are noticed meanwhile."""
        arrays: list[Any] = [x for x in jax.tree.leaves(blocks) if isinstance(x, jax.Array)]
        pause = 2e-5
        while not all(x.is_ready() for x in arrays):
            time.sleep(pause)
            pause = min(2 * pause, 5e-4)

    def _call(self, name: str, function: Callable, place: Place, *args: Any) -> Any:
        """Call `function` with arguments on the devices of `place`, or NumPy arrays."""
        start = time.perf_counter()
        program = self._program(name, function, place, *args).result()
        self.compile_seconds += time.perf_counter() - start
        return program(*args)

    def _program(self, name: str, function: Callable, place: Place, *args: Any) -> Future:
        """Return `function` compiled for `place` and arguments like these.

        It is compiled once, in a thread: XLA works without Python's lock.
        """
        if (name, place) not in self._programs:
            lowered = self._lower(function, place, *args)
            self._programs[name, place] = self._threads.submit(lowered.compile)
        return self._programs[name, place]

    def _lower(self, function: Any, place: Place, *args: Any) -> Any:
        if len(place) == 1:
            sharding = SingleDeviceSharding(place[0])
            return function.lower(*jax.tree.map(lambda x: _aval(x, sharding), args))
        state, *rest = args          # only `advance` runs on several devices
        shardings = self._shardings(place, state)
        whole = NamedSharding(mesh_of(place), PartitionSpec())
        args = jax.tree.map(_aval, state, shardings), *(_aval(x, whole) for x in rest)
        compiled = jax.jit(function, donate_argnums=0, out_shardings=(shardings, whole))
        with sharded_over(place):
            return compiled.lower(*args)


def _first(place: Place) -> Place:
    return place[:1]


def _aval(x: Any, sharding: Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _take(agents: list[Any], rows: jax.Array) -> Any:
    """Return the members `rows` of all blocks."""
    return jax.tree.map(lambda *x: jnp.concatenate(x)[rows], *agents)


def _read(block: Any) -> Any:
    """Return the results of a block on the host, or the exception of its program."""
    if isinstance(block, Exception):
        return block
    try:
        return jax.tree.map(np.asarray, block)
    except jax.errors.JaxRuntimeError as error:
        return error


def rows_of_blocks(count: int, size: int) -> np.ndarray:
    """Return the members of each block [blocks, size]; the last member fills up the last block."""
    blocks = ceil_div(count, size)
    return np.minimum(np.arange(blocks * size), count - 1).reshape(blocks, size)


def template(runner: Runner, keys: jax.Array, hyper: Any) -> TrainState:
    """Return the shapes and dtypes of members with `keys` [count] and `hyper` [count]."""
    init = jax.vmap(runner.init, in_axes=(0, 0, None))
    return jax.eval_shape(init, keys, hyper, jax.ShapeDtypeStruct((), jnp.int32))


def joined(blocks: Sequence[Any], count: int) -> Any:
    """Return results of blocks as NumPy arrays [count, ...], without the filling of the last."""
    return jax.tree.map(lambda *x: np.concatenate([np.asarray(a) for a in x])[:count], *blocks)


def spared(blocks: Sequence[Any]) -> tuple[list[Any], Raised]:
    """Return (results of blocks, exceptions among them by block).

    An exception is replaced by results that are not finite (integers by 0). Raises the first
    exception if all blocks raised or memory ran out, which is not the fault of a block.
    """
    raised = {b: x for b, x in enumerate(blocks) if isinstance(x, Exception)}
    for error in raised.values():
        if len(raised) == len(blocks) or out_of_memory(error):
            raise error
    like = next(x for x in blocks if not isinstance(x, Exception))
    lost = jax.tree.map(_not_finite, like)
    return [lost if b in raised else x for b, x in enumerate(blocks)], raised


def _not_finite(x: np.ndarray) -> np.ndarray:
    """Return NaNs in the shape of `x`, zeros if it holds no floats."""
    return np.full_like(x, np.nan if np.issubdtype(x.dtype, np.floating) else 0)


def learned_of(state: TrainState) -> dict[str, Any]:
    """Return the fields that a member copies from another; `world_of` are those that it keeps."""
    return {"agent": state.agent, "progress": state.progress, "alive": state.alive}


def world_of(state: TrainState) -> dict[str, Any]:
    """Return environments, recurrent state and replay."""
    return {"env": state.env, "carry": state.carry, "replay": state.replay}


def is_key(x: Any) -> bool:
    """Return whether an array, or the shape of one, is of typed PRNG keys."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def on_host(tree: Any) -> Any:
    """Return the tree as NumPy arrays, keys as their key data."""
    data = jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)
    return jax.device_get(data)


def like_key(like: Any, x: np.ndarray) -> Any:
    """Return `x`, as typed keys if `like` (an array, or the shape of one) is of typed keys."""
    if not is_key(like):
        return x
    impl = jax.random.key_impl(like) if isinstance(like, jax.Array) else None
    return jax.random.wrap_key_data(jnp.asarray(x), impl=impl)
