"""R2D2 and PQN learn with their presets, also a task that needs memory.

IQM over 8 seeds.
"""

import numpy as np
import pytest

import jaxrl
from jaxrl.evaluate import iqm

pytestmark = pytest.mark.slow


def returns(tmp_path, algo, env, total_steps, **settings):
    run = jaxrl.train(
        algo,
        env,
        num_seeds=8,
        eval_every=10**9,
        total_steps=total_steps,
        out=str(tmp_path / "run"),
        **settings,
    )
    return run.evaluate(64).mean(axis=1)


def test_r2d2_remembers_what_dqn_cannot(tmp_path):
    """The answer was last observed 7 steps earlier.

    Who does not remember is right in half of the episodes.
    """
    found = returns(tmp_path / "r2d2", "r2d2", "memory-chain", 50_000)
    assert iqm(found) >= 0.9, np.round(found, 2)
    found = returns(tmp_path / "dqn", "dqn", "memory-chain", 50_000)
    assert iqm(found) <= 0.2, np.round(found, 2)


def test_pqn_cartpole(tmp_path):
    found = returns(tmp_path, "pqn", "cartpole", 500_000)
    assert iqm(found) >= 450.0, np.round(found, 1)
