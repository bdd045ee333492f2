"""Readings of the numbers that a network gives for an action.

They describe the mean of its return, or a distribution. A head is made from numbers that may be
traced, so it is made where it is used. Targets are reward + discount * return. Gradients through
the target are the caller's to stop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl.blocks.losses.value import (
    categorical_loss,
    categorical_projection,
    huber,
    quantile_huber,
    quantile_midpoints,
    target_atoms,
)

if TYPE_CHECKING:
    from jaxtyping import Array, Float

__all__ = ["Categorical", "Expected", "Quantile", "ReturnHead"]


class ReturnHead(Protocol):
    """A reading of the numbers z [..., n] of an action."""

    def mean(self, z: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """Return Q, the mean return."""

    def loss(self, z: Float[Array, "*batch n"], tau: Float[Array, "*batch n"] | None,
             next_z: Float[Array, "*batch m"], reward: Float[Array, "*batch"],
             discount: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Return the loss of z for the target reward + discount * return.

        next_z: the numbers that describe this return. tau: the fractions of which z are the
        quantiles, None where they are fixed or of no use.
        """


class Expected(NamedTuple):
    """The value z [..., 1] itself. The loss is Huber's, linear beyond an error of `delta`."""

    delta: ArrayLike

    def mean(self, z: Float[Array, "*batch 1"]) -> Float[Array, "*batch"]:
        return z[..., 0]

    def loss(self, z: Float[Array, "*batch 1"], tau: jax.Array | None,
             next_z: Float[Array, "*batch 1"], reward: Float[Array, "*batch"],
             discount: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        return huber(reward + discount * next_z[..., 0] - z[..., 0], self.delta)


class Categorical(NamedTuple):
    """Logits z [..., n] of n atoms from `low` to `high`.

    Bellemare et al. 2017, arXiv:1707.06887, algorithm 1.
    """

    low: ArrayLike
    high: ArrayLike
    n: int

    @property
    def support(self) -> Float[Array, " n"]:
        """The atoms."""
        spacing = (self.high - self.low) / (self.n - 1)
        return self.low + spacing * jnp.arange(self.n, dtype=jnp.float32)

    def mean(self, z: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        return jnp.sum(jax.nn.softmax(z) * jnp.broadcast_to(self.support, z.shape), axis=-1)

    def loss(self, z: Float[Array, "*batch n"], tau: jax.Array | None,
             next_z: Float[Array, "*batch n"], reward: Float[Array, "*batch"],
             discount: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        support = self.support
        atoms = target_atoms(support, reward, discount)
        target = categorical_projection(support, jax.nn.softmax(next_z), atoms)
        return categorical_loss(z, target)


class Quantile(NamedTuple):
    """Quantiles z [..., n] of the fractions tau.

    If tau is None, they are those of the midpoints of n equal parts. Dabney et al. 2018,
    arXiv:1710.10044, algorithm 1; with tau drawn, arXiv:1806.06923, eq. 3.
    """

    kappa: ArrayLike

    def mean(self, z: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        return z.mean(axis=-1)

    def loss(self, z: Float[Array, "*batch n"], tau: Float[Array, "*batch n"] | None,
             next_z: Float[Array, "*batch m"], reward: Float[Array, "*batch"],
             discount: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        if tau is None:
            tau = quantile_midpoints(z.shape[-1])
        return quantile_huber(z, tau, target_atoms(next_z, reward, discount), self.kappa)
