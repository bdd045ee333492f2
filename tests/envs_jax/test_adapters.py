"""Tests of the gymnax adapter: results of gymnax's own functions, settings, errors, pictures."""

import gzip
import struct

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces as gymnax_spaces
from gymnax.utils import load_mnist

from envs_jax import build, make, spaces, suites
from envs_jax.adapters.gymnax import Gymnax
from envs_jax.adapters.minatar import COLORS
from envs_jax.render import BLACK
from envs_jax.spaces import Box, Discrete
from tests.envs_jax.cases import HEAVY, NEED_DATA, random_actions, rollout

IDS = [pytest.param(id, marks=[pytest.mark.slow] * (f"gymnax/{id}" in HEAVY))
       for id in suites.SUITES["gymnax"][1] if f"gymnax/{id}" not in NEED_DATA]
STEPS = 40


def test_the_table_names_all_of_gymnax():
    assert set(suites.SUITES["gymnax"][1]) == set(gymnax.registered_envs)


@pytest.mark.parametrize("id", IDS)
def test_an_environment_is_gymnaxs(id):
    """Observation, reward, flags and state of a rollout that continues past its end."""
    env = Gymnax(id)
    package_env, params = gymnax.make(id)
    keys = jax.random.split(jax.random.key(1), STEPS + 1)
    actions = random_actions(env, params, (STEPS,), seed=1)

    def step_ours(carry, x):
        obs, state, reward, terminated, truncated, _ = env.step(x[0], carry, x[1], params)
        return state, (obs, reward, terminated, truncated, state)

    def step_package_env(carry, x):
        obs, state, reward, terminated, _ = package_env.step_env(x[0], carry, x[1], params)
        # otherwise a scan would fail
        state = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), state, carry)
        return state, (obs, reward, terminated, package_env.is_truncated(state, params), state)

    def both(keys, actions, params):
        start = env.reset(keys[0], params)
        with jax.numpy_rank_promotion("allow"):
            other = jax.tree.map(
                lambda x: jnp.asarray(x, jax.dtypes.canonicalize_dtype(jnp.result_type(x))),
                package_env.reset_env(keys[0], params),
            )
            want = jax.lax.scan(step_package_env, other[1], (keys[1:], actions))[1]
        return (start, jax.lax.scan(step_ours, start[1], (keys[1:], actions))[1]), (other, want)

    got, want = jax.jit(both)(keys, actions, params)
    (got_start, (obs, reward, terminated, truncated, state)) = got
    (want_start, (*seen, ended, late, after)) = want
    # XLA may fuse the two differently
    def close(a, b):
        return np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)

    jax.tree.map(close, (got_start, obs, reward, state), (want_start, *seen, after))
    np.testing.assert_array_equal(terminated, ended)
    np.testing.assert_array_equal(truncated, late & ~ended)


@pytest.mark.parametrize(
    "name, settings, observation, actions, steps",
    [
        (
            "MemoryChain-bsuite",
            {"num_bits": 3, "memory_length": 2},
            Box(-np.inf, np.inf, (5,)),
            Discrete(2),
            1000,
        ),
        ("Catch-bsuite", {"rows": 7, "columns": 3}, Box(0, 1, (7, 3), np.int32), Discrete(3), 1000),
        ("DeepSea-bsuite", {"size": 5}, Box(0, 1, (5, 5)), Discrete(2), 5),
        (
            "FrozenLake-misc",
            {"map_name": "8x8", "is_slippery": False},
            Discrete(64),
            Discrete(4),
            200,
        ),
        (
            "Breakout-MinAtar",
            {"use_minimal_action_set": False},
            Box(0, 1, (10, 10, 4)),
            Discrete(6),
            1000,
        ),
        (
            "PointRobot-misc",
            {"max_force": 0.5},
            Box(-np.inf, np.inf, (6,)),
            Box(-0.5, 0.5, (2,)),
            100,
        ),
        ("CartPole-v1", {"max_steps_in_episode": 9, "x_threshold": 1.0}, None, Discrete(2), 9),
    ],
    ids=str,
)
def test_settings_reach_constructor_and_parameters(name, settings, observation, actions, steps):
    env, params = make(f"gymnax/{name}", **settings)
    assert env.action_space(params) == actions and env.max_steps == steps
    assert observation is None or env.observation_space(params) == observation
    for key in settings:
        assert getattr(params, key, settings[key]) == settings[key]


def test_a_setting_that_gymnax_lacks_is_named():
    with pytest.raises(ValueError, match="no setting 'num_bit'; did you mean 'num_bits'"):
        make("gymnax/MemoryChain-bsuite", num_bit=3)
    with pytest.raises(ValueError, match="gymnax has no environment 'CartPole'"):
        Gymnax("CartPole")


def test_a_fall_at_the_limit_is_a_fall():
    """The same rollout, with time limits around the step at which the pole falls."""
    ends = {}
    for limit in (500, 20):
        env = Gymnax("CartPole-v1", max_steps_in_episode=limit)
        ends[limit] = rollout(env, env.default_params, 20, actions=jnp.ones((1, 20), jnp.int32))[
            3:5
        ]
    fall = int(np.argmax(ends[500][0][0]))
    assert 5 < fall < 19 and not ends[500][1].any()
    env = Gymnax("CartPole-v1")
    for limit in (fall, fall + 1, fall + 2):
        params = env.default_params.replace(max_steps_in_episode=limit)
        terminated, truncated = (
            flags[0]
            for flags in rollout(env, params, fall + 1, actions=jnp.ones((1, fall + 1), jnp.int32))[
                3:5
            ]
        )
        assert terminated.tolist() == [False] * fall + [True]
        assert truncated.tolist() == [False] * (fall - 1) + [limit == fall, False]


