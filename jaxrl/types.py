"""The types that every layer shares. See docs/architecture.md for what each settles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from envs_jax.core import EnvSpec, Input, TimeStep

__all__ = ["Agent", "Algorithm", "EnvSpec", "Input", "Metrics", "Progress", "Runner", "Strategy", "TimeStep",
           "TrainState", "Trajectory"]

Metrics = dict[str, jax.Array]


class InitState(Protocol):
    """A function that makes the state of a fresh learner."""

    def __call__(self, key: jax.Array, hyper: Any, /) -> Any:
        """Return the AgentState: a NamedTuple of params, targets, optimizers, statistics."""


class GetActor(Protocol):
    """A function that takes the acting part from the state of a learner."""

    def __call__(self, state: Any, /) -> Any:
        """Return the Actor of an AgentState: all that evaluation and export receive.

        It is a NamedTuple whose field `params` evolution may perturb. Its other fields are
        statistics. A worker that explores also gets `hyper` and `progress`.
        """


class InitCarry(Protocol):
    """A function that makes the recurrent state before the first step."""

    def __call__(self, batch: int, /) -> Any:
        """Return the carry of `batch` slots; () if there is none."""


class Explore(Protocol):
    """A policy for training, which explores."""

    def __call__(self, actor: Any, hyper: Any, carry: Any, inputs: Input, progress: jax.Array,
                 key: jax.Array, /) -> tuple[Any, Any, Any]:
        """Return (action, carry, extras) for a batch of slots.

        extras: a tree that the trajectory keeps beside the action, such as the log-probability.
        """


class Greedy(Protocol):
    """A policy for evaluation."""

    def __call__(self, actor: Any, carry: Any, inputs: Input, key: jax.Array, /) -> tuple[Any, Any]:
        """Return (action, carry) for a batch of slots."""


class Learn(Protocol):
    """A function that updates a learner from a batch of experience."""

    def __call__(self, state: Any, hyper: Any, batch: Any, progress: jax.Array, key: jax.Array,
                 /) -> tuple[Any, Metrics, Any]:
        """Return (AgentState, metrics, feedback) after a Trajectory or a batch from a replay.

        metrics: a dict of scalars, at least "loss" and, for a learner by gradients, "grad_norm".
        feedback: () or one priority per item, of the reward's shape, or [B] for sequences.
        """


class Reads(Protocol):
    """A function that drops the fields of an Input that the agent never reads."""

    def __call__(self, inputs: Input, /) -> Input:
        """Return the Input with the other fields set to None: all that a replay keeps."""


def reads_all(inputs: Input) -> Input:
    """Return `inputs` unchanged: the agent may read every field."""
    return inputs


class Agent(NamedTuple):
    """An algorithm bound to its static config and to an EnvSpec.

    The fields are pure functions, called with positional arguments and vmappable over them.
    `progress` is a float32 scalar, 0 at the start of the schedule and 1 at its end.
    """

    init: InitState              # (key, hyper) -> AgentState
    actor: GetActor              # (AgentState) -> Actor
    carry: InitCarry             # (batch) -> carry
    explore: Explore             # (Actor, hyper, carry, Input, progress, key) -> action, carry, extras
    greedy: Greedy               # (Actor, carry, Input, key) -> action, carry
    learn: Learn                 # (AgentState, hyper, batch, progress, key) -> state, metrics, feedback
    reads: Reads = reads_all     # (Input) -> Input without the fields that the agent never reads


class Trajectory(NamedTuple):
    """The Batch of on-policy and sequence learners, time-major [T, B, ...]."""

    input: Input
    action: Any
    extras: Any              # what `explore` returned beside the action: log-probability, ...
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final_input: Input       # what really followed each step, before any reset
    carry0: Any              # recurrent state before the first step, [B, ...]
    valid: Any = None        # [T, B] bool, None when every step counts
    version: Any = None      # of the parameters that acted, None when they are the learner's own
    weight: Any = None       # [T, B] importance of each item, None when all count alike


class Ask(Protocol):
    """A function that makes candidates of a generation."""

    def __call__(self, state: Any, hyper: Any, ids: jax.Array, /) -> Any:
        """Return the Actors of the candidates `ids` [n] int32.

        Their `params` have a leading axis n; they share all other fields. Ids come in pairs 2k and
        2k + 1, which play from the same starts. """


class Tell(Protocol):
    """A function that updates a strategy from the fitness of its candidates."""

    def __call__(self, state: Any, hyper: Any, ids: jax.Array, fitness: jax.Array, statistics: Any,
                 /) -> tuple[Any, Metrics]:
        """Return (state, metrics) after a generation with fitness [n].

        statistics: moments of the candidates' observations with a leading axis of blocks, in the
        order of `ids`; () if the state keeps none. """


class Strategy(NamedTuple):
    """Evolution over the parameters of any Actor.

    It acts as an Agent does, at the unperturbed center.
    """

    init: InitState          # (key, hyper) -> state
    actor: GetActor          # (state) -> Actor at the center
    carry: InitCarry         # (batch) -> carry
    greedy: Greedy           # (Actor, carry, Input, key) -> (action, carry)
    ask: Ask                 # (state, hyper, ids) -> Actors
    tell: Tell               # (state, hyper, ids, fitness, statistics) -> (state, metrics)
    explore: Explore | None = None      # actions of candidates in training; None: greedy ones


class Progress(NamedTuple):
    """Where a run is, counted in updates; environment steps are updates x static numbers, in Python integers."""

    update: jax.Array        # int32 updates done
    schedule: jax.Array      # int32 updates after which schedules stay at their end; fixed at first launch


class TrainState(NamedTuple):
    """Everything that a compiled run is, in one pytree: what a checkpoint holds."""

    agent: Any
    hyper: Any
    env: Any
    carry: Any
    replay: Any
    key: jax.Array
    progress: Progress
    alive: jax.Array         # bool: False once this member diverged, stopped or was pruned


class Algorithm(NamedTuple):
    """An entry of the table `algos.ALGORITHMS`."""

    config: type             # frozen dataclass of `static` and `hyper` fields (jaxrl.declare)
    make_agent: Callable     # (config, EnvSpec) -> Agent | Strategy
    experience: str          # which driver feeds it: "on_policy" | "replay" | "sequences" | "dataset" | "evolution"


class Runner(Protocol):
    """Every way to train one learner, whatever the source of experience: what the host loop, PBT and the CLI drive."""

    num_envs: int
    steps_per_update: int
    groups: int                     # of environments: so many devices, or a divisor of it, can share one learner
    def shared(self, state: TrainState) -> Any: ...      # a tree of bools: leaves whose first axis is of environments
    def init(self, key: jax.Array, hyper: Any, schedule: int) -> TrainState: ...
    def advance(self, state: TrainState, updates: int) -> tuple[TrainState, Metrics]: ...
