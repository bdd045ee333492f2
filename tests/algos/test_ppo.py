"""PPO: its loss against a loop in NumPy, exact first ratios, and values known in closed form."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos import ppo
from envs_jax import make
from envs_jax.core import EnvSpec, spec
from envs_jax.spaces import Box, Discrete
from envs_jax.vector import VectorEnv
from envs_jax.wrappers import Wrapper
from jaxrl.blocks.networks import NetworkConfig, actor_critic
from jaxrl.declare import hypers
from jaxrl.drivers.on_policy import OnPolicy
from jaxrl.types import Input, Trajectory
from tests import reference

SMALL = NetworkConfig(hidden=(8,))
pytestmark = pytest.mark.usefixtures("quick_compile")


# -------------------------------------------------------------------- against a loop


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def forward(params, obs):
    """Logits [n, actions] and values [n] of observations [n, d] by separate networks of one tanh layer."""
    outputs = []
    for part, head in (("actor", "policy"), ("critic", "value")):
        hidden = np.tanh(dense(params[part]["trunk"]["params"]["torso"]["dense_0"], obs))
        outputs.append(dense(params[part][head]["params"]["head"], hidden))
    return outputs[0], outputs[1][:, 0]


def oracle(params, old_params, hyper, batch):
    """Every metric of the loss of one rollout [T, B] as one minibatch, item by item in float64."""
    shape = batch.reward.shape
    flat = lambda x: np.asarray(x).reshape(-1, *np.shape(x)[2:])
    _, old_value = forward(old_params, flat(batch.input.obs))
    _, next_value = forward(old_params, flat(batch.final_input.obs))
    advantage = reference.gae(batch.reward, old_value.reshape(shape), next_value.reshape(shape), batch.terminated,
                              batch.truncated, hyper.gamma, hyper.lam).reshape(-1)
    target = advantage + old_value
    advantage = (advantage - advantage.mean()) / advantage.std()

    logits, value = forward(params, flat(batch.input.obs))
    rows = []
    for i, (action, mask) in enumerate(zip(flat(batch.action), flat(batch.input.mask))):
        p, entropy = reference.categorical(logits[i], mask)
        log_ratio = np.log(p[action]) - flat(batch.extras["log_prob"])[i]
        ratio = np.exp(log_ratio)
        policy_loss = reference.ppo_clip(ratio, advantage[i], hyper.clip)
        value_loss = reference.clipped_value(value[i], old_value[i], target[i], hyper.clip)
        rows.append((policy_loss, value_loss, entropy, ratio - 1 - log_ratio, abs(ratio - 1) > hyper.clip))
    means = dict(zip(("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction"), np.mean(rows, axis=0)))
    loss = means["policy_loss"] + hyper.value_weight * means["value_loss"] - hyper.entropy_weight * means["entropy"]
    return means | {"loss": loss}


@pytest.fixture(scope="module")
def minibatch():
    """A state, a made-up rollout of a masked policy that was somewhat different, and `learn` for 1 and 2 epochs."""
    rng, (T, B), actions = np.random.default_rng(0), (7, 3), 4
    env_spec = EnvSpec(Box(-9.0, 9.0, (2,)), Discrete(actions), masked=True)
    configs = [ppo.Config(epochs=epochs, minibatches=1, network=SMALL, learning_rate=0.1) for epochs in (1, 2)]
    agents = [ppo.make_agent(config, env_spec) for config in configs]
    hyper = hypers(configs[0])._replace(entropy_weight=jnp.float32(0.1), max_grad_norm=jnp.float32(1e3))
    state = jax.jit(agents[0].init)(jax.random.key(0), hyper)
    mask = rng.random((T, B, actions)) < 0.7
    action = rng.integers(0, actions, (T, B)).astype(np.int32)
    np.put_along_axis(mask, action[..., None], True, axis=-1)
    obs, following = rng.normal(size=(2, T, B, 2)).astype(np.float32)
    dead, late = rng.random((2, T, B)) < 0.3
    uniform = -np.log(mask.sum(-1))                             # what the fresh policy gives, nearly
    extras = {"log_prob": (uniform + 0.3 * rng.normal(size=(T, B))).astype(np.float32)}
    batch = Trajectory(Input(obs, dead | late, mask), action, extras, rng.normal(size=(T, B)).astype(np.float32), dead,
                       late & ~dead, Input(following, np.zeros((T, B), bool), mask), carry0=())
    return SimpleNamespace(state=state, hyper=hyper, batch=batch, learn=[jax.jit(agent.learn) for agent in agents])


def wide(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def test_loss_is_the_loop(minibatch):
    """Once with the parameters of the rollout, once with others, where the clip of the value acts as well."""
    m, key, progress = minibatch, jax.random.key(1), jnp.zeros(())
    new, first, _ = m.learn[0](m.state, m.hyper, m.batch, progress, key)
    _, both, _ = m.learn[1](m.state, m.hyper, m.batch, progress, key)
    old_params, hyper = wide(m.state.params), wide(m.hyper)
    want = [oracle(wide(params), old_params, hyper, m.batch) for params in (m.state.params, new.params)]
    assert 0 < want[0]["clip_fraction"] < 1 and want[0]["loss"] != want[1]["loss"]
    for name in want[0]:
        np.testing.assert_allclose(first[name], want[0][name], rtol=2e-5, atol=2e-6, err_msg=name)
        np.testing.assert_allclose(both[name], (want[0][name] + want[1][name]) / 2, rtol=2e-4, atol=2e-5, err_msg=name)


def test_step_follows_the_gradient_of_the_loop(minibatch):
    """Central differences of the oracle in every parameter: their norm is the metric, Adam's first step their sign."""
    m = minibatch
    new, metrics, _ = m.learn[0](m.state, m.hyper, m.batch, jnp.zeros(()), jax.random.key(1))
    leaves, treedef = jax.tree.flatten(wide(m.state.params))
    hyper, base = wide(m.hyper), treedef.unflatten(leaves)
    gradient = [np.zeros_like(x) for x in leaves]
    for g, x in zip(gradient, leaves):
        for i in np.ndindex(x.shape):
            at, h = x[i], 1e-5
            x[i] = at + h
            up = oracle(base, wide(m.state.params), hyper, m.batch)["loss"]
            x[i] = at - h
            g[i] = (up - oracle(base, wide(m.state.params), hyper, m.batch)["loss"]) / (2 * h)
            x[i] = at
    np.testing.assert_allclose(metrics["grad_norm"], np.sqrt(sum((g**2).sum() for g in gradient)), rtol=1e-4)
    for g, before, after in zip(gradient, leaves, jax.tree.leaves(new.params)):
        np.testing.assert_allclose(after, before - 0.1 * g / (np.abs(g) + 1e-5), atol=2e-3)


