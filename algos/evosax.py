"""Evolution strategies of the package evosax (Lange 2022, arXiv:2212.04180), by the driver of `es`.

CMA_ES: Hansen and Ostermeier 2001; Hansen 2016, arXiv:1604.00772. The others: see the package.

repeat: theta_1 ... theta_n from the strategy's distribution; F of each, an episode or several
  the strategy's state <- what it makes of them and of -F, which it minimises

The candidates of a generation follow from its number and the state, so that whoever holds the state can make them; a
block takes its own of them. So a generation is drawn once for every block, which is cheap beside playing it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxrl.blocks.evolution import Actor, CandidatesConfig, acting_of, finite_fitness, reported
from jaxrl.blocks.networks.actor_critic import NetworkConfig
from jaxrl.declare import defaults, hyper, log_range, nested, static
from jaxrl.types import Algorithm, EnvSpec, Strategy

STRATEGIES = ("CMA_ES", "Sep_CMA_ES", "MA_ES", "Rm_ES", "xNES", "SNES", "CR_FM_NES", "PGPE", "SimpleES")


@dataclass(frozen=True)
class Config(defaults(CandidatesConfig, population=32)):
    """Settings. The default policy is linear: CMA-ES takes the cube of the number of parameters."""

    strategy: str = static("CMA_ES", choices=STRATEGIES, help="the strategy, by its name in evosax")
    sigma: float = hyper(0.1, low=1e-6, high=100.0, search=log_range(0.01, 1.0), help="standard deviation of "
                                                                                      "candidates at the start")
    network: NetworkConfig = nested(NetworkConfig, hidden=())

    def problems(self, spec: EnvSpec) -> list[str]:
        """What does not fit together, in words."""
        found = super().problems(spec)
        if importlib.util.find_spec("evosax") is None:
            found.append("evosax is not installed: pip install 'jaxrl[evosax]'. Try: es")
        return found


class State(NamedTuple):
    """The AgentState."""

    params: Any               # of the policy: the centre of the candidates
    evolution: Any            # of evosax
    observation: Any          # running moments, () when off
    key: jax.Array
    generation: jax.Array     # int32


def make_strategy(config: Config, spec: EnvSpec) -> Strategy:
    """The strategy for environments like `spec`: pure functions over what varies."""
    from evosax import algorithms

    acting = acting_of(config, spec)
    like = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(acting.init, jax.random.key(0)))
    evolution = getattr(algorithms, config.strategy)(population_size=config.population, solution=like)

    def call(method, hyper, *args):
        """A method of evosax, whose own arithmetic promotes ranks."""
        with jax.numpy_rank_promotion("allow"):
            return method(*args, evolution.default_params.replace(std_init=hyper.sigma))

    def init(key, hyper):
        network_key, start_key, key = jax.random.split(key, 3)
        params = acting.init(network_key)
        state = call(evolution.init, hyper, start_key, params)
        strong = jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(x).dtype), state)     # Python's numbers, too
        return State(params, strong, acting.moments(), key, jnp.zeros((), jnp.int32))

    def actor(state):
        return Actor(state.params, state.observation)

    def candidates(state, hyper):
        """(params [n, ...] of all, the state after drawing them)"""
        return call(evolution.ask, hyper, jax.random.fold_in(state.key, 2 * state.generation), state.evolution)

    def ask(state, hyper, ids):
        return Actor(jax.tree.map(lambda x: x[ids], candidates(state, hyper)[0]), state.observation)

    def tell(state, hyper, ids, fitness, statistics):
        key, (population, drawn) = jax.random.fold_in(state.key, 2 * state.generation + 1), candidates(state, hyper)
        new, _ = call(evolution.tell, hyper, key, population, -finite_fitness(fitness), drawn)
        new = jax.tree.map(lambda x, old: jnp.asarray(x, old.dtype), new, state.evolution)
        params = evolution.get_mean(new)
        metrics = reported(fitness, ravel_pytree(state.params)[0], ravel_pytree(params)[0])
        moments = acting.seen(state.observation, statistics)
        return State(params, new, moments, state.key, state.generation + 1), metrics

    return Strategy(init, actor, acting.carry, acting.greedy, ask, tell, acting.explore)


EVOSAX = Algorithm(Config, make_strategy, "evolution")
