"""A policy and an ensemble of critics that learn from a replay: what DDPG, TD3 and SAC share.

Actions of a Box are vectors u in [-1, 1]^d here, whatever its shape and bounds: noise, entropy and what critics read
are in units of half its range, so that one number suits every environment.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from envs_jax.spaces import Box
from jaxrl.blocks import normalize
from jaxrl.blocks.networks.actor_critic import (
    TrunkConfig,
    candidate_features,
    encode,
    example,
    in_unit_range,
    input_features,
    reads_images,
    without_unread,
)
from jaxrl.blocks.networks.distributions import finite_bounds
from jaxrl.blocks.networks.initializers import orthogonalize
from jaxrl.blocks.optim import adam, flat_norm, scheduled
from jaxrl.blocks.replay.config import ReplayConfig
from jaxrl.declare import defaults, hyper, nested, static
from jaxrl.types import EnvSpec, Input, Metrics


@dataclass(frozen=True)
class CriticsConfig(defaults(ReplayConfig, num_envs=1, gradient_steps=1, batch_size=128, max_grad_norm=1e9)):
    """Settings that all of them have; an algorithm gives defaults of its own (`declare.defaults`) and adds fields."""

    critics: int = static(2, low=1, high=100, help="Q functions; targets are of the least of them")
    tau: float = hyper(0.005, low=0.0, high=1.0, help="how far target networks move to the learned ones in a step")
    noise_correlation: float = hyper(0.0, low=0.0, high=1.0, help="of the noise of one step with the next, within an "
                                                                  "episode (Box actions); 0: independent")
    normalize_observation: bool = static(False, help="by running mean and deviation, clipped at 10")
    network: TrunkConfig = nested(TrunkConfig, activation="relu")

    def problems(self, spec: EnvSpec) -> list[str]:
        """What does not fit together, in words."""
        found = super().problems(spec)
        if self.network.recurrent != "none":
            found.append("{algo} learns from single transitions; algo.network.recurrent has to be none")
        if self.normalize_observation:
            found += normalize.problems(spec.observation)
        box = spec.action if isinstance(spec.action, Box) else None
        if box and not (box.bounded and np.all(np.less(box.low, box.high))):
            found.append(f"{{algo}} needs actions with finite bounds, one below the other, {{env}} has {spec.action}. "
                         "Try: {others}")
        return found


class PolicyCritics(NamedTuple):
    """Pure functions. `params` is {"policy": ..., "critics": ... with a leading axis C}. Inputs are a batch [B].

    init    (key) -> params
    reads   (Input) -> Input without the fields that the networks do not read
    moments () -> the statistics of observations before the first, () when off
    merge   (moments, Input) -> moments
    observe (moments, Input) -> Input as the networks see it
    outputs (params["policy"], Input) -> what the head of the policy reads [B, size]
    values  (params["critics"], Input, u [B, d]) -> Q [C, B]; for choices u is None, and it is [C, B, n] of all
    taken   (params["critics"], Input, action [B, ...] of the space) -> Q [C, B]
    action  (u [B, d]) -> action [B, ...] of the Box, within its bounds
    """

    init: Callable
    reads: Callable
    moments: Callable
    merge: Callable
    observe: Callable
    outputs: Callable
    values: Callable
    taken: Callable
    action: Callable


def policy_critics(config: CriticsConfig, spec: EnvSpec, size: int) -> PolicyCritics:
    """A policy of `size` outputs and `config.critics` critics, for actions of a Discrete space or a bounded Box.

    Critics of a Box read the action beside the observation; beside an image's features, in one more layer.
    """
    from jaxrl.blocks.networks import modules

    net, dtype = config.network, jnp.dtype(config.network.compute_dtype)
    features, offers = input_features(net, spec), partial(candidate_features, net, spec)
    continuous, images = isinstance(spec.action, Box), reads_images(net)
    trunk = modules.Trunk(net, dtype)
    joint = modules.MLP(dataclasses.replace(net, hidden=net.hidden[-1:]), dtype)
    policy_head, q_head = modules.Policy(size, 0, 0.0), modules.Scores(1 if continuous else spec.action.n)

    def init(key: jax.Array) -> Any:
        keys, inputs = jax.random.split(key, config.critics + 2), example(spec)

        def new(head, key, u=None):
            keys = jax.random.split(key, 3)
            seen, more = (u, None) if images else (None, u)
            x = beside(features(inputs), more)
            params = {"trunk": trunk.init(keys[0], (), x, inputs.first, None)}
            x, _, _ = trunk.apply(params["trunk"], (), x, inputs.first, None)
            if seen is not None:
                params["joint"] = joint.init(keys[1], beside(x, seen))
                x = joint.apply(params["joint"], beside(x, seen))
            params["head"] = head.init(keys[2], x, offers(inputs))
            return params

        u = jnp.zeros((1, 1, math.prod(spec.action.shape))) if continuous else None
        params = orthogonalize(keys[0], {"policy": new(policy_head, keys[1]),
                                         "critics": [new(q_head, key, u) for key in keys[2:]]})
        return params | {"critics": jax.tree.map(lambda *x: jnp.stack(x), *params["critics"])}

    def run(head, params, inputs, u=None):
        """[B] -> the head's outputs."""
        inputs, u = jax.tree.map(lambda x: x[None], (inputs, u))
        x = beside(features(inputs), None if images else u)
        x, _, _ = trunk.apply(params["trunk"], (), x, inputs.first, None)
        if u is not None and images:
            x = joint.apply(params["joint"], beside(x, u))
        return head.apply(params["head"], x, offers(inputs))

    def outputs(policy, inputs):
        return run(policy_head, policy, inputs)[0][0]

    def values(critics, inputs, u=None):
        q = jax.vmap(partial(run, q_head), in_axes=(0, None, None))(critics, inputs, u)[:, 0, ..., 0]
        return q[..., 0] if continuous else q

    def taken(critics, inputs, action):
        chosen = encode(spec.action, in_unit_range(spec.action, action), 1)
        if continuous:
            return values(critics, inputs, chosen)
        q = values(critics, inputs)
        return jnp.sum(q * jnp.broadcast_to(chosen, q.shape), axis=-1)

    def action(u):
        low, high = (jnp.broadcast_to(bound.reshape(-1), u.shape) for bound in finite_bounds(spec.action))
        scaled = jnp.clip(0.5 * (low + high) + 0.5 * (high - low) * u, low, high)        # rounding may overshoot
        return scaled.reshape(*u.shape[:-1], *spec.action.shape)

    on = config.normalize_observation
    return PolicyCritics(
        init, partial(without_unread, net), lambda: normalize.init(spec.observation) if on else (),
        lambda moments, inputs: normalize.update(moments, inputs.obs) if on else (),
        lambda moments, inputs: inputs._replace(obs=normalize.normalize(moments, inputs.obs)) if on else inputs,
        outputs, values, taken, action)


