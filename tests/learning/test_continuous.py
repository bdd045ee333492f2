"""DDPG, TD3 and SAC learn with their defaults or presets.

IQM over seeds, as in test_on_policy.py.
"""

import numpy as np
import pytest

import jaxrl
from jaxrl.evaluate import iqm
from tests.learning.cases import FULL_SEEDS, SLOW_SEEDS, marked

# (algorithm, environment, settings, the least IQM that passes); anchors in docs/benchmarks.md
REACHED = {
    "ddpg-pendulum": ("ddpg", "pendulum", {"total_steps": 20_000}, -180.0),
    "td3-pendulum": ("td3", "pendulum", {"total_steps": 20_000}, -180.0),
    "sac-pendulum": ("sac", "pendulum", {"total_steps": 20_000}, -175.0),
}
LONGER = {
    "sac-mountaincar": ("sac", "mountaincar-continuous", {}, 90.0),
    "sac-cartpole": ("sac", "cartpole", {}, 350.0),
}


@pytest.mark.parametrize("case", marked(REACHED, LONGER))
def test_reaches(case, tmp_path):
    algo, env, settings, least = (REACHED | LONGER)[case]
    seeds = SLOW_SEEDS if case in REACHED else FULL_SEEDS
    run = jaxrl.train(
        algo, env, num_seeds=seeds, eval_every=10**9, out=str(tmp_path / "run"), **settings
    )
    returns = run.evaluate(64).mean(axis=1)
    assert iqm(returns) >= least, np.round(returns, 1)
