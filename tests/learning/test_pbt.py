"""PBT: exploiting helps.

A population most of whose learning rates are useless, with and without it.
"""

import numpy as np
import pytest

import jaxrl
from jaxrl.declare import Range
from jaxrl.evaluate import iqm

pytestmark = pytest.mark.slow
# only between 1e-4 and 1e-2 is anything learned
RATES = {"algo.learning_rate": Range(1e-7, 1.0, True)}


def population(tmp_path, exploit, seed):
    """Mean greedy return of every member at the end."""
    run = jaxrl.pbt(
        "ppo",
        "cartpole",
        population=8,
        interval=10_000,
        total_steps=150_000,
        exploit=exploit,
        seed=seed,
        eval_episodes=32,
        out=str(tmp_path / f"{exploit}-{seed}"),
        checkpoint_every=150_000,
        **RATES,
    )
    return run.returns.mean(axis=1)


def test_pbt_finds_the_learning_rate(tmp_path):
    """IQM over the members of 3 populations."""
    found = np.concatenate([population(tmp_path, "truncation", seed) for seed in range(3)])
    alone = np.concatenate([population(tmp_path, "none", seed) for seed in range(3)])
    assert iqm(found) >= 475.0 and iqm(alone) < 400.0, (np.round(found), np.round(alone))
