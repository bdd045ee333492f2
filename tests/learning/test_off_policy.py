"""The presets of methods with a replay learn.

IQM over seeds, as in test_on_policy.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.blocks.networks.q_networks import q_network
from jaxrl.evaluate import iqm
from jaxrl.types import Input
from tests.learning.cases import FULL_SEEDS, SLOW_SEEDS, marked

# (algorithm, environment, the least IQM that passes); anchors in docs/benchmarks.md
REACHED = {
    "dqn-cartpole": ("dqn", "cartpole", 475.0),
    "dqn-acrobot": ("dqn", "acrobot", -95.0),
    "dqn-mountaincar": ("dqn", "mountaincar", -120.0),
    "c51-cartpole": ("c51", "cartpole", 440.0),
    "qrdqn-cartpole": ("qrdqn", "cartpole", 460.0),
}
LONGER = {
    "iqn-cartpole": ("iqn", "cartpole", 440.0),
    "rainbow-cartpole": ("rainbow", "cartpole", 450.0),
}


@pytest.mark.parametrize("case", marked(REACHED, LONGER))
def test_reaches(case, tmp_path):
    algo, env, least = (REACHED | LONGER)[case]
    seeds = SLOW_SEEDS if case in REACHED else FULL_SEEDS
    run = jaxrl.train(algo, env, num_seeds=seeds, eval_every=10**9, out=str(tmp_path / "run"))
    returns = run.evaluate(64).mean(axis=1)
    assert iqm(returns) >= least, np.round(returns, 1)


@pytest.mark.parametrize("algo", marked(["ppo"], ["dqn"]))
def test_candidates_are_scored_by_their_features(algo, tmp_path):
    """Ten slots that mean something else in every step.

    An illegal one, ever, would cost more than can be earned.
    """
    run = jaxrl.train(
        algo,
        "cartpole-candidates",
        num_seeds=5,
        eval_every=10**9,
        total_steps=150_000,
        out=str(tmp_path / "run"),
        **{"env.params.penalty": 1e6},
    )
    returns = run.evaluate(64)
    assert iqm(returns.mean(axis=1)) >= 300.0, np.round(returns.mean(axis=1), 1)
    # NaN where no episode ended
    seen = np.array([row["return_mean"] for row in run.metrics()], float)
    assert returns.min() > 0 and np.nanmin(seen) > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_random_mdp(seed, tmp_path):
    """Through a time limit that truncates.

    The greedy policy is within 3 % of the best, Q within 5 % of the solve.
    """
    run = jaxrl.train(
        "dqn",
        "random-mdp",
        num_seeds=5,
        eval_every=10**9,
        total_steps=60_000,
        out=str(tmp_path / "run"),
        **{
            "env.params.seed": seed,
            "algo.gamma": 0.9,
            "algo.epsilon_end": 0.5,
            "algo.learning_rate_end": 0.05,
        },
    )
    learner, state = run.restore()
    env = learner.env.unwrapped
    network = q_network(run.config.agent.network, learner.spec)
    S = 6
    inputs = Input(jnp.arange(S)[None], jnp.zeros((1, S), bool))
    q = np.asarray(
        jax.vmap(lambda params: network.values(params, (), inputs)[0][0])(state.params), np.float64
    )
    best = env.optimal_values(0.9)
    greedy = [env.start @ env.policy_values(row.argmax(-1), 0.9) / (env.start @ best) for row in q]
    assert iqm(greedy) >= 0.97, np.round(greedy, 4)
    exact = env.rewards + 0.9 * env.transitions @ best
    error = np.abs(q - exact).max(axis=(1, 2)) / np.abs(exact).max()
    assert iqm(error) <= 0.05, np.round(error, 4)
