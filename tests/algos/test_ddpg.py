"""DDPG and TD3: a step against a loop in NumPy, what each switch changes, noise, normalization.

And probes.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from algos import ddpg
from envs_jax.core import EnvSpec, spec
from envs_jax.spaces import Box, contains
from jaxrl.blocks.networks.actor_critic import TrunkConfig
from jaxrl.blocks.networks.critics import policy_critics
from jaxrl.blocks.replay import Transitions
from jaxrl.declare import hypers
from jaxrl.drivers.build import build
from jaxrl.errors import UserError
from jaxrl.registry import algorithm
from jaxrl.types import Input, Trajectory
from tests.algos.helpers import dense, slopes, train, wide
from tests.algos.test_probes import Blind

slow = functools.partial(pytest.param, marks=pytest.mark.slow)
SMALL = TrunkConfig(hidden=(5,))
LOW, HIGH = np.float32([-1.0, 2.0]), np.float32([3.0, 2.5])
SPACE = EnvSpec(Box(-9.0, 9.0, (2,)), Box(((-1.0, 2.0),), ((3.0, 2.5),), (1, 2)))
BASE = ddpg.Config(network=SMALL, learning_rate=0.1, tau=0.25)
OFF = {"critics": 1, "target_noise": 0.0, "policy_delay": 1}
TWIN, SMOOTH, LATE = (
    {**OFF, **on} for on in ({"critics": 2}, {"target_noise": 0.4}, {"policy_delay": 2})
)


# -------------------------------------------------------------------- against a loop


def layers_by_hand(params, x):
    """One tanh layer and a head."""
    hidden = np.tanh(dense(params["trunk"]["params"]["torso"]["dense_0"], x))
    return dense(params["head"]["params"]["head"], hidden)


def q_by_hand(critics, obs, u):
    """[C, n]"""
    def each(i):
        return jax.tree.map(lambda x: x[i], critics)

    count = len(jax.tree.leaves(critics)[0])
    return np.stack(
        [layers_by_hand(each(i), np.concatenate([obs, u], axis=1))[:, 0] for i in range(count)]
    )


def nudged(params, rng):
    return jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32), params)


def made_up(space, B=12, mask=None):
    """Transitions of any actions of `space.action`."""
    rng = np.random.default_rng(0)
    obs, following = rng.normal(size=(2, B, 2)).astype(np.float32)
    keys = jax.random.split(jax.random.key(1), B)
    action = np.asarray(jax.vmap(space.action.sample)(keys))
    reward = rng.normal(size=B).astype(np.float32)
    weight = rng.uniform(0.2, 1.0, B).astype(np.float32)
    discount = (0.9 * (rng.random(B) < 0.7)).astype(np.float32)

    def seen(obs, mask):
        return Input(obs, np.zeros(B, bool), mask)

    here, there = (None, None) if mask is None else mask
    row = Trajectory(seen(obs, here), action, (), reward, discount == 0, discount < 0, None, ())
    return Transitions(row, reward, discount, seen(following, there), weight, np.arange(B))


@functools.cache
def learner(config):
    """-> (agent, a state whose target and moments of Adam are not its beginning's, learn)."""
    agent = ddpg.make_agent(config, SPACE)
    state = jax.jit(agent.init)(jax.random.key(0), hypers(config))
    # away from a policy of tiny outputs
    params = nudged(state.params, np.random.default_rng(1))
    state = state._replace(params=params, target=nudged(params, np.random.default_rng(2)))
    return agent, state, jax.jit(agent.learn)


def unit(action):
    return (np.asarray(action, np.float64).reshape(-1, 2) - (LOW + HIGH) / 2) / ((HIGH - LOW) / 2)


def assert_adam(before, after, gradient):
    """Adam's first step, of the size of the learning rate 0.1 in every entry."""
    for g, old, new in zip(gradient, jax.tree.leaves(wide(before)), jax.tree.leaves(after)):
        np.testing.assert_allclose(new, old - 0.1 * g / (np.abs(g) + 1e-5), atol=2e-3)


@pytest.mark.parametrize(
    "switches", [OFF, slow(TWIN), slow(SMOOTH), LATE], ids=["ddpg", "twin", "smooth", "late"]
)
def test_a_step_is_the_loop(switches):
    config = dataclasses.replace(BASE, **switches)
    _, state, learn = learner(config)
    batch = made_up(SPACE)
    key = jax.random.key(3)
    new, metrics, priority = learn(state, hypers(config), batch, 0.0, key)

    B = len(batch.reward)
    obs = batch.start.input.obs
    following = batch.next_input.obs
    noise = np.clip(
        config.target_noise * np.asarray(jax.random.normal(key, (B, 2)), np.float64), -0.5, 0.5
    )
    target = wide(state.target)
    u = np.clip(np.tanh(layers_by_hand(target["policy"], following)) + noise, -1.0, 1.0)
    y = batch.reward + batch.discount * q_by_hand(target["critics"], following, u).min(axis=0)

    def critic_loss(critics):
        errors = q_by_hand(critics, obs, unit(batch.start.action)) - y
        return sum(batch.weight[i] * 0.5 * e[i]**2 for e in errors for i in range(B)) / B

    errors = np.abs(q_by_hand(wide(state.params["critics"]), obs, unit(batch.start.action)) - y)
    np.testing.assert_allclose(
        metrics["loss"], critic_loss(wide(state.params["critics"])), rtol=2e-5
    )
    np.testing.assert_allclose(priority, errors.mean(axis=0), rtol=1e-4, atol=1e-5)
    gradient = slopes(critic_loss, state.params["critics"])
    np.testing.assert_allclose(
        metrics["grad_norm"], np.sqrt(sum((g**2).sum() for g in gradient)), rtol=1e-4
    )
    assert_adam(state.params["critics"], new.params["critics"], gradient)

    # everything else waits for the next step
    if config.policy_delay == 2:
        jax.tree.map(
            np.testing.assert_array_equal,
            (new.params["policy"], new.target, new.optimizer["policy"]),
            (state.params["policy"], state.target, state.optimizer["policy"]),
        )
        assert metrics["policy_loss"] == 0.0
        state = new
        new, metrics, _ = learn(state, hypers(config), batch, 0.0, key)

    critics = wide(new.params["critics"])

    def policy_loss(policy):
        return -q_by_hand(critics, obs, np.tanh(layers_by_hand(policy, obs)))[0].mean()

    want = policy_loss(wide(state.params["policy"]))
    np.testing.assert_allclose(
        metrics["policy_loss"], config.policy_delay * want, rtol=1e-4, atol=1e-5
    )
    assert_adam(
        state.params["policy"], new.params["policy"], slopes(policy_loss, state.params["policy"])
    )
    moved = jax.tree.map(lambda old, now: 0.75 * old + 0.25 * now, state.target, new.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), new.target, moved
    )


