"""A population whose blocks live on the workers of a pool, for example Ray actors.

A block is computed by the same program of the same size on any worker, so results do not depend on
the number of workers. The coordinator sends block numbers, keys and hyperparameters, and receives
metrics and fitness. An agent travels from worker to worker by reference.

The coordinator also keeps what brings every block to its present state: the last state that was
fetched for a checkpoint (or the start), and the calls since then. If a worker is lost, all blocks
return to that state and repeat the calls, with the same bits. A loss costs the time since the last
checkpoint and nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.sizes import ceil_div
from jaxrl.config.reading import read
from jaxrl.declare import hypers
from jaxrl.distributed.pool import Failure, Pool, shared
from jaxrl.drivers.build import build
from jaxrl.errors import RunError
from jaxrl.evaluate import make_evaluate
from jaxrl.population.members import (
    Members,
    joined,
    learned_of,
    like_key,
    on_host,
    rows_of_blocks,
    spared,
    template,
)
from jaxrl.population.protocol import Blocks, HostMetrics, Population, Raised
from jaxrl.types import Runner, TrainState

PATIENCE = 600.0         # seconds for one call of a block, compilation included
MOST_LOSSES = 5          # losses of workers in one call after which a run fails


class BlockHost:
    """The object in a worker: blocks of one size, each a population of its own.

    The pool makes it from plain values. Trees cross as lists of their leaves, because types that
    are made at run time cannot be sent.
    """

    def __init__(self, config: dict[str, Any], size: int, episodes: int):
        """config: the run's, as `jaxrl.config.to_plain` returns it."""
        run = read(config)
        learner = build(run)
        play = make_evaluate(learner.agent, learner.env, learner.params, episodes)

        def evaluate(state: Any, key: jax.Array) -> jax.Array:
            return play(learner.agent.actor(state), key)

        self._hyper = jax.tree.map(lambda x: np.broadcast_to(x, (size,)), hypers(run.agent))
        self._members = Members(learner.runner, size, jax.local_devices()[:1], size=size,
                                evaluate=evaluate)
        self._blocks: dict[int, list[TrainState]] = {}

    def init(self, item: tuple) -> None:
        """Make the members of a block; item: (block, key data [size], hyper [size], schedule)."""
        block, keys, hyper, schedule = item
        hyper = self._as_hyper(hyper)
        self._blocks[block] = self._members.init(_keys(keys), hyper, schedule)

    def without(self, item: tuple) -> None:
        """Replace a block by dead members; item: (block, key data [size], hyper [size])."""
        block, keys, hyper = item
        hyper = self._as_hyper(hyper)
        self._blocks[block] = self._members.without([None], [0], _keys(keys), hyper)

    def keep(self, blocks: int) -> None:
        """Delete all blocks but the first `blocks`."""
        kept = {block: states for block, states in self._blocks.items() if block < blocks}
        self._blocks = kept

    def put(self, item: tuple) -> None:
        """Set the state of a block; item: (block, with its replay, leaves as `fetch` returns)."""
        block, replay, leaves = item
        keys = jax.random.split(jax.random.key(0), self._members.size)
        like = _with_replay(self._members.template(keys, self._hyper), replay)
        self._blocks[block] = self._members.from_host(rebuilt(like, leaves))

    def advance(self, item: tuple) -> HostMetrics:
        """Return metrics [size] after an advance; item: (block, updates)."""
        block, updates = item
        self._blocks[block], metrics = self._members.advance(self._held(block), updates)
        return metrics

    def evaluate(self, item: tuple) -> np.ndarray:
        """Return returns [size, episodes]; item: (block, key data [size])."""
        block, keys = item
        return self._members.evaluate(self._held(block), _keys(keys))

    def fetch(self, item: tuple) -> list[np.ndarray]:
        """Return the leaves of a block's state, keys as data; item: (block, with its replay)."""
        block, replay = item
        [state] = self._held(block)
        return jax.tree.leaves(on_host(_with_replay(state, replay)))

    def lend(self, item: tuple) -> Any:
        """Return a handle on the leaves that others may copy, [size, ...]; item: (block,)."""
        [state] = self._held(item[0])
        return shared(jax.tree.leaves(on_host(learned_of(state))))

    def copy(self, item: tuple) -> None:
        """Copy agents into a block, as `Population.copy` explains.

        item: (block, {other block: its handle}, [(source block, row in it)] [size], hyper [size])
        """
        block, lent, sources, hyper = item
        [state] = self._held(block)
        learned = {other: handle.get() for other, handle in lent.items()}
        learned[block] = jax.tree.leaves(on_host(learned_of(state)))
        leaves = [np.stack([learned[other][leaf][row] for other, row in sources])
                  for leaf in range(len(learned[block]))]
        copied = [source != (block, row) for row, source in enumerate(sources)]
        dead = ~np.asarray(state.alive) & np.array(copied)
        taken = rebuilt(learned_of(state), leaves)
        state = state._replace(**taken, hyper=self._as_hyper(hyper))
        renewed = self._members.renewed(state, dead)
        self._blocks[block] = [jax.device_put(renewed, self._members.places[0][0])]

    def reset_replay(self, item: tuple) -> None:
        """Empty the replay of a block; item: (block, key data [size], hyper [size])."""
        block, keys, hyper = item
        [state] = self._held(block)
        [fresh] = self._members.init(_keys(keys), self._as_hyper(hyper), 0)
        self._blocks[block] = [state._replace(replay=fresh.replay)]

    def _as_hyper(self, leaves: list[np.ndarray]) -> Any:
        return rebuilt(self._hyper, leaves)

    def _held(self, block: int) -> list[TrainState]:
        if block not in self._blocks:
            raise RunError(f"block {block} is not on this worker: the one that had it was lost")
        return self._blocks[block]


