"""Epochs of shuffled minibatches over a rollout, for learners with several passes over their batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from envs_jax.sharding import on_all_devices, over_devices
from jaxrl.blocks.shuffle import permutation
from jaxrl.types import Metrics

if TYPE_CHECKING:
    from jaxtyping import Array, Int, PRNGKeyArray


def problems(config: Any) -> list[str]:
    """Return a message if the rollout of a config does not divide into its minibatches."""
    if config.network.recurrent == "none":
        items = config.num_envs * config.rollout_length
        what = f"num_envs x rollout_length = {config.num_envs} x {config.rollout_length}"
    else:
        items = config.num_envs
        what = "num_envs"
    if items % config.minibatches == 0:
        return []
    near = sorted(_divisors(items), key=lambda m: abs(m - config.minibatches))[:2]
    return [f"{what} = {items:,} does not divide into {config.minibatches} minibatches. "
            f"Nearest: {', '.join(map(str, sorted(near)))}"]


def _divisors(n: int) -> list[int]:
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


def sgd(step: Callable, state: Any, carry0: Any, data: Any, key: PRNGKeyArray, *, epochs: int,
        minibatches: int, sequences: bool) -> tuple[Any, Metrics]:
    """Scan `step(state, carry0 [b, ...], data [T, b, ...]) -> (state, metrics)` over minibatches.

    `data` is a tree of time-major arrays [T, B, ...]. With `sequences` a minibatch is whole columns
    of it, with the recurrent state [B, ...] that they start from. Without, it is any single steps
    ([1, b, ...]), and `carry0` is (). Returns the state and the mean of the metrics (a dict of
    scalars) over all minibatches.
    """
    as_items, as_steps = (_columns, _columns) if sequences else (_single_steps, _one_step)
    items = jax.tree.map(as_items, data)
    items, carry0 = on_all_devices((items, carry0))      # any device may need any item
    count = jax.tree.leaves(items)[0].shape[0]
    size = count // minibatches
    order = _orders(key, count, epochs)[:, : minibatches * size]
    names: list[str] = []

    def one(state: Any, chosen: Int[Array, " b"]) -> tuple[Any, jax.Array]:
        carry, batch = over_devices(jax.tree.map(lambda x: x[chosen], (carry0, items)), axis=0)
        state, metrics = step(state, carry, jax.tree.map(as_steps, batch))
        names[:] = metrics
        # as one array: fewer kernels to compile and to launch
        return state, jnp.stack(list(metrics.values()))

    state, metrics = jax.lax.scan(one, state, order.reshape(epochs * minibatches, size))
    return state, dict(zip(names, metrics.mean(axis=0)))


def _orders(key: PRNGKeyArray, count: int, epochs: int) -> Int[Array, "{epochs} {count}"]:
    """Return a random order of the items for each epoch."""
    return jax.vmap(permutation, in_axes=(0, None))(jax.random.split(key, epochs), count)


def _columns(x: jax.Array) -> jax.Array:
    """Return [T, B, ...] as [B, T, ...], and back."""
    return x.swapaxes(0, 1)


def _single_steps(x: jax.Array) -> jax.Array:
    """Return [T, B, ...] as [T x B, ...]."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _one_step(x: jax.Array) -> jax.Array:
    """Return [b, ...] as [1, b, ...]."""
    return x[None]
