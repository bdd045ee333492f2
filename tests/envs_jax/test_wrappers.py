"""Tests of time limits, statistics, `make` and the order of wrappers."""

import subprocess
import sys
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from envs_jax import build, make
from envs_jax.classic.cartpole import CartPole
from envs_jax.classic.pendulum import Pendulum
from envs_jax.core import Environment, spec
from envs_jax.probe.bandit import MaskedBandit
from envs_jax.probe.two_step import TwoStepGame
from envs_jax.probe.values import ConstantReward, DelayedReward, EndlessReward
from envs_jax.spaces import Box, Discrete
from envs_jax.vector import VectorEnv
from envs_jax.wrappers import WRAPPERS, ClipAction, EpisodeStatistics, TimeLimit, Wrapper
from tests.envs_jax.cases import rollout

KEY = jax.random.key(0)


class Strength(NamedTuple):
    most: float = 2.0


def test_time_limit_only_truncates():
    _, _, _, terminated, truncated, _ = rollout(TimeLimit(EndlessReward(), 5), (), 5)
    np.testing.assert_array_equal(truncated[0], [False] * 4 + [True])
    assert not terminated.any()


@pytest.mark.parametrize("limit, terminated, truncated", [
    # cut before the end (nothing is defined after a cut)
    (1, [False, True], [True, False]),
    (2, [False, True], [False, False]),     # the end and the limit in the same step: it ended
    (3, [False, True], [False, False]),
])
def test_an_end_beats_the_limit(limit, terminated, truncated):
    _, _, _, dead, cut, _ = rollout(TimeLimit(DelayedReward(), limit), (), 2)
    np.testing.assert_array_equal(dead[0], terminated)
    np.testing.assert_array_equal(cut[0], truncated)


def test_time_limit_counts_from_reset_and_forwards_cuts():
    env = TimeLimit(TimeLimit(EndlessReward(), 2), 4)
    _, _, _, _, truncated, _ = rollout(env, (), 4)
    assert np.asarray(truncated)[0, 1] and env.max_steps == 2
    _, state = env.reset(KEY, ())
    assert state.time == 0 and state.env.time == 0


def test_time_limit_with_agents_waits_for_all():
    @dataclass(frozen=True)
    class OneAgentLeaves(TwoStepGame):
        def step(self, key, state, action, params):
            obs, state, reward, _, cut, info = super().step(key, state, action, params)
            return obs, state, reward, jnp.array([True, False]), cut, info

    _, _, _, terminated, truncated, _ = rollout(TimeLimit(OneAgentLeaves(), 1), (), 1)
    assert truncated.item() and terminated[0, 0].tolist() == [True, False]


def test_max_steps():
    assert TimeLimit(EndlessReward(), 5).max_steps == 5
    assert TimeLimit(DelayedReward(), 5).max_steps == 2
    assert TimeLimit(DelayedReward(), 1).max_steps == 1
    with pytest.raises(ValueError, match="at least 1"):
        TimeLimit(EndlessReward(), 0)


def test_episode_statistics_is_the_loop():
    env = EpisodeStatistics(TimeLimit(Pendulum(), 20))
    _, _, reward, _, _, info = rollout(env, env.default_params, 20)
    np.testing.assert_allclose(info["episode_return"][0], np.cumsum(reward[0]), rtol=1e-5)
    np.testing.assert_array_equal(info["episode_length"][0], np.arange(1, 21))


def test_episode_statistics_per_agent_and_other_info_kept():
    def dare(obs, state):
        return jnp.array([1, 1])

    _, _, _, _, _, info = rollout(EpisodeStatistics(TwoStepGame()), (), 2, dare)
    np.testing.assert_array_equal(info["episode_return"][0], [[0, 0], [8, 8]])
    env = EpisodeStatistics(MaskedBandit())
    assert set(rollout(env, env.default_params, 1)[-1]) == {
        "illegal",
        "episode_return",
        "episode_length",
    }


