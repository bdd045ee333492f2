"""The evolution driver: candidates play whole episodes, then the strategy receives their returns.

A generation is `blocks` calls of `evaluate` and one of `tell`. Results of a block depend on the
state and the number of the block alone, so that the next state is the same wherever the two
compiled programs run: in one process, on many devices or on many hosts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.core import Environment, Input, TimeStep
from envs_jax.vector import VectorEnv
from envs_jax.wrappers import TimeLimit
from jaxrl.blocks import normalize
from jaxrl.drivers.common import begin, fraction, mean, select
from jaxrl.types import Metrics, Runner, Strategy, TrainState


class Result(NamedTuple):
    """Results of one block of candidates; with one more axis in front, of all blocks."""

    fitness: jax.Array       # [candidates] float32, mean undiscounted return of an episode
    steps: jax.Array         # [candidates] int32, environment steps of all episodes
    statistics: Any          # moments of the observations; () if the strategy keeps none


class Sums(NamedTuple):
    """Sums of metrics over generations."""

    strategy: Metrics        # metrics that the strategy's `tell` returns
    generations: jax.Array
    steps: jax.Array         # float32, environment steps of all candidates
    nonfinite: jax.Array     # int32, as `Runner.watched` explains


class Played(NamedTuple):
    """The episodes of a block's candidates, leaves [candidates, episodes]."""

    done: jax.Array
    returns: jax.Array
    steps: jax.Array
    statistics: Any


