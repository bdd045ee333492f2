"""Equations of value-based methods: targets, losses and the ways they represent a value.

Everything is per sample, over any leading batch axes [...]; no means over the batch, and no stop_gradient: what is a
target is for the caller to say. Numbers (gamma, beta, kappa, epsilon, ...) may be traced.
"""

from __future__ import annotations

import math

import chex
import jax
import jax.numpy as jnp

__all__ = ["categorical_loss", "categorical_projection", "cosine_embedding", "dueling", "huber", "importance_weights",
           "inverse_rescale", "n_step_window", "of_action", "quantile_huber", "quantile_midpoints", "rescale",
           "soft_value", "target_atoms"]


def huber(x, delta) -> jax.Array:
    """x^2 / 2 up to |x| = delta, then the line delta (|x| - delta / 2) (Huber 1964). Its slope is x clipped to +-delta.

    delta = infinity is half the square.
    """
    size = jnp.abs(x)
    inner = jnp.minimum(size, delta)
    return inner * (size - 0.5 * inner)


def n_step_window(reward, terminated, truncated, *, gamma) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The n-step target of the first step of a window [n, ...] without its bootstrap (Sutton and Barto 2018, eq. 7.1).

    Returns (return, discount, last), each [...]: the target is return + discount * V(what really followed step `last`).
    The window has m = last + 1 steps: n, or fewer if its episode ends earlier. return = sum of gamma^k r_k over k < m;
    discount = gamma^m, 0 if step `last` terminated; `last` int32. gamma: a number, or of the reward's shape.
    `returns.n_step_returns` gives the same target in its row 0, but for V of all n rows.
    """
    chex.assert_equal_shape([reward, terminated, truncated])
    n, gamma = reward.shape[0], jnp.broadcast_to(gamma, reward.shape)
    total, discount = jnp.zeros(reward.shape[1:]), jnp.ones(reward.shape[1:])
    last = jnp.full(reward.shape[1:], n - 1, jnp.int32)
    for k in reversed(range(n)):
        ended = jnp.logical_or(terminated[k], truncated[k])
        total = reward[k] + gamma[k] * jnp.where(ended, 0.0, total)
        discount = gamma[k] * jnp.where(terminated[k], 0.0, jnp.where(ended, 1.0, discount))
        last = jnp.where(ended, k, last)
    return total, discount, last


# ---------------------------------------------------------------- distributions of returns


def target_atoms(support, reward, discount) -> jax.Array:
    """Where the atoms of the next value [n] land: reward + discount * z, [..., n]; discount is 0 after a death."""
    chex.assert_equal_shape([reward, discount])
    atoms = jnp.broadcast_to(support, (*jnp.shape(reward), jnp.shape(support)[-1]))
    return jnp.expand_dims(reward, -1) + jnp.expand_dims(discount, -1) * atoms


def categorical_projection(support, probabilities, target_atoms) -> jax.Array:
    """A distribution over any atoms, projected onto the fixed support (Bellemare et al. 2017, arXiv:1707.06887, eq. 7).

    support [n], evenly spaced, n >= 2; probabilities and places of the target's atoms, both [..., m] -> [..., n].
    Atoms outside are moved to the nearest end. Each atom's mass goes to its two neighbours so that its place is their
    mean, which keeps the mean of the whole. A sum over all pairs: no scatter, which would add in any order on a GPU;
    and nothing is lost where an atom hits the support (algorithm 1, by u - b and b - l, needs care where l = u).
    """
    chex.assert_equal_shape([probabilities, target_atoms])
    support = jnp.asarray(support)
    n = support.shape[0]
    spacing = (support[-1] - support[0]) / (n - 1)
    # in units of the spacing: differences to whole numbers are exact, so that every atom's shares add up to 1
    place = (jnp.clip(target_atoms, support[0], support[-1]) - support[0]) / spacing
    place = jnp.expand_dims(jnp.minimum(place, n - 1.0), -1)                         # the division may round above it
    to = jnp.broadcast_to(jnp.arange(n, dtype=place.dtype), (*place.shape[:-1], n))
    share = jnp.clip(1.0 - jnp.abs(place - to), 0.0, 1.0)
    return jnp.sum(share * jnp.expand_dims(probabilities, -1), axis=-2)              # not the last axis: half the time


def categorical_loss(logits, target) -> jax.Array:
    """Cross entropy of `logits` relative to the probabilities `target`, both [..., n] -> [...].

    The Kullback-Leibler divergence of C51 (algorithm 1) up to the entropy of the target, which has no gradient.
    """
    chex.assert_equal_shape([logits, target])
    return -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1)


def quantile_midpoints(n: int) -> jax.Array:
    """(2 i - 1) / (2 n), i = 1 .. n: the best tau for n quantiles (Dabney et al. 2018, arXiv:1710.10044, lemma 2)."""
    return (jnp.arange(n, dtype=jnp.float32) + 0.5) / n


def quantile_huber(theta, tau, target, kappa) -> jax.Array:
    """Quantile regression of samples, smoothed within kappa (Dabney et al. 2018, arXiv:1710.10044, eqs. 8 to 10).

    theta [..., N] are the estimated quantiles at the fractions tau ([N], or of theta's shape); target [..., M] are
    samples of the return -> [...]: sum over i of mean over j of |tau_i - 1{u < 0}| L(u) / kappa, where
    u = target_j - theta_i and L is Huber's loss; over kappa as in IQN (arXiv:1806.06923), so that kappa = 0 is quantile
    regression itself: |tau_i - 1{u < 0}| |u|.
    """
    tau = jnp.expand_dims(jnp.broadcast_to(tau, jnp.shape(theta)), -1)
    error = jnp.expand_dims(target, -2) - jnp.expand_dims(theta, -1)                  # [..., N, M]
    size = jnp.abs(error)
    slope = jnp.where(kappa > 0, jnp.minimum(size / jnp.where(kappa > 0, kappa, 1.0), 1.0), 1.0)
    smoothed = slope * (size - 0.5 * jnp.minimum(size, kappa))                        # huber(error, kappa) / kappa
    return jnp.sum(jnp.mean(jnp.abs(tau - (error < 0)) * smoothed, axis=-1), axis=-1)


def cosine_embedding(tau, size: int) -> jax.Array:
    """cos(pi i tau), i = 0 .. size-1: fractions [...] -> [..., size], what IQN's dense layer reads (eq. 4).

    A nested Taylor series around the nearest whole number: right to 1e-5 for size 64, which is float32's rounding of
    i tau, and in a quarter of the time that the cosine of any number takes.
    """
    turns = jnp.expand_dims(tau, -1) * jnp.broadcast_to(jnp.arange(size, dtype=jnp.float32), (*jnp.shape(tau), size))
    whole = jnp.round(turns)
    square, cosine = jnp.square(math.pi * (turns - whole)), jnp.ones_like(turns)
    for n in (12, 10, 8, 6, 4, 2):
        cosine = 1.0 - square * cosine / (n * (n - 1))
    return jnp.where(whole % 2 == 0, cosine, -cosine)


# ---------------------------------------------------------------- the value itself


def rescale(x, epsilon=1e-3) -> jax.Array:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x (Pohlen et al. 2018, arXiv:1805.11593), for targets of any scale.

    In a form that does not cancel near 0.
    """
    return x / (jnp.sqrt(jnp.abs(x) + 1.0) + 1.0) + epsilon * x


def inverse_rescale(x, epsilon=1e-3) -> jax.Array:
    """The x with h(x) given, accurate in float32, also for epsilon = 0.

    The printed inverse divides a difference of nearly equal numbers by epsilon. With t = sqrt(|x| + 1) - 1 it is
    epsilon t^2 + (1 + 2 epsilon) t = |h|, solved for t without a difference; then |x| = t (t + 2).
    """
    linear = 1.0 + 2.0 * epsilon
    slope = 2.0 / (linear + jnp.sqrt(linear * linear + 4.0 * epsilon * jnp.abs(x)))   # t / |h|
    return x * slope * (jnp.abs(x) * slope + 2.0)


def of_action(x, action) -> jax.Array:
    """Of x [..., actions] what belongs to the action: integers [...] -> [...]."""
    return jnp.take_along_axis(x, jnp.expand_dims(action, -1), axis=-1)[..., 0]


def dueling(value, advantage, mask=None, *, axis: int = -1) -> jax.Array:
    """Q = V + A - mean of A over the actions (Wang et al. 2016, arXiv:1511.06581, eq. 9).

    advantage has its actions at `axis` (negative; -2 where atoms follow), value is the same without that axis;
    mask [..., actions] limits the mean to the legal ones, so that V does not depend on what cannot be done.
    """
    if mask is None:
        centre = jnp.mean(advantage, axis=axis, keepdims=True)
    else:
        legal = jnp.broadcast_to(jnp.reshape(mask, (*mask.shape, *(1,) * (-1 - axis))), advantage.shape)
        count = jnp.maximum(jnp.sum(legal, axis=axis, keepdims=True), 1)
        centre = jnp.sum(jnp.where(legal, advantage, 0.0), axis=axis, keepdims=True) / count
    return jnp.expand_dims(value, axis) + advantage - centre


def soft_value(q, log_prob, alpha) -> jax.Array:
    """V = sum over actions of pi (Q - alpha log pi), [..., n] -> [...] (Christodoulou 2019, arXiv:1910.07207, eq. 10).

    An expectation, not a sample; its negative is the policy's loss (eq. 12). Actions of probability 0 (masked, also
    by -inf) count for nothing.
    """
    chex.assert_equal_shape([q, log_prob])
    possible = jnp.exp(log_prob) > 0.0
    log_prob = jnp.where(possible, log_prob, 0.0)
    return jnp.sum(jnp.where(possible, jnp.exp(log_prob) * (q - alpha * log_prob), 0.0), axis=-1)


def importance_weights(probability, beta) -> jax.Array:
    """(N P)^-beta over its largest in the batch (Schaul et al. 2016, arXiv:1511.05952, section 3.4), in [0, 1].

    probability [B]: with which each item of the batch was drawn, or a multiple of it; N, the number of items stored,
    cancels. An item that cannot have been drawn (probability 0: padding) weighs 0.
    """
    drawn = probability > 0.0
    rarest = jnp.min(jnp.where(drawn, probability, jnp.inf))
    return jnp.where(drawn, jnp.power(rarest / jnp.where(drawn, probability, 1.0), beta), 0.0)
