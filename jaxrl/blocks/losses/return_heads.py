"""What the numbers that a network gives for an action say about its return: its mean, or its distribution.

A head is made from numbers that may be traced, so it is made where it is used. Targets are reward + discount * return.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.blocks.losses.value import (
    categorical_loss,
    categorical_projection,
    huber,
    quantile_huber,
    quantile_midpoints,
    target_atoms,
)

__all__ = ["ReturnHead", "categorical", "expected", "quantile"]


class ReturnHead(NamedTuple):
    """
    mean (z [..., n]) -> Q [...]
    loss (z [..., n], tau [..., n] or None, next z [..., m], reward [...], discount [...]) -> [...]; gradient through z
         alone is for the caller to see to
    """

    mean: Callable
    loss: Callable


def expected(delta) -> ReturnHead:
    """z [..., 1] is Q itself. The loss is Huber's, linear beyond an error of `delta`."""
    def loss(z, tau, following, reward, discount):
        return huber(reward + discount * following[..., 0] - z[..., 0], delta)

    return ReturnHead(lambda z: z[..., 0], loss)


def categorical(low, high, n: int) -> ReturnHead:
    """z [..., n] are logits of n atoms from `low` to `high` (Bellemare et al. 2017, arXiv:1707.06887, algorithm 1)."""
    support = low + (high - low) / (n - 1) * jnp.arange(n, dtype=jnp.float32)

    def mean(z):
        return jnp.sum(jax.nn.softmax(z) * jnp.broadcast_to(support, z.shape), axis=-1)

    def loss(z, tau, following, reward, discount):
        atoms = target_atoms(support, reward, discount)
        return categorical_loss(z, categorical_projection(support, jax.nn.softmax(following), atoms))

    return ReturnHead(mean, loss)


def quantile(kappa) -> ReturnHead:
    """z [..., n] are quantiles, of the fractions tau or else of the midpoints of n equal parts (Dabney et al. 2018,
    arXiv:1710.10044, algorithm 1; with tau drawn, arXiv:1806.06923, eq. 3)."""
    def loss(z, tau, following, reward, discount):
        tau = quantile_midpoints(z.shape[-1]) if tau is None else tau
        return quantile_huber(z, tau, target_atoms(following, reward, discount), kappa)

    return ReturnHead(lambda z: z.mean(axis=-1), loss)