def test_equal_arguments_are_equal_environments():
    one, same, other = (
        Gymnax("FrozenLake-misc", desc=rows) for rows in (["SF", "FG"], ["SF", "FG"], ["SF", "HG"])
    )
    assert one == same and hash(one) == hash(same) and one.theirs is same.theirs
    assert one != other and Gymnax("CartPole-v1") != Gymnax("Acrobot-v1")
    assert (
        repr(Gymnax("DeepSea-bsuite", size=5))
        == "Gymnax(id='DeepSea-bsuite', arguments=(('size', 5),))"
    )


class Pair(gymnax.environments.environment.Environment):
    """Environment with a dict observation of a tuple and a number, which gymnax does not have."""

    def reset_env(self, key, params):
        return self.observe(key, 0, None, params), gymnax.environments.environment.EnvState(time=0)

    def step_env(self, key, state, action, params):
        return self.observe(key, 0, None, params), state.replace(time=state.time + 1), 1, 0.0, {}

    def observe(self, key, state, action, params):
        return {"both": (jnp.int32(1), jnp.zeros(2, jnp.int8)), "one": jnp.float32(2)}

    def action_space(self, params):
        return gymnax_spaces.Discrete(2)

    def observation_space(self, params):
        pair = gymnax_spaces.Tuple(
            [gymnax_spaces.Discrete(3), gymnax_spaces.Box(-1, jnp.array([1, 2]), (2,))]
        )
        return gymnax_spaces.Dict({"both": pair, "one": gymnax_spaces.Box(0, 5, (), jnp.int32)})


def test_dict_and_tuple_spaces(monkeypatch):
    monkeypatch.setitem(gymnax.registration._registry, "Pair", Pair)
    env, params = build(lambda: Gymnax("Pair"))
    space = env.observation_space(params)
    assert space == {"both": (Discrete(3), Box(-1, (1, 2), (2,))), "one": Box(0, 5, (), np.int32)}
    obs, state = env.reset(jax.random.key(0), params)
    obs, _, reward, terminated, truncated, _ = env.step(jax.random.key(0), state, 0, params)
    assert spaces.contains(space, obs)
    assert obs["both"][1].dtype == jnp.float32
    assert obs["one"].dtype == jnp.int32
    # one step is the default limit
    assert reward.dtype == jnp.float32 and not terminated and truncated


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(suites.TABLE, "nowhere/Maze", "envs_jax.adapters.nowhere:Nowhere")
    with pytest.raises(
        suites.MissingPackage,
        match=r"^nowhere/Maze needs the package nowhere: pip install "
        r"'jaxrl\[nowhere\]'$",
    ):
        suites.require("nowhere/Maze")


def test_mnist_is_never_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr(load_mnist.load_mnist, "__defaults__", (str(tmp_path),))
    with pytest.raises(
        ValueError,
        match=f"train-images-idx3-ubyte.gz.* not found in {tmp_path}.* Put the files there",
    ):
        make("gymnax/MNISTBandit-bsuite")


def test_mnist_from_files(monkeypatch, tmp_path, rng):
    """Three digits in the file format of MNIST."""
    monkeypatch.setattr(load_mnist.load_mnist, "__defaults__", (str(tmp_path),))
    for part in ("train", "t10k"):
        with gzip.open(tmp_path / f"{part}-images-idx3-ubyte.gz", "wb") as file:
            file.write(
                struct.pack(">IIII", 2051, 3, 4, 4)
                + rng.integers(128, size=48, dtype=np.uint8).tobytes()
            )
        with gzip.open(tmp_path / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(struct.pack(">II", 2049, 3) + bytes([7, 7, 7]))
    # a value that no other test uses, so a new environment
    env, params = make("gymnax/MNISTBandit-bsuite", fraction=1)
    obs, _, reward, terminated, *_ = rollout(env, params, 1, actions=jnp.array([[7], [2]]), batch=2)
    assert spaces.contains(env.observation_space(params), obs[0, 0])
    assert reward[:, 0].tolist() == [1.0, -1.0] and terminated.all()


@pytest.mark.parametrize(
    "game, channels",
    [("Asterix", 4), ("Breakout", 4), ("Freeway", 7), ("Seaquest", 10), ("SpaceInvaders", 6)],
)
def test_pictures_show_the_observation(game, channels):
    """A cell has the color of one of its channels, or is dark if no drawn channel is set."""
    env, params = make(f"gymnax/{game}-MinAtar")
    obs, state = env.reset(jax.random.key(0), params)
    assert obs.shape[-1] == channels
    image = env.render(state, params)
    obs = np.asarray(obs, bool)
    cells = image[16::32, 16::32]
    for row, column in np.ndindex(10, 10):
        allowed = [color for channel, color in COLORS[game] if obs[row, column, channel]]
        assert tuple(cells[row, column]) in (allowed or [BLACK])
    assert image.shape == (320, 320, 3)
    assert image.dtype == np.uint8
    assert len(np.unique(cells.reshape(-1, 3), axis=0)) > 1


def test_only_games_have_pictures():
    assert make("gymnax/CartPole-v1")[0].render is None
