"""Tests of the bridge to Gymnasium with Stable-Baselines3.

It depends on PyTorch, so it is not a dependency, not even of the tests:

    pip install stable-baselines3 && pytest -m slow tests/envs_jax/test_bridges_sb3.py
"""

import warnings

import gymnasium
import numpy as np
import pytest

import envs_jax

pytest.importorskip("stable_baselines3")

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["cartpole", "mountaincar-continuous", "probe-multidiscrete", "frozenlake"]
)
def test_its_checker_finds_nothing_wrong(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(envs_jax.to_gymnasium(name))


def test_a_time_limit_reaches_it_as_one():
    """Its algorithms bootstrap from the flag of truncation and the last observation."""
    envs = DummyVecEnv([lambda: envs_jax.to_gymnasium("probe-truncation", time_limit=3)] * 2)
    envs.reset()
    for _ in range(3):
        _, _, dones, infos = envs.step([0, 1])
    assert dones.all()
    assert all(info["TimeLimit.truncated"] and "terminal_observation" in info for info in infos)


def test_its_ppo_learns_cartpole():
    """30,000 steps with default settings; the best return is 500, random actions reach 22."""
    torch.set_num_threads(1)
    env = Monitor(envs_jax.to_gymnasium("cartpole"))
    model = PPO("MlpPolicy", env, seed=0, device="cpu")
    before, _ = evaluate_policy(model, env, n_eval_episodes=10, deterministic=False)
    model.learn(30_000)
    ours, _ = evaluate_policy(model, env, n_eval_episodes=20)
    cartpole = Monitor(gymnasium.make("CartPole-v1"))
    reference, _ = evaluate_policy(model, cartpole, n_eval_episodes=20)
    print(f"before {before:.1f}, after {ours:.1f}, in Gymnasium's own CartPole {reference:.1f}")
    assert before < 50 and ours > 200
    assert np.isclose(ours, reference, rtol=0.35)              # the same dynamics
