"""Equations of value-based methods: targets, losses and representations of a value.

Everything is per sample, over any leading batch axes. There are no means over the batch and no
stop_gradient: the caller decides what is a target. Numbers (gamma, beta, kappa, epsilon, ...) may
be traced.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Shaped

__all__ = ["categorical_loss", "categorical_projection", "cosine_embedding", "dueling", "huber",
           "importance_weights", "inverse_rescale", "n_step_window", "of_action", "quantile_huber",
           "quantile_midpoints", "rescale", "soft_value", "target_atoms"]


def huber(x: Float[Array, "*batch"], delta: ArrayLike) -> Float[Array, "*batch"]:
    """Return x^2 / 2 up to |x| = delta, then the line delta (|x| - delta / 2) (Huber 1964).

    Its slope is x clipped to +-delta. delta = infinity gives half the square.
    """
    size = jnp.abs(x)
    inner = jnp.minimum(size, delta)
    return inner * (size - 0.5 * inner)


def n_step_window(reward: Float[Array, " n *batch"], terminated: Bool[Array, " n *batch"],
                  truncated: Bool[Array, " n *batch"], *, gamma: ArrayLike
                  ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"], Int[Array, "*batch"]]:
    """Return (return, discount, last) of a window's first step: the n-step target but V.

    Sutton and Barto 2018, eq. 7.1. The target is return + discount * V(what really followed step
    `last`). The window has m = last + 1 steps: n, or fewer if its episode ends earlier. return =
    sum of gamma^k r_k over k < m; discount = gamma^m, 0 if step `last` terminated; `last` is int32.
    gamma: a number, or of the reward's shape. `returns.n_step_returns` gives the same target in its
    row 0, but needs V of all n rows.
    """
    chex.assert_equal_shape([reward, terminated, truncated])
    n = reward.shape[0]
    gamma = jnp.broadcast_to(gamma, reward.shape)
    total = jnp.zeros(reward.shape[1:])
    discount = jnp.ones(reward.shape[1:])
    last = jnp.full(reward.shape[1:], n - 1, jnp.int32)
    for k in reversed(range(n)):
        ended = jnp.logical_or(terminated[k], truncated[k])
        total = reward[k] + gamma[k] * jnp.where(ended, 0.0, total)
        bootstrapped = jnp.where(ended, 1.0, discount)
        discount = gamma[k] * jnp.where(terminated[k], 0.0, bootstrapped)
        last = jnp.where(ended, k, last)
    return total, discount, last


# ---------------------------------------------------------------- distributions of returns


def target_atoms(support: Float[Array, "*any n"], reward: Float[Array, "*batch"],
                 discount: Float[Array, "*batch"]) -> Float[Array, "*batch n"]:
    """Return reward + discount * z for the atoms z of the next value.

    support: the atoms, [n] or [*batch, n]. The discount is 0 after termination.
    """
    chex.assert_equal_shape([reward, discount])
    atoms = jnp.broadcast_to(support, (*jnp.shape(reward), jnp.shape(support)[-1]))
    return jnp.expand_dims(reward, -1) + jnp.expand_dims(discount, -1) * atoms


def categorical_projection(support: Float[Array, " n"], probabilities: Float[Array, "*batch m"],
                           target_atoms: Float[Array, "*batch m"]) -> Float[Array, "*batch n"]:
    """Return a distribution over any atoms, projected onto the fixed support.

    Bellemare et al. 2017, arXiv:1707.06887, eq. 7. support: evenly spaced, n >= 2. probabilities,
    target_atoms: the target's distribution and the places of its atoms. Atoms outside the support
    move to its nearest end. The mass of each atom goes to its two neighbors so that their mean is
    its place, which keeps the mean of the whole.

    The result is a sum over all pairs, because a scatter would add in any order on a GPU. Nothing
    is lost where an atom hits the support (algorithm 1, by u - b and b - l, needs care where l =
    u).
    """
    chex.assert_equal_shape([probabilities, target_atoms])
    support = jnp.asarray(support)
    n = support.shape[0]
    spacing = (support[-1] - support[0]) / (n - 1)
    # In units of the spacing, differences to whole numbers are exact: an atom's shares add up to 1.
    place = (jnp.clip(target_atoms, support[0], support[-1]) - support[0]) / spacing
    # the division may round above n - 1
    place = jnp.expand_dims(jnp.minimum(place, n - 1.0), -1)
    to = jnp.broadcast_to(jnp.arange(n, dtype=place.dtype), (*place.shape[:-1], n))
    share = jnp.clip(1.0 - jnp.abs(place - to), 0.0, 1.0)
    # over the axis before the last: half the time
    return jnp.sum(share * jnp.expand_dims(probabilities, -1), axis=-2)


def categorical_loss(logits: Float[Array, "*batch n"], target: Float[Array, "*batch n"]
                     ) -> Float[Array, "*batch"]:
    """Return the cross entropy of `logits` relative to the probabilities `target`.

    The Kullback-Leibler divergence of C51 (algorithm 1) up to the entropy of the target, which has
    no gradient.
    """
    chex.assert_equal_shape([logits, target])
    return -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1)


def quantile_midpoints(n: int) -> Float[Array, " {n}"]:
    """Return (2 i - 1) / (2 n), i = 1 .. n: the best tau for n quantiles.

    Dabney et al. 2018, arXiv:1710.10044, lemma 2.
    """
    return (jnp.arange(n, dtype=jnp.float32) + 0.5) / n


def quantile_huber(theta: Float[Array, "*batch N"], tau: Float[Array, "*any N"],
                   target: Float[Array, "*batch M"], kappa: ArrayLike) -> Float[Array, "*batch"]:
    """Return the loss of quantile regression, smoothed within kappa.

    Dabney et al. 2018, arXiv:1710.10044, eqs. 8 to 10. theta: estimated quantiles at the fractions
    tau ([N], or of theta's shape). target: samples of the return. The loss is the sum over i of the
    mean over j of |tau_i - 1{u < 0}| L(u) / kappa, where u = target_j - theta_i and L is Huber's
    loss. The division by kappa is IQN's (arXiv:1806.06923), so that kappa = 0 is quantile
    regression itself: |tau_i - 1{u < 0}| |u|.
    """
    tau = jnp.expand_dims(jnp.broadcast_to(tau, jnp.shape(theta)), -1)
    error = jnp.expand_dims(target, -2) - jnp.expand_dims(theta, -1)                  # [..., N, M]
    size = jnp.abs(error)
    divisor = jnp.where(kappa > 0, kappa, 1.0)
    slope = jnp.where(kappa > 0, jnp.minimum(size / divisor, 1.0), 1.0)
    smoothed = slope * (size - 0.5 * jnp.minimum(size, kappa))       # huber(error, kappa) / kappa
    return jnp.sum(jnp.mean(jnp.abs(tau - (error < 0)) * smoothed, axis=-1), axis=-1)


def cosine_embedding(tau: Float[Array, "*batch"], size: int) -> Float[Array, "*batch {size}"]:
    """Return cos(pi i tau), i = 0 .. size-1: what IQN's dense layer reads (eq. 4).

    It is a nested Taylor series around the nearest whole number. Its error is 1e-5 for size 64,
    which is float32's rounding of i tau, and it takes a quarter of the time of a general cosine.
    """
    order = jnp.arange(size, dtype=jnp.float32)
    turns = jnp.expand_dims(tau, -1) * jnp.broadcast_to(order, (*jnp.shape(tau), size))
    whole = jnp.round(turns)
    square = jnp.square(math.pi * (turns - whole))
    cosine = jnp.ones_like(turns)
    for n in (12, 10, 8, 6, 4, 2):
        cosine = 1.0 - square * cosine / (n * (n - 1))
    return jnp.where(whole % 2 == 0, cosine, -cosine)


# ---------------------------------------------------------------- the value itself


def rescale(x: Float[Array, "*batch"], epsilon: float = 1e-3) -> Float[Array, "*batch"]:
    """Return h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x, for targets of any scale.

    Pohlen et al. 2018, arXiv:1805.11593, in a form without cancellation near 0.
    """
    return x / (jnp.sqrt(jnp.abs(x) + 1.0) + 1.0) + epsilon * x


def inverse_rescale(x: Float[Array, "*batch"], epsilon: float = 1e-3) -> Float[Array, "*batch"]:
    """Return the inverse of h, accurate in float32, also for epsilon = 0.

    The inverse printed in the paper divides a difference of nearly equal numbers by epsilon. With
    t = sqrt(|x| + 1) - 1, |h| is epsilon t^2 + (1 + 2 epsilon) t. That is solved for t without a
    difference; then |x| = t (t + 2).
    """
    linear = 1.0 + 2.0 * epsilon
    slope = 2.0 / (linear + jnp.sqrt(linear * linear + 4.0 * epsilon * jnp.abs(x)))   # t / |h|
    return x * slope * (jnp.abs(x) * slope + 2.0)


def of_action(x: Shaped[Array, "*batch actions"], action: Int[Array, "*batch"]
              ) -> Shaped[Array, "*batch"]:
    """Return the entries of `x` at the actions."""
    return jnp.take_along_axis(x, jnp.expand_dims(action, -1), axis=-1)[..., 0]


def dueling(value: Float[Array, "..."], advantage: Float[Array, "..."],
            mask: Bool[Array, "..."] | None = None, *, axis: int = -1) -> Float[Array, "..."]:
    """Return Q = V + A - mean of A over the actions (Wang et al. 2016, arXiv:1511.06581, eq. 9).

    advantage: with the actions at `axis` (negative; -2 where atoms follow). value: the same without
    that axis. mask [..., actions]: limits the mean to the legal actions, so that V does not depend
    on others.
    """
    if mask is None:
        center = jnp.mean(advantage, axis=axis, keepdims=True)
    else:
        further = (1,) * (-1 - axis)
        legal = jnp.broadcast_to(jnp.reshape(mask, (*mask.shape, *further)), advantage.shape)
        count = jnp.maximum(jnp.sum(legal, axis=axis, keepdims=True), 1)
        center = jnp.sum(jnp.where(legal, advantage, 0.0), axis=axis, keepdims=True) / count
    return jnp.expand_dims(value, axis) + advantage - center


def soft_value(q: Float[Array, "*batch n"], log_prob: Float[Array, "*batch n"], alpha: ArrayLike
               ) -> Float[Array, "*batch"]:
    """Return V = sum over actions of pi (Q - alpha log pi).

    Christodoulou 2019, arXiv:1910.07207, eq. 10. V is an expectation, not a sample; its negative is
    the policy's loss (eq. 12). Actions of probability 0 (masked, also by -inf) do not count.
    """
    chex.assert_equal_shape([q, log_prob])
    possible = jnp.exp(log_prob) > 0.0
    log_prob = jnp.where(possible, log_prob, 0.0)
    terms = jnp.exp(log_prob) * (q - alpha * log_prob)
    return jnp.sum(jnp.where(possible, terms, 0.0), axis=-1)


def importance_weights(probability: Float[Array, " B"], beta: ArrayLike) -> Float[Array, " B"]:
    """Return (N P)^-beta over its largest value in the batch, in [0, 1].

    Schaul et al. 2016, arXiv:1511.05952, section 3.4. probability: that of each item in the draw,
    or a multiple of it. N, the number of items stored, cancels. An item that cannot have been drawn
    (probability 0: padding) has weight 0.
    """
    drawn = probability > 0.0
    rarest = jnp.min(jnp.where(drawn, probability, jnp.inf))
    return jnp.where(drawn, jnp.power(rarest / jnp.where(drawn, probability, 1.0), beta), 0.0)