# -------------------------------------------------------------------- probes


class Blind(Wrapper):
    """Takes a time limit for an end: the classical mistake."""

    def step(self, key, state, action, params):
        obs, state, reward, terminated, truncated, info = super().step(key, state, action, params)
        return obs, state, reward, terminated | truncated, jnp.zeros_like(truncated), info


class Fatal(Wrapper):
    """An illegal action pays NaN: one, ever, and the learner is not alive at the end."""

    def step(self, key, state, action, params):
        obs, state, reward, terminated, truncated, info = super().step(key, state, action, params)
        return obs, state, jnp.where(info["illegal"] > 0, jnp.nan, reward), terminated, truncated, info


def train(name, updates=100, wrap=lambda env: env, seed=0, env_settings=(), **settings):
    """-> (config, environment, runner, state, metrics of the last fifth of the updates)."""
    env, params = make(name, **dict(env_settings))
    env = wrap(env)
    config = ppo.Config(**{"num_envs": 16, "rollout_length": 16, "learning_rate": 0.01, "learning_rate_end": 0.02,
                           "entropy_weight": 0.0, "network": SMALL, **settings})
    runner = OnPolicy(ppo.make_agent(config, spec(env, params)), VectorEnv(env, config.num_envs), params,
                      config.rollout_length)
    advance = jax.jit(runner.advance)
    state = jax.jit(runner.init)(jax.random.key(seed), hypers(config), updates)
    kinds = jax.eval_shape(lambda state: state, state)
    state, _ = advance(state, updates - updates // 5)
    state, metrics = advance(state, updates // 5)
    assert jax.eval_shape(lambda state: state, state) == kinds and advance._cache_size() == 1 and state.alive
    return SimpleNamespace(config=config, env=env, runner=runner, state=state, metrics=metrics)


def values(trained, observations):
    """The critic's values of observations [n, d], and the policy's modes."""
    network = actor_critic(trained.config.network, spec(trained.env))
    inputs = Input(jnp.asarray(observations)[None], jnp.zeros((1, len(observations)), bool))
    policy, value = jax.jit(network.both)(trained.state.agent.params, (), inputs)
    return np.asarray(value[0]), np.asarray(policy.mode()[0])


@pytest.mark.parametrize("name, continuous, tolerance", [
    ("probe-observation", False, 0.05), ("probe-discount", False, 0.05), ("probe-both", False, 0.05),
    ("probe-both", True, 0.1)])
def test_probe(name, continuous, tolerance):
    trained = train(name, gamma=0.5, env_settings={"continuous": continuous}, lam=0.9,
                    network=dataclasses.replace(SMALL, log_std=-1.0))
    probe = trained.env.unwrapped
    value, action = values(trained, probe.observations)
    np.testing.assert_allclose(value, probe.values(0.5), atol=tolerance)
    if probe.best_actions is not None:
        np.testing.assert_allclose(action, probe.best_actions, atol=0.15)


def test_several_choices():
    assert train("probe-multidiscrete", 150).metrics["return_mean"] > 0.95


def test_masked_bandit():
    """Its observation tells nothing: what beats the blind policy came through the mask.

    No illegal action, ever: `train` asserts that the learner is alive.
    """
    trained = train("masked-bandit", wrap=Fatal)
    mean, env = trained.metrics["return_mean"] / trained.env.time_limit, trained.env.unwrapped
    assert 0.97 * env.optimal_reward < mean < 1.03 * env.optimal_reward


TRUNCATION = {"gamma": 0.98, "lam": 0.95, "learning_rate": 0.1, "clip_value": False, "updates": 150}


def test_bootstraps_through_a_time_limit():
    value, _ = values(train("probe-truncation", **TRUNCATION), [[0.0]])
    assert abs(value[0] - 50.0) <= 2.5


def test_the_truncation_probe_catches_the_classical_mistake():
    """Who takes the cut for an end finds the V that makes the mean GAE zero: far from 50, below 7.46."""
    value, _ = values(train("probe-truncation", wrap=Blind, **TRUNCATION), [[0.0]])
    one, last = np.ones((8, 1)), np.arange(8)[:, None] == 7
    mean = lambda v: reference.gae(one, v * one, v * one, last, ~last & False, 0.98, 0.95).mean()
    wrong = mean(0.0) / (mean(0.0) - mean(1.0))
    np.testing.assert_allclose(value[0], wrong, rtol=0.02)
    assert wrong < (1 - 0.98**8) / (1 - 0.98)


# -------------------------------------------------------------------- exact ratios


@pytest.fixture(scope="module")
def pendulum():
    """A continuous policy with both normalisers, some updates old; `learn` in one epoch of one minibatch."""
    return train("pendulum", 5, epochs=1, minibatches=1, gamma=0.9, normalize_observation=True, normalize_reward=True,
                 env_settings={"time_limit": 20})


def test_statistics_are_frozen_in_the_rollout_and_merged_after_it(pendulum):
    """Then the ratio of the first minibatch is 1, though the statistics never stop moving."""
    runner, state = pendulum.runner, pendulum.state
    batch = jax.jit(runner.rollout)(state, jnp.zeros(()), jax.random.key(1))[2]
    new, metrics, _ = jax.jit(runner.agent.learn)(state.agent, state.hyper, batch, jnp.zeros(()), jax.random.key(2))
    assert abs(metrics["approx_kl"]) < 1e-9 and metrics["clip_fraction"] == 0.0

    items = batch.reward.size
    old, moments = state.agent.observation, new.observation
    assert old.count == 5 * items and moments.count == 6 * items == new.reward.returns.count
    obs = np.asarray(batch.input.obs, np.float64).reshape(items, -1)
    mean = (5 * np.asarray(old.mean, np.float64) + obs.mean(0)) / 6
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-5, atol=1e-6)
    second = (5 * (np.asarray(old.variance) + np.asarray(old.mean, np.float64)**2) + (obs**2).mean(0)) / 6
    np.testing.assert_allclose(moments.variance, second - mean**2, rtol=1e-4)
    assert np.any(moments.mean != old.mean)


def test_actions_of_a_box_are_clipped_by_the_environment_alone(pendulum):
    batch = jax.jit(pendulum.runner.rollout)(pendulum.state, jnp.zeros(()), jax.random.key(1))[2]
    assert np.abs(batch.action).max() > 2.0                    # the log-probability is of the action that was drawn
