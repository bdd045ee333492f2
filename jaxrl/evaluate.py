"""Greedy evaluation in environments of its own: whole episodes, a bounded loop, its own keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.sizes import ceil_div
from envs_jax.vector import VectorEnv
from envs_jax.wrappers import TimeLimit
from jaxrl.types import Agent, Strategy

MAX_ENVS = 256            # most parallel environments; each plays several episodes if needed
UNLIMITED = 10_000        # time limit of episodes in an environment that has none


class Played(NamedTuple):
    """Returns of the episodes that have ended."""

    returns: jax.Array        # [envs, k]
    ended: jax.Array          # [envs], their number


def make_evaluate(agent: Agent | Strategy, env: Environment, params: Any,
                  episodes: int) -> Callable:
    """Return evaluate(actor, key) -> undiscounted returns [episodes] of the greedy policy.

    Every environment plays its first k whole episodes: counting the first episodes to end over all
    environments would favor short ones. The observation normalizer of the agent stays frozen. The
    return of several agents is their mean. Returns are those of the environment itself, before
    rewards are scaled or clipped for a learner (envs_jax/wrappers lists the order).
    """
    k = ceil_div(episodes, MAX_ENVS)
    envs = ceil_div(episodes, k)
    vector = VectorEnv(env if env.max_steps else TimeLimit(env, UNLIMITED), envs)
    bound = k * vector.env.max_steps

    def evaluate(actor: Any, key: jax.Array) -> jax.Array:
        start_key, run_key = jax.random.split(key)
        env_state, _ = vector.init(start_key, params)

        def unfinished(loop: tuple) -> jax.Array:
            t, _, _, played = loop
            return (t < bound) & jnp.any(played.ended < k)

        def step(loop: tuple) -> tuple:
            t, env_state, carry, played = loop
            act_key, env_key = jax.random.split(jax.random.fold_in(run_key, t))
            action, carry = agent.greedy(actor, carry, vector.input(env_state), act_key)
            env_state, timestep = vector.step(env_key, env_state, action)
            total = timestep.episode_return.reshape(envs, -1).mean(-1)
            unended = (played.ended < k)[:, None]
            current = (jnp.arange(k)[None] == played.ended[:, None]) & unended
            returns = jnp.where(current, total[:, None], played.returns)
            played = Played(returns, played.ended + timestep.input.first)
            return t + 1, env_state, carry, played

        played = Played(jnp.zeros((envs, k)), jnp.zeros(envs, jnp.int32))
        start = (jnp.zeros((), jnp.int32), env_state, agent.carry(envs), played)
        *_, played = jax.lax.while_loop(unfinished, step, start)
        return played.returns.reshape(-1)[:episodes]

    return evaluate


def iqm(returns: Any) -> float:
    """Return the interquartile mean (Agarwal et al. 2021), NaN if there are none or one is NaN.

    The mean leaves out the int(n / 4) lowest and highest of n returns.
    """
    x = np.sort(np.asarray(returns, np.float64).reshape(-1))
    if not len(x) or np.isnan(x).any():
        return float("nan")
    cut = len(x) // 4
    return float(np.mean(x[cut: len(x) - cut]))


def bootstrap_ci(returns: Any, *, level: float = 0.95,
                 repetitions: int = 2000) -> tuple[float, float]:
    """Return a percentile bootstrap interval (low, high) of the IQM over seeds.

    returns: [seeds] or [seeds, episodes]. Of a single seed, [1, episodes], the interval is that of
    the mean over its episodes. (NaN, NaN) if a return is not finite.
    """
    x = np.asarray(returns, np.float64)
    single = x.ndim == 2 and x.shape[0] == 1
    x = x.reshape(-1) if single else x.reshape(x.shape[0], -1).mean(axis=1)
    if not np.isfinite(x).all():
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)
    cut = 0 if single else len(x) // 4
    means = []
    for _ in range(repetitions):
        sample = np.sort(x[rng.integers(0, len(x), len(x))])
        means.append(sample[cut: len(x) - cut].mean())
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