def test_the_names_are_sets_of_three_switches():
    """td3 is ddpg with other defaults, and with equal switches the same, bit for bit."""
    differ = {
        f.name
        for f in dataclasses.fields(ddpg.Config)
        if f.name != "network"
        and getattr(ddpg.Config(), f.name) != getattr(ddpg.TD3Config(), f.name)
    }
    assert differ == set(OFF) and algorithm("td3").make_agent is algorithm("ddpg").make_agent
    alike = ddpg.TD3Config(network=SMALL, learning_rate=0.1, tau=0.25, **OFF)
    ends = []
    for config in (BASE, alike):
        _, state, learn = learner(config)
        for i in range(3):
            state, _, _ = learn(state, hypers(config), made_up(SPACE), 0.0, jax.random.key(i))
        ends.append(state)
    jax.tree.map(np.testing.assert_array_equal, *ends)


# -------------------------------------------------------------------- acting


def test_noise_is_correlated_within_an_episode_and_in_units_of_half_the_range():
    agent, state, _ = learner(BASE)
    actor = agent.actor(state)
    key = jax.random.key(5)
    hyper = hypers(dataclasses.replace(BASE, noise=0.5, noise_correlation=0.9))
    carry = np.float32([[1.0, -1.0], [2.0, 0.5], [0.3, 4.0]])
    first = np.array([False, True, False])
    inputs = Input(np.zeros((3, 2), np.float32), first)
    action, after, _ = jax.jit(agent.explore)(actor, hyper, carry, inputs, 0.0, key)
    greedy, same = jax.jit(agent.greedy)(actor, carry, inputs, key)
    eps = np.asarray(jax.random.normal(key, (3, 2)))
    np.testing.assert_allclose(
        after, np.where(first[:, None], eps, 0.9 * carry + np.sqrt(1 - 0.81) * eps), rtol=1e-5
    )
    np.testing.assert_allclose(unit(action), np.clip(unit(greedy) + 0.5 * after, -1, 1), atol=1e-5)
    assert all(contains(SPACE.action, np.asarray(a)) for a in action) and action.shape == (3, 1, 2)
    np.testing.assert_array_equal(same, carry)