def test_clip_action():
    @dataclass(frozen=True)
    class Echo(Environment):
        """Environment whose reward is the action."""

        low: object = -1.0
        agents: int | None = None

        def reset(self, key, params):
            return jnp.zeros(1), ()

        def step(self, key, state, action, params):
            return jnp.zeros(1), (), action, jnp.bool_(False), jnp.bool_(False), {}

        def action_space(self, params):
            return Box(self.low, 0.5, (2,))

    def given(env, a):
        return env.step(KEY, (), jnp.array(a), ())[2]

    np.testing.assert_array_equal(given(ClipAction(Echo()), [-3.0, 0.25]), [-1.0, 0.25])
    np.testing.assert_array_equal(given(ClipAction(Echo((-1.0, -2.0))), [-3.0, -3.0]), [-1.0, -2.0])
    both = given(ClipAction(Echo((-1.0, -2.0), agents=2)), [[-3.0, -3.0], [9.0, 0.0]])
    np.testing.assert_array_equal(both, [[-1.0, -2.0], [0.5, 0.0]])
    with pytest.raises(ValueError, match="Discrete"):
        ClipAction(CartPole())


def test_wrappers_pass_on_what_there_is_and_no_more():
    plain = EpisodeStatistics(TimeLimit(DelayedReward(), 9))
    assert plain.action_mask is None and plain.global_state is None and plain.render is None
    assert plain.name == "DelayedReward" and plain.unwrapped == DelayedReward()
    env = EpisodeStatistics(TimeLimit(CartPole(), 9))
    _, state = env.reset(KEY, env.default_params)
    assert env.default_params == CartPole.default_params
    np.testing.assert_array_equal(env.render(state, env.default_params),
                                  CartPole().render(state.env.env, env.default_params))
    env = EpisodeStatistics(TimeLimit(MaskedBandit(), 9))
    _, state = env.reset(KEY, env.default_params)
    assert isinstance(env, Wrapper) and state._fields[0] == "env" and state.env._fields[0] == "env"
    inner = MaskedBandit().action_mask(state.env.env, env.default_params)
    np.testing.assert_array_equal(env.action_mask(state, env.default_params), inner)
    game = EpisodeStatistics(TimeLimit(TwoStepGame(), 9))
    _, state = game.reset(KEY, ())
    np.testing.assert_array_equal(game.global_state(state, ()), [1, 0, 0])


@pytest.mark.parametrize(
    "env", [CartPole(), Pendulum(), MaskedBandit(arms=3), TwoStepGame()], ids=lambda e: e.name
)
def test_wrappers_change_nothing_but_max_steps_in_the_spec(env):
    wrapped = spec(EpisodeStatistics(TimeLimit(env, 7)))
    assert wrapped == spec(env)._replace(max_steps=wrapped.max_steps)


def test_equal_wrappers_are_equal():
    assert TimeLimit(CartPole(), 5) == TimeLimit(CartPole(), 5) != TimeLimit(CartPole(), 6)
    assert hash(TimeLimit(CartPole(), 5)) == hash(TimeLimit(CartPole(), 5))


def test_make_wraps_by_kind():
    env, params = make("cartpole")
    assert env == EpisodeStatistics(TimeLimit(CartPole(), 500))
    assert params == CartPole.default_params
    env, _ = make("pendulum", time_limit=50)
    assert env == EpisodeStatistics(TimeLimit(ClipAction(Pendulum()), 50))
    env, _ = make("cartpole", time_limit=None)
    assert env == EpisodeStatistics(CartPole())
    env, _ = make("probe-constant", continuous=True)
    assert env == EpisodeStatistics(ClipAction(ConstantReward(True)))


