"""What the tests of this folder share: the variants of every environment of the table, and a roll-out."""

import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import ENVIRONMENTS
from envs_jax.spaces import Box, Discrete


def class_of(name):
    module, attribute = ENVIRONMENTS[name].split(":")
    return getattr(importlib.import_module(module), attribute)


CONTINUOUS = [name for name in ENVIRONMENTS if "continuous" in inspect.signature(class_of(name)).parameters]

CASES = [(name, {}) for name in ENVIRONMENTS] + [(name, {"continuous": True}) for name in CONTINUOUS] + [
    ("repeat-previous", {"delay": 1, "symbols": 3}),
    ("probe-multidiscrete", {"nvec": (3, 2, 4)}),
    ("masked-bandit", {"arms": 2, "penalty": 3.0}),
    ("cartpole", {"length": 1.0, "x_threshold": 1.0}),
]


def case_id(case):
    return " ".join([case[0], *(f"{key}={value}" for key, value in case[1].items())])


def random_actions(env, params, batch, seed=0):
    """[*batch, ...] or, with agents, [*batch, agents, ...], by NumPy: nothing to compile. Masks are not respected."""
    rng, space = np.random.default_rng(seed), env.action_space(params)
    shape = (*batch, *(() if env.agents is None else (env.agents,)), *space.shape)
    if isinstance(space, Box):
        return jnp.asarray(rng.uniform(space.low, space.high, shape), space.dtype)
    choices = space.n if isinstance(space, Discrete) else np.array(space.nvec)
    return jnp.asarray(rng.integers(choices, size=shape), space.dtype)


def rollout(env, params, steps, policy=None, actions=None, batch=1, seed=0):
    """(obs acted on, action, reward, terminated, truncated, info), each NumPy [batch, steps, ...], without auto-reset.

    policy(obs, state) -> action; or `actions` [batch, steps, ...], random ones where neither is given.
    """
    if policy is None and actions is None:
        actions = random_actions(env, params, (batch, steps), seed)
    keys = jax.random.split(jax.random.key(seed), (batch, steps + 1))

    def step(carry, x):
        (obs, state), (key, action) = carry, x
        action = action if policy is None else policy(obs, state)
        next_obs, state, *outcome = env.step(key, state, action, params)
        return (next_obs, state), (obs, action, *outcome)

    def one(keys, actions):
        return jax.lax.scan(step, env.reset(keys[0], params), (keys[1:], actions))[1]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys, actions))
