"""Every policy-gradient algorithm of the table against values known in closed form.

Does it see the reward, the observation, the discount, the action, the mask, and what a time limit
is?
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.wrappers import Wrapper
from jaxrl.blocks.policy_gradient import PolicyGradientConfig
from jaxrl.registry import algorithm, algorithms
from tests import reference
from tests.algos.helpers import SMALL, train, values

POLICY_GRADIENTS = [
    name for name in algorithms() if issubclass(algorithm(name).config, PolicyGradientConfig)
]
COMMON = {
    "num_envs": 16,
    "rollout_length": 16,
    "learning_rate": 0.01,
    "learning_rate_end": 0.02,
    "lam": 0.9,
    "entropy_weight": 0.0,
    "network": SMALL,
}
# an algorithm without a line here fails
OWN = {"ppo": {}, "a2c": {"updates": 400}, "pg": {"updates": 400}}


class Blind(Wrapper):
    """Takes a time limit for an end: the classical mistake."""

    def step(self, key, state, action, params):
        obs, state, reward, terminated, truncated, info = super().step(key, state, action, params)
        return obs, state, reward, terminated | truncated, jnp.zeros_like(truncated), info


class Fatal(Wrapper):
    """An illegal action pays NaN: one, ever, and the learner is not alive at the end."""

    def step(self, key, state, action, params):
        obs, state, reward, terminated, truncated, info = super().step(key, state, action, params)
        return (
            obs,
            state,
            jnp.where(info["illegal"] > 0, jnp.nan, reward),
            terminated,
            truncated,
            info,
        )


@pytest.fixture(params=POLICY_GRADIENTS)
def algo(request):
    return request.param


def trained(algo, name, **settings):
    return train(algorithm(algo), name, **{**COMMON, **OWN[algo], **settings})


@pytest.mark.parametrize(
    "name, continuous, tolerance",
    [
        ("probe-observation", False, 0.05),
        ("probe-discount", False, 0.05),
        ("probe-both", False, 0.05),
        ("probe-both", True, 0.1),
    ],
)
def test_probe(algo, name, continuous, tolerance):
    learner = trained(algo, name, gamma=0.5, env_settings={"continuous": continuous},
                      network=dataclasses.replace(SMALL, log_std=-1.0))
    probe = learner.env.unwrapped
    value, action = values(learner, probe.observations)
    np.testing.assert_allclose(value, probe.values(0.5), atol=tolerance)
    if probe.best_actions is not None:
        np.testing.assert_allclose(action, probe.best_actions, atol=0.15)


def test_several_choices(algo):
    assert trained(algo, "probe-multidiscrete", updates=400).metrics["return_mean"] > 0.95


def test_masked_bandit(algo):
    """Its observation tells nothing: what beats the blind policy came through the mask.

    No illegal action, ever: `train` asserts that the learner is alive.
    """
    learner = trained(algo, "masked-bandit", wrap=Fatal)
    mean = learner.metrics["return_mean"] / learner.env.time_limit
    env = learner.env.unwrapped
    assert 0.97 * env.optimal_reward < mean < 1.03 * env.optimal_reward


TRUNCATION = {"gamma": 0.98, "lam": 0.95, "learning_rate": 0.1, "clip_value": False}
CUT = {
    "ppo": {"updates": 150},
    "a2c": {"updates": 1000, "max_grad_norm": 10.0},
    "pg": {"updates": 1000},
}


def test_bootstraps_through_a_time_limit(algo):
    value, _ = values(trained(algo, "probe-truncation", **TRUNCATION | CUT[algo]), [[0.0]])
    assert abs(value[0] - 50.0) <= 2.5


def test_the_truncation_probe_catches_the_classical_mistake():
    """A learner that takes the cut for an end finds the V that makes the mean GAE zero.

    Far from 50, below 7.46.
    """
    value, _ = values(
        trained("ppo", "probe-truncation", wrap=Blind, **TRUNCATION | CUT["ppo"]), [[0.0]]
    )
    one = np.ones((8, 1))
    last = np.arange(8)[:, None] == 7

    def mean(v):
        return reference.gae(one, v * one, v * one, last, ~last & False, 0.98, 0.95).mean()

    wrong = mean(0.0) / (mean(0.0) - mean(1.0))
    np.testing.assert_allclose(value[0], wrong, rtol=0.02)
    assert wrong < (1 - 0.98**8) / (1 - 0.98)
