"""Types that every layer shares; docs/architecture.md explains the decisions behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import jax

from envs_jax.core import EnvSpec, Input, TimeStep

__all__ = ["Agent", "Algorithm", "EnvSpec", "Input", "Metrics", "Progress", "Runner", "Strategy",
           "TimeStep", "TrainState", "Trajectory"]

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
    explore: Explore             # (Actor, hyper, carry, Input, progress, key)
                                 # -> action, carry, extras
    greedy: Greedy               # (Actor, carry, Input, key) -> action, carry
    learn: Learn                 # (AgentState, hyper, batch, progress, key)
                                 # -> state, metrics, feedback
    reads: Reads = reads_all     # (Input) -> Input without the fields that the agent never reads


class Trajectory(NamedTuple):
    """A batch of on-policy and sequence learners, time-major [T, B, ...]."""

    input: Input
    action: Any
    extras: Any              # returned by `explore` beside the action, e.g. its log-probability
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final_input: Input       # input that followed each step, before any reset
    carry0: Any              # recurrent state before the first step, [B, ...]
    valid: Any = None        # [T, B] bool; None if every step counts
    version: Any = None      # version of the parameters that acted; None if they are the learner's
    weight: Any = None       # [T, B] importance of each item; None if all have the same


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
    """Position of a run, counted in updates.

    Environment steps are updates times static numbers, computed in Python integers.
    """

    update: jax.Array        # int32, updates done
    schedule: jax.Array      # int32, updates until schedules reach their end; fixed at launch


class TrainState(NamedTuple):
    """Whole state of one learner in one pytree; a checkpoint holds exactly this."""

    agent: Any
    hyper: Any
    env: Any
    carry: Any
    replay: Any
    key: jax.Array
    progress: Progress
    alive: jax.Array         # bool: False after this member diverged, stopped or was pruned


class Algorithm(NamedTuple):
    """An entry of the table `algos.ALGORITHMS`."""

    config: type             # frozen dataclass of `static` and `hyper` fields (jaxrl.declare)
    make_agent: Callable     # (config, EnvSpec) -> Agent | Strategy
    experience: str          # names its driver: "on_policy", "replay", "sequences", "evolution"; or
                             # "dataset", which has none yet


class Runner(Protocol):
    """One learner with its source of experience: pure functions, to be jitted and vmapped.

    Drivers implement it (jaxrl/drivers); populations, the host loop and PBT call nothing else.
    """

    num_envs: int            # parallel environments
    steps_per_update: int    # environment steps of one update
    groups: int              # groups of environments; a divisor of it may be the number of devices

    def init(self, key: jax.Array, hyper: Any, schedule: Any) -> TrainState:
        """Return a fresh learner whose schedules end after `schedule` updates."""

    def advance(self, state: TrainState, updates: Any) -> tuple[TrainState, Metrics]:
        """Run `updates` updates, a number that may be traced.

        Metrics are scalars: means over the updates, `episodes`, `return_mean` and `length_mean` of
        the episodes that ended, and `nonfinite`. A learner whose update is not finite keeps the
        agent from before it and is no longer alive.
        """

    def watched(self, metrics: Iterable[str]) -> list[str]:
        """Return the names of the values that are checked to be finite.

        `metrics`: names of the learner's own metrics. The metric `nonfinite` is 1 + the index of
        the first value that was not finite, or 0.
        """

    def shared(self, state: TrainState) -> Any:
        """Return a tree of bools like `state`: True for leaves that devices may share.

        The first axis of such a leaf is one of environments, or of groups of them.
        """

    def check_fits(self, state: TrainState, free: int) -> int:
        """Return the bytes of the replay of a member like `state`, 0 without one; shapes suffice.

        Raises ValueError, with the setting to lower, if they are more than `free`.
        """
