"""What the shipped presets learn: IQM over 8 seeds of greedy evaluations of the final parameters, on fresh starts."""

import numpy as np
import pytest

import jaxrl
from jaxrl.evaluate import iqm

pytestmark = pytest.mark.slow
EPISODES = 64

# (environment, settings beside the preset, the least IQM that passes); anchors in docs/benchmarks.md
REACHED = {
    "cartpole": ("cartpole", {"total_steps": 150_000}, 475.0),
    "cartpole-default": ("cartpole", {"preset": "none", "total_steps": 500_000}, 475.0),
    "pendulum": ("pendulum", {"total_steps": 300_000}, -220.0),
    "repeat-previous": ("repeat-previous", {}, 0.9 * 30.0),         # of 30: 32 steps, the first two pay nothing
}


def train(tmp_path, env, **settings):
    return jaxrl.train("ppo", env, num_seeds=8, eval_every=10**9, out=str(tmp_path / "run"), **settings)


@pytest.mark.parametrize("case", REACHED)
def test_reaches(case, tmp_path):
    env, settings, least = REACHED[case]
    returns = train(tmp_path, env, **settings).evaluate(EPISODES).mean(axis=1)
    assert iqm(returns) >= least, np.round(returns, 1)


def test_memoryless_policies_stay_at_chance(tmp_path):
    """The control of repeat-previous: what the recurrent network gains is memory."""
    run = train(tmp_path, "repeat-previous", **{"algo.network.recurrent": "none"})
    assert iqm(run.evaluate(EPISODES).mean(axis=1)) == pytest.approx(7.5, abs=1.0)