# -------------------------------------------------------------------- observations


def test_normalized_observations_are_what_it_learns_from():
    """Frozen in a step, which is that of a learner without who is shown (x - mean) / deviation.

    Merged at its end.
    """
    config = dataclasses.replace(BASE, normalize_observation=True)
    (plain_agent, plain, learn) = learner(BASE)
    (own_agent, other, own) = learner(config)
    batch = made_up(SPACE)
    mean = np.float32([0.5, -2.0])
    deviation = np.float32([2.0, 0.3])
    moments = other.observation._replace(count=jnp.float32(50.0), mean=mean, variance=deviation**2)
    state = plain._replace(observation=moments)

    def seen(inputs):
        return inputs._replace(obs=np.clip((inputs.obs - mean) / deviation, -10, 10))

    shown = batch._replace(
        start=batch.start._replace(input=seen(batch.start.input)), next_input=seen(batch.next_input)
    )
    got, want = (step(s, hypers(BASE), b, 0.0, jax.random.key(3))[0] for step, s, b in (
        (own, state, batch), (learn, plain, shown)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), got.params, want.params)
    old = (lambda n, x: np.repeat(x[None], n, 0))(50, mean)
    new = batch.start.input.obs
    np.testing.assert_allclose(got.observation.mean, np.concatenate([old, new]).mean(0), rtol=1e-5)
    second = (50 * (deviation**2 + mean**2) + (new**2).sum(0)) / (50 + len(new))
    np.testing.assert_allclose(
        got.observation.variance, second - got.observation.mean**2, rtol=1e-4
    )
    inputs = batch.start.input
    acted, wanted = (
        jax.jit(agent.greedy)(agent.actor(s), (), x, jax.random.key(0))[0]
        for agent, s, x in ((own_agent, state, inputs), (plain_agent, plain, seen(inputs)))
    )
    np.testing.assert_allclose(acted, wanted, rtol=1e-4)


def test_images_and_actions_meet_after_the_torso():
    space = EnvSpec(Box(0.0, 1.0, (6, 6, 2)), Box(-1.0, 1.0, (3,)))
    network = policy_critics(
        ddpg.TD3Config(network=TrunkConfig(torso="cnn", channels=(4,), hidden=(8,))), space, 3
    )
    params = jax.jit(network.init)(jax.random.key(0))
    inputs = Input(
        np.random.default_rng(0).uniform(size=(4, 6, 6, 2)).astype(np.float32), np.zeros(4, bool)
    )
    values = jax.jit(network.values)
    q = [values(params["critics"], inputs, jnp.full((4, 3), x)) for x in (-1.0, 1.0)]
    assert q[0].shape == (2, 4) and np.all(q[0] != q[1])
    assert jax.eval_shape(network.outputs, params["policy"], inputs).shape == (4, 3)


# -------------------------------------------------------------------- probes

QUICK = {
    "num_envs": 8,
    "gradient_steps": 2,
    "warmup": 200,
    "replay_capacity": 4096,
    "learning_rate": 5e-3,
    "batch_size": 64,
    "network": TrunkConfig(hidden=(8,), activation="tanh"),
    "tau": 0.05,
}
CUT = {"gamma": 0.98, "learning_rate": 0.02, "learning_rate_end": 0.05}


def values(trained, observations, u=None):
    """The critics' least Q [n], or [n, A], and the policy's modes."""
    config = trained.config
    agent = trained.state.agent
    network = policy_critics(config, spec(trained.env), 1)
    inputs = Input(
        jnp.asarray(observations), jnp.zeros(len(observations), bool))

    def greedy(agent):
        return trained.runner.agent.greedy(
            trained.runner.agent.actor(agent), (), inputs, jax.random.key(0)
        )

    def both(agent):
        return (network.values(agent.params["critics"], inputs, u).min(axis=0), greedy(agent)[0])

    return tuple(map(np.asarray, jax.jit(both)(agent)))