def beside(x: jax.Array, u: jax.Array | None) -> jax.Array:
    """[..., F] and [..., d], if there is one -> [..., F + d]."""
    return x if u is None else jnp.concatenate([x, u.astype(x.dtype)], axis=-1)


class Optimizers(NamedTuple):
    """Of the parts of `params`, each with Adam's state of its own: they take their steps one after another."""

    hyper: Any
    progress: jax.Array

    def init(self, params: dict[str, Any]) -> dict[str, Any]:
        """The state for every part."""
        return {name: scheduled(adam, self.hyper, self.progress).init(part) for name, part in params.items()}

    def step(self, loss: Callable, part: Any, state: Any) -> tuple[Any, Any, jax.Array, Any]:
        """One step of a part down loss(part) -> (scalar, aux): (part, state, norm of the gradient, (scalar, aux))."""
        value, gradient = jax.value_and_grad(loss, has_aux=True)(part)
        update, state = scheduled(adam, self.hyper, self.progress).update(gradient, state, part)
        return optax.apply_updates(part, update), state, flat_norm(gradient), value


def critic_loss(q: jax.Array, target: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Half the squared errors of q [C, B], added over the critics, weighted mean over the batch -> (scalar, errors).

    target, weight [B]; no gradient goes into them.
    """
    error = q - jnp.broadcast_to(jax.lax.stop_gradient(target), q.shape)
    return jnp.mean(weight * 0.5 * jnp.sum(jnp.square(error), axis=0)), error


def fit(network: PolicyCritics, optimizers: Optimizers, critics: Any, state: Any, inputs: Input, batch: Any,
        target: jax.Array) -> tuple[Any, Any, Metrics, jax.Array]:
    """One step of the critics to the targets [B] of a batch of Transitions, whose starts are seen as `inputs`.

    -> (critics, optimiser's state, metrics, priorities [B]: the mean over the critics of |error|).
    """
    def loss(critics):
        q = network.taken(critics, inputs, batch.start.action)
        total, error = critic_loss(q, target, batch.weight)
        return total, (q, jnp.mean(jnp.abs(error), axis=0))

    critics, state, norm, (total, (q, error)) = optimizers.step(loss, critics, state)
    return critics, state, {"loss": total, "grad_norm": norm, "td_error": error.mean(), "q": q.mean()}, error
