"""Optimizers as optax transformations whose numbers may be traced, and one gradient step with them.

Build an optimizer inside the jitted function, every time. The structure of its state does not
depend on the numbers, so one compiled program serves any learning rate, and a population may hold
many. `flat=True` runs the same mathematics over one vector, which saves launches for small
networks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxrl.blocks.schedules import linear

if TYPE_CHECKING:
    from jaxtyping import Array, Float

__all__ = ["Descent", "adam", "clip_by_global_norm", "descend", "flat_norm", "global_norm",
           "rmsprop", "scheduled", "soft_update"]


def adam(
    learning_rate: ArrayLike, *, max_grad_norm: ArrayLike, eps: float = 1e-5, b1: float = 0.9,
    b2: float = 0.999, flat: bool = False,
) -> optax.GradientTransformation:
    """Return Adam (Kingma and Ba 2015) after a clip of the global norm.

    max_grad_norm = inf leaves gradients as they are.
    """
    return _build(optax.scale_by_adam(b1, b2, eps), learning_rate, max_grad_norm, flat)


def rmsprop(
    learning_rate: ArrayLike, *, max_grad_norm: ArrayLike, decay: float = 0.99, eps: float = 1e-5,
    initial_scale: float = 0.0, flat: bool = False,
) -> optax.GradientTransformation:
    """Return RMSprop after a clip of the global norm.

    eps is inside the root as in TensorFlow (PyTorch has it outside): A2C needs it.
    initial_scale: the initial mean square. TensorFlow 1 starts from 1, which slows the first
    1/(1 - decay) x 10 updates down, PyTorch from 0.
    """
    scale = optax.scale_by_rms(decay, eps, initial_scale, eps_in_sqrt=True)
    return _build(scale, learning_rate, max_grad_norm, flat)


def scheduled(optimizer: Callable, hyper: Any, progress: ArrayLike) -> optax.GradientTransformation:
    """Return `adam` or `rmsprop` over one vector, with the learning rate at `progress`."""
    rate = linear(hyper.learning_rate, hyper.learning_rate_end, progress)
    return optimizer(rate, max_grad_norm=hyper.max_grad_norm, flat=True)


class Descent(NamedTuple):
    """The result of a gradient step."""

    params: Any
    opt_state: optax.OptState
    loss: jax.Array          # scalar, before the step
    aux: Any                 # what the loss function returned beside the scalar
    grad_norm: jax.Array     # global norm of the gradient before the clip


def descend(loss: Callable[[Any], tuple[jax.Array, Any]], params: Any, opt_state: optax.OptState,
            optimizer: optax.GradientTransformation) -> Descent:
    """Take one step of `optimizer` down the gradient of loss(params) -> (scalar, aux)."""
    (value, aux), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    update, opt_state = optimizer.update(gradient, opt_state, params)
    params = optax.apply_updates(params, update)
    return Descent(params, opt_state, value, aux, flat_norm(gradient))


def soft_update(target: Any, online: Any, tau: ArrayLike) -> Any:
    """Return target + tau (online - target), leaf by leaf.

    Lillicrap et al. 2016, arXiv:1509.02971, algorithm 1.
    """
    return jax.tree.map(lambda old, new: old + tau * (new - old), target, online)


def clip_by_global_norm(max_norm: ArrayLike) -> optax.GradientTransformation:
    """Scale the gradient to a norm of at most `max_norm`, all leaves by the same factor.

    It is safe for a zero gradient and for max_norm = inf.
    """
    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        norm = global_norm(grads)
        factor = jnp.minimum(1.0, max_norm / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def global_norm(grads: Any) -> Float[Array, ""]:
    """Return the square root of the sum of all squares."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))


def flat_norm(grads: Any) -> Float[Array, ""]:
    """Return the global norm, computed over one vector.

    If the optimizer is `flat`, the compiler finds that it has this vector already.
    """
    flat = [jnp.reshape(leaf, (-1,)) for leaf in jax.tree.leaves(grads)]
    return global_norm(jnp.concatenate(flat))


def _build(scale: optax.GradientTransformation, learning_rate: ArrayLike, max_grad_norm: ArrayLike,
           flat: bool) -> optax.GradientTransformation:
    chain = optax.chain(
        clip_by_global_norm(max_grad_norm), scale, optax.scale_by_learning_rate(learning_rate))
    return optax.flatten(chain) if flat else chain
