"""Optimisers as optax transformations whose numbers may be traced: build them inside the jitted function, every time.

The structure of the state does not depend on the numbers, so one compiled program serves any learning rate, and a
population may hold many. `flat=True` runs the same maths over one vector, which saves launches for small networks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxrl.blocks.schedules import linear

__all__ = ["adam", "clip_by_global_norm", "flat_norm", "global_norm", "rmsprop", "scheduled",
           "soft_update"]


def adam(
    learning_rate, *, max_grad_norm, eps=1e-5, b1=0.9, b2=0.999, flat: bool = False
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015) after a clip of the global norm; max_grad_norm = inf leaves gradients as they are."""
    return _build(optax.scale_by_adam(b1, b2, eps), learning_rate, max_grad_norm, flat)


def rmsprop(
    learning_rate, *, max_grad_norm, decay=0.99, eps=1e-5, initial_scale: float = 0.0, flat: bool = False
) -> optax.GradientTransformation:
    """RMSprop after a clip of the global norm, eps inside the root as in TensorFlow (outside in PyTorch): A2C needs it.

    initial_scale: the mean square to start from. TensorFlow 1 starts from 1, which slows the first 1/(1 - decay) x 10
    updates down, PyTorch from 0.
    """
    return _build(optax.scale_by_rms(decay, eps, initial_scale, eps_in_sqrt=True), learning_rate, max_grad_norm, flat)


def scheduled(optimizer: Callable, hyper: Any, progress) -> optax.GradientTransformation:
    """`adam` or `rmsprop` over one vector, with the learning rate that `hyper` says for now, and its clip."""
    rate = linear(hyper.learning_rate, hyper.learning_rate_end, progress)
    return optimizer(rate, max_grad_norm=hyper.max_grad_norm, flat=True)


def soft_update(target: Any, online: Any, tau) -> Any:
    """target + tau (online - target), leaf by leaf (Lillicrap et al. 2016, arXiv:1509.02971, algorithm 1)."""
    return jax.tree.map(lambda old, new: old + tau * (new - old), target, online)


def clip_by_global_norm(max_norm) -> optax.GradientTransformation:
    """Scale the gradient to at most `max_norm`, all leaves alike. Safe for a zero gradient and for max_norm = inf."""
    def update(grads, state, params=None):
        norm = global_norm(grads)
        factor = jnp.minimum(1.0, max_norm / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def global_norm(grads) -> jax.Array:
    """The square root of the sum of all squares."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))


def flat_norm(grads) -> jax.Array:
    """The global norm, over one vector: where the optimiser is `flat` the compiler finds that it has it already."""
    return global_norm(jnp.concatenate([jnp.reshape(leaf, (-1,)) for leaf in jax.tree.leaves(grads)]))


def _build(scale: optax.GradientTransformation, learning_rate, max_grad_norm, flat: bool):
    chain = optax.chain(clip_by_global_norm(max_grad_norm), scale, optax.scale_by_learning_rate(learning_rate))
    return optax.flatten(chain) if flat else chain
