"""What the shipped presets of methods with a replay learn: IQM over 8 seeds, as in test_on_policy.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.blocks.networks import q_network
from jaxrl.evaluate import iqm
from jaxrl.types import Input

pytestmark = pytest.mark.slow

# (algorithm, environment, the least IQM that passes); anchors in docs/benchmarks.md
REACHED = {
    "dqn-cartpole": ("dqn", "cartpole", 475.0),
    "dqn-acrobot": ("dqn", "acrobot", -95.0),
    "dqn-mountaincar": ("dqn", "mountaincar", -120.0),
}


@pytest.mark.parametrize("case", REACHED)
def test_reaches(case, tmp_path):
    algo, env, least = REACHED[case]
    run = jaxrl.train(algo, env, num_seeds=8, eval_every=10**9, out=str(tmp_path / "run"))
    returns = run.evaluate(64).mean(axis=1)
    assert iqm(returns) >= least, np.round(returns, 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_random_mdp(seed, tmp_path):
    """Through a time limit that truncates: the greedy policy is within 3 % of the best, Q within 5 % of the solve."""
    run = jaxrl.train("dqn", "random-mdp", num_seeds=5, eval_every=10**9, total_steps=60_000, out=str(tmp_path / "run"),
                      **{"env.params.seed": seed, "algo.gamma": 0.9, "algo.epsilon_end": 0.5,
                         "algo.learning_rate_end": 0.05})
    learner, state = run.restore()
    env, network, S = learner.env.unwrapped, q_network(run.config.agent.network, learner.spec), 6
    inputs = Input(jnp.arange(S)[None], jnp.zeros((1, S), bool))
    q = np.asarray(jax.vmap(lambda params: network.values(params, (), inputs)[0][0])(state.params), np.float64)
    best = env.optimal_values(0.9)
    greedy = [env.start @ env.policy_values(row.argmax(-1), 0.9) / (env.start @ best) for row in q]
    assert iqm(greedy) >= 0.97, np.round(greedy, 4)
    exact = env.rewards + 0.9 * env.transitions @ best
    error = np.abs(q - exact).max(axis=(1, 2)) / np.abs(exact).max()
    assert iqm(error) <= 0.05, np.round(error, 4)
