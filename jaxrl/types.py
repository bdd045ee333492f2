"""Types that every layer shares; docs/architecture.md explains the decisions behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import jax

from envs_jax.core import EnvSpec, Input, TimeStep

__all__ = ["Agent", "Algorithm", "EnvSpec", "Input", "Metrics", "Progress", "Runner", "Strategy",
           "TimeStep", "TrainState", "Trajectory"]

Metrics = dict[str, jax.Array]


class Agent(NamedTuple):
    """An algorithm bound to its static config and to an EnvSpec: pure functions, vmappable over their arguments.

    init    (key, hyper) -> AgentState                  a NamedTuple: params, and targets, optimiser, normaliser
    actor   (AgentState) -> Actor                       the part that acts: all that evaluation and export receive; a
                                                        worker that explores also gets (hyper, progress). A NamedTuple
                                                        whose field `params` may be perturbed by evolution; the others
                                                        are statistics
    carry   (batch) -> Carry                            the recurrent state of `batch` slots; () if there is none
    explore (Actor, hyper, carry, Input, progress, key) -> (action, carry, extras)
    greedy  (Actor, carry, Input, key) -> (action, carry)
    learn   (AgentState, hyper, Batch, progress, key) -> (AgentState, metrics, feedback)
                                                        metrics: a dict of scalars, at least "loss" and, of a learner
                                                        by gradients, "grad_norm". feedback: () or one priority per
                                                        item, shaped as the reward, or [B] per sequence
    reads   (Input) -> Input                            without what the agent never reads: all that a replay keeps
    progress is a float32 scalar, 0 at the start of the schedule and 1 at its end.
    """

    init: Callable
    actor: Callable
    carry: Callable
    explore: Callable
    greedy: Callable
    learn: Callable
    reads: Callable = lambda inputs: inputs


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


class Strategy(NamedTuple):
    """Evolution over the parameters of any Actor. It acts as an Agent does, at the unperturbed centre.

    init (key, hyper) -> state; actor, carry, greedy: as an Agent's
    ask  (state, hyper, ids [n] int32) -> actors whose `params` have a leading axis n; what else is in them, all share.
         ids come in pairs 2k, 2k + 1, which play from the same starts
    tell (state, hyper, ids, fitness [n], statistics) -> (state, metrics); statistics: moments of what the candidates
         observed, leading axis of blocks, in the order of ids; () if the state keeps none
    explore: as an Agent's: how candidates act in training
    """

    init: Callable
    actor: Callable
    carry: Callable
    greedy: Callable
    ask: Callable
    tell: Callable
    explore: Callable | None = None      # None: greedily


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
