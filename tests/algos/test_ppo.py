"""PPO: its loss against a loop in NumPy, and exact first ratios.

What it learns on probes: test_probes.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos import ppo
from tests import reference
from tests.algos.helpers import SMALL, flat, forward, made_up, slopes, train, wide

# -------------------------------------------------------------------- against a loop


def oracle(params, old_params, hyper, batch):
    """Every metric of the loss of one rollout [T, B] as one minibatch, item by item in float64."""
    shape = batch.reward.shape
    _, old_value = forward(old_params, flat(batch.input.obs))
    _, next_value = forward(old_params, flat(batch.final_input.obs))
    advantage = reference.gae(
        batch.reward,
        old_value.reshape(shape),
        next_value.reshape(shape),
        batch.terminated,
        batch.truncated,
        hyper.gamma,
        hyper.lam,
    ).reshape(-1)
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
        rows.append(
            (policy_loss, value_loss, entropy, ratio - 1 - log_ratio, abs(ratio - 1) > hyper.clip)
        )
    means = dict(
        zip(
            ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction"),
            np.mean(rows, axis=0),
        )
    )
    loss = (
        means["policy_loss"]
        + hyper.value_weight * means["value_loss"]
        - hyper.entropy_weight * means["entropy"]
    )
    return means | {"loss": loss}


@pytest.fixture(scope="module")
def minibatch():
    """`learn` for 1 and for 2 epochs."""
    return made_up(
        ppo.make_agent,
        *(
            ppo.Config(epochs=epochs, minibatches=1, network=SMALL, learning_rate=0.1)
            for epochs in (1, 2)
        ),
    )


def test_loss_is_the_loop(minibatch):
    """Once with the parameters of the rollout, once with others.

    Where the clip of the value acts as well.
    """
    m = minibatch
    key = jax.random.key(1)
    progress = jnp.zeros(())
    new, first, _ = m.learn[0](m.state, m.hyper, m.batch, progress, key)
    _, both, _ = m.learn[1](m.state, m.hyper, m.batch, progress, key)
    old_params = wide(m.state.params)
    hyper = wide(m.hyper)
    want = [
        oracle(wide(params), old_params, hyper, m.batch) for params in (m.state.params, new.params)
    ]
    assert 0 < want[0]["clip_fraction"] < 1 and want[0]["loss"] != want[1]["loss"]
    for name in want[0]:
        np.testing.assert_allclose(first[name], want[0][name], rtol=2e-5, atol=2e-6, err_msg=name)
        np.testing.assert_allclose(
            both[name], (want[0][name] + want[1][name]) / 2, rtol=2e-4, atol=2e-5, err_msg=name
        )


def test_step_follows_the_gradient_of_the_loop(minibatch):
    """Central differences of the oracle in every parameter.

    Their norm is the metric, Adam's first step their sign.
    """
    m = minibatch
    new, metrics, _ = m.learn[0](m.state, m.hyper, m.batch, jnp.zeros(()), jax.random.key(1))
    old = wide(m.state.params)
    hyper = wide(m.hyper)
    gradient = slopes(lambda params: oracle(params, old, hyper, m.batch)["loss"], m.state.params)
    np.testing.assert_allclose(
        metrics["grad_norm"], np.sqrt(sum((g**2).sum() for g in gradient)), rtol=1e-4
    )
    for g, before, after in zip(gradient, jax.tree.leaves(old), jax.tree.leaves(new.params)):
        np.testing.assert_allclose(after, before - 0.1 * g / (np.abs(g) + 1e-5), atol=2e-3)


# -------------------------------------------------------------------- exact ratios


@pytest.fixture(scope="module")
def pendulum():
    """A continuous policy with both normalizers, some updates old.

    `learn` in one epoch of one minibatch.
    """
    return train(
        ppo.PPO,
        "pendulum",
        5,
        num_envs=16,
        rollout_length=16,
        learning_rate=0.01,
        entropy_weight=0.0,
        network=SMALL,
        epochs=1,
        minibatches=1,
        gamma=0.9,
        normalize_observation=True,
        normalize_reward=True,
        env_settings={"time_limit": 20},
    )


def test_statistics_are_frozen_in_the_rollout_and_merged_after_it(pendulum):
    """Then the ratio of the first minibatch is 1, though the statistics never stop moving."""
    runner = pendulum.runner
    state = pendulum.state
    batch = jax.jit(runner.rollout)(state, jnp.zeros(()), jax.random.key(1))[2]
    new, metrics, _ = jax.jit(runner.agent.learn)(
        state.agent, state.hyper, batch, jnp.zeros(()), jax.random.key(2)
    )
    assert abs(metrics["approx_kl"]) < 1e-9 and metrics["clip_fraction"] == 0.0

    items = batch.reward.size
    old = state.agent.observation
    moments = new.observation
    assert old.count == 5 * items and moments.count == 6 * items == new.reward.returns.count
    obs = np.asarray(batch.input.obs, np.float64).reshape(items, -1)
    mean = (5 * np.asarray(old.mean, np.float64) + obs.mean(0)) / 6
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-5, atol=1e-6)
    second = (
        5 * (np.asarray(old.variance) + np.asarray(old.mean, np.float64) ** 2) + (obs**2).mean(0)
    ) / 6
    np.testing.assert_allclose(moments.variance, second - mean**2, rtol=1e-4)
    assert np.any(moments.mean != old.mean)


def test_actions_of_a_box_are_clipped_by_the_environment_alone(pendulum):
    batch = jax.jit(pendulum.runner.rollout)(pendulum.state, jnp.zeros(()), jax.random.key(1))[2]
    # the log-probability is of the action that was drawn
    assert np.abs(batch.action).max() > 2.0
