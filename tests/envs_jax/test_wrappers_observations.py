"""Tests of one-hot, flat and stacked observations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import spaces
from envs_jax.spaces import Box, Discrete, MultiDiscrete
from envs_jax.vector import VectorEnv
from envs_jax.wrappers import FlattenObservation, FrameStack, OneHotObservation
from tests.envs_jax.cases import rollout
from tests.envs_jax.toys import TREE, Counter, Tree

KEY = jax.random.key(0)


def after(env, steps):
    """Return the observation after some steps; check its space and dtypes."""
    obs, state = env.reset(KEY, ())
    lead = () if env.agents is None else (env.agents,)
    for _ in range(steps):
        obs, state, *_ = env.step(KEY, state, jnp.zeros(lead, jnp.int32), ())
    space = env.observation_space(())
    assert jax.tree.map(lambda x: x.dtype, obs) == jax.tree.map(lambda s: s.dtype, space)
    if env.agents is None:
        assert spaces.contains(space, obs)
    for i in range(env.agents or 0):
        assert spaces.contains(space, jax.tree.map(lambda x, i=i: x[i], obs))
    return obs


def test_one_hot():
    env = OneHotObservation(Counter(Discrete(4)))
    assert env.observation_space(()) == Box(0.0, 1.0, (4,))
    assert after(env, 2).tolist() == [0, 0, 1, 0]
    env = OneHotObservation(Counter(MultiDiscrete((3, 2)), agents=2))
    assert after(env, 1).tolist() == 2 * [[0, 1, 0, 0, 1]]
    seen = after(OneHotObservation(Counter(TREE)), 2)
    assert seen.choice.tolist() == [0, 0, 1] + 6 * [0]
    assert seen.scalar == 2.0
    assert seen.image.dtype == jnp.uint8
    assert np.flatnonzero(seen.several).tolist() == [2, 11]
    with pytest.raises(
        ValueError, match=r"needs a Discrete or MultiDiscrete observation; Counter has Box\(0, 99"
    ):
        OneHotObservation(Counter())


def test_flatten():
    env = FlattenObservation(Counter(TREE))
    space = env.observation_space(())
    assert space.shape == (9 + 6 + 1 + 16,) and space.dtype == jnp.float32
    np.testing.assert_array_equal(space.low, [0] * 15 + [-1] + [0] * 16)
    np.testing.assert_array_equal(space.high, [1] * 9 + [255] * 6 + [9] + [1] * 16)
    want = np.zeros(32)
    want[[2, 16 + 2, 16 + 11]] = 1
    want[9:16] = 2
    assert after(env, 2).tolist() == want.tolist()
    both = FlattenObservation(Counter({"b": Box(0.0, 9.0, (2, 2)), "a": Discrete(3)}, agents=2))
    # leaves in the order of their names
    assert after(both, 1).tolist() == 2 * [[0, 1, 0, 1, 1, 1, 1]]
    assert FlattenObservation(Counter(Box(0.0, 9.0, (2, 3)))).observation_space(()) == Box(
        0.0, 9.0, (6,)
    )


def test_frames_are_stacked_newest_last():
    vector = FrameStack(Counter(Box((0.0, -1.0), 9.0, (2,))), 3)
    assert vector.observation_space(()) == Box((0.0, -1.0) * 3, 9.0, (6,))
    assert [after(vector, t).tolist() for t in (0, 1, 4)] == [
        [0] * 6,
        [0, 0, 0, 0, 1, 1],
        [2, 2, 3, 3, 4, 4],
    ]
    tree = FrameStack(Counter(TREE), 2)
    assert tree.observation_space(()) == Tree(
        MultiDiscrete((9, 9)),
        Box(0, 255, (2, 3, 2), jnp.uint8),
        Box(-1.0, 9.0, (2,)),
        MultiDiscrete((9, 7, 9, 7)),
    )
    seen = after(tree, 3)
    assert seen.choice.tolist() == seen.scalar.tolist() == [2, 3]
    assert seen.several.tolist() == [2, 2, 3, 3]
    np.testing.assert_array_equal(seen.image, np.broadcast_to([2, 3], (2, 3, 2)))       # channels
    both = FrameStack(Counter(TREE, agents=2), 2)
    assert after(both, 3).scalar.tolist() == 2 * [[2, 3]]
    assert after(both, 3).image.shape == (2, 2, 3, 2)
    bounds = FrameStack(
        Counter(Box(((0.0,), (1.0,)), ((5.0,), (9.0,)), (2, 1))), 2
    ).observation_space(())
    assert bounds == Box(((0.0, 0.0), (1.0, 1.0)), ((5.0, 5.0), (9.0, 9.0)), (2, 2))
    for n in (0, 1.5, True):
        with pytest.raises(ValueError, match="FrameStack needs a whole number n >= 1"):
            FrameStack(Counter(), n)


def test_a_stack_of_one_changes_nothing():
    env = FrameStack(Counter(Box(0.0, 9.0, (2,))), 1)
    assert env.observation_space(()) == Box(0.0, 9.0, (2,))
    np.testing.assert_array_equal(rollout(env, (), 3)[0][0], [[0, 0], [1, 1], [2, 2]])


def test_no_frame_of_the_episode_before_is_seen():
    """Stacks under auto-reset equal a loop over the bare environment."""
    env = FrameStack(Counter(length=3), 3)
    steps = 8
    vector = VectorEnv(env, 2)

    @jax.jit
    def play(key):
        state, first = vector.init(key, ())

        def step(state, key):
            return vector.step(key, state, jnp.zeros(2, jnp.int32))

        return first, jax.lax.scan(step, state, jax.random.split(key, steps))[1]

    first, out = play(KEY)
    assert first.obs.tolist() == 2 * [[0.0, 0.0, 0.0]]
    episode = [[0, 0, 1], [0, 1, 2], [1, 2, 3]]
    seen = [[0, 0, 1], [0, 1, 2], [0, 0, 0]]
    for t in range(steps):
        assert out.final_input.obs[t].tolist() == 2 * [episode[t % 3]], (
            "the last observation is stacked, too"
        )
        assert out.input.obs[t].tolist() == 2 * [seen[t % 3]]
