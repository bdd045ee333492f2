"""DQN: a step against a loop in NumPy, values known in closed form, and the promises of its driver.
"""


import jax
import numpy as np
import pytest

import jaxrl
from algos import dqn
from envs_jax.core import EnvSpec
from envs_jax.spaces import Box, Discrete
from jaxrl.blocks.networks.actor_critic import TrunkConfig
from jaxrl.blocks.networks.q_networks import q_network
from jaxrl.blocks.replay import Transitions
from jaxrl.declare import hypers
from jaxrl.drivers.build import build
from jaxrl.types import Input, Trajectory
from tests.algos.helpers import dense, slopes, wide

SMALL = TrunkConfig(hidden=(8,))


# -------------------------------------------------------------------- against a loop


def values_by_hand(params, obs, duel, mask):
    """Q [n, actions] of one tanh layer."""
    hidden = np.tanh(dense(params["trunk"]["params"]["torso"]["dense_0"], obs))
    q = dense(params["advantage"]["params"]["head"], hidden)
    if not duel:
        return q
    value = dense(params["value"]["params"]["head"], hidden)
    mean = np.array([row[legal].mean() for row, legal in zip(q, mask)])
    return value + q - mean[:, None]


def made_up(config, B=12, A=3):
    """An agent of `config`, its state with another target, and a batch of transitions."""
    rng = np.random.default_rng(0)
    agent = dqn.make_agent(config, EnvSpec(Box(-9.0, 9.0, (2,)), Discrete(A), masked=True))
    hyper = hypers(config)
    state = jax.jit(agent.init)(jax.random.key(0), hyper)
    state = state._replace(
        target=jax.tree.map(
            lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32), state.params
        )
    )
    obs, following = rng.normal(size=(2, B, 2)).astype(np.float32)
    masks = rng.random((2, B, A)) < 0.6
    masks[..., 1] = True
    action = np.array([rng.choice(np.flatnonzero(m)) for m in masks[0]], np.int32)
    reward = rng.normal(size=B).astype(np.float32)
    weight = rng.uniform(0.2, 1.0, B).astype(np.float32)
    discount = (0.9 * (rng.random(B) < 0.7)).astype(np.float32)

    def seen(obs, mask):
        return Input(obs, np.zeros(B, bool), mask)

    row = Trajectory(seen(obs, masks[0]), action, (), reward, discount == 0, discount < 0, None, ())
    return (
        agent,
        hyper,
        state,
        Transitions(row, reward, discount, seen(following, masks[1]), weight, np.arange(B)),
    )


def check_step(agent, hyper, state, batch, loss, priorities):
    """`learn` descends loss(params, target) -> (total, per item), by Adam's first step.

    And gives the priorities.
    """
    target = wide(state.target)
    new, metrics, priority = jax.jit(agent.learn)(state, hyper, batch, 0.0, jax.random.key(1))
    want, items = loss(wide(state.params), target)
    np.testing.assert_allclose(metrics["loss"], want, rtol=2e-5)
    np.testing.assert_allclose(priority, priorities(items), rtol=2e-4, atol=1e-5)
    gradient = slopes(lambda params: loss(params, target)[0], state.params)
    np.testing.assert_allclose(
        metrics["grad_norm"], np.sqrt(sum((g**2).sum() for g in gradient)), rtol=1e-3
    )
    for g, before, after in zip(
        gradient, jax.tree.leaves(wide(state.params)), jax.tree.leaves(new.params)
    ):
        np.testing.assert_allclose(after, before - 0.1 * g / (np.abs(g) + 1e-5), atol=2e-3)
    return new


@pytest.mark.parametrize(
    "double, duel, huber", [(True, False, 1e9), (False, False, 0.5), (True, True, 1e9)]
)
def test_a_step_is_the_loop(double, duel, huber):
    config = dqn.Config(
        network=SMALL,
        double=double,
        dueling=duel,
        huber=huber,
        target_every=2,
        tau=0.25,
        learning_rate=0.1,
    )
    agent, hyper, state, batch = made_up(config)
    fixed = wide(state.params)
    here = batch.start.input
    there = batch.next_input

    def loss(params, target):
        q, later, chooser = (values_by_hand(p, x.obs, duel, x.mask) for p, x in (
            (params, here), (target, there), (fixed, there)))
        total = 0.0
        errors = []
        B = len(q)
        for i in range(B):
            legal = np.flatnonzero(there.mask[i])
            best = legal[np.argmax((chooser if double else later)[i][legal])]
            error = (
                batch.reward[i] + batch.discount[i] * later[i, best] - q[i, batch.start.action[i]]
            )
            size = abs(error)
            total += (
                batch.weight[i]
                * (0.5 * error**2 if size <= huber else huber * (size - 0.5 * huber))
                / B
            )
            errors.append(size)
        return total, np.array(errors)

    new = check_step(agent, hyper, state, batch, loss, lambda errors: errors)
    # it moves in every second step
    jax.tree.map(np.testing.assert_array_equal, new.target, state.target)
    again, _, _ = jax.jit(agent.learn)(new, hyper, batch, 0.0, jax.random.key(1))
    moved = jax.tree.map(lambda old, now: 0.75 * old + 0.25 * now, new.target, again.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), again.target, moved
    )


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def categorical_loss(z, next_z, reward, discount, atoms):
    """Cross entropy with the projected target of one item. Atoms from -1.5 to 1."""
    n = len(atoms)
    projected = np.zeros(n)
    for p, place in zip(softmax(next_z), atoms):
        place = np.clip(reward + discount * place, -1.5, 1.0)
        b = (place + 1.5) / (2.5 / (n - 1))
        low, high = int(np.floor(b)), int(np.ceil(b))
        projected[low] += p * (high - b + (low == high))
        projected[high] += p * (b - low)
    return -(projected * np.log(softmax(z))).sum()


