"""Evolution strategies learn with their presets.

IQM over 5 seeds of the greedy return of the center. The seeds are not those that presets were
searched with.
"""

import numpy as np
import pytest

import jaxrl
from jaxrl.evaluate import iqm

# algorithm -> (candidates, generations, the least IQM that passes)
REACHED = {"es": (128, 60, 475.0), "ars": (16, 50, 500.0), "evosax": (32, 30, 475.0)}
FRESH = {"seed": 100, "num_seeds": 5, "eval_every": 10**9}


@pytest.mark.slow
@pytest.mark.parametrize("algo", REACHED)
def test_cartpole(algo, tmp_path):
    """500 steps an episode are planned, so as many a candidate are asked for."""
    population, generations, least = REACHED[algo]
    run = jaxrl.train(
        algo,
        "cartpole",
        total_steps=generations * population * 500,
        out=str(tmp_path / "run"),
        **FRESH,
    )
    assert run.config.agent.population == population
    returns = run.evaluate(64).mean(axis=1)
    assert iqm(returns) >= least, np.round(returns, 1)


@pytest.mark.full
def test_pendulum(tmp_path):
    """From short episodes, what they are worth in whole ones."""
    run = jaxrl.train("es", "pendulum", out=str(tmp_path / "run"), **FRESH)
    returns = run.evaluate(64).mean(axis=1)
    assert iqm(returns) >= -250.0, np.round(returns, 1)


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["es", "ars"])
def test_linear_quadratic_regulator(algo, tmp_path):
    """Within 5 % of the best control, by the exact worth of u = W x + b.

    The bias costs as much as it does from 0.
    """
    run = jaxrl.train(algo, "lqr", out=str(tmp_path / "run"), **FRESH)
    learner, state = run.restore()
    env = learner.env.unwrapped
    head = state.params["policy"]["params"]["head"]
    A, B, Q, R = (matrix.astype(np.float64) for matrix in env.system)
    worth = []
    for kernel, bias in zip(
        np.asarray(head["kernel"], np.float64), np.asarray(head["bias"], np.float64)
    ):
        x = np.zeros(2)
        cost = 0.0
        for _ in range(env.time_limit):
            u = x @ kernel + bias
            cost += x @ Q @ x + u @ R @ u
            x = A @ x + B @ u
        worth.append(env.linear_return(-kernel.T, env.time_limit) - cost)
    assert iqm(worth) >= 1.05 * env.optimal_return(env.time_limit), np.round(worth, 3)
