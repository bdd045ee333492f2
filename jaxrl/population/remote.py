"""Members whose blocks live on workers of a pool, Ray actors say: what `Members` is on the devices of one host.

A block is computed by the same program of the same size wherever it is, so results do not depend on how many workers
there are. The coordinator sends block numbers, keys and hyperparameters, and receives metrics and fitness; an agent
goes from worker to worker by reference.

It also keeps what brings every block to where it is: the last state that was fetched for a checkpoint (or the start),
and what was done since. When a worker is lost, all blocks go back to that state and do it again, with the same bits:
a loss costs the time since the last checkpoint, nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.config.reading import read
from jaxrl.declare import hypers
from jaxrl.distributed.pool import Failure, Pool, shared
from jaxrl.drivers.build import build
from jaxrl.errors import RunError
from jaxrl.evaluate import make_evaluate
from jaxrl.population.members import Members, Raised, joined, learned_of, like_key, on_host, spared
from jaxrl.types import Metrics, Runner, TrainState

PATIENCE = 600.0         # seconds for one call on one block, compilation included
MOST_LOSSES = 5          # in one call, before a run gives up


class BlockHost:
    """What a worker is: blocks of one size, each a population of its own. Built by the pool from plain values.

    Trees come and go as the lists of their leaves: types that are made at run time do not survive the way.
    """

    def __init__(self, config: dict[str, Any], size: int, episodes: int):
        """config: `jaxrl.config.to_plain` of the run's."""
        run = read(config)
        learner = build(run)
        play = make_evaluate(learner.agent, learner.env, learner.params, episodes)
        evaluate = lambda state, key: play(learner.agent.actor(state), key)
        self._hyper = jax.tree.map(lambda x: np.broadcast_to(x, (size,)), hypers(run.agent))
        self._members = Members(learner.runner, size, jax.local_devices()[:1], size=size, evaluate=evaluate)
        self._blocks: dict[int, list[TrainState]] = {}

    def init(self, item: tuple) -> None:
        """(block, key data [size], hyper [size], schedule)"""
        block, keys, hyper, schedule = item
        self._blocks[block] = self._members.init(_keys(keys), self._as_hyper(hyper), schedule)

    def without(self, item: tuple) -> None:
        """(block, key data [size], hyper [size]): members that are not alive"""
        block, keys, hyper = item
        self._blocks[block] = self._members.without([None], [0], _keys(keys), self._as_hyper(hyper))

    def keep(self, blocks: int) -> None:
        """Gives up all blocks but the first so many."""
        self._blocks = {block: states for block, states in self._blocks.items() if block < blocks}

    def put(self, item: tuple) -> None:
        """(block, whether with the replay, state as `fetch` gives it)"""
        block, replay, leaves = item
        like = self._members.template(jax.random.split(jax.random.key(0), self._members.size), self._hyper)
        self._blocks[block] = self._members.from_host(rebuilt(like if replay else like._replace(replay=()), leaves))

    def advance(self, item: tuple) -> Metrics:
        """(block, updates) -> metrics [size]"""
        block, updates = item
        self._blocks[block], metrics = self._members.advance(self._held(block), updates)
        return metrics

    def evaluate(self, item: tuple) -> np.ndarray:
        """(block, key data [size]) -> returns [size, episodes]"""
        block, keys = item
        return self._members.evaluate(self._held(block), _keys(keys))

    def fetch(self, item: tuple) -> list[np.ndarray]:
        """(block, whether with the replay) -> the leaves of its state, keys as their data."""
        block, replay = item
        [state] = self._held(block)
        return jax.tree.leaves(on_host(state if replay else state._replace(replay=())))

    def lend(self, item: tuple) -> Any:
        """(block,) -> a handle on the leaves of what its members learned, [size, ...]"""
        [state] = self._held(item[0])
        return shared(jax.tree.leaves(on_host(learned_of(state))))

    def copy(self, item: tuple) -> None:
        """(block, handles of other blocks by number, [(source block, place)] [size], hyper [size]): each member gets
        what its source learned, and hyperparameters; one that had died, a fresh world besides (Members.renewed)."""
        block, lent, sources, hyper = item
        [state] = self._held(block)
        learned = {other: handle.get() for other, handle in lent.items()}
        learned[block] = jax.tree.leaves(on_host(learned_of(state)))
        leaves = [np.stack([learned[other][i][at] for other, at in sources]) for i in range(len(learned[block]))]
        dead = ~np.asarray(state.alive) & np.array([source != (block, at) for at, source in enumerate(sources)])
        new = state._replace(**rebuilt(learned_of(state), leaves), hyper=self._as_hyper(hyper))
        self._blocks[block] = [jax.device_put(self._members.renewed(new, dead), self._members.places[0][0])]

    def reset_replay(self, item: tuple) -> None:
        """(block, key data [size], hyper [size]): an empty replay"""
        block, keys, hyper = item
        [state] = self._held(block)
        [fresh] = self._members.init(_keys(keys), self._as_hyper(hyper), 0)
        self._blocks[block] = [state._replace(replay=fresh.replay)]

    def _as_hyper(self, leaves: list[np.ndarray]) -> Any:
        return rebuilt(self._hyper, leaves)

    def _held(self, block: int) -> list[TrainState]:
        if block not in self._blocks:
            raise RunError(f"block {block} is not here: its worker was lost")
        return self._blocks[block]


