"""Epochs of shuffled minibatches over a rollout, for every learner that passes over its batch more than once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from envs_jax.sharding import on_all_devices, over_devices
from jaxrl.blocks.shuffle import permutation


def problems(config: Any) -> list[str]:
    """Why the rollout of a config does not divide into its minibatches, in words."""
    items, what = config.num_envs * config.rollout_length, f"num_envs x rollout_length = {config.num_envs} x " \
                                                           f"{config.rollout_length}"
    if config.network.recurrent != "none":
        items, what = config.num_envs, "num_envs"
    if items % config.minibatches == 0:
        return []
    near = {d for m in range(1, math.isqrt(items) + 1) if items % m == 0 for d in (m, items // m)}
    near = sorted(sorted(near), key=lambda m: abs(m - config.minibatches))[:2]
    return [f"{what} = {items:,} does not divide into {config.minibatches} minibatches. "
            f"Nearest: {', '.join(map(str, sorted(near)))}"]


def sgd(step: Callable, state: Any, carry0: Any, data: Any, key: jax.Array, *, epochs: int, minibatches: int,
        sequences: bool) -> tuple[Any, Any]:
    """Scan `step(state, carry0 [b, ...], data [T, b, ...]) -> (state, metrics)` over shuffled minibatches.

    `data` is a tree of time-major arrays [T, B, ...]. With `sequences` a minibatch is whole columns of it, with the
    carry [B, ...] that they start from; without, any single steps ([1, b, ...]), and the carry is ().
    Returns the state and the mean of the metrics (a dict of scalars) over all minibatches.
    """
    if sequences:
        items = jax.tree.map(lambda x: x.swapaxes(0, 1), data)
        restore = lambda x: x.swapaxes(0, 1)
    else:
        items = jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), data)
        restore = lambda x: x[None]
    items, carry0 = on_all_devices((items, carry0))      # any device may need any item
    count = jax.tree.leaves(items)[0].shape[0]
    size = count // minibatches
    keys = jax.random.split(key, epochs)
    order = jax.vmap(permutation, in_axes=(0, None))(keys, count)[:, : minibatches * size]

    names = []

    def one(state, chosen):
        carry, batch = over_devices(jax.tree.map(lambda x: x[chosen], (carry0, items)), axis=0)
        state, metrics = step(state, carry, jax.tree.map(restore, batch))
        names[:] = metrics
        return state, jnp.stack(list(metrics.values()))      # as one array: fewer kernels to compile and to launch

    state, metrics = jax.lax.scan(one, state, order.reshape(epochs * minibatches, size))
    return state, dict(zip(names, metrics.mean(axis=0)))
