"""Tests of the bridge to Gymnasium: its checker, its vector environments, and user guarantees."""

import importlib
import subprocess
import sys
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, check_space_limit
from gymnasium.utils.passive_env_checker import check_action_space, check_observation_space
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import envs_jax
from envs_jax import spaces, suites
from envs_jax.bridges import gymnasium as bridge
from envs_jax.core import Environment
from envs_jax.wrappers import EpisodeStatistics, TimeLimit

OWN = [name for name in envs_jax.ENVIRONMENTS if name not in suites.TABLE]
SEVERAL_AGENTS = [
    name for name in OWN if envs_jax.load(name, envs_jax.ENVIRONMENTS[name]).agents is not None
]
ONE_AGENT = [name for name in OWN if name not in SEVERAL_AGENTS]


def remarks(function, *args):
    """Return Gymnasium's warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function(*args)
    return [str(warning.message) for warning in caught]


def remarks_on_spaces(env):
    """Return Gymnasium's warnings about infinite or unusual bounds.

    Its own CartPole and Pendulum cause them, too.
    """
    def look():
        check_action_space(env.action_space)
        check_space_limit(env.action_space, "action")
        check_observation_space(env.observation_space)
        check_space_limit(env.observation_space, "observation")
    return remarks(look)


@pytest.mark.parametrize("name", [*ONE_AGENT, "gymnax/CartPole-v1", "gymnax/Breakout-MinAtar"])
def test_gymnasium_finds_nothing_wrong(name):
    env = envs_jax.to_gymnasium(name)
    assert set(remarks(check_env, env)) == set(remarks_on_spaces(env))


def test_spaces_with_usual_bounds_earn_no_remark():
    assert remarks_on_spaces(envs_jax.to_gymnasium("probe-multidiscrete")) == []
    assert remarks_on_spaces(envs_jax.to_gymnasium("cartpole")) == remarks_on_spaces(
        gymnasium.make("CartPole-v1")
    )


@pytest.mark.parametrize("name", SEVERAL_AGENTS)
@pytest.mark.parametrize(
    "make", [envs_jax.to_gymnasium, lambda name: envs_jax.to_gymnasium_vector(name, 2)]
)
def test_several_agents_are_refused(name, make):
    with pytest.raises(ValueError, match=r"has \d+ agents; environments of Gymnasium have one"):
        make(name)


# ------------------------------------------------------------ an environment with everything


class ClockState(NamedTuple):
    time: jax.Array


@dataclass(frozen=True)
class Clock(Environment):
    """Deterministic environment with nested observations and info.

    Action 2 ends the episode; action 0 is legal only at even times.
    """

    def reset(self, key, params):
        state = ClockState(jnp.int32(0))
        return self._observe(state), state

    def step(self, key, state, action, params):
        state = ClockState(state.time + 1)
        info = {
            "even": state.time % 2 == 0,
            "nested": {"square": state.time**2, "pair": jnp.stack([state.time] * 2)},
        }
        return (
            self._observe(state),
            state,
            state.time.astype(jnp.float32),
            action == 2,
            jnp.bool_(False),
            info,
        )

    def _observe(self, state):
        one = state.time.astype(jnp.float32)
        return {
            "choice": state.time % 5,
            "pair": (jnp.stack([one, -one]), state.time[None].astype(jnp.uint8)),
            "several": jnp.stack([state.time % 2, state.time % 3]),
        }

    def action_mask(self, state, params):
        return (jnp.arange(3) > 0) | (state.time % 2 == 0)

    def observation_space(self, params):
        return {"choice": spaces.Discrete(5), "several": spaces.MultiDiscrete((2, 3)),
                "pair": (spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(0, 255, (1,), jnp.uint8))}

    def action_space(self, params):
        return spaces.Discrete(3)


CLOCK = EpisodeStatistics(TimeLimit(Clock(), 4))


def equal(a, b):
    """Check that types, keys, shapes, dtypes and values are equal."""
    assert type(a) is type(b), (a, b)
    if isinstance(a, dict):
        assert set(a) == set(b)
        for key in a:
            equal(a[key], b[key])
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            equal(x, y)
    elif isinstance(a, np.ndarray) and a.dtype == object:
        assert a.shape == b.shape
        for x, y in zip(a, b):
            equal(x, y)
    else:
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "env", [CLOCK, Clock(), "probe-truncation"], ids=["all", "bare", "by name"]
)
def test_the_vector_environment_says_what_gymnasium_s_own_says(env, rng):
    """Results equal SyncVectorEnv(SAME_STEP) when one, all or no episodes end."""
    n = 3
    reference = SyncVectorEnv(
        [lambda: envs_jax.to_gymnasium(env)] * n, autoreset_mode=AutoresetMode.SAME_STEP
    )
    ours = envs_jax.to_gymnasium_vector(env, n)
    assert ours.metadata == reference.metadata and ours.num_envs == reference.num_envs
    for space in (
        "observation_space",
        "action_space",
        "single_observation_space",
        "single_action_space",
    ):
        assert getattr(ours, space) == getattr(reference, space)
    equal(ours.reset(seed=1), reference.reset(seed=1))
    choices = reference.single_action_space.n
    seen = set()
    for _ in range(14):
        actions = rng.integers(choices, size=n)
        got = ours.step(actions)
        want = reference.step(actions)
        equal(got, want)
        assert got[0] in ours.observation_space
        seen.add(int((got[2] | got[3]).sum()))
    equal(ours.step(np.full(n, choices - 1)), reference.step(np.full(n, choices - 1)))
    assert {0, n} <= seen if isinstance(env, str) else len(seen) > 2


def test_an_episode_ends_and_stays_ended():
    env = envs_jax.to_gymnasium(CLOCK)
    obs, info = env.reset(seed=0)
    assert obs in env.observation_space and info["action_mask"].tolist() == [1, 1, 1]
    for t in range(1, 5):
        obs, reward, terminated, truncated, info = env.step(
            env.action_space.sample(info["action_mask"]) % 2
        )
        assert (reward, terminated, truncated) == (t, False, t == 4)
        assert obs["pair"][0].tolist() == [t, -t]
        assert info["action_mask"].tolist() == [t % 2 == 0, 1, 1]
    assert info["episode_return"] == 10.0
    assert info["episode_length"] == 4
    assert info["nested"]["square"] == 16
    assert env.reset()[0]["choice"] == 0
    assert env.step(2)[2:4] == (True, False)


def test_a_seed_fixes_everything():
    env = envs_jax.to_gymnasium("repeat-previous")
    actions = [0, 1, 2, 3] * 4

    def episode(**seed):
        return [
            env.reset(**seed)[0].tolist(),
            *(env.step(action)[0].tolist() for action in actions),
        ]

    first = episode(seed=3)
    second = episode()
    assert first != second
    assert [episode(seed=3), episode()] == [first, second]
    assert episode(seed=4) != first
    vector = envs_jax.to_gymnasium_vector("repeat-previous", 2)
    starts = [
        vector.reset(seed=s)[0].tolist() + vector.step([0, 0])[0].tolist() for s in (1, 1, 2, 3, 4)
    ]
    assert starts[0] == starts[1] and len({str(start) for start in starts}) > 2


def test_many_instances_share_one_compilation():
    def counts():
        return [
            f._cache_size()
            for f in (bridge._reset, bridge._step, bridge._vector_reset, bridge._vector_step)
        ]

    def use(length):
        for env, action in (
            (envs_jax.to_gymnasium("cartpole", length=length), 0),
            (envs_jax.to_gymnasium_vector("cartpole", 3, length=length), [0, 1, 1]),
        ):
            env.reset(seed=0)
            env.step(action)
            env.step(action)

    use(0.5)
    before = counts()
    use(0.7)
    use(1)
    assert counts() == before


def test_settings_and_params():
    def limit(env):
        return next(t for t in range(1, 99) if env.step(0)[3])

    env = envs_jax.to_gymnasium("probe-truncation", time_limit=5)
    env.reset()
    assert limit(env) == 5
    # Gymnasium makes an equal environment
    again = env.spec.make()
    again.reset()
    assert limit(again) == 5 and again.spec.id == "envs_jax/probe-truncation"
    _, params = envs_jax.make("cartpole", x_threshold=1.0)
    assert envs_jax.to_gymnasium("cartpole", params).observation_space.high[0] == 2.0
    assert envs_jax.to_gymnasium("cartpole", x_threshold=1.0).observation_space.high[0] == 2.0
    with pytest.raises(ValueError, match="x_threshold: settings go with a name"):
        envs_jax.to_gymnasium(CLOCK, x_threshold=1.0)
    with pytest.raises(ValueError, match="did you mean 'cartpole'"):
        envs_jax.to_gymnasium("cartpol")


def test_actions_that_do_not_exist_are_errors():
    env = envs_jax.to_gymnasium("cartpole")
    vector = envs_jax.to_gymnasium_vector("cartpole", 2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    with pytest.raises(gymnasium.error.ResetNeeded):
        vector.step([0, 0])
    env.reset()
    vector.reset()
    for action in (2, -1, 0.5, [0]):
        with pytest.raises(ValueError, match="Discrete"):
            env.step(action)
    for actions in ([0, 2], [0], [[0, 1]], 0):
        with pytest.raises(ValueError, match="Discrete"):
            vector.step(actions)
    with pytest.raises(ValueError, match="reset_mask"):
        vector.reset(options={"reset_mask": np.array([True, False])})


def test_observations_may_be_written():
    env = envs_jax.to_gymnasium("cartpole")
    for obs in (env.reset(seed=0)[0], env.step(1)[0]):
        obs += 1.0


def test_continuous_actions_beyond_the_bounds_are_clipped():
    env = envs_jax.to_gymnasium("pendulum")
    env.reset(seed=0)
    much = env.step(np.float64([50.0]))
    env.reset(seed=0)
    equal(env.step(np.float32([2.0])), much)


def test_pictures():
    env = envs_jax.to_gymnasium("cartpole", render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    text = envs_jax.to_gymnasium("cartpole", render_mode="ansi")
    text.reset(seed=0)
    assert text.render().count("\n") > 5
    assert envs_jax.to_gymnasium("cartpole").render() is None
    vector = envs_jax.to_gymnasium_vector("cartpole", 2, render_mode="rgb_array")
    vector.reset(seed=0)
    before = vector.render()
    for _ in range(9):
        vector.step([0, 1])
    assert len(before) == 2 and (before[0] != vector.render()[0]).any()
    with pytest.raises(
        ValueError, match="CartPole has no render_mode 'human'; it has: rgb_array, ansi"
    ):
        envs_jax.to_gymnasium("cartpole", render_mode="human")


def test_gymnasium_s_wrappers_fit():
    vector = gymnasium.wrappers.vector.RecordEpisodeStatistics(
        envs_jax.to_gymnasium_vector(CLOCK, 2)
    )
    vector.reset(seed=0)
    for _ in range(4):
        infos = vector.step([0, 1])[-1]
    ended = infos["final_info"]["episode"] if "episode" in infos["final_info"] else infos["episode"]
    np.testing.assert_array_equal(ended["r"], infos["final_info"]["episode_return"])
    np.testing.assert_array_equal(ended["l"], infos["final_info"]["episode_length"])


def test_without_gymnasium_one_line_says_so():
    code = "\n".join(
        [
            "import sys; sys.modules['gymnasium'] = None",
            "import envs_jax",
            "envs_jax.make('cartpole')",
            "envs_jax.to_gymnasium",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: Gymnasium is not installed. Try: pip install 'jaxrl[gymnasium]'")


def test_names_lead_to_what_exists():
    for name in envs_jax.__all__:
        assert getattr(envs_jax, name) is not None
    assert (
        envs_jax.to_gymnasium is importlib.import_module("envs_jax.bridges.gymnasium").to_gymnasium
    )
