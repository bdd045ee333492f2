"""Against what is known exactly.

The greedy policy's worth and the value head, by linear algebra, not by episodes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.blocks.networks.actor_critic import actor_critic
from jaxrl.evaluate import iqm
from jaxrl.types import Input

pytestmark = pytest.mark.slow


def learned(tmp_path, algo, env, **settings):
    """-> (the environment, discount, greedy actions [seeds, S], policies [seeds, S, A], values
    [seeds, S]).
    """
    run = jaxrl.train(
        algo, env, eval_every=10**9, out=str(tmp_path / "run"), **{"num_seeds": 8, **settings}
    )
    learner, state = run.restore()
    network = actor_critic(run.config.agent.network, learner.spec)
    S = learner.spec.observation.n
    inputs = Input(jnp.arange(S)[None], jnp.zeros((1, S), bool))

    @jax.jit
    @jax.vmap
    def look(params):
        policy, value = network.both(params, (), inputs)
        return policy.mode()[0], jax.nn.softmax(policy.logits)[0], value[0]

    mode, policy, value = (np.asarray(x, np.float64) for x in look(state.params))
    return learner.env.unwrapped, run.config.agent.gamma, mode.astype(int), policy, value


def test_frozenlake(tmp_path):
    """The chance to reach the goal within the time limit, of 0.740 for the best policy that does
    not know the time.
    """
    env, _, mode, _, _ = learned(tmp_path, "ppo", "frozenlake")
    success = [env.expected_return(env.time_limit, policy) for policy in mode]
    assert iqm(success) >= 0.70, np.round(success, 3)


@pytest.mark.parametrize(
    "algo, settings",
    [
        ("ppo", {"env.params.seed": 0}),
        ("ppo", {"env.params.seed": 1}),
        ("ppo", {"env.params.seed": 2}),
        ("a2c", {"algo.gamma": 0.9}),
        ("pg", {"algo.gamma": 0.9}),
    ],
    ids=["ppo-0", "ppo-1", "ppo-2", "a2c", "pg"],
)
def test_random_mdp(algo, settings, tmp_path):
    """Through a time limit that truncates.

    The greedy policy is nearly the best, V that of the policy that acted.
    """
    settings = {"total_steps": 200_000, "num_seeds": 5, **settings}
    env, gamma, mode, policy, value = learned(tmp_path, algo, "random-mdp", **settings)
    best = env.start @ env.optimal_values(gamma)
    greedy = [env.start @ env.policy_values(actions, gamma) / best for actions in mode]
    assert best > 0 and iqm(greedy) >= 0.97, np.round(greedy, 4)
    exact = np.stack([env.policy_values(p, gamma) for p in policy])
    error = np.abs(value - exact).max(axis=1) / np.abs(exact).max(axis=1)
    assert iqm(error) <= 0.05, np.round(error, 4)
