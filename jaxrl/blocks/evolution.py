"""The shared parts of evolution over the parameters of a policy: mirrored noise, ranks, a strategy.

Nothing large needs to travel. The noise of a candidate follows from the key of the run, the
generation and its id, so any process that holds the parameters can make it, and can make the update
from one fitness per id. Ids come in pairs: 2k and 2k + 1 are a direction and its opposite
(Brockhoff et al. 2010). An algorithm adds what its paper is about: the weight of each direction
(`weigh`) and the step along their weighted sum (`step`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxrl.blocks import normalize
from jaxrl.blocks.networks.actor_critic import ActorCritic, NetworkConfig, actor_critic
from jaxrl.blocks.networks.distributions import Distribution
from jaxrl.blocks.optim import global_norm
from jaxrl.declare import hyper, log_range, nested, static
from jaxrl.types import EnvSpec, Input, Metrics, Strategy

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

# Default number of candidates in a block. On a CPU, a step of all candidates costs a few
# microseconds besides their work; an accelerator needs more of them to be busy.
BLOCK = {"cpu": 128}
BIG_BLOCK = 1024


@dataclass(frozen=True)
class CandidatesConfig:
    """Settings of all evolution strategies.

    An algorithm gives defaults of its own (`declare.defaults`) and adds fields.
    """

    population: int = static(
        128, low=2, high=10**7, help="candidates per generation, two for each direction")
    episodes: int = static(
        1, low=1, high=10**6, help="episodes per candidate, whose mean return is its fitness")
    episode_steps: int | None = static(
        None, low=1, high=10**7,
        help="longest episode in environment steps; longer ones are cut, and their return so far "
             "counts; null: the environment's own limit")
    block_size: int | None = static(
        None, low=2, high=10**7,
        help="candidates that one program evaluates on one device; null: up to 128 on CPUs, 1,024 "
             "on accelerators, and at most half the population")
    normalize_observation: bool = static(
        False, help="observations minus their mean, over their deviation, both of all earlier "
                    "generations, clipped at 10")
    sample_actions: bool = static(
        False, help="actions of candidates drawn from their policy; false: its mode")
    network: NetworkConfig = nested(NetworkConfig, hidden=(32,))

    def problems(self, spec: EnvSpec) -> list[str]:
        """Return one message for each incompatible setting."""
        found = self.network.problems(spec)
        if self.population % 2:
            found.append(f"algo.population={self.population} is odd: candidates come in pairs")
        size = self.block_size
        if size is not None and (size % 2 or self.population % size):
            found.append(f"algo.block_size={size} is not an even divisor of algo.population="
                         f"{self.population}")
        if self.episode_steps is None and spec.max_steps is None:
            found.append("{env} has no time limit, so that an episode may never end. "
                         "Try: algo.episode_steps=1000")
        if spec.agents is not None:
            found.append(f"{{algo}} controls one agent, {{env}} has {spec.agents}")
        if self.normalize_observation:
            found += normalize.problems(spec.observation)
        return found

    @property
    def size(self) -> int:
        """Candidates in a block. A run keeps what its first process chose (jaxrl/run/plan.py)."""
        most = BLOCK.get(jax.default_backend(), BIG_BLOCK)
        return self.block_size or block_size(self.population, most)


@dataclass(frozen=True)
class EvolutionConfig(CandidatesConfig):
    """Settings of strategies that take steps along mirrored noise."""

    learning_rate: float = hyper(
        0.01, low=0.0, high=10.0, search=log_range(1e-3, 0.3), help="step size of the update")
    sigma: float = hyper(
        0.1, low=1e-6, high=100.0, search=log_range(0.01, 0.5),
        help="standard deviation of the noise on parameters")


def block_size(population: int, most: int) -> int:
    """Return the largest even divisor of `population` up to `most` that leaves two blocks.

    If none leaves two blocks, return `population`. The result does not depend on the number of
    devices, because the bits of a run depend on it.
    """
    fits = [size for size in range(2, min(most, population // 2) + 1, 2) if population % size == 0]
    return fits[-1] if fits else population


class State(NamedTuple):
    """The AgentState."""

    params: Any               # of the policy: the center of the candidates
    optimizer: Any
    observation: Any          # running moments, () when off
    key: jax.Array            # of the noise
    generation: jax.Array     # int32


class Actor(NamedTuple):
    """The part that acts."""

    params: Any
    observation: Any


# -------------------------------------------------------------------- fitness


def finite_fitness(fitness: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the fitness with the worst finite value in place of non-finite entries.

    These are of candidates that diverged. All entries are 0 if none is finite.
    """
    finite = jnp.isfinite(fitness)
    worst = jnp.min(jnp.where(finite, fitness, jnp.inf))
    return jnp.where(finite, fitness, jnp.where(finite.any(), worst, 0.0))