class Evolution(Runner):
    """A Runner for one strategy.

    Steps are planned as if every episode reached its time limit: `steps_per_update` is candidates x
    episodes x limit. The metric `steps_real` counts the steps that were taken.
    """

    groups = 1

    def __init__(self, strategy: Strategy, env: Environment, params: Any, *, population: int,
                 block_size: int, episodes: int = 1, episode_steps: int | None = None,
                 statistics: bool = False, curriculum: Any = None):
        """episode_steps: a time limit; statistics: collect moments of the observations;
        curriculum: (params, progress) -> params of the next generation, None if they never change.
        """
        if episode_steps:
            env = TimeLimit(env, episode_steps)
        self.strategy = strategy
        self.params = params
        self.curriculum = curriculum
        self.statistics = statistics
        self.population = population
        self.size = block_size
        self.blocks = population // block_size
        # the environments of one candidate
        self.env = VectorEnv(env, episodes, pool_size=episodes, reset="never")
        self.limit = env.max_steps
        self.num_envs = population * episodes
        self.steps_per_update = self.num_envs * self.limit

    def watched(self, metrics: Iterable[str]) -> list[str]:
        """Return the two values that are checked, of which none is a metric of a candidate.

        A candidate that diverges is only the worst of its generation. The learner has diverged if
        all candidates have.
        """
        return ["return of every candidate", "update_norm"]

    def shared(self, state: TrainState) -> Any:
        """Return False for every leaf: candidates are divided among devices, states never are."""
        return jax.tree.map(lambda _: False, state)

    def check_fits(self, state: TrainState, free: int) -> int:
        return 0

    def init(self, key: jax.Array, hyper: Any, schedule: Any) -> TrainState:
        """Return a fresh strategy; a curriculum ends after `schedule` generations."""
        agent_key, key = jax.random.split(key)
        agent = self.strategy.init(agent_key, hyper)
        alive = jnp.ones((), bool)
        return TrainState(agent, hyper, (), (), (), key, begin(schedule), alive)

    def advance(self, state: TrainState, updates: Any) -> tuple[TrainState, Metrics]:
        """Run `updates` generations, one block after another.

        `jaxrl.population.generations` divides the blocks among devices.
        """
        def generation(_: jax.Array, loop: tuple[TrainState, Sums]) -> tuple[TrainState, Sums]:
            state, sums = loop
            blocks = jnp.arange(self.blocks, dtype=jnp.int32)
            results = jax.lax.map(lambda block: self.evaluate(state, block), blocks)
            return self.tell(state, sums, results)

        start = (state, self.zeros(state))
        state, sums = jax.lax.fori_loop(0, updates, generation, start)
        return state, self.reported(sums)

    # ---------------------------------------------------------------- one block

    def evaluate(self, state: TrainState, block: jax.Array) -> Result:
        """Play the candidates of one block until the last of their episodes has ended."""
        ids = block * self.size + jnp.arange(self.size, dtype=jnp.int32)
        actors = self.strategy.ask(state.agent, state.hyper, ids)
        progress = fraction(state.progress)
        start_keys, run_keys = self._keys(state, ids)
        params = self._params_at(progress)
        env_states, inputs = jax.vmap(self.env.init, (0, None))(start_keys, params)
        carry = jax.vmap(lambda _: self.strategy.carry(self.env.num_envs))(ids)
        axes = jax.tree.map(lambda _: None, actors)._replace(params=0)
        act = jax.vmap(self._act, (axes, None, 0, 0, None, 0))

        def unfinished(loop: tuple) -> jax.Array:
            t, _, _, played = loop
            return (t < self.limit) & ~jnp.all(played.done)

        def step(loop: tuple) -> tuple:
            t, env_states, carry, played = loop
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(run_keys, t)
            act_keys, env_keys = jnp.moveaxis(jax.vmap(jax.random.split)(step_keys), 1, 0)
            inputs = jax.vmap(self.env.input)(env_states)
            action, carry = act(actors, state.hyper, carry, inputs, progress, act_keys)
            env_states, timestep = jax.vmap(self.env.step)(env_keys, env_states, action)
            return t + 1, env_states, carry, self._count(played, inputs, timestep)

        played = self._nothing_played(inputs)
        start = (jnp.zeros((), jnp.int32), env_states, carry, played)
        *_, played = jax.lax.while_loop(unfinished, step, start)
        return Result(played.returns.mean(axis=1), played.steps.sum(axis=1), played.statistics)

    def _params_at(self, progress: jax.Array) -> Any:
        params = jax.tree.map(jnp.asarray, self.params)
        if self.curriculum is None:
            return params
        return self.curriculum(params, progress)

    def _keys(self, state: TrainState, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return (keys of the starts, keys of the steps), the same for both of a pair."""
        generation_key = jax.random.fold_in(state.key, state.progress.update)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(generation_key, ids // 2)
        start_keys, run_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        return start_keys, run_keys

    def _act(self, actor: Any, hyper: Any, carry: Any, inputs: Input, progress: jax.Array,
             key: jax.Array) -> tuple[Any, Any]:
        """Return (actions of one candidate's environments, carry)."""
        if self.strategy.explore is None:
            return self.strategy.greedy(actor, carry, inputs, key)
        return self.strategy.explore(actor, hyper, carry, inputs, progress, key)[:2]

    def _nothing_played(self, inputs: Input) -> Played:
        shape = (self.size, self.env.num_envs)
        statistics = ()
        if self.statistics:
            statistics = normalize.init(jax.tree.map(lambda x: x[0, 0], inputs.obs))
        steps = jnp.zeros(shape, jnp.int32)
        return Played(jnp.zeros(shape, bool), jnp.zeros(shape), steps, statistics)

    def _count(self, played: Played, inputs: Input, timestep: TimeStep) -> Played:
        """Return `played` after a step, which counts for episodes that have not ended."""
        statistics = played.statistics
        if self.statistics:
            statistics = normalize.update(statistics, inputs.obs, ~played.done)
        done = played.done | timestep.input.first
        returns = jnp.where(played.done, played.returns, timestep.episode_return)
        steps = jnp.where(played.done, played.steps, timestep.episode_length)
        return Played(done, returns, steps, statistics)

    # ---------------------------------------------------------------- a generation

    def tell(self, state: TrainState, sums: Sums, results: Result) -> tuple[TrainState, Sums]:
        """Return the next generation from the results [blocks, ...] of all blocks in order.

        A strategy stays as it is, and is no longer alive, if all its candidates diverge or its
        update is not finite.
        """
        fitness = results.fitness.reshape(-1)
        ids = jnp.arange(self.population, dtype=jnp.int32)
        agent, metrics = self.strategy.tell(state.agent, state.hyper, ids, fitness,
                                            results.statistics)
        finite = jnp.stack([jnp.isfinite(fitness).any(), jnp.isfinite(metrics["update_norm"])])
        nonfinite = jnp.where(finite.all(), 0, 1 + jnp.argmin(finite)).astype(jnp.int32)
        ok = state.alive & (nonfinite == 0)
        steps = jnp.sum(results.steps.astype(jnp.float32))
        generation = Sums(metrics, jnp.ones(()), steps, jnp.zeros((), jnp.int32))
        added = select(ok, jax.tree.map(jnp.add, sums, generation), sums)
        added = added._replace(nonfinite=jnp.where(state.alive, nonfinite, sums.nonfinite))
        progress = state.progress._replace(update=state.progress.update + 1)
        progress = select(ok, progress, state.progress)
        agent = select(ok, agent, state.agent)
        return state._replace(agent=agent, progress=progress, alive=ok), added

    def zeros(self, state: TrainState) -> Sums:
        """Return the sums of no generation."""
        block = jax.ShapeDtypeStruct((), jnp.int32)
        result = jax.eval_shape(self.evaluate, state, block)
        stacked = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((self.blocks, *x.shape), x.dtype), result)
        ids = jax.ShapeDtypeStruct((self.population,), jnp.int32)
        fitness = jax.ShapeDtypeStruct((self.population,), jnp.float32)
        _, metrics = jax.eval_shape(self.strategy.tell, state.agent, state.hyper, ids, fitness,
                                    stacked.statistics)
        strategy = {name: jnp.zeros(()) for name in metrics}
        return Sums(strategy, jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))

    def reported(self, sums: Sums) -> Metrics:
        """Return means over generations, NaN of none; `episodes` and `steps_real` are sums."""
        metrics = {name: mean(x, sums.generations) for name, x in sums.strategy.items()}
        episodes = sums.generations * self.num_envs
        return metrics | {"steps_real": sums.steps, "episodes": episodes,
                          "return_mean": metrics["fitness_mean"],
                          "length_mean": mean(sums.steps, episodes), "nonfinite": sums.nonfinite}
