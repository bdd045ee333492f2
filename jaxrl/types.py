"""The types that every layer shares. See docs/architecture.md for what each settles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from envs_jax.core import EnvSpec, Input, TimeStep

__all__ = ["Agent", "Algorithm", "EnvSpec", "Input", "Metrics", "Progress", "Runner", "Strategy", "TimeStep",
           "TrainState", "Trajectory"]

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
    """The Batch of on-policy and sequence learners, time-major [T, B, ...]."""

    input: Input
    action: Any
    extras: Any              # what `explore` returned beside the action: behaviour log-probability, ...
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final_input: Input       # what really followed each step, before any reset
    carry0: Any              # recurrent state before the first step, [B, ...]
    valid: Any = None        # [T, B] bool, None when every step counts
    version: Any = None      # of the parameters that acted, None when they are the learner's own
    weight: Any = None       # [T, B] importance of each item, None when all count alike


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
