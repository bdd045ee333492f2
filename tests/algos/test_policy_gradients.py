"""A2C and PG: loss and step against a loop in NumPy, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos import a2c, pg
from tests import reference
from tests.algos.helpers import SMALL, flat, forward, made_up, slopes, wide

RATE = 0.1
SETTINGS = {"network": SMALL, "learning_rate": RATE, "learning_rate_end": 1.0}


def advantages(algo, params, hyper, batch):
    """(advantage, value target) [T, B], from the paper: n-step (Mnih et al.

    2016) or reward to go (Williams 1992).
    """
    shape = batch.reward.shape
    value, following = (
        forward(params, flat(x.obs))[1].reshape(shape) for x in (batch.input, batch.final_input)
    )
    if algo is a2c:
        advantage = reference.gae(
            batch.reward,
            value,
            following,
            batch.terminated,
            batch.truncated,
            hyper.gamma,
            hyper.lam,
        )
        return advantage, advantage + value
    returns = reference.n_step_returns(
        batch.reward, following, batch.terminated, batch.truncated, hyper.gamma, len(batch.reward)
    )
    advantage = returns - value
    return (advantage - advantage.mean()) / advantage.std(), returns


def oracle(params, fixed, hyper, batch):
    """Every metric of the loss; `fixed`: (advantage, target), which the gradient does not see."""
    advantage, target = map(flat, fixed)
    logits, value = forward(params, flat(batch.input.obs))
    rows = []
    for i, (action, mask) in enumerate(zip(flat(batch.action), flat(batch.input.mask))):
        p, entropy = reference.categorical(logits[i], mask)
        rows.append((-np.log(p[action]) * advantage[i], 0.5 * (value[i] - target[i]) ** 2, entropy))
    means = dict(zip(("policy_loss", "value_loss", "entropy"), np.mean(rows, axis=0)))
    loss = (
        means["policy_loss"]
        + hyper.value_weight * means["value_loss"]
        - hyper.entropy_weight * means["entropy"]
    )
    return means | {"loss": loss}


def first_step(algo, gradient):
    """RMSprop from 0 with decay .99 and epsilon inside the root; Adam's first step."""
    if algo is a2c:
        return RATE * gradient / np.sqrt(0.01 * gradient**2 + 1e-5)
    return RATE * gradient / (np.abs(gradient) + 1e-5)


@pytest.mark.parametrize("algo", [a2c, pg], ids=["a2c", "pg"])
def test_a_step_is_the_loop(algo):
    m = made_up(algo.make_agent, algo.Config(**SETTINGS))
    new, metrics, _ = m.learn[0](m.state, m.hyper, m.batch, jnp.zeros(()), jax.random.key(1))
    old = wide(m.state.params)
    hyper = wide(m.hyper)
    fixed = advantages(algo, old, hyper, m.batch)
    want = oracle(old, fixed, hyper, m.batch)
    for name in want:
        np.testing.assert_allclose(metrics[name], want[name], rtol=2e-5, atol=2e-6, err_msg=name)
    gradient = slopes(lambda params: oracle(params, fixed, hyper, m.batch)["loss"], m.state.params)
    np.testing.assert_allclose(
        metrics["grad_norm"], np.sqrt(sum((g**2).sum() for g in gradient)), rtol=1e-4
    )
    for g, before, after in zip(gradient, jax.tree.leaves(old), jax.tree.leaves(new.params)):
        np.testing.assert_allclose(after, before - first_step(algo, g), atol=2e-3)
