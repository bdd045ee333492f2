"""Tests of wrappers that rescale, stick or repeat actions, and that scale or clip rewards."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.classic.cartpole import CartPole
from envs_jax.classic.pendulum import Pendulum
from envs_jax.probe.bandit import MaskedBandit
from envs_jax.spaces import Box
from envs_jax.wrappers import (
    ActionRepeat,
    ClipReward,
    RescaleAction,
    ScaleReward,
    StickyActions,
    TimeLimit,
)
from tests.envs_jax.cases import rollout
from tests.envs_jax.toys import Counter

KEY = jax.random.key(0)


def given(env, *actions):
    """Return the actions that the inner environment received: the rewards of Counter."""
    _, state = env.reset(KEY, ())
    rewards = []
    for action in actions:
        _, state, reward, *_ = env.step(KEY, state, jnp.asarray(action), ())
        rewards.append(np.asarray(reward).tolist())
    return rewards


def test_rescaled_actions():
    env = RescaleAction(Counter(action=Box((-2.0, 0.0), (4.0, 1.0), (2,))))
    assert env.action_space(()) == Box(-1.0, 1.0, (2,))
    assert given(env, [-1.0, -1.0], [1.0, 1.0], [0.0, 0.5]) == [
        [-2.0, 0.0],
        [4.0, 1.0],
        [1.0, 0.75],
    ]
    both = RescaleAction(Counter(action=Box((-2.0, 0.0), (4.0, 1.0), (2,)), agents=2))
    assert given(both, [[-1.0, -1.0], [0.0, 0.5]]) == [[[-2.0, 0.0], [1.0, 0.75]]]


@pytest.mark.parametrize(
    "action", [Counter.action, Box(-np.inf, 1.0, (2,)), Box(0, 3, (2,), jnp.int32)]
)
def test_what_cannot_be_rescaled(action):
    with pytest.raises(
        ValueError, match="RescaleAction needs a bounded Box of real actions; Counter has"
    ):
        RescaleAction(Counter(action=action))


def test_actions_stick_with_their_probability():
    """Each executed action is the new or the last one; 64 x 49 draws, four deviations."""
    p = 0.3
    actions = np.tile(np.arange(50), (64, 1))
    executed = rollout(StickyActions(Counter(), p), (), 50, actions=jnp.asarray(actions), batch=64)[
        2
    ]
    stuck = executed[:, 1:] == executed[:, :-1]
    np.testing.assert_array_equal(executed[:, 0], 0)
    np.testing.assert_array_equal(
        executed[:, 1:], np.where(stuck, executed[:, :-1], actions[:, 1:])
    )
    assert abs(stuck.mean() - p) < 4 * np.sqrt(p * (1 - p) / stuck.size)
    # coins are independent: runs of two
    again = np.mean(stuck[:, 1:] & stuck[:, :-1])
    assert abs(again - p * p) < 4 * np.sqrt(p * p * (1 - p * p) / stuck.size)


def test_sticky_actions_at_the_ends():
    assert given(StickyActions(Counter(), 0.0), 7, 8, 9) == [7.0, 8.0, 9.0]
    # the first is always executed
    assert given(StickyActions(Counter(), 1.0), 7, 8, 9) == [7.0, 7.0, 7.0]
    box = StickyActions(Counter(action=Box(-9.0, 9.0, (2,)), agents=2), 1.0)
    assert given(box, [[1.0, 2.0], [3.0, 4.0]], [[5.0, 5.0], [5.0, 5.0]]) == 2 * [
        [[1.0, 2.0], [3.0, 4.0]]
    ]
    with pytest.raises(ValueError, match="0 <= p <= 1, not 2"):
        StickyActions(Counter(), 2)


def test_agents_stick_independently():
    actions = jnp.asarray(np.broadcast_to(np.arange(40)[None, :, None], (4, 40, 2)))
    executed = rollout(StickyActions(Counter(agents=2), 0.5), (), 40, actions=actions, batch=4)[2]
    late = executed[:, 1:] != np.asarray(actions)[:, 1:]
    assert len(np.unique(late.reshape(-1, 2), axis=0)) == 4, "both, neither, and each alone"


def test_an_illegal_action_neither_sticks_nor_is_repeated():
    """The last arm is chosen whenever it is legal, and becomes illegal in half of the steps."""
    def best(env):
        return lambda obs, state: jnp.where(env.action_mask(state, env.default_params)[-1], 3, 1)

    for env in (StickyActions(MaskedBandit(), 0.9), ActionRepeat(TimeLimit(MaskedBandit(), 16), 3)):
        _, action, reward, _, cut, info = rollout(env, env.default_params, 16, best(env), batch=8)
        assert not info["illegal"].any() and (reward > 0.9).any() and env.max_steps in (None, 16)
    # cut: the limit, not the mask, ended a repeat
    asked = action[~cut]
    total = reward[~cut]
    assert np.allclose(total[asked == 1], 1.0)                           # three times 1/3
    # for as long as it was legal
    assert set(np.round(total[asked == 3]).tolist()) == {1.0, 2.0, 3.0}


@pytest.mark.parametrize("n", [1, 3])
def test_repeated_actions_are_the_loop(n):
    env = ActionRepeat(TimeLimit(Pendulum(), 7), n)
    actions = (
        np.random.default_rng(0).uniform(-2, 2, (1, 9, 1)).astype(np.float32)[:, : env.max_steps]
    )
    obs, _, reward, _, truncated, _ = rollout(
        env, env.default_params, env.max_steps, actions=jnp.asarray(actions)
    )
    assert env.max_steps == -(-7 // n)
    assert truncated.tolist() == [[False] * (env.max_steps - 1) + [True]]

    one = jax.jit(
        lambda state, action: Pendulum().step(KEY, state, action, env.default_params)[1:3]
    )
    state = env.reset(jax.random.split(KEY, (1, env.max_steps + 1))[0, 0], env.default_params)[
        1
    ].env
    left = 7
    for t in range(env.max_steps):
        np.testing.assert_allclose(obs[0, t, 2], state.theta_dot, rtol=1e-4, atol=1e-5)
        total = 0.0
        for _ in range(min(n, left)):
            state, paid = one(state, actions[0, t])
            total = total + float(paid)
            left = left - 1
        np.testing.assert_allclose(reward[0, t], total, rtol=1e-4)
    assert left == 0


def test_nothing_happens_after_the_end():
    env = ActionRepeat(Counter(length=5), 3)
    _, state = env.reset(KEY, ())
    seen = []
    for action in (10, 20):
        obs, state, reward, terminated, truncated, _ = env.step(KEY, state, jnp.int32(action), ())
        seen.append(
            (float(obs), int(state.steps), float(reward), bool(terminated), bool(truncated))
        )
    assert seen == [(3.0, 3, 30.0, False, False), (5.0, 5, 40.0, True, False)]
    with pytest.raises(ValueError, match="n >= 1, not 0"):
        ActionRepeat(Counter(), 0)


def test_one_agent_that_is_done_does_not_stop_the_others():
    @dataclass(frozen=True)
    class Leaver(Counter):
        """Environment whose first agent terminates at once."""

        def step(self, key, state, action, params):
            obs, state, reward, terminated, *rest = super().step(key, state, action, params)
            return obs, state, reward, terminated | jnp.array([True, False]), *rest

    env = ActionRepeat(Leaver(length=5, agents=2), 3)
    _, state = env.reset(KEY, ())
    _, state, reward, terminated, *_ = env.step(KEY, state, jnp.array([1, 2]), ())
    assert int(state.steps) == 3
    assert reward.tolist() == [3.0, 6.0]
    assert terminated.tolist() == [True, False]


def test_rewards():
    assert given(ScaleReward(Counter(), 0.1), 5) == [pytest.approx(0.5)]
    assert given(ClipReward(Counter(), -1, 3), 5, 2) == [3.0, 2.0]
    assert given(ClipReward(ScaleReward(Counter(agents=2), 0.5), 0.0, 3.0), [4, 8]) == [[2.0, 3.0]]
    for wrong in (lambda: ClipReward(CartPole(), 1, 1), lambda: ScaleReward(CartPole(), 0.0),
                  lambda: ScaleReward(CartPole(), np.inf)):
        with pytest.raises(ValueError, match="needs"):
            wrong()
