"""The presets of on-policy methods learn.

IQM over seeds of greedy evaluations of the final parameters, on fresh starts.
"""

import numpy as np
import pytest

import jaxrl
from jaxrl.evaluate import iqm
from tests.learning.cases import FULL_SEEDS, SLOW_SEEDS, marked

EPISODES = 64

# (algorithm, environment, settings beside the preset, the least IQM that passes); anchors in
# docs/benchmarks.md
REACHED = {
    "ppo-cartpole": ("ppo", "cartpole", {"total_steps": 150_000}, 475.0),
    "ppo-cartpole-default": ("ppo", "cartpole", {"preset": "none", "total_steps": 500_000}, 475.0),
    "ppo-pendulum": ("ppo", "pendulum", {"total_steps": 300_000}, -220.0),
    "ppo-acrobot": ("ppo", "acrobot", {"total_steps": 300_000}, -92.0),
    "ppo-mountaincar-continuous": ("ppo", "mountaincar-continuous", {"total_steps": 200_000}, 90.0),
    "ppo-tmaze": ("ppo", "tmaze", {"total_steps": 300_000}, 3.9),   # a memoryless policy: 1.95 of 4
    "a2c-cartpole": ("a2c", "cartpole", {"total_steps": 300_000}, 450.0),
    "pg-cartpole": ("pg", "cartpole", {"total_steps": 500_000}, 400.0),
    "bfloat16": (
        "ppo", "cartpole",
        {"total_steps": 150_000, "algo.network.compute_dtype": "bfloat16"}, 475.0),
}
LONGER = {
    # of 30: the first two steps pay nothing
    "ppo-repeat-previous": ("ppo", "repeat-previous", {}, 0.9 * 30.0),
    "ppo-breakout": ("ppo", "gymnax/Breakout-MinAtar", {"num_seeds": 5}, 8.0),
}


def train(tmp_path, algo, env, **settings):
    return jaxrl.train(algo, env, eval_every=10**9, out=str(tmp_path / "run"), **settings)


@pytest.mark.parametrize("case", marked(REACHED, LONGER))
def test_reaches(case, tmp_path):
    algo, env, settings, least = (REACHED | LONGER)[case]
    seeds = SLOW_SEEDS if case in REACHED else FULL_SEEDS
    run = train(tmp_path, algo, env, **{"num_seeds": seeds, **settings})
    returns = run.evaluate(EPISODES).mean(axis=1)
    assert iqm(returns) >= least, np.round(returns, 1)


@pytest.mark.full
@pytest.mark.parametrize("env, chance", [("repeat-previous", 7.5)])
def test_memoryless_policies_stay_at_chance(env, chance, tmp_path):
    """The control: what the recurrent network gains is memory."""
    settings = {"num_seeds": FULL_SEEDS, "algo.network.recurrent": "none"}
    run = train(tmp_path, "ppo", env, **settings)
    assert iqm(run.evaluate(EPISODES).mean(axis=1)) == pytest.approx(chance, abs=1.0)
