"""Tests of domain randomization: drawn values, their duration, and spaces."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from envs_jax import make
from envs_jax.classic.cartpole import CartPole
from envs_jax.core import Environment
from envs_jax.probe.bandit import MaskedBandit
from envs_jax.spaces import Box, Discrete
from envs_jax.vector import VectorEnv
from envs_jax.wrappers import Randomize, cover

KEY = jax.random.key(0)


class Numbers(NamedTuple):
    size: float = 1.0
    count: int = 3
    scale: float = 2.0
    table: tuple = (1.0, 2.0)
    fixed: bool = False


@dataclass(frozen=True)
class Shown(Environment):
    """Environment that shows its parameters as observation, global state and mask.

    The bounds are the product of the parameters.
    """

    default_params = Numbers()

    def _see(self, params):
        return jnp.stack(
            [jnp.float32(params.size), jnp.float32(params.count), jnp.float32(params.scale)]
        )

    def reset(self, key, params):
        return self._see(params), ()

    def step(self, key, state, action, params):
        return self._see(params), (), jnp.float32(0), jnp.bool_(False), jnp.bool_(False), {}

    def action_mask(self, state, params):
        return jnp.arange(9) < params.count

    def global_state(self, state, params):
        return self._see(params)

    def render(self, state, params):
        return float(params.size)

    def state_space(self, params):
        return self.observation_space(params)

    def observation_space(self, params):
        return Box(-9.0, max(9.0, params.size * params.scale), (3,))

    def action_space(self, params):
        return Discrete(9)


RANGES = {"size": (-3.0, 2), "count": [2, 6], "scale": (4.0, 4.0)}


@pytest.fixture(scope="module")
def drawn():
    """Return (Randomize, states and observations of 2,000 resets, results of one step).

    The step has other base parameters.
    """
    env = Randomize(Shown(), RANGES)
    base = Numbers(size=50.0, count=60, scale=70.0, table=(1.0, 2.0))

    @jax.jit
    @jax.vmap
    def run(key):
        obs, state = env.reset(key, base)
        after, state_after, *_ = env.step(key, state, jnp.int32(0), base)
        return (
            obs,
            state,
            after,
            state_after,
            env.action_mask(state, base),
            env.global_state(state, base),
        )

    return env, base, *jax.tree.map(np.asarray, run(jax.random.split(KEY, 2000)))


def test_uniform_with_both_ends(drawn):
    _, _, obs, *_ = drawn
    size, count, scale = obs.T
    assert kstest(size, "uniform", (-3, 5)).pvalue > 1e-3 and (scale == 4.0).all()
    values, counts = np.unique(count, return_counts=True)
    assert values.tolist() == [2, 3, 4, 5, 6] and chisquare(counts).pvalue > 1e-3
    assert abs(np.corrcoef(size, count)[0, 1]) < 0.1, "drawn independently"


def test_what_was_drawn_holds_for_the_episode(drawn):
    env, base, obs, state, after, state_after, mask, seen = drawn
    np.testing.assert_array_equal(obs, after)
    np.testing.assert_array_equal(obs, seen)
    np.testing.assert_array_equal(mask.sum(1), obs[:, 1])
    assert state.drawn.keys() == {"size", "count", "scale"}
    assert state.drawn["count"].dtype == np.int32
    jax.tree.map(np.testing.assert_array_equal, state, state_after)
    one = jax.tree.map(lambda x: x[7], state)
    assert env.render(one, base) == obs[7, 0]


def test_dynamics_are_those_of_the_episodes_parameters():
    env, params = make(
        "cartpole", randomize={"length": (0.2, 2.0), "masspole": (0.05, 0.5)}, gravity=5.0
    )
    inner = CartPole()

    def one(key):
        _, state = env.reset(key, params)
        before = state.env.env                       # inside of statistics and time limit
        obs, *_ = env.step(key, state, jnp.int32(1), params)
        own = params._replace(**before.drawn)
        return obs, inner.step(key, before.env, jnp.int32(1), own)[0], own.length

    obs, want, length = jax.jit(jax.vmap(one))(jax.random.split(KEY, 50))
    np.testing.assert_allclose(obs, want, rtol=1e-6)
    assert len(np.unique(length)) == 50


def test_every_start_in_a_vectorizer_has_its_own():
    env, params = make("cartpole", randomize={"x_threshold": (0.001, 0.002)}, time_limit=2)
    vector = VectorEnv(env, 4)

    def lengths(state):
        return state.env.env.env.drawn["x_threshold"]

    @jax.jit
    def play(key):
        state, _ = vector.init(key, params)

        def step(state, key):
            after, out = vector.step(key, state, jnp.zeros(4, jnp.int32))
            return after, (lengths(after), out.input.first)
        return lengths(state), jax.lax.scan(step, state, jax.random.split(key, 10))[1]

    start, (drawn_values, first) = jax.tree.map(np.asarray, play(KEY))
    values = np.concatenate([start[None], drawn_values])
    changed = values[1:] != values[:-1]
    np.testing.assert_array_equal(changed, first)
    assert changed.sum() >= 16 and len(np.unique(values)) == 4 + changed.sum()


def test_spaces_cover_the_ranges():
    env = Randomize(Shown(), {"size": (-3.0, 5.0), "scale": (-6.0, 2.0), "count": (1, 2)})
    assert env.observation_space(Numbers()) == Box(-9.0, 18.0, (3,)) == env.state_space(Numbers())
    wide = Randomize(CartPole(), {"x_threshold": (1.0, 4.0), "length": (0.1, 1.0)})
    assert wide.observation_space(CartPole.default_params).high[0] == 8.0
    assert cover(
        CartPole().observation_space, CartPole.default_params, {}
    ) == CartPole().observation_space(CartPole.default_params)
    with pytest.raises(
        ValueError, match=r"changes the kind of a space, from Discrete\(2\) to Discrete\(5\)"
    ):
        cover(lambda params: Discrete(params.count), Numbers(), {"count": (2, 5)})


@pytest.mark.parametrize(
    "ranges, words",
    [
        ({"sice": (1, 2)}, ["Shown", "'sice'", "Known: size, count, scale"]),
        ({"table": (1, 2)}, ["'table'"]),
        ({"fixed": (0, 1)}, ["'fixed'"]),
        ({"size": 3}, ["two finite numbers", "3"]),
        ({"size": (1, 2, 3)}, ["two finite numbers"]),
        ({"size": (1, np.inf)}, ["two finite numbers", "inf"]),
        ({"size": ("a", 1)}, ["two finite numbers"]),
        ({"size": (True, 1)}, ["two finite numbers"]),
        ({"size": (2, 1)}, ["low <= high", "2.0 and 1.0"]),
        ({"count": (1, 2.5)}, ["whole number", "2.5"]),
        ({"count": (1, 2**31)}, ["whole number"]),
    ],
)
def test_what_cannot_be_drawn(ranges, words):
    with pytest.raises(ValueError) as error:
        Randomize(Shown(), ranges)
    assert all(word in str(error.value) for word in words), error.value


def test_it_is_a_value():
    assert Randomize(Shown(), RANGES) == Randomize(Shown(), dict(reversed(RANGES.items())))
    assert hash(Randomize(Shown(), RANGES)) == hash(Randomize(Shown(), RANGES)) != hash(
        Randomize(Shown(), {"size": (-3, 1)}))
    assert Randomize(MaskedBandit(), {"penalty": (1, 2)}).global_state is None