def quantile_loss(z, next_z, reward, discount, tau):
    """Quantile regression of one item, smoothed within 0.7."""
    total = 0.0
    for k in range(len(z)):
        for j in range(len(next_z)):
            u = reward + discount * next_z[j] - z[k]
            smooth = 0.5 * u**2 if abs(u) <= 0.7 else 0.7 * (abs(u) - 0.35)
            total += abs(tau[k] - (u < 0)) * smooth / 0.7 / len(next_z)
    return total


@pytest.mark.parametrize("returns", ["categorical", "quantile", "implicit"])
def test_a_step_on_distributions_is_the_loop(returns, n=4, A=3):
    """C51: algorithm 1 of arXiv:1707.06887; QR-DQN: of arXiv:1710.10044; IQN: of arXiv:1806.06923.
    """
    config = dqn.Config(network=SMALL, returns=returns, atoms=n, value_low=-1.5, value_high=1.0,
                        kappa=0.7, learning_rate=0.1)
    agent, hyper, state, batch = made_up(config)
    fixed = wide(state.params)
    here = batch.start.input
    there = batch.next_input
    atoms = np.linspace(-1.5, 1.0, n)
    spec = EnvSpec(Box(-9.0, 9.0, (2,)), Discrete(A), masked=True)
    network = q_network(SMALL, spec, size=n, implicit=returns == "implicit")

    def fractions(inputs, key):
        return np.asarray(
            network.outputs(
                state.params, (), jax.tree.map(lambda x: x[None], inputs), fractions=key
            )[0].tau,
            float,
        )[0]

    def middle(n):
        return np.broadcast_to((np.arange(n) + 0.5) / n, (12, n))

    keys = jax.random.split(jax.random.fold_in(jax.random.key(1), 1))
    drawn = [middle(n)] * 3
    if returns == "implicit":
        drawn = [fractions(here, keys[0]), fractions(there, keys[1]), middle(32)]

    def outputs(params, obs, tau):
        x = np.tanh(dense(params["trunk"]["params"]["torso"]["dense_0"], obs))
        if returns != "implicit":
            return dense(params["advantage"]["params"]["head"], x).reshape(len(x), A, n)
        cosines = np.cos(np.pi * np.arange(64) * tau[..., None])
        gate = np.maximum(dense(params["fractions"]["params"]["dense"], cosines), 0.0)
        return dense(params["advantage"]["params"]["head"], x[:, None] * gate).swapaxes(1, 2)

    def loss(params, target):
        z = outputs(params, here.obs, drawn[0])
        target_z = outputs(target, there.obs, drawn[1])
        chooser = outputs(fixed, there.obs, drawn[2])
        q = (softmax(chooser) * atoms).sum(-1) if returns == "categorical" else chooser.mean(-1)
        losses = np.zeros(len(z))
        for i in range(len(z)):
            legal = np.flatnonzero(there.mask[i])
            next_z = target_z[i, legal[np.argmax(q[i][legal])]]
            online_z = z[i, batch.start.action[i]]
            reward = batch.reward[i]
            discount = batch.discount[i]
            if returns == "categorical":
                losses[i] = categorical_loss(online_z, next_z, reward, discount, atoms)
            else:
                losses[i] = quantile_loss(online_z, next_z, reward, discount, drawn[0][i])
        return (batch.weight * losses).mean(), losses

    check_step(agent, hyper, state, batch, loss, lambda losses: losses)


@pytest.mark.slow
def test_rainbow_without_its_parts_is_dqn():
    """To the last bit, over 100 updates."""
    off = {
        "double": False,
        "dueling": False,
        "noisy": False,
        "prioritized": False,
        "n_step": 1,
        "returns": "mean",
    }
    on = [
        "algo.network.hidden=[8]",
        "algo.epsilon_start=1",
        "algo.epsilon_end=0.05",
        "algo.alpha=0.6",
        *(f"algo.{name}={str(value).lower()}" for name, value in off.items()),
    ]
    ends = []
    for algo in ("dqn", "rainbow"):
        config = jaxrl.compose([f"algo={algo}", "env=cartpole", "preset=none", *on])
        runner = build(config).runner
        state = jax.jit(runner.init)(jax.random.key(0), hypers(config.agent), 400)
        ends.append(jax.jit(runner.advance)(state, 350)[0].agent)
    assert ends[0].updates == 2 * 100
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_where_atoms_begin_and_end_does_not_matter_to_who_acts():
    config = dqn.Config(network=SMALL, returns="categorical", atoms=5)
    agent = dqn.make_agent(config, EnvSpec(Box(-9.0, 9.0, (2,)), Discrete(3)))
    state = jax.jit(agent.init)(jax.random.key(0), hypers(config))
    obs = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    action, _ = agent.greedy(
        agent.actor(state), (), Input(obs, np.zeros(50, bool)), jax.random.key(1)
    )
    params = wide(state.params)
    z = dense(
        params["advantage"]["params"]["head"],
        np.tanh(dense(params["trunk"]["params"]["torso"]["dense_0"], obs)),
    )
    want = (softmax(z.reshape(50, 3, 5)) * np.linspace(-100, 100, 5)).sum(-1).argmax(-1)
    np.testing.assert_array_equal(action, want)
    assert len(set(want)) > 1