def trained(algo, name, updates=1000, **settings):
    continuous = {"env_settings": {"continuous": True}} if name.startswith("probe") else {}
    return train(algorithm(algo), name, updates, **{**QUICK, **continuous, **settings})


def assert_probe(learner, gamma, tolerance):
    """Q of the policy's action is the best policy's value, and that action the best one.

    Where it matters.
    """
    probe = learner.env.unwrapped
    _, action = values(learner, probe.observations, jnp.zeros((len(probe.observations), 1)))
    q, _ = values(learner, probe.observations, jnp.asarray(action))
    np.testing.assert_allclose(q, probe.values(gamma), atol=tolerance)
    if probe.best_actions is not None:
        np.testing.assert_allclose(action, probe.best_actions, atol=0.15)


@pytest.mark.parametrize(
    "algo, name",
    [
        slow("ddpg", "probe-both"),
        ("td3", "probe-discount"),
        slow("td3", "probe-both"),
        slow("ddpg", "probe-discount"),
        slow("ddpg", "probe-observation"),
        slow("td3", "probe-observation"),
    ],
)
def test_probe(algo, name):
    assert_probe(trained(algo, name, gamma=0.5), 0.5, 0.1)


@pytest.mark.parametrize("algo, n_step, prioritized", [("ddpg", 1, False), slow("td3", 3, True)])
def test_bootstraps_through_a_time_limit(algo, n_step, prioritized):
    learner = trained(algo, "probe-truncation", 3000, n_step=n_step, prioritized=prioritized, **CUT)
    assert abs(values(learner, [[0.0]], jnp.zeros((1, 1)))[0][0] - 50.0) <= 2.5


@pytest.mark.slow
def test_who_takes_a_time_limit_for_an_end_is_caught():
    learner = trained("ddpg", "probe-truncation", 1500, wrap=Blind, **CUT)
    assert values(learner, [[0.0]], jnp.zeros((1, 1)))[0][0] < 20.0


# -------------------------------------------------------------------- the driver


def assert_a_vmapped_seed_is_the_single_one(algo):
    """10 updates after the warm-up, of two gradient steps each in two environments."""
    config = jaxrl.compose(
        [
            f"algo={algo}",
            "env=pendulum",
            "preset=none",
            "algo.num_envs=2",
            "algo.gradient_steps=2",
            "algo.warmup=40",
            "algo.replay_capacity=400",
            "algo.network.hidden=[8]",
        ]
    )
    runner = build(config).runner
    hyper = hypers(config.agent)
    keys = jax.random.split(jax.random.key(0), 2)

    def run(key):
        return runner.advance(runner.init(key, hyper, 100), 30)[0].agent.params

    both = jax.jit(jax.vmap(run))(keys)
    alone = jax.jit(run)
    for i, key in enumerate(keys):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-5),
            both,
            alone(key),
        )


@pytest.mark.slow
@pytest.mark.parametrize("algo", [slow("ddpg"), "td3"])
def test_a_vmapped_seed_is_the_single_one_up_to_rounding(algo):
    assert_a_vmapped_seed_is_the_single_one(algo)


@pytest.mark.parametrize("algo", ["ddpg", "td3"])
@pytest.mark.parametrize(
    "words, text",
    [
        (
            ["env=cartpole"],
            r"needs a Box action space, cartpole has Discrete\(2\). Try: sac, dqn, ppo, a2c",
        ),
        (["env=pendulum", "algo.network.recurrent=gru"], "learns from single transitions"),
        (
            ["env=frozenlake", "algo.normalize_observation=true"],
            "algo.normalize_observation needs Box observations",
        ),
    ],
)
def test_bad_input(algo, words, text):
    with pytest.raises(UserError, match=text):
        jaxrl.compose([f"algo={algo}", *words])


@pytest.mark.parametrize("low, high", [(-np.inf, np.inf), ((-1.0, 0.5), (1.0, 0.5))])
def test_bounds_that_leave_no_range_are_refused(low, high):
    space = SPACE._replace(action=Box(low, high, (2,)))
    assert [
        text
        for text in ddpg.Config().problems(space)
        if "one below the other, {env} has Box" in text
    ]