def centered_ranks(fitness: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the ranks of all entries, from -0.5 (worst) to 0.5 (best).

    Salimans et al. 2017, section 2.
    Equal fitness has equal rank, the mean of its places, so a pair that does equally well adds
    nothing.
    """
    flat = fitness.reshape(-1)
    ordered = jnp.sort(flat)
    places = jnp.searchsorted(ordered, flat, side="left")
    places = places + jnp.searchsorted(ordered, flat, side="right") - 1
    return (0.5 * places / (flat.size - 1) - 0.5).reshape(fitness.shape)


def best_directions(fitness: Float[Array, "pairs 2"], count: int) -> Bool[Array, " pairs"]:
    """Return True for the `count` directions with the best candidates; ties go by their order.

    Mania et al. 2018, algorithm 2, line 6.
    """
    order = jnp.argsort(-fitness.max(axis=1), stable=True)
    return jnp.zeros(len(fitness), bool).at[order[:count]].set(True)


# -------------------------------------------------------------------- noise


def directions(key: PRNGKeyArray, pairs: Int[Array, " pairs"], size: int
               ) -> Float[Array, "pairs {size}"]:
    """Return the noise of these pairs, which does not depend on the others it is drawn with."""
    def draw(pair: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(key, pair), (size,))

    return jax.vmap(draw)(pairs)


def combine(key: PRNGKeyArray, weights: Float[Array, " pairs"], size: int, chunk: int
            ) -> Float[Array, " {size}"]:
    """Return sum_k weights[k] direction_k.

    It is a loop over chunks of `chunk` pairs, so that the directions are never all held at once.
    """
    def add(total: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        pairs, weight = part
        return total + jnp.sum(weight[:, None] * directions(key, pairs, size), axis=0), None

    pairs = jnp.arange(len(weights), dtype=jnp.int32)
    chunks = jax.tree.map(lambda x: x.reshape(-1, chunk), (pairs, weights))
    return jax.lax.scan(add, jnp.zeros(size), chunks)[0]


# -------------------------------------------------------------------- statistics


def merged(first: normalize.Moments, others: normalize.Moments) -> normalize.Moments:
    """Return `first` merged with the moments stacked in `others`, one after another.

    The order is fixed, because rounding depends on it.
    """
    return jax.lax.scan(lambda total, part: (normalize.merge(total, part), None), first, others)[0]


# -------------------------------------------------------------------- the strategy


@dataclass(frozen=True, eq=False)
class Acting:
    """The policy of candidates, with normalized observations if the config says so: pure functions.
    """

    config: CandidatesConfig
    spec: EnvSpec
    network: ActorCritic

    def init(self, key: PRNGKeyArray) -> Any:
        """Return fresh parameters of the policy."""
        return self.network.init(key)["actor"]

    def moments(self) -> Any:
        """Return the statistics of observations before the first, () when off."""
        return normalize.init(self.spec.observation) if self.config.normalize_observation else ()

    def merge(self, moments: Any, others: Any) -> Any:
        """Return `moments` merged with those of all blocks, () when off."""
        return merged(moments, others) if self.config.normalize_observation else ()

    def carry(self, batch: int) -> Any:
        """Return the recurrent state of `batch` slots; () if there is none."""
        return self.network.carry(batch)

    def greedy(self, actor: Actor, carry: Any, inputs: Input, key: PRNGKeyArray) -> tuple[Any, Any]:
        """Return (action, carry) with the mode of the policy."""
        policy, carry = self._policy(actor, carry, inputs)
        return policy.mode(), carry

    def explore(self, actor: Actor, hyper: Any, carry: Any, inputs: Input, progress: jax.Array,
                key: PRNGKeyArray) -> tuple[Any, Any, dict]:
        """Return (action, carry, extras): how candidates act in training."""
        policy, carry = self._policy(actor, carry, inputs)
        action = policy.sample(key) if self.config.sample_actions else policy.mode()
        return action, carry, {}

    def _policy(self, actor: Actor, carry: Any, inputs: Input) -> tuple[Distribution, Any]:
        inputs = self.network.reads(inputs)
        if self.config.normalize_observation:
            inputs = inputs._replace(obs=normalize.normalize(actor.observation, inputs.obs))
        inputs = jax.tree.map(lambda x: x[None], inputs)
        policy, carry = self.network.policy(actor.params, carry, inputs)
        return jax.tree.map(lambda x: x[0], policy), carry


def acting_of(config: CandidatesConfig, spec: EnvSpec) -> Acting:
    """Return the policy of candidates for a config and environments that match `spec`."""
    return Acting(config, spec, actor_critic(config.network, spec))


def reported(fitness: Float[Array, "*shape"], theta: Float[Array, " n"], new: Float[Array, " n"]
             ) -> Metrics:
    """Return the metrics of a step from the center `theta` to `new`."""
    known = finite_fitness(fitness)
    return {
        "fitness_mean": known.mean(),
        "fitness_max": known.max(),
        "fitness_std": known.std(),
        "diverged": jnp.mean(~jnp.isfinite(fitness), dtype=jnp.float32),
        "update_norm": global_norm(new - theta),
        "param_norm": global_norm(new),
    }


def mirrored(config: EvolutionConfig, spec: EnvSpec, *, weigh: Callable, init_optimizer: Callable,
             step: Callable, adjust: Callable = lambda params: params) -> Strategy:
    """Return evolution with mirrored noise over the policy network of a config.

    weigh           (fitness [pairs, 2], all finite) -> the weight [pairs] of each direction
    init_optimizer  (theta [n], hyper) -> optimizer state
    step            (theta, optimizer state, hyper, weighted sum of directions [n])
                    -> (theta, optimizer state)
    adjust          (params) -> other params to start from
    """
    acting = acting_of(config, spec)

    def init(key: PRNGKeyArray, hyper: Any) -> State:
        network_key, key = jax.random.split(key)
        params = adjust(acting.init(network_key))
        theta, _ = ravel_pytree(params)
        generation = jnp.zeros((), jnp.int32)
        return State(params, init_optimizer(theta, hyper), acting.moments(), key, generation)

    def actor(state: State) -> Actor:
        return Actor(state.params, state.observation)

    def noise_key(state: State) -> PRNGKeyArray:
        return jax.random.fold_in(state.key, state.generation)

    def ask(state: State, hyper: Any, ids: Int[Array, " n"]) -> Actor:
        theta, unravel = ravel_pytree(state.params)
        noise = hyper.sigma * directions(noise_key(state), ids[::2] // 2, theta.size)
        both = jnp.stack([theta[None] + noise, theta[None] - noise], axis=1)
        params = jax.vmap(unravel)(both.reshape(len(ids), theta.size))
        return Actor(params, state.observation)

    def tell(state: State, hyper: Any, ids: Int[Array, " n"], fitness: Float[Array, " n"],
             statistics: Any) -> tuple[State, Metrics]:
        theta, unravel = ravel_pytree(state.params)
        known = finite_fitness(fitness)
        weights = weigh(known.reshape(-1, 2))
        total = combine(noise_key(state), weights, theta.size, config.size // 2)
        new, opt_state = step(theta, state.optimizer, hyper, total)
        moments = acting.merge(state.observation, statistics)
        state = State(unravel(new), opt_state, moments, state.key, state.generation + 1)
        return state, reported(fitness, theta, new)

    return Strategy(init=init, actor=actor, carry=acting.carry, greedy=acting.greedy, ask=ask,
                    tell=tell, explore=acting.explore)
