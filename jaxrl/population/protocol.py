"""The interface of a population: many learners in blocks, on devices or on workers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import jax
import numpy as np

from jaxrl.types import Runner, TrainState

Blocks = list                    # an entry for each block: its state, or its number on a worker
HostMetrics = dict[str, np.ndarray]      # metric -> one value per member, [count]
Raised = dict[int, Exception]    # block -> exception of its environment or program


class Population(Protocol):
    """`count` learners driven by one Runner, in blocks of `size` members.

    A block is what one compiled program trains. The last one is filled up with copies of the last
    member, whose results are dropped. The object holds programs and devices; the members themselves
    are a value, `Blocks`, that methods take and return. Keys and hyperparameters are arrays with a
    leading axis [count].
    """

    runner: Runner
    count: int
    size: int
    blocks: int                  # number of blocks
    shards: int                  # devices that share one block
    steps_per_update: int        # environment steps of one update of one member
    compile_seconds: float       # time spent waiting for compilation
    raised: Raised               # exceptions of blocks in the last `advance` or `evaluate`

    @property
    def devices(self) -> list[jax.Device]:
        """Devices in use."""

    def resized(self, count: int) -> Population:
        """Return a population of `count` members that shares programs, devices and block size."""

    def compile(self, population: Blocks, keys: jax.Array) -> None:
        """Compile `advance` and begin to compile `evaluate`, before either is called.

        Only `advance` is waited for. Does nothing if workers compile by themselves.
        """

    def init(self, keys: jax.Array, hyper: Any, schedule: int) -> Blocks:
        """Return fresh members whose schedules end after `schedule` updates."""

    def advance(self, population: Blocks, updates: int) -> tuple[Blocks, HostMetrics]:
        """Run `updates` updates of every member; `population` must not be used afterwards.

        Metrics are NumPy arrays [count]. If the environment of a block raises, its members are
        lost, its metrics are not finite and its exception is in `raised`; call `without` to replace
        the members. Raises the exception if all blocks raised, or if memory ran out.
        """

    def without(self, population: Blocks, blocks: Iterable[int], keys: jax.Array,
                hyper: Any) -> Blocks:
        """Return the population with members that are not alive in place of those in `blocks`."""

    def evaluate(self, population: Blocks, keys: jax.Array) -> np.ndarray:
        """Return greedy returns [count, episodes]; NaN for a block that raises, as in `advance`."""

    def copy(self, population: Blocks, source: np.ndarray, hyper: Any) -> Blocks:
        """Return the population in which member i has the agent of member source[i].

        Its progress and whether it is alive are copied as well, and it receives the hyperparameters
        `hyper`. It keeps its key, environments, replay and recurrent state, unless it had died:
        then these are fresh.
        """

    def empty_replays(self, population: Blocks, keys: jax.Array, hyper: Any) -> Blocks:
        """Return the population with empty replays."""

    def to_host(self, population: Blocks, *, replay: bool = True) -> TrainState:
        """Return the members as one TrainState of arrays [count, ...] on the host.

        replay: include the replays; else the field is ().
        """

    def from_host(self, state: TrainState) -> Blocks:
        """Return the population whose members are `state`: the inverse of `to_host`."""

    def template(self, keys: jax.Array, hyper: Any) -> TrainState:
        """Return the shapes and dtypes of `to_host`, without computing anything."""