class RemoteMembers(Population):
    """The population on the workers of a pool.

    `Blocks` are the numbers of the blocks; block b lives on worker b modulo the number of workers.
    Raises RunError if the code in a worker raises, or workers are lost again and again.
    """

    shards = 1

    def __init__(self, runner: Runner, count: int, pool: Pool, *, size: int,
                 patience: float = PATIENCE):
        """patience: seconds for one call of a block, compilation included."""
        self.runner = runner
        self.count = count
        self.size = size
        self._pool = pool
        self._patience = patience
        self.blocks = ceil_div(count, size)
        self.steps_per_update = runner.steps_per_update
        self.compile_seconds = 0.0
        self.raised: Raised = {}
        self._history: list[Callable[[], Any]] = []      # calls that led to the present state
        self._example: Any = None                        # shapes of `to_host`
        self._lost: set[int] = set()                     # workers lost since the last recovery

    @property
    def devices(self) -> list[jax.Device]:
        """One device for each worker, assumed to be like the first of this host."""
        return jax.local_devices()[:1] * self._pool.workers

    def restore(self, worker: int) -> Sequence[tuple[str, Any]]:
        """Note that a worker was lost, for the pool; return no call that would restore it.

        Its blocks cannot be restored alone, since they copied agents from others.
        """
        self._lost.add(worker)
        return []

    def resized(self, count: int) -> RemoteMembers:
        """Return a population of `count` members on the same workers; blocks of this one end."""
        other = copy.copy(self)
        other.count = count
        other.blocks = ceil_div(count, self.size)
        other._history = []
        other._example = None
        self._pool.broadcast("keep", other.blocks)
        return other

    # ---------------------------------------------------------------- the population

    def init(self, keys: jax.Array, hyper: Any, schedule: int) -> Blocks:
        items = [(*item, int(schedule)) for item in self._items(keys, hyper)]
        self._history = []
        self._example = self.template(keys, hyper)
        self._do(lambda: self._map("init", items))
        return list(range(self.blocks))

    def advance(self, population: Blocks, updates: int) -> tuple[Blocks, HostMetrics]:
        items = [(block, int(updates)) for block in population]
        blocks, self.raised = spared(self._do(lambda: self._map("advance", items, spare=True)))
        return population, joined(blocks, self.count)

    def without(self, population: Blocks, blocks: Iterable[int], keys: jax.Array,
                hyper: Any) -> Blocks:
        all_items = self._items(keys, hyper)
        items = [all_items[block] for block in blocks]
        self._do(lambda: self._map("without", items))
        return population

    def evaluate(self, population: Blocks, keys: jax.Array) -> np.ndarray:
        items = list(enumerate(self._deal(jax.random.key_data(keys))))
        results = self._do(lambda: self._map("evaluate", items, spare=True), changes=False)
        blocks, self.raised = spared(results)
        return joined(blocks, self.count)

    def copy(self, population: Blocks, source: np.ndarray, hyper: Any) -> Blocks:
        sources = [[divmod(int(member), self.size) for member in row]
                   for row in self._deal(np.asarray(source))]
        values = self._deal(jax.tree.leaves(hyper))
        others = [{other for other, _ in row} - {block} for block, row in enumerate(sources)]

        def copy() -> list[Any]:
            wanted = sorted(set().union(*others))
            lent = dict(zip(wanted, self._map("lend", [(block,) for block in wanted])))
            items = [(block, {other: lent[other] for other in others[block]}, row, values[block])
                     for block, row in enumerate(sources)]
            return self._map("copy", items)

        self._do(copy)
        return population

    def empty_replays(self, population: Blocks, keys: jax.Array, hyper: Any) -> Blocks:
        items = self._items(keys, hyper)
        self._do(lambda: self._map("reset_replay", items))
        self._example = self.template(keys, hyper)
        return population

    def compile(self, population: Blocks, keys: jax.Array) -> None:
        """Do nothing: workers compile programs when they first need them."""

    def to_host(self, population: Blocks, *, replay: bool = True) -> TrainState:
        """Return the members as one TrainState of arrays [count, ...].

        With replays it becomes the state from which blocks of lost workers start again.
        """
        items = [(block, replay) for block in population]
        leaves = joined(self._do(lambda: self._map("fetch", items), changes=False), self.count)
        if replay:
            self._history = [lambda: self._put(leaves)]
        return rebuilt(_with_replay(self._example, replay), leaves)

    def from_host(self, state: TrainState) -> Blocks:
        leaves = jax.tree.leaves(on_host(state))
        replay = bool(jax.tree.leaves(state.replay))
        self._history = []
        self._example = jax.eval_shape(lambda state: state, state)
        self._do(lambda: self._put(leaves, replay))
        return list(range(self.blocks))

    def template(self, keys: jax.Array, hyper: Any) -> TrainState:
        return template(self.runner, keys, hyper)

    # ---------------------------------------------------------------- blocks and workers

    def _deal(self, tree: Any) -> list[Any]:
        """Return one tree of NumPy arrays [size, ...] for each block from leaves [count, ...]."""
        return [jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows], tree)
                for rows in rows_of_blocks(self.count, self.size)]

    def _items(self, keys: jax.Array, hyper: Any) -> list[tuple]:
        """Return (block, key data [size], hyper [size]) of each block."""
        parts = self._deal((jax.random.key_data(keys), jax.tree.leaves(hyper)))
        return [(block, *part) for block, part in enumerate(parts)]

    def _put(self, leaves: list[np.ndarray], replay: bool = True) -> list[Any]:
        """Send the leaves of a state, [count, ...], with its replay or without, to the workers."""
        items = [(block, replay, part) for block, part in enumerate(self._deal(leaves))]
        return self._map("put", items)

    def _map(self, method: str, items: list[tuple], spare: bool = False) -> list[Any]:
        """Return the results of blocks, in the order of the items.

        Raises _Lost if a worker was lost, and RunError if the code in a worker raised; with `spare`
        that error is the result of the block.
        """
        results: dict[int, Any] = {}
        failed: Failure | None = None
        for item, result in self._pool.map_unordered(
                method, items, place=lambda item: item[0] % self._pool.workers,
                timeout=self._patience, errors="collect", name=self._named):
            if isinstance(result, Failure) and spare and result.cause is not None:
                result = result.error()
            elif isinstance(result, Failure):
                failed = failed or result
            results[item[0]] = result
        if self._lost:
            raise _Lost(failed)
        if failed is not None:
            failed.throw()
        return [results[item[0]] for item in items]

    def _named(self, item: tuple) -> str:
        first = item[0] * self.size + 1
        last = min(first + self.size - 1, self.count)
        return f"block {item[0]} (members {first} to {last})"

    def _do(self, call: Callable[[], list[Any]], changes: bool = True) -> list[Any]:
        """Return the result of `call`, repeated after a recovery if a worker is lost in it.

        changes: `call` changes the blocks, so that a later recovery has to repeat it.
        """
        for _ in range(MOST_LOSSES):
            try:
                if self._lost:
                    self._lost.clear()
                    for past in self._history:
                        past()
                result = call()
            except _Lost as lost:
                last = lost
                continue
            if changes:
                self._history.append(call)
            return result
        why = f": {last.failure.message}" if last.failure else ""
        raise RunError(f"workers were lost {MOST_LOSSES} times in one call{why}",
                       "Use fewer workers=, or workers=0")


class _Lost(Exception):
    """A worker was lost, and with it the state of its blocks."""

    def __init__(self, failure: Failure | None):
        super().__init__()
        self.failure = failure


def rebuilt(like: Any, leaves: Sequence[np.ndarray]) -> Any:
    """Return the tree of `leaves` with the structure and key types of `like`."""
    return jax.tree.map(like_key, like, jax.tree.unflatten(jax.tree.structure(like), leaves))


def _with_replay(state: TrainState, replay: bool) -> TrainState:
    """Return `state`, without its replay unless `replay`."""
    return state if replay else state._replace(replay=())


def _keys(data: np.ndarray) -> jax.Array:
    return jax.random.wrap_key_data(jnp.asarray(data))
