"""An evolution strategy over the parameters of a PPO actor. Salimans et al.

2017, arXiv:1703.03864, algorithm 2.

Nothing but ids and fitness would travel: the noise of an id follows from the key of the run, the
generation and the id.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from algos import ppo
from envs_jax import make
from envs_jax.core import spec
from jaxrl.blocks.networks.actor_critic import NetworkConfig
from jaxrl.blocks.optim import adam
from jaxrl.declare import hypers
from jaxrl.evaluate import make_evaluate
from jaxrl.types import Strategy

POPULATION = 32
GENERATIONS = 25
LIMIT = 100


class Hyper(NamedTuple):
    learning_rate: jax.Array
    sigma: jax.Array


class State(NamedTuple):
    center: Any              # an Actor: what is perturbed are its params
    optimizer: optax.OptState
    key: jax.Array
    generation: jax.Array


def centered_ranks(fitness):
    """Ranks of all as numbers from -0.5 to 0.5, ties by their order."""
    return jnp.argsort(jnp.argsort(fitness)) / (fitness.shape[0] - 1) - 0.5


def open_es(agent, new_actor):
    """new_actor (key) -> Actor of `agent`, a NamedTuple with the field `params`."""

    def noise(state, ids, size):
        """[n, size]: ids 2k and 2k + 1 are one direction and its opposite."""
        key = jax.random.fold_in(state.key, state.generation)

        def draw(pair):
            return jax.random.normal(jax.random.fold_in(key, pair), (size,))

        return jnp.where(ids % 2 == 0, 1.0, -1.0)[:, None] * jax.vmap(draw)(ids // 2)

    def init(key, hyper):
        key, actor_key = jax.random.split(key)
        center = new_actor(actor_key)
        optimizer = adam(hyper.learning_rate, max_grad_norm=jnp.inf).init(center.params)
        return State(center, optimizer, key, jnp.zeros((), jnp.int32))

    def ask(state, hyper, ids):
        theta, unravel = ravel_pytree(state.center.params)
        perturbed = theta[None] + hyper.sigma * noise(state, ids, theta.size)
        params = jax.vmap(unravel)(perturbed)
        rest = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (len(ids), *x.shape)), state.center._replace(params=())
        )
        return rest._replace(params=params)

    def tell(state, hyper, ids, fitness, statistics):
        theta, unravel = ravel_pytree(state.center.params)
        gradient = centered_ranks(fitness) @ noise(state, ids, theta.size) / len(ids)
        optimize = adam(hyper.learning_rate, max_grad_norm=jnp.inf)
        update, optimizer = optimize.update(unravel(-gradient), state.optimizer)
        center = state.center._replace(params=optax.apply_updates(state.center.params, update))
        metrics = {"fitness": fitness.mean(), "gradient_norm": jnp.linalg.norm(gradient)}
        return State(center, optimizer, state.key, state.generation + 1), metrics

    return Strategy(init, lambda state: state.center, agent.carry, agent.greedy, ask, tell)


@pytest.fixture(scope="module")
def problem():
    """(strategy, hyper, a fresh state, evaluate(actor, key) -> returns) of CartPole cut at LIMIT
    steps.
    """
    env, params = make("cartpole", time_limit=LIMIT)
    config = ppo.Config(network=NetworkConfig(hidden=(8,)))
    agent = ppo.make_agent(config, spec(env, params))
    strategy = open_es(agent, lambda key: agent.actor(agent.init(key, hypers(config))))
    evaluate = make_evaluate(strategy, env, params, episodes=4)
    hyper = Hyper(learning_rate=jnp.float32(0.05), sigma=jnp.float32(0.2))
    return strategy, hyper, jax.jit(strategy.init)(jax.random.key(0), hyper), evaluate


def test_learns_cartpole(problem):
    strategy, hyper, start, evaluate = problem
    ids = jnp.arange(POPULATION, dtype=jnp.int32)

    @jax.jit
    def train(key):
        def generation(state, key):
            fitness = jax.vmap(evaluate, (0, None))(strategy.ask(state, hyper, ids), key).mean(
                axis=-1
            )
            return strategy.tell(state, hyper, ids, fitness, ())

        run_key, last_key = jax.random.split(key)
        last, metrics = jax.lax.scan(generation, start, jax.random.split(run_key, GENERATIONS))
        return evaluate(strategy.actor(last), last_key), metrics

    last, metrics = train(jax.random.key(1))
    assert metrics["fitness"][0] < 0.5 * LIMIT and np.mean(last) > 0.95 * LIMIT


def test_blocks_of_ids_give_the_same_actors_however_they_are_cut(problem):
    strategy, hyper, state, _ = problem
    state = state._replace(generation=jnp.int32(7))
    ids = np.arange(12, dtype=np.int32)
    ask = jax.jit(strategy.ask)
    whole = ask(state, hyper, ids)
    for block in (1, 4, 6):
        parts = [ask(state, hyper, ids[i:i + block]) for i in range(0, 12, block)]
        jax.tree.map(
            lambda x, *y: np.testing.assert_array_equal(x, np.concatenate(y)), whole, *parts
        )
    other = ask(state._replace(generation=jnp.int32(8)), hyper, ids)
    assert all(np.all(a != b) for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(other)))


def test_tell_is_the_paper_s_estimator(problem):
    """Mirrored noise, the ranks of ALL returns, sum of rank times noise over 2n without the 1 /
    sigma.
    """
    strategy, hyper, state, _ = problem
    ids = np.arange(6, dtype=np.int32)

    def flat(actors):
        return np.concatenate([np.reshape(x, (6, -1)) for x in jax.tree.leaves(actors)], axis=1)

    center = jax.tree.map(lambda x: np.stack([x] * 6), state.center)
    noise = (flat(jax.jit(strategy.ask)(state, hyper, ids)) - flat(center)) / hyper.sigma
    np.testing.assert_allclose(noise[::2], -noise[1::2], atol=1e-5)

    ranks = np.array([-0.1, -0.3, 0.5, -0.5, 0.1, 0.3])
    _, metrics = jax.jit(strategy.tell)(
        state, hyper, ids, jnp.array([3.0, 1.0, 10.0, -2.0, 4.0, 5.0]), ()
    )
    np.testing.assert_allclose(
        metrics["gradient_norm"], np.linalg.norm(ranks @ noise / 6), rtol=1e-4
    )
