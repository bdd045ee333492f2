"""Evolution strategies of the package evosax (Lange 2022, arXiv:2212.04180), on the driver of `es`.

CMA_ES: Hansen and Ostermeier 2001; Hansen 2016, arXiv:1604.00772. For the others see the package.

repeat: theta_1 ... theta_n from the strategy's distribution; F of each, over one or several
episodes
  the strategy's state <- its update from theta_1 ... theta_n and -F, which it minimizes

The candidates of a generation follow from its number and the state, so any process that holds the
state can make them. Each block draws the whole generation and takes its own part: drawing is cheap
beside playing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxrl.blocks.evolution import Actor, CandidatesConfig, acting_of, finite_fitness, reported
from jaxrl.blocks.networks.actor_critic import NetworkConfig
from jaxrl.declare import defaults, hyper, log_range, nested, static
from jaxrl.types import Algorithm, EnvSpec, Metrics, Strategy

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

STRATEGIES = ("CMA_ES", "Sep_CMA_ES", "MA_ES", "Rm_ES", "xNES", "SNES", "CR_FM_NES", "PGPE",
              "SimpleES")


@dataclass(frozen=True)
class Config(defaults(CandidatesConfig, population=32)):
    """Settings.

    The default policy is linear: the time of CMA-ES grows with the cube of the number of
    parameters.
    """

    strategy: str = static("CMA_ES", choices=STRATEGIES, help="name of the strategy in evosax")
    sigma: float = hyper(
        0.1, low=1e-6, high=100.0, search=log_range(0.01, 1.0),
        help="standard deviation of candidates in the first generation")
    network: NetworkConfig = nested(NetworkConfig, hidden=())

    def problems(self, spec: EnvSpec) -> list[str]:
        """Return one message for each incompatible setting."""
        found = super().problems(spec)
        if importlib.util.find_spec("evosax") is None:
            found.append("evosax is not installed: pip install 'jaxrl[evosax]'. Try: es")
        return found


class State(NamedTuple):
    """The AgentState."""

    params: Any               # of the policy: the center of the candidates
    evolution: Any            # of evosax
    observation: Any          # running moments, () when off
    key: jax.Array
    generation: jax.Array     # int32


def make_strategy(config: Config, spec: EnvSpec) -> Strategy:
    """Return the strategy for environments that match `spec`."""
    from evosax import algorithms

    acting = acting_of(config, spec)
    shapes = jax.eval_shape(acting.init, jax.random.key(0))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    make = getattr(algorithms, config.strategy)
    evolution = make(population_size=config.population, solution=zeros)

    def call(method: Callable, hyper: Any, *args: Any) -> Any:
        """Call a method of evosax, whose own arithmetic promotes ranks."""
        with jax.numpy_rank_promotion("allow"):
            return method(*args, evolution.default_params.replace(std_init=hyper.sigma))

    def init(key: PRNGKeyArray, hyper: Any) -> State:
        network_key, start_key, key = jax.random.split(key, 3)
        params = acting.init(network_key)
        state = call(evolution.init, hyper, start_key, params)
        # Python's numbers become arrays, too
        strong = jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(x).dtype), state)
        return State(params, strong, acting.moments(), key, jnp.zeros((), jnp.int32))

    def actor(state: State) -> Actor:
        return Actor(state.params, state.observation)

    def candidates(state: State, hyper: Any) -> tuple[Any, Any]:
        """Return (params [n, ...] of all candidates, the strategy's state after drawing them)."""
        key = jax.random.fold_in(state.key, 2 * state.generation)
        return call(evolution.ask, hyper, key, state.evolution)

    def ask(state: State, hyper: Any, ids: Int[Array, " n"]) -> Actor:
        population, _ = candidates(state, hyper)
        return Actor(jax.tree.map(lambda x: x[ids], population), state.observation)

    def tell(state: State, hyper: Any, ids: Int[Array, " n"], fitness: Float[Array, " n"],
             statistics: Any) -> tuple[State, Metrics]:
        key = jax.random.fold_in(state.key, 2 * state.generation + 1)
        population, drawn = candidates(state, hyper)
        new, _ = call(evolution.tell, hyper, key, population, -finite_fitness(fitness), drawn)
        new = jax.tree.map(lambda x, old: jnp.asarray(x, old.dtype), new, state.evolution)
        params = evolution.get_mean(new)
        metrics = reported(fitness, ravel_pytree(state.params)[0], ravel_pytree(params)[0])
        moments = acting.merge(state.observation, statistics)
        return State(params, new, moments, state.key, state.generation + 1), metrics

    return Strategy(init=init, actor=actor, carry=acting.carry, greedy=acting.greedy, ask=ask,
                    tell=tell, explore=acting.explore)


EVOSAX = Algorithm(Config, make_strategy, "evolution")
