"""What evolution over the parameters of a policy shares: mirrored noise, ranks, and the strategy around an update rule.

Nothing large needs to travel: the noise of a candidate follows from the key of the run, the generation and its id, so
that whoever holds the parameters can make it, and can make the update from one fitness per id. Ids come in pairs: 2k
and 2k + 1 are a direction and its opposite (Brockhoff et al. 2010). An algorithm adds what its paper is about: what
each direction weighs (`weigh`) and what becomes of their sum (`climb`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxrl.blocks import normalize
from jaxrl.blocks.networks.actor_critic import NetworkConfig, actor_critic
from jaxrl.blocks.optim import global_norm
from jaxrl.declare import hyper, log_range, nested, static
from jaxrl.types import EnvSpec, Strategy

BLOCK = {"cpu": 128}      # candidates in a block, if not set: a step of all costs a few microseconds beside their work,
BIG_BLOCK = 1024          # and an accelerator needs more to be busy


@dataclass(frozen=True)
class CandidatesConfig:
    """Settings that all of them have; an algorithm gives defaults of its own (`declare.defaults`) and adds fields."""

    population: int = static(128, low=2, high=10**7, help="candidates of a generation, two for each direction")
    episodes: int = static(1, low=1, high=10**6, help="episodes of each candidate, whose mean return is its fitness")
    episode_steps: int | None = static(None, low=1, high=10**7, help="steps after which an episode is counted as it "
                                       "stands; null: the environment's own limit")
    block_size: int | None = static(None, low=2, high=10**7, help="candidates evaluated by one program, on one device; "
                                    "null: up to 128 on CPUs, 1,024 on accelerators, and at most half the population")
    normalize_observation: bool = static(False, help="by the mean and deviation of all that was seen in generations "
                                                     "before, clipped at 10")
    sample_actions: bool = static(False, help="candidates draw actions from their policy, instead of its mode")
    network: NetworkConfig = nested(NetworkConfig, hidden=(32,))

    def problems(self, spec: EnvSpec) -> list[str]:
        """What does not fit together, in words."""
        found = self.network.problems(spec)
        if self.population % 2:
            found.append(f"algo.population={self.population} is odd: candidates come in pairs")
        size = self.block_size
        if size is not None and (size % 2 or self.population % size):
            found.append(f"algo.block_size={size} is not an even divisor of algo.population={self.population}")
        if self.episode_steps is None and spec.max_steps is None:
            found.append("{env} has no time limit, so that an episode may never end. Try: algo.episode_steps=1000")
        if spec.agents is not None:
            found.append(f"{{algo}} controls one agent, {{env}} has {spec.agents}")
        if self.normalize_observation:
            found += normalize.problems(spec.observation)
        return found

    @property
    def size(self) -> int:
        """Candidates in a block. A run keeps what its first process has chosen (jaxrl/run/plan.py)."""
        return self.block_size or block_size(self.population, BLOCK.get(jax.default_backend(), BIG_BLOCK))


@dataclass(frozen=True)
class EvolutionConfig(CandidatesConfig):
    """Settings of those that take steps along mirrored noise."""

    learning_rate: float = hyper(0.01, low=0.0, high=10.0, search=log_range(1e-3, 0.3), help="step size")
    sigma: float = hyper(0.1, low=1e-6, high=100.0, search=log_range(0.01, 0.5), help="standard deviation of the noise "
                                                                                      "on parameters")


def block_size(population: int, most: int) -> int:
    """The largest even divisor of `population` up to `most` that leaves two blocks or more, if any does, for two
    devices. Never of how many there are: the bits of a run depend on it."""
    fits = [size for size in range(2, min(most, population // 2) + 1, 2) if population % size == 0]
    return fits[-1] if fits else population


class State(NamedTuple):
    """The AgentState."""

    params: Any               # of the policy: the centre of the candidates
    optimizer: Any
    observation: Any          # running moments, () when off
    key: jax.Array            # of the noise
    generation: jax.Array     # int32


class Actor(NamedTuple):
    """The part that acts."""

    params: Any
    observation: Any


# -------------------------------------------------------------------- fitness


def finite_fitness(fitness: jax.Array) -> jax.Array:
    """Fitness of any shape with what is not finite (a candidate diverged) as bad as the worst; all 0 if none is."""
    finite = jnp.isfinite(fitness)
    worst = jnp.min(jnp.where(finite, fitness, jnp.inf))
    return jnp.where(finite, fitness, jnp.where(finite.any(), worst, 0.0))


def centered_ranks(fitness: jax.Array) -> jax.Array:
    """Ranks of all entries, whatever the shape, from -0.5 (worst) to 0.5 (best). Salimans et al. 2017, section 2.

    Equal fitness has equal rank, the mean of its places: a pair that does equally well then tells nothing.
    """
    flat = fitness.reshape(-1)
    ordered = jnp.sort(flat)
    places = jnp.searchsorted(ordered, flat, side="left") + jnp.searchsorted(ordered, flat, side="right") - 1
    return (0.5 * places / (flat.size - 1) - 0.5).reshape(fitness.shape)


def best_directions(fitness: jax.Array, count: int) -> jax.Array:
    """[pairs] bool: the `count` directions with the best candidate, of fitness [pairs, 2]; ties by their order.
    Mania et al. 2018, algorithm 2, line 6."""
    order = jnp.argsort(-fitness.max(axis=1), stable=True)
    return jnp.zeros(len(fitness), bool).at[order[:count]].set(True)


# -------------------------------------------------------------------- noise


def directions(key: jax.Array, pairs: jax.Array, size: int) -> jax.Array:
    """The noise [len(pairs), size] of these pairs: the same whatever others it is drawn with."""
    draw = lambda pair: jax.random.normal(jax.random.fold_in(key, pair), (size,))
    return jax.vmap(draw)(pairs)


def combine(key: jax.Array, weights: jax.Array, size: int, chunk: int) -> jax.Array:
    """sum_k weights[k] direction_k [size], over chunks of so many pairs, so that they are never all in memory."""
    def add(total, part):
        pairs, weight = part
        return total + jnp.sum(weight[:, None] * directions(key, pairs, size), axis=0), None

    pairs = jnp.arange(len(weights), dtype=jnp.int32)
    return jax.lax.scan(add, jnp.zeros(size), jax.tree.map(lambda x: x.reshape(-1, chunk), (pairs, weights)))[0]


# -------------------------------------------------------------------- statistics


def merged(first: normalize.Moments, others: normalize.Moments) -> normalize.Moments:
    """`first`, then one after another the moments stacked in `others`: always in this order, which rounding sees."""
    return jax.lax.scan(lambda total, part: (normalize.merge(total, part), None), first, others)[0]


# -------------------------------------------------------------------- the strategy


class Acting(NamedTuple):
    """How the candidates of a config act: pure functions.

    init    (key) -> params of the policy
    moments () -> statistics of observations before the first, () when off
    seen    (moments, those of all blocks) -> moments
    carry, greedy, explore: as a Strategy's, of an `Actor`
    """

    init: Callable
    moments: Callable
    seen: Callable
    carry: Callable
    greedy: Callable
    explore: Callable


def acting_of(config: CandidatesConfig, spec: EnvSpec) -> Acting:
    """The policy network of a config, with observations normalised where it says so."""
    network = actor_critic(config.network, spec)

    def policy(actor, carry, inputs):
        inputs = network.reads(inputs)
        if config.normalize_observation:
            inputs = inputs._replace(obs=normalize.normalize(actor.observation, inputs.obs))
        choice, carry = network.policy(actor.params, carry, jax.tree.map(lambda x: x[None], inputs))
        return jax.tree.map(lambda x: x[0], choice), carry

    def greedy(actor, carry, inputs, key):
        choice, carry = policy(actor, carry, inputs)
        return choice.mode(), carry

    def explore(actor, hyper, carry, inputs, progress, key):
        choice, carry = policy(actor, carry, inputs)
        return choice.sample(key) if config.sample_actions else choice.mode(), carry, {}

    on = config.normalize_observation
    return Acting(lambda key: network.init(key)["actor"], lambda: normalize.init(spec.observation) if on else (),
                  lambda moments, others: merged(moments, others) if on else (), network.carry, greedy, explore)


def reported(fitness: jax.Array, theta: jax.Array, new: jax.Array) -> dict[str, jax.Array]:
    """Metrics of a step from the centre theta [n] to a new one."""
    known = finite_fitness(fitness)
    return {"fitness_mean": known.mean(), "fitness_max": known.max(), "fitness_std": known.std(),
            "diverged": jnp.mean(~jnp.isfinite(fitness), dtype=jnp.float32),
            "update_norm": global_norm(new - theta), "param_norm": global_norm(new)}


def mirrored(config: EvolutionConfig, spec: EnvSpec, *, weigh: Callable, optimizer: Callable, climb: Callable,
             adjust: Callable = lambda params: params) -> Strategy:
    """Evolution with mirrored noise over the policy network of a config.

    weigh      (fitness [pairs, 2], all finite) -> the weight [pairs] of each direction
    optimizer  (theta [n], hyper) -> its state
    climb      (theta, optimizer state, hyper, sum of weighted directions [n]) -> (theta, optimizer state)
    adjust     (params) -> params: other ones to start from
    """
    acting = acting_of(config, spec)

    def init(key, hyper):
        network_key, key = jax.random.split(key)
        params = adjust(acting.init(network_key))
        theta = ravel_pytree(params)[0]
        return State(params, optimizer(theta, hyper), acting.moments(), key, jnp.zeros((), jnp.int32))

    def actor(state):
        return Actor(state.params, state.observation)

    def noise_key(state):
        return jax.random.fold_in(state.key, state.generation)

    def ask(state, hyper, ids):
        theta, unravel = ravel_pytree(state.params)
        noise = hyper.sigma * directions(noise_key(state), ids[::2] // 2, theta.size)
        both = jnp.stack([theta[None] + noise, theta[None] - noise], axis=1).reshape(len(ids), theta.size)
        return Actor(jax.vmap(unravel)(both), state.observation)

    def tell(state, hyper, ids, fitness, statistics):
        theta, unravel = ravel_pytree(state.params)
        known = finite_fitness(fitness)
        weights = weigh(known.reshape(-1, 2))
        total = combine(noise_key(state), weights, theta.size, config.size // 2)
        new, opt = climb(theta, state.optimizer, hyper, total)
        moments = acting.seen(state.observation, statistics)
        return State(unravel(new), opt, moments, state.key, state.generation + 1), reported(fitness, theta, new)

    return Strategy(init, actor, acting.carry, acting.greedy, ask, tell, acting.explore)
