"""PQN.

An update against a loop in NumPy, values known in closed form, the epochs it makes, bad input.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from algos import pqn
from envs_jax.core import EnvSpec, spec
from envs_jax.spaces import Box, Discrete
from jaxrl.blocks.networks.actor_critic import TrunkConfig
from jaxrl.blocks.networks.q_networks import q_network
from jaxrl.declare import hypers
from jaxrl.errors import UserError
from jaxrl.types import Input, Trajectory
from tests.algos.helpers import dense, flat, slopes, train, wide
from tests.algos.test_probes import Fatal

SMALL = TrunkConfig(hidden=(8,), layer_norm=True)


# -------------------------------------------------------------------- against a loop


def values_by_hand(params, obs):
    """Q [n, A] of one tanh layer, normalized before the tanh (Ba et al. 2016, eq. 3)."""
    torso = params["trunk"]["params"]["torso"]
    x = dense(torso["dense_0"], obs)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = np.tanh(x * torso["norm_0"]["scale"] + torso["norm_0"]["bias"])
    return dense(params["advantage"]["params"]["head"], x)


def test_an_update_is_the_loop(T=7, B=3, A=4):
    """One epoch of one minibatch: its gradient, and Adam's first step."""
    config = pqn.Config(
        network=SMALL,
        epochs=1,
        minibatches=1,
        learning_rate=0.1,
        lam=0.8,
        gamma=0.9,
        max_grad_norm=1e9,
    )
    rng = np.random.default_rng(0)
    agent = pqn.make_agent(config, EnvSpec(Box(-9.0, 9.0, (2,)), Discrete(A), masked=True))
    hyper = hypers(config)
    state = jax.jit(agent.init)(jax.random.key(0), hyper)
    obs, final = rng.normal(size=(2, T, B, 2)).astype(np.float32)
    mask = rng.random((2, T, B, A)) < 0.6
    mask[..., 2] = True
    action = np.array([[rng.choice(np.flatnonzero(m)) for m in row] for row in mask[0]], np.int32)
    reward = rng.normal(size=(T, B)).astype(np.float32)
    dead, late = rng.random((2, T, B)) < 0.25
    late &= ~dead
    batch = Trajectory(
        Input(obs, dead, mask[0]), action, {}, reward, dead, late, Input(final, dead, mask[1]), ()
    )
    fixed = wide(state.params)
    later = values_by_hand(fixed, flat(final))
    best = np.where(flat(mask[1]), later, -np.inf).max(-1).reshape(T, B)
    target = np.zeros((T, B))
    G = np.zeros(B)
    for t in reversed(range(T)):
        for b in range(B):
            if dead[t, b]:
                G[b] = reward[t, b]
            elif late[t, b] or t == T - 1:
                G[b] = reward[t, b] + 0.9 * best[t, b]
            else:
                G[b] = reward[t, b] + 0.9 * (0.2 * best[t, b] + 0.8 * G[b])
        target[t] = G

    def loss(params):
        q = np.take_along_axis(values_by_hand(params, flat(obs)), flat(action)[:, None], axis=1)[
            :, 0
        ]
        return 0.5 * ((q - flat(target)) ** 2).mean()

    new, metrics, feedback = jax.jit(agent.learn)(state, hyper, batch, 0.0, jax.random.key(1))
    assert feedback == ()
    np.testing.assert_allclose(metrics["loss"], loss(fixed), rtol=2e-5)
    gradient = slopes(loss, state.params)
    np.testing.assert_allclose(
        metrics["grad_norm"], np.sqrt(sum((g**2).sum() for g in gradient)), rtol=1e-3
    )
    for g, before, after in zip(gradient, jax.tree.leaves(fixed), jax.tree.leaves(new.params)):
        np.testing.assert_allclose(after, before - 0.1 * g / (np.abs(g) + 1e-5), atol=2e-3)


# -------------------------------------------------------------------- probes

QUICK = {"num_envs": 16, "rollout_length": 16, "epochs": 2, "minibatches": 4, "network": SMALL,
         "learning_rate": 0.01, "learning_rate_end": 0.05, "epsilon_end": 0.2}


def values(trained, observations):
    """Q [n, A]."""
    network = q_network(trained.config.network, spec(trained.env))
    inputs = Input(jnp.asarray(observations)[None], jnp.zeros((1, len(observations)), bool))
    return np.asarray(network.values(trained.state.agent.params, (), inputs)[0][0])


@pytest.mark.parametrize("name", ["probe-observation", "probe-discount", "probe-both"])
def test_probe(name):
    learner = train(pqn.PQN, name, 150, gamma=0.5, **QUICK)
    probe = learner.env.unwrapped
    q = values(learner, probe.observations)
    np.testing.assert_allclose(q.max(axis=1), probe.values(0.5), atol=0.05)
    if probe.best_actions is not None:
        np.testing.assert_array_equal(q.argmax(axis=1), probe.best_actions)


def test_bootstraps_through_a_time_limit():
    learner = train(pqn.PQN, "probe-truncation", 300, gamma=0.98, **QUICK | {"learning_rate": 0.1})
    assert abs(values(learner, [[0.0]]).max() - 50.0) <= 2.5


def test_no_illegal_action_ever():
    """`train` asserts that the learner is alive; an illegal action would have paid NaN."""
    learner = train(pqn.PQN, "masked-bandit", 150, wrap=Fatal, gamma=0.5, **QUICK)
    assert (
        learner.metrics["return_mean"] / learner.env.time_limit
        > 0.75 * learner.env.unwrapped.optimal_reward
    )


# -------------------------------------------------------------------- settings


@pytest.mark.slow
def test_a_recurrent_network_remembers():
    """It learns from whole sequences, from the carry that they were collected with."""
    network = TrunkConfig(hidden=(16,), layer_norm=True, recurrent="gru", recurrent_size=16)
    learner = train(pqn.PQN, "memory-chain", 200, env_settings={"length": 3}, **QUICK | {
        "network": network, "epsilon_end": 0.0})
    assert learner.metrics["return_mean"] > 0.9             # 0 without memory


@pytest.mark.parametrize(
    "words, text",
    [
        (["env=pendulum"], "pqn needs a discrete action space, pendulum has"),
        (
            ["algo.minibatches=7"],
            r"num_envs x rollout_length = 16 x 128 = 2,048 does not divide into 7 minibatches. "
            "Nearest: 4, 8",
        ),
        (
            ["algo.network.recurrent=gru", "algo.minibatches=3"],
            "num_envs = 16 does not divide into 3 minibatches",
        ),
    ],
)
def test_bad_input(words, text):
    with pytest.raises(UserError, match=text):
        jaxrl.compose(["algo=pqn", "env=cartpole", *words])
