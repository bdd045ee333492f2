"""Test cases for every environment of the table, and a rollout for all tests of this folder."""

import importlib
import importlib.util
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import ENVIRONMENTS
from envs_jax.render import ORANGE
from envs_jax.spaces import Box, Discrete
from envs_jax.suites import SUITES

NEED_DATA = {"gymnax/MNISTBandit-bsuite"}          # data sets, which tests do not download
# slow to compile
HEAVY = {f"gymnax/{game}-MinAtar" for game in ("Asterix", "Freeway", "Seaquest")}
# the environments of the extras that are tested where installed
SAMPLES = {
    "brax": ["brax/inverted_pendulum"],
    "jumanji": ["jumanji/Snake-v1", "jumanji/BinPack-v2"],
    "pgx": ["pgx/tic_tac_toe", "pgx/kuhn_poker", "pgx/2048"],
    "jaxmarl": ["jaxmarl/MPE_simple_spread_v3", "jaxmarl/switch_riddle"],
    "craftax": ["craftax/Craftax-Classic-Symbolic-v1"],
}
INSTALLED = {suite for suite in SUITES if importlib.util.find_spec(suite)}
NAMES = [
    name for name in ENVIRONMENTS if name.partition("/")[0] not in SAMPLES and name not in NEED_DATA
]
NAMES += [name for suite, names in SAMPLES.items() if suite in INSTALLED for name in names]


def needs(suite):
    """Skip a test whose suite is not installed; loops over NAMES leave out the suite, too."""
    return pytest.mark.skipif(
        suite not in INSTALLED,
        reason=f"{suite} is not installed, and its environments are "
        f"left out everywhere: pip install 'jaxrl[{suite}]'",
    )


def class_of(name):
    module, attribute = ENVIRONMENTS[name].split(":")
    return getattr(importlib.import_module(module), attribute)


CONTINUOUS = [
    name for name in NAMES if "continuous" in inspect.signature(class_of(name)).parameters
]

CASES = [pytest.param((name, {}), marks=[pytest.mark.slow] * (name in HEAVY)) for name in NAMES]
CASES += [(name, {"continuous": True}) for name in CONTINUOUS] + [
    ("repeat-previous", {"delay": 1, "symbols": 3}),
    ("memory-chain", {"length": 2, "bits": 3}),
    ("deepsea", {"size": 3, "deterministic": False, "move_cost": 0.1}),
    ("lqr", {"B": ((0.0, 1.0), (0.5, 0.0)), "R": ((0.1, 0.0), (0.0, 1.0)), "noise": 0.3}),
    ("probe-multidiscrete", {"nvec": (3, 2, 4)}),
    ("masked-bandit", {"arms": 2, "penalty": 3.0}),
    ("cartpole", {"length": 1.0, "x_threshold": 1.0}),
    ("cartpole-candidates", {"slots": 3, "features": 1, "p_legal": 0.0, "length": 1.0}),
]


def case_id(case):
    return " ".join([case[0], *(f"{key}={value}" for key, value in case[1].items())])


def random_actions(env, params, batch, seed=0):
    """Return random actions [*batch, ...], or [*batch, agents, ...] with agents.

    NumPy draws them, so nothing is compiled. Masks are ignored.
    """
    rng = np.random.default_rng(seed)
    space = env.action_space(params)
    shape = (*batch, *(() if env.agents is None else (env.agents,)), *space.shape)
    if isinstance(space, Box):
        drawn = (
            rng.uniform(space.low, space.high, shape) if space.bounded else rng.normal(size=shape)
        )
        return jnp.asarray(drawn, space.dtype)
    choices = space.n if isinstance(space, Discrete) else np.array(space.nvec)
    return jnp.asarray(rng.integers(choices, size=shape), space.dtype)


def rollout(env, params, steps, policy=None, actions=None, batch=1, seed=0):
    """Return (obs, action, reward, terminated, truncated, info) of a rollout without auto-reset.

    Each is NumPy [batch, steps, ...]. `policy(obs, state)` returns an action; otherwise `actions`
    [batch, steps, ...] are executed, which are random by default.
    """
    if policy is None and actions is None:
        actions = random_actions(env, params, (batch, steps), seed)
    keys = jax.random.split(jax.random.key(seed), (batch, steps + 1))

    def step(carry, x):
        (obs, state) = carry
        (key, action) = x
        action = action if policy is None else policy(obs, state)
        next_obs, state, *outcome = env.step(key, state, action, params)
        return (next_obs, state), (obs, action, *outcome)

    def one(keys, actions):
        return jax.lax.scan(step, env.reset(keys[0], params), (keys[1:], actions))[1]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys, actions))


def assert_agents_are_shown(boards):
    """Check the position of the agent's disc in pictures of boards.

    boards: (environment, state, (row, column) of the disc, (rows, columns) of the board).
    """
    for env, state, (row, column), (rows, columns) in boards:
        picture = env.render(state, env.default_params)
        cell = picture.shape[0] // rows
        assert picture.shape == (rows * cell, columns * cell, 3) and picture.dtype == np.uint8
        discs = np.all(picture == ORANGE, axis=-1).reshape(rows, cell, columns, cell).sum((1, 3))
        assert np.argwhere(discs).tolist() == [[row, column]]
