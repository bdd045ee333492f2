"""SAC with both kinds of actions.

A step against a loop in NumPy, values in closed form, masks and probes.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from algos import sac
from envs_jax.core import EnvSpec
from envs_jax.spaces import Box, Discrete, contains
from jaxrl.blocks.networks.actor_critic import TrunkConfig
from jaxrl.declare import hypers
from jaxrl.errors import UserError
from jaxrl.types import Input
from tests.algos.helpers import slopes, wide
from tests.algos.test_ddpg import (
    CUT,
    SPACE,
    assert_a_vmapped_seed_is_the_single_one,
    assert_adam,
    assert_probe,
    layers_by_hand,
    made_up,
    nudged,
    q_by_hand,
    slow,
    trained,
    unit,
    values,
)
from tests.algos.test_probes import Fatal

CONFIG = sac.Config(
    network=TrunkConfig(hidden=(5,)),
    learning_rate=0.1,
    tau=0.25,
    temperature=0.5,
    entropy_scale=0.7,
    entropy_ratio=0.6,
)
CHOICES = EnvSpec(Box(-9.0, 9.0, (2,)), Discrete(3), masked=True)


@functools.cache
def learner(space):
    agent = sac.make_agent(CONFIG, space)
    state = jax.jit(agent.init)(jax.random.key(0), hypers(CONFIG))
    params = {
        name: nudged(state.params[name], np.random.default_rng(1)) for name in ("policy", "critics")
    }
    target = nudged(params["critics"], np.random.default_rng(2))
    return agent, state._replace(params=state.params | params, target=target)


# -------------------------------------------------------------------- against a loop


def soft_box(policy, critics, obs, noise, alpha):
    """One sample of the soft value, and minus its log-density in [-1, 1]^2, item by item."""
    V = np.zeros(len(obs))
    H = np.zeros(len(obs))
    outputs = layers_by_hand(policy, obs)
    for i, (mean, log_std, e) in enumerate(zip(outputs[:, :2], outputs[:, 2:], noise)):
        log_std = -5.0 + 3.5 * (np.tanh(log_std) + 1.0)
        pre = mean + np.exp(log_std) * e
        log_prob = (
            -0.5 * e**2 - 0.5 * np.log(2 * np.pi) - log_std - np.log(1.0 - np.tanh(pre) ** 2)
        ).sum()
        V[i] = q_by_hand(critics, obs[i: i + 1], np.tanh(pre)[None]).min() - alpha * log_prob
        H[i] = -log_prob
    return V, H


def each_q(critics, obs):
    """[C, n, actions]"""
    return np.stack(
        [layers_by_hand(jax.tree.map(lambda x, i=i: x[i], critics), obs) for i in range(2)]
    )


def soft_choice(policy, critics, obs, mask, alpha):
    """Sums over the legal actions, item by item."""
    V = np.zeros(len(obs))
    H = np.zeros(len(obs))
    logits = layers_by_hand(policy, obs)
    q = each_q(critics, obs).min(axis=0)
    for i in range(len(obs)):
        legal = np.flatnonzero(mask[i])
        p = np.exp(logits[i, legal]) / np.exp(logits[i, legal]).sum()
        V[i] = (p * (q[i, legal] - alpha * np.log(p))).sum()
        H[i] = -(p * np.log(p)).sum()
    return V, H


def normal(key, B):
    return np.asarray(jax.random.normal(key, (B, 2)), np.float64)


@pytest.mark.parametrize("space", [SPACE, CHOICES], ids=["box", "choices"])
def test_a_step_is_the_loop(space, B=12):
    box = isinstance(space.action, Box)
    masks = np.random.default_rng(4).random((2, B, 3)) < 0.6
    masks[..., 1] = True
    agent, state = learner(space)
    batch = made_up(space, B, None if box else masks)
    key = jax.random.key(3)
    new, metrics, priority = jax.jit(agent.learn)(state, hypers(CONFIG), batch, 0.0, key)

    online_key, target_key = jax.random.split(key)

    online, target = (normal(online_key, B), normal(target_key, B)) if box else masks
    soft = soft_box if box else soft_choice
    obs = batch.start.input.obs
    before = wide(state.params)
    alpha = 0.5
    next_obs = batch.next_input.obs
    next_value, _ = soft(before["policy"], wide(state.target), next_obs, target, alpha)
    y = batch.reward + batch.discount * next_value

    def q_taken(critics):
        if box:
            return q_by_hand(critics, obs, unit(batch.start.action))
        return each_q(critics, obs)[:, np.arange(B), batch.start.action]

    def critic_loss(critics):
        return (batch.weight * 0.5 * (q_taken(critics) - y)**2).sum() / B

    np.testing.assert_allclose(metrics["loss"], critic_loss(before["critics"]), rtol=2e-5)
    np.testing.assert_allclose(
        priority, np.abs(q_taken(before["critics"]) - y).mean(axis=0), rtol=1e-4, atol=1e-5
    )
    assert_adam(
        state.params["critics"], new.params["critics"], slopes(critic_loss, state.params["critics"])
    )

    critics = wide(new.params["critics"])

    def policy_loss(policy):
        return -soft(policy, critics, obs, online, alpha)[0].mean()

    np.testing.assert_allclose(
        metrics["policy_loss"], policy_loss(before["policy"]), rtol=1e-4, atol=1e-5
    )
    gradient = slopes(policy_loss, state.params["policy"])
    np.testing.assert_allclose(
        metrics["policy_grad_norm"], np.sqrt(sum((g**2).sum() for g in gradient)), rtol=1e-3
    )
    assert_adam(state.params["policy"], new.params["policy"], gradient)

    entropy = soft(before["policy"], critics, obs, online, alpha)[1]
    np.testing.assert_allclose(metrics["entropy"], entropy.mean(), rtol=1e-4)
    goal = -0.7 * 2 if box else 0.6 * np.log(masks[0].sum(axis=1))
    # of the temperature's loss, by log alpha
    slope = alpha * (entropy - goal).mean()
    np.testing.assert_allclose(
        new.params["log_alpha"], np.log(0.5) - 0.1 * slope / (abs(slope) + 1e-5), rtol=1e-4
    )
    assert metrics["temperature"] == 0.5
    assert_moved(state.target, new.params["critics"], new.target)


def assert_moved(target, critics, new_target):
    """The target critics moved by a quarter of the way."""
    moved = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, target, critics)
    for a, b in zip(jax.tree.leaves(new_target), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_soft_bandit():
    """r = [0, 1, 2], alpha = 1.

    The policy that climbs its loss is softmax(r), worth log of the sum of exp(r).
    """
    policy = sac.CategoricalPolicy(Discrete(3))

    def q(u):
        return jnp.array([[0.0, 1.0, 2.0]])

    inputs = Input(jnp.zeros((1, 1)), jnp.zeros(1, bool))

    def value(logits):
        return policy.soft(logits, inputs, q, 1.0, None)[0][0]

    def climb(_, logits):
        return logits + jax.grad(value)(logits)

    logits = jax.jit(lambda x: jax.lax.fori_loop(0, 300, climb, x))(jnp.zeros((1, 3)))
    np.testing.assert_allclose(jax.nn.softmax(logits)[0], [0.0900, 0.2447, 0.6652], atol=1e-4)
    np.testing.assert_allclose(value(logits), 2.407606, rtol=1e-6)


# -------------------------------------------------------------------- acting


def test_the_sample_s_noise_is_correlated_within_an_episode():
    agent, state = learner(SPACE)
    actor = agent.actor(state)
    key = jax.random.key(5)
    n = 3
    hyper = hypers(CONFIG)._replace(noise_correlation=jnp.float32(0.9))
    carry = np.float32([[1.0, -1.0], [2.0, 0.5], [0.3, 4.0]])
    first = np.array([False, True, False])
    obs = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    action, after, _ = jax.jit(agent.explore)(actor, hyper, carry, Input(obs, first), 0.0, key)
    eps = np.asarray(jax.random.normal(key, (n, 2)))
    np.testing.assert_allclose(
        after, np.where(first[:, None], eps, 0.9 * carry + np.sqrt(1 - 0.81) * eps), rtol=1e-5
    )
    outputs = layers_by_hand(wide(actor.params), obs)
    deviation = np.exp(-5.0 + 3.5 * (np.tanh(outputs[:, 2:]) + 1.0))
    np.testing.assert_allclose(unit(action), np.tanh(outputs[:, :2] + deviation * after), atol=1e-5)
    greedy, _ = jax.jit(agent.greedy)(actor, carry, Input(obs, first), key)
    np.testing.assert_allclose(unit(greedy), np.tanh(outputs[:, :2]), atol=1e-5)
    assert all(contains(SPACE.action, np.asarray(a)) for a in (*action, *greedy))


# -------------------------------------------------------------------- probes


@pytest.mark.parametrize("name", [slow("probe-observation"), slow("probe-discount"), "probe-both"])
def test_probe_of_a_box(name):
    assert_probe(trained("sac", name, gamma=0.5, entropy_scale=2.0, temperature=0.1), 0.5, 0.1)


@pytest.mark.parametrize("name", [slow("probe-observation"), slow("probe-discount"), "probe-both"])
def test_probe_of_choices(name):
    learner = trained("sac", name, gamma=0.5, entropy_ratio=0.05, temperature=0.1, env_settings={})
    probe = learner.env.unwrapped
    q, action = values(learner, probe.observations)
    np.testing.assert_allclose(q.max(axis=1), probe.values(0.5), atol=0.1)
    if probe.best_actions is not None:
        np.testing.assert_array_equal(action, probe.best_actions)


@pytest.mark.parametrize(
    "continuous, n_step, prioritized", [(True, 1, False), slow(False, 3, True)]
)
def test_bootstraps_through_a_time_limit(continuous, n_step, prioritized):
    learner = trained(
        "sac",
        "probe-truncation",
        3000,
        n_step=n_step,
        prioritized=prioritized,
        temperature=0.01,
        env_settings={"continuous": continuous},
        **CUT,
    )
    q, _ = values(learner, [[0.0]], jnp.zeros((1, 1)) if continuous else None)
    assert abs(q.max() - 50.0) <= 2.5


def test_no_illegal_action_ever():
    """`train` asserts that the learner is alive; an illegal action would have paid NaN."""
    learner = trained(
        "sac", "masked-bandit", wrap=Fatal, gamma=0.5, entropy_ratio=0.1, temperature=0.1
    )
    assert (
        learner.metrics["return_mean"] / learner.env.time_limit
        > 0.9 * learner.env.unwrapped.optimal_reward
    )


# -------------------------------------------------------------------- the driver


@pytest.mark.slow
def test_a_vmapped_seed_is_the_single_one_up_to_rounding():
    assert_a_vmapped_seed_is_the_single_one("sac")


@pytest.mark.parametrize(
    "words, text",
    [
        (
            ["env=probe-multidiscrete"],
            r"sac needs a Box or a Discrete action space, .* has MultiDiscrete\(\[2, 3\]\)",
        ),
        (["env=pendulum", "algo.network.recurrent=gru"], "sac learns from single transitions"),
    ],
)
def test_bad_input(words, text):
    with pytest.raises(UserError, match=text):
        jaxrl.compose(["algo=sac", *words])


def test_spaces_without_an_end_are_refused():
    def found(action):
        return sac.Config().problems(SPACE._replace(action=action))

    assert "needs actions with finite bounds" in found(Box(0.0, math.inf, (2,)))[0]
    assert not found(SPACE.action) and not found(Discrete(3))