def test_make_sends_settings_where_they_belong():
    env, params = make("masked-bandit", arms=6, penalty=2)
    assert env.unwrapped == MaskedBandit(arms=6) and env.action_space(params) == Discrete(6)
    assert params.penalty == 2.0 and isinstance(params.penalty, float)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: make("cartpol"), ["cartpol", "did you mean 'cartpole'", "pendulum"]),
        (lambda: make("zzz"), ["zzz", "Known: ", "cartpole"]),
        (
            lambda: make("cartpole", lenght=1.0),
            ["CartPole", "lenght", "did you mean 'length'", "gravity"],
        ),
        (lambda: make("masked-bandit", arm=3), ["did you mean 'arms'", "penalty"]),
        (lambda: make("two-step", speed=3), ["TwoStepGame", "Known: none"]),
        (
            lambda: make("cartpole", wrappers={"frame_stak": 4}),
            ["frame_stak", "did you mean 'frame_stack'", "one_hot"],
        ),
        (lambda: make("cartpole", wrappers={"flatten": 1}), ["flatten", "true or false", "1"]),
        (
            lambda: make("cartpole", wrappers={"frame_stack": 2.0}),
            ["frame_stack", "whole number", "2.0"],
        ),
        (
            lambda: make("cartpole", wrappers={"frame_stack": True}),
            ["frame_stack", "whole number", "True"],
        ),
        (
            lambda: make("cartpole", wrappers={"sticky_actions": "x"}),
            ["sticky_actions", "a number", "'x'"],
        ),
        (
            lambda: make("cartpole", wrappers={"clip_reward": 3}),
            ["clip_reward", "two numbers", "3"],
        ),
        (
            lambda: make("cartpole", wrappers={"rescale_action": True}),
            ["RescaleAction", "CartPole", "Discrete(2)"],
        ),
        (
            lambda: make("cartpole", wrappers={"one_hot": True}),
            ["OneHotObservation", "CartPole", "Box("],
        ),
        (
            lambda: make("cartpole", randomize={"lenght": (1, 2)}),
            ["CartPole", "lenght", "Known: gravity"],
        ),
    ],
)
def test_make_says_what_is_wrong(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert all(word in str(error.value) for word in words), error.value


def test_make_wraps_in_order():
    asked = {
        "frame_stack": 4,
        "clip_reward": [-1, 1],
        "sticky_actions": 0.1,
        "scale_reward": 0.5,
        "action_repeat": 2,
        "rescale_action": True,
        "flatten": True,
    }
    env, params = make(
        "pendulum", wrappers=asked, randomize={"m": (0.5, 2), "g": [9, 11]}, l=2.0, time_limit=30
    )
    names = []
    while isinstance(env, Wrapper):
        names.append(type(env).__name__)
        env = env.env
    assert names[::-1] == [
        "Randomize",
        "ClipAction",
        "RescaleAction",
        "StickyActions",
        "TimeLimit",
        "EpisodeStatistics",
        "ActionRepeat",
        "ScaleReward",
        "ClipReward",
        "FlattenObservation",
        "FrameStack",
    ]
    assert env == Pendulum() and params == Pendulum.default_params._replace(l=2.0)


def test_a_default_asks_for_nothing():
    assert make(
        "cartpole", wrappers={name: option.default for name, option in WRAPPERS.items()}
    ) == make("cartpole")
    assert make("cartpole", wrappers={}, randomize={}) == make("cartpole")


def test_statistics_and_limits_are_the_environments_own():
    """Scaled rewards and repeated steps do not change the return and length of an episode."""
    env, params = make(
        "cartpole",
        wrappers={"action_repeat": 3, "scale_reward": 0.5, "clip_reward": [0, 1.25]},
        time_limit=8,
    )
    assert env.time_limit == 8 and env.max_steps == 3

    def balance(obs, state):
        return jnp.where(obs[2] + obs[3] > 0, 1, 0)

    _, _, reward, terminated, truncated, info = rollout(env, params, 3, balance)
    assert not terminated.any() and truncated.tolist() == [[False, False, True]]
    assert reward.tolist() == [[1.25, 1.25, 1.0]]  # of 3, 3 and 2 steps
    assert info["episode_return"].tolist() == [[3, 6, 8]]
    assert info["episode_length"].tolist() == [[3, 6, 8]]
    vector = VectorEnv(env, 2)
    assert vector.env is env, "no second statistics around the first"


def test_bounds_of_actions_follow_the_parameters():
    @dataclass(frozen=True)
    class Strong(Environment):
        """Environment whose reward is the action, bounded by a parameter."""

        default_params = Strength()

        def reset(self, key, params):
            return jnp.zeros(1), ()

        def step(self, key, state, action, params):
            return jnp.zeros(1), (), action[0], jnp.bool_(False), jnp.bool_(False), {}

        def observation_space(self, params):
            return Box(0.0, 0.0, (1,))

        def action_space(self, params):
            return Box(-params.most, params.most, (1,))

    for wrappers, action, want in (({}, 9.0, 3.0), ({"rescale_action": True}, 0.5, 1.5)):
        env, params = build(Strong, most=3.0, wrappers=wrappers)
        _, state = env.reset(KEY, params)
        assert env.step(KEY, state, jnp.array([action]), params)[2] == want
        assert env.default_params == params
        assert build(Strong)[0] == EpisodeStatistics(ClipAction(Strong()))


def test_importing_the_package_is_cheap():
    names = {"jax", "numpy", "gymnax", "gymnasium"}
    code = f"import sys, envs_jax; assert not {names} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_core_names_are_reexported():
    assert envs_jax.Environment is Environment and envs_jax.spec is spec
    with pytest.raises(AttributeError, match="nothing"):
        _ = envs_jax.nothing
