"""The state and the gradient step of learners of action values with a target network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.blocks.optim import adam, descend, scheduled, soft_update
from jaxrl.types import Metrics


class State(NamedTuple):
    """The AgentState."""

    params: Any
    target: Any
    optimizer: Any
    updates: jax.Array        # int32 gradient steps done


class Actor(NamedTuple):
    """The part that acts."""

    params: Any


def start(params: Any, hyper: Any) -> State:
    """Return a learner whose target network equals its network."""
    opt_state = scheduled(adam, hyper, 0.0).init(params)
    return State(params, target=params, optimizer=opt_state, updates=jnp.zeros((), jnp.int32))


def gradient_step(loss: Callable[[Any], tuple[jax.Array, Any]], state: State, hyper: Any,
                  progress: jax.Array, target_every: int) -> tuple[State, Any, Metrics]:
    """Take one step of Adam down loss(params) -> (scalar, aux) and return (state, aux, metrics).

    After every `target_every` steps the target network moves by hyper.tau towards the network.
    """
    step = descend(loss, state.params, state.optimizer, scheduled(adam, hyper, progress))
    updates = state.updates + 1
    tau = jnp.where(updates % target_every == 0, hyper.tau, 0.0)
    target = soft_update(state.target, step.params, tau)
    metrics = {"loss": step.loss, "grad_norm": step.grad_norm}
    return State(step.params, target, step.opt_state, updates), step.aux, metrics