class RemoteMembers:
    """`count` learners in blocks of `size` on the workers of `pool`, with the interface of Members. A population is
    the list of the blocks' numbers; block b lives on worker b modulo their number.

    Raises RunError when a worker's code raises, or workers are lost again and again.
    """

    shards = 1

    def __init__(self, runner: Runner, count: int, pool: Pool, *, size: int, patience: float = PATIENCE):
        self.runner, self.count, self.size, self._pool, self._patience = runner, count, size, pool, patience
        self.blocks = -(-count // size)
        self.steps_per_update = runner.steps_per_update
        self.compile_seconds = 0.0
        self.raised: Raised = {}
        self._history: list[Callable[[], Any]] = []          # what brings all blocks to where they are
        self._example: Any = None                            # of `to_host`
        self._lost: set[int] = set()                         # workers, since the blocks were last brought back

    @property
    def devices(self) -> list[jax.Device]:
        """One for each worker, like this host's first."""
        return jax.local_devices()[:1] * self._pool.workers

    def restore(self, worker: int) -> Sequence[tuple[str, Any]]:
        """For the pool: a worker was lost. Its blocks cannot come back alone, since they took agents from others."""
        self._lost.add(worker)
        return []

    def resized(self, count: int) -> RemoteMembers:
        """As many members as `count` in blocks of the same size on the same workers, by the programs of this one, whose
        blocks are given up."""
        other = copy.copy(self)
        other.count, other.blocks, other._history, other._example = count, -(-count // self.size), [], None
        self._pool.broadcast("keep", other.blocks)
        return other

    # ---------------------------------------------------------------- the population

    def init(self, keys: jax.Array, hyper: Any, schedule: int) -> list[int]:
        """Fresh members from `keys` [count] and `hyper` (leaves [count])."""
        parts = self._deal((jax.random.key_data(keys), jax.tree.leaves(hyper)))
        items = [(block, *part, int(schedule)) for block, part in enumerate(parts)]
        self._history, self._example = [], self.template(keys, hyper)
        self._do(lambda: self._map("init", items))
        return list(range(self.blocks))

    def advance(self, population: list[int], updates: int) -> tuple[list[int], Metrics]:
        """`updates` updates of every member. Metrics are NumPy arrays [count]. Blocks may raise (Members.advance)."""
        items = [(block, int(updates)) for block in population]
        blocks, self.raised = spared(self._do(lambda: self._map("advance", items, spare=True)))
        return population, joined(blocks, self.count)

    def without(self, population: list[int], blocks: Iterable[int], keys: jax.Array, hyper: Any) -> list[int]:
        """Members that are not alive in `blocks`, made from `keys` [count] and `hyper` (leaves [count])."""
        parts = self._deal((jax.random.key_data(keys), jax.tree.leaves(hyper)))
        items = [(block, *parts[block]) for block in blocks]
        self._do(lambda: self._map("without", items))
        return population

    def evaluate(self, population: list[int], keys: jax.Array) -> np.ndarray:
        """Greedy returns [count, episodes], with `keys` [count]; nan where the environment raises."""
        items = list(enumerate(self._deal(jax.random.key_data(keys))))
        blocks, self.raised = spared(self._do(lambda: self._map("evaluate", items, spare=True), changes=False))
        return joined(blocks, self.count)

    def copy(self, population: list[int], source: np.ndarray, hyper: Any) -> list[int]:
        """Member i gets the agent of member source[i], with its progress and whether it is alive, and hyperparameters
        `hyper` (leaves [count]); it keeps its key, environments, replay and recurrent state, unless it had died."""
        places = [[divmod(int(member), self.size) for member in row] for row in self._deal(np.asarray(source))]
        values = self._deal(jax.tree.leaves(hyper))

        def copy() -> list[Any]:
            wanted = sorted({other for block, row in enumerate(places) for other, _ in row if other != block})
            lent = dict(zip(wanted, self._map("lend", [(block,) for block in wanted])))
            return self._map("copy", [
                (block, {other: lent[other] for other in {o for o, _ in row} - {block}}, row, values[block])
                for block, row in enumerate(places)])

        self._do(copy)
        return population

    def empty_replays(self, population: list[int], keys: jax.Array, hyper: Any) -> list[int]:
        """The members with nothing in their replays."""
        parts = self._deal((jax.random.key_data(keys), jax.tree.leaves(hyper)))
        items = [(block, *part) for block, part in enumerate(parts)]
        self._do(lambda: self._map("reset_replay", items))
        self._example = self.template(keys, hyper)
        return population

    def compile(self, population: list[int], keys: jax.Array) -> None:
        """Workers compile what they are asked for when they are."""

    def to_host(self, population: list[int], *, replay: bool = True) -> TrainState:
        """The members as one TrainState of arrays [count, ...]; without replays, or as what a lost worker's blocks
        start from again."""
        blocks = self._do(lambda: self._map("fetch", [(b, replay) for b in population]), changes=False)
        leaves = joined(blocks, self.count)
        if replay:
            self._history = [lambda: self._put(leaves)]
        return rebuilt(self._example if replay else self._example._replace(replay=()), leaves)

    def from_host(self, state: TrainState) -> list[int]:
        """The inverse of `to_host`."""
        leaves, replay = jax.tree.leaves(on_host(state)), bool(jax.tree.leaves(state.replay))
        self._history, self._example = [], jax.eval_shape(lambda state: state, state)
        self._do(lambda: self._put(leaves, replay))
        return list(range(self.blocks))

    def template(self, keys: jax.Array, hyper: Any) -> TrainState:
        """Shapes and dtypes of `to_host`, without computing anything."""
        init = jax.vmap(self.runner.init, in_axes=(0, 0, None))
        return jax.eval_shape(init, keys, hyper, jax.ShapeDtypeStruct((), jnp.int32))

    # ---------------------------------------------------------------- blocks and workers

    def _deal(self, tree: Any) -> list[Any]:
        """Leaves [count, ...] -> one tree per block, NumPy [size, ...]; the last is filled up with its last member."""
        index = np.minimum(np.arange(self.blocks * self.size), self.count - 1).reshape(self.blocks, self.size)
        return [jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows], tree) for rows in index]

    def _put(self, leaves: list[np.ndarray], replay: bool = True) -> list[Any]:
        """The leaves of a state, [count, ...], with its replay or without, onto the workers."""
        return self._map("put", [(block, replay, part) for block, part in enumerate(self._deal(leaves))])

    def _map(self, method: str, items: list[tuple], spare: bool = False) -> list[Any]:
        """Results by block, in the order of the items. Raises _Lost if a worker was, and what a worker's code raised;
        spare: that is a result."""
        results, failed = {}, None
        for item, result in self._pool.map_unordered(
                method, items, place=lambda item: item[0] % self._pool.workers, timeout=self._patience,
                errors="collect", name=self._named):
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
        return f"block {item[0]} (members {first} to {min(first + self.size - 1, self.count)})"

    def _do(self, call: Callable[[], list[Any]], changes: bool = True) -> list[Any]:
        """`call`, after the blocks were brought back to where they were as often as a worker is lost in it."""
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
        raise RunError(f"workers were lost {MOST_LOSSES} times in one call{why}", "Use fewer workers=, or workers=0")


class _Lost(Exception):
    """A worker was lost, and with it where its blocks were."""

    def __init__(self, failure: Failure | None):
        super().__init__()
        self.failure = failure


def rebuilt(like: Any, leaves: Sequence[np.ndarray]) -> Any:
    """The tree of `leaves` that is built like `like`."""
    return jax.tree.map(like_key, like, jax.tree.unflatten(jax.tree.structure(like), leaves))


def _keys(data: np.ndarray) -> jax.Array:
    return jax.random.wrap_key_data(jnp.asarray(data))
