"""What learners of action values with a target network share: their state, and a gradient step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl.blocks.optim import adam, flat_norm, scheduled, soft_update
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
    """A learner whose target network is the network."""
    return State(params, params, scheduled(adam, hyper, 0.0).init(params), jnp.zeros((), jnp.int32))


def gradient_step(loss: Callable, state: State, hyper: Any, progress: jax.Array, target_every: int
                  ) -> tuple[State, Any, Metrics]:
    """A step of Adam down loss(params) -> (scalar, aux); after every `target_every` steps the target network moves by
    hyper.tau towards the network. -> (state, aux, loss and norm of the gradient)"""
    (total, aux), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    update, opt = scheduled(adam, hyper, progress).update(gradient, state.optimizer, state.params)
    params, updates = optax.apply_updates(state.params, update), state.updates + 1
    target = soft_update(state.target, params, jnp.where(updates % target_every == 0, hyper.tau, 0.0))
    return State(params, target, opt, updates), aux, {"loss": total, "grad_norm": flat_norm(gradient)}
