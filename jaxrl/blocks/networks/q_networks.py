"""Networks of action values: one number per action, or several that describe the distribution of its return."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.blocks.exploration import EpsilonConfig, epsilon, epsilon_greedy, greedy
from jaxrl.blocks.losses.value import dueling, quantile_midpoints
from jaxrl.blocks.networks.actor_critic import (
    TrunkConfig,
    candidate_features,
    empty_carry,
    example,
    input_features,
    without_unread,
)
from jaxrl.blocks.networks.initializers import orthogonalize
from jaxrl.types import EnvSpec, Input

POINTS = 32              # fractions, midpoints of equal parts, of which a mean is taken: as many as the paper draws


class Outputs(NamedTuple):
    """What a network says of every action, [T, B, actions, n]: its value (n = 1), or n numbers about its return."""

    z: jax.Array
    tau: jax.Array | None = None      # [T, B, n]: of which fractions z are the quantiles, where the network was asked


class QNetwork(NamedTuple):
    """Pure functions.

    init    (key) -> params
    reads   (Input) -> Input without the fields that the network does not read
    carry   (batch) -> recurrent state, or ()
    outputs (params, carry, Input [T, B], key=None, final Input=None, fractions=None) -> (Outputs of each input, Outputs
            of what really followed each or None, carry). key: draws noise, None: there is none. fractions: a key that
            draws `size` of them, None: the midpoints of 32 equal parts, whose mean has not the noise of a draw
    values  (params, carry, Input, key=None) -> (Q [T, B, A], carry)
    both    (params, carry, Input, final Input, key=None) -> (Q of each input, Q of what really followed each)
            the last two: mean of z, which is Q where z is one number, or quantiles
    """

    init: Callable
    reads: Callable
    carry: Callable
    outputs: Callable
    values: Callable
    both: Callable


def acting(network: QNetwork, config: EpsilonConfig) -> tuple[Callable, Callable]:
    """(explore, greedy) of an Agent whose Actor has the network's `params`, recurrent or not."""
    def values(actor: Any, carry: Any, inputs: Input) -> tuple[jax.Array, Any]:
        """-> (Q [B, A], carry)."""
        q, carry = network.values(actor.params, carry, jax.tree.map(lambda x: x[None], network.reads(inputs)))
        return q[0], carry

    def explore(actor, hyper, carry, inputs, progress, key):
        q, carry = values(actor, carry, inputs)
        return epsilon_greedy(key, q, epsilon(config, hyper, inputs, progress), inputs.mask), carry, {}

    def best(actor, carry, inputs, key):
        q, carry = values(actor, carry, inputs)
        return greedy(q, inputs.mask), carry

    return explore, best


def q_network(config: TrunkConfig, spec: EnvSpec, *, size: int = 1, duel: bool = False, noisy: bool = False,
              implicit: bool = False) -> QNetwork:
    """For the actions of a Discrete space, by their features where these are given (`actor_critic.parametric`).

    size: numbers per action. duel: a state's value and the actions' advantages. noisy: the layers after the trunk are.
    implicit: the numbers are the quantiles of `size` fractions, which are drawn anew each time (IQN).
    """
    from jaxrl.blocks.networks import modules

    features, offers = input_features(config, spec), partial(candidate_features, config, spec)
    trunk = modules.Trunk(config, jnp.dtype(config.compute_dtype))
    each = 1 if implicit else size
    advantages = modules.Scores(spec.action.n, each, noisy=noisy)
    value = modules.Scores(1, each, noisy=noisy)

    def init(key: jax.Array) -> Any:
        keys, inputs = jax.random.split(key, 5), example(spec)
        params = {"trunk": trunk.init(keys[0], empty_carry(config, 1), features(inputs), inputs.first, None)}
        x, _, _ = trunk.apply(params["trunk"], empty_carry(config, 1), features(inputs), inputs.first, None)
        params["advantage"] = advantages.init(keys[1], x, offers(inputs))
        if duel:
            params["value"] = value.init(keys[2], x)
        if implicit:
            params["fractions"] = modules.Fractions(x.shape[-1]).init(keys[3], jnp.zeros((1, 1, 1)))
        return orthogonalize(keys[4], params)

    def head(params: Any, x: jax.Array, inputs: Input, key: jax.Array | None, draw: jax.Array | None) -> Outputs:
        rngs = [{"noise": key} for key in jax.random.split(key)] if noisy and key is not None else [{}, {}]
        tau, candidates, mask = None, offers(inputs), inputs.mask
        if implicit:       # z of a fraction: the features, gated by what the network makes of the fraction
            shape = (*x.shape[:-1], size if draw is not None else POINTS)
            middles = jnp.broadcast_to(quantile_midpoints(shape[-1]), shape)
            tau = middles if draw is None else jax.random.uniform(draw, shape)
            gate = modules.Fractions(x.shape[-1]).apply(params["fractions"], tau)
            x = jnp.broadcast_to(x.astype(jnp.float32)[..., None, :], gate.shape) * gate
            candidates, mask = (y if y is None else jnp.broadcast_to(
                jnp.expand_dims(y, 2), (*shape, *y.shape[2:])) for y in (candidates, mask))
        z = advantages.apply(params["advantage"], x, candidates, rngs=rngs[0])
        if duel:
            z = dueling(value.apply(params["value"], x, rngs=rngs[1])[..., 0, :], z, mask, axis=-2)
        return Outputs(jnp.moveaxis(z[..., 0], -2, -1) if implicit else z, tau)

    def outputs(params, carry, inputs, key=None, final=None, fractions=None):
        now, later = zip(*((None, None) if key is None else jax.random.split(key) for key in (key, fractions)))
        x, following, carry = trunk.apply(params["trunk"], carry, features(inputs), inputs.first,
                                          None if final is None else features(final))
        return (head(params, x, inputs, *now), None if final is None else head(params, following, final, *later), carry)

    def values(params, carry, inputs, key=None):
        out, _, carry = outputs(params, carry, inputs, key)
        return out.z.mean(axis=-1), carry

    def both(params, carry, inputs, final, key=None):
        out, later, _ = outputs(params, carry, inputs, key, final)
        return out.z.mean(axis=-1), later.z.mean(axis=-1)

    return QNetwork(init, partial(without_unread, config), partial(empty_carry, config), outputs, values, both)
