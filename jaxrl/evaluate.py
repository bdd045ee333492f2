"""Greedy evaluation on environments of its own: whole episodes, a bounded loop, its own key stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.vector import VectorEnv
from envs_jax.wrappers import TimeLimit
from jaxrl.types import Agent, Strategy

MAX_ENVS = 256            # at once; more episodes are played one after another in each
UNLIMITED = 10_000        # steps after which an episode of an environment without time limit is counted as it stands


class Played(NamedTuple):
    returns: jax.Array        # [envs, k]
    count: jax.Array          # [envs] episodes done


def make_evaluate(agent: Agent | Strategy, env: Environment, params: Any, episodes: int) -> Callable:
    """-> evaluate(actor, key) -> undiscounted returns [episodes] of the greedy policy.

    Every environment plays its first k whole episodes: counting the first to end over all of them would favour short
    ones. The normaliser is the agent's own and stays as it is. The return of several agents is their mean. Returns are
    the environment's, before rewards are scaled or clipped for a learner (envs_jax/wrappers: the order).
    """
    k = -(-episodes // MAX_ENVS)
    envs = -(-episodes // k)
    vector = VectorEnv(env if env.max_steps else TimeLimit(env, UNLIMITED), envs)
    bound = k * vector.env.max_steps

    def evaluate(actor: Any, key: jax.Array) -> jax.Array:
        start_key, run_key = jax.random.split(key)
        world, _ = vector.init(start_key, params)

        def going(carry):
            t, _, _, played = carry
            return (t < bound) & jnp.any(played.count < k)

        def step(carry):
            t, world, memory, played = carry
            act_key, env_key = jax.random.split(jax.random.fold_in(run_key, t))
            action, memory = agent.greedy(actor, memory, vector.input(world), act_key)
            world, after = vector.step(env_key, world, action)
            total = after.episode_return.reshape(envs, -1).mean(-1)
            current = (jnp.arange(k)[None] == played.count[:, None]) & (played.count < k)[:, None]
            returns = jnp.where(current, total[:, None], played.returns)
            return t + 1, world, memory, Played(returns, played.count + after.input.first)

        played = Played(jnp.zeros((envs, k)), jnp.zeros(envs, jnp.int32))
        *_, played = jax.lax.while_loop(going, step, (jnp.zeros((), jnp.int32), world, agent.carry(envs), played))
        return played.returns.reshape(-1)[:episodes]

    return evaluate


def iqm(returns: Any) -> float:
    """Interquartile mean (Agarwal et al. 2021): the mean without the int(n/4) lowest and highest; nan if one is nan."""
    x = np.sort(np.asarray(returns, np.float64).reshape(-1))
    cut = len(x) // 4
    return float(np.mean(x[cut: len(x) - cut])) if len(x) and not np.isnan(x).any() else float("nan")


def bootstrap_ci(returns: Any, *, level: float = 0.95, repetitions: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap interval of the IQM over seeds [n]; of one seed's mean, over its episodes [1, m]."""
    x = np.asarray(returns, np.float64)
    alone = x.ndim == 2 and x.shape[0] == 1
    x = x.reshape(-1) if alone else x.reshape(x.shape[0], -1).mean(axis=1)
    if not np.isfinite(x).all():
        return float("nan"), float("nan")
    rng, cut = np.random.default_rng(0), 0 if alone else len(x) // 4
    means = [np.sort(x[rng.integers(0, len(x), len(x))])[cut: len(x) - cut].mean() for _ in range(repetitions)]
    return tuple(float(q) for q in np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))
