"""The evolution driver: candidates play whole episodes, block by block, then the strategy is told how they did.

A generation is `blocks` calls of `evaluate` and one of `tell`. Whoever runs the two compiled programs (one process,
many devices, many hosts), the same state comes out: a block's results depend on the state and its number alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.core import Environment
from envs_jax.vector import VectorEnv
from envs_jax.wrappers import TimeLimit
from jaxrl.blocks import normalize
from jaxrl.types import Metrics, Progress, Strategy, TrainState


class Result(NamedTuple):
    """Of one block of candidates, or with one more axis in front, of all."""

    fitness: jax.Array       # [candidates] float32: mean undiscounted return of an episode
    steps: jax.Array         # [candidates] int32: environment steps, of all episodes
    statistics: Any          # moments of what they observed; () if the strategy keeps none


class Sums(NamedTuple):
    """Of several generations."""

    strategy: Metrics        # what `tell` reports
    generations: jax.Array
    steps: jax.Array         # float32, taken by all candidates
    nonfinite: jax.Array     # int32: 1 + the place in `watched` of what ended this learner, else 0


class Played(NamedTuple):
    """One episode after another of a block's candidates, [candidates, episodes]."""

    done: jax.Array
    returns: jax.Array
    steps: jax.Array
    statistics: Any


class Evolution:
    """A Runner (jaxrl.types) for one strategy; pure functions.

    Steps are planned as if every episode took as long as it may: `steps_per_update` is candidates x episodes x that.
    What was really taken is the metric `steps_real`.
    """

    groups = 1

    def __init__(self, strategy: Strategy, env: Environment, params: Any, *, population: int, block_size: int,
                 episodes: int = 1, episode_steps: int | None = None, statistics: bool = False, curriculum: Any = None):
        """statistics: moments of observations are wanted; curriculum: as of drivers.rollout."""
        self.strategy, self.params, self.curriculum, self.statistics = strategy, params, curriculum, statistics
        env = TimeLimit(env, episode_steps) if episode_steps else env
        self.population, self.size, self.blocks = population, block_size, population // block_size
        self.env = VectorEnv(env, episodes, pool_size=episodes, reset="never")           # of one candidate
        self.limit, self.num_envs = env.max_steps, population * episodes
        self.steps_per_update = self.num_envs * self.limit

    def watched(self, metrics: Metrics) -> list[str]:
        """What is looked at for numbers that are not finite; `metrics["nonfinite"]`: 1 + the place of the first, or 0.
        A candidate that diverges is only the worst of its generation; if all do, the learner has."""
        return ["return of every candidate", "update_norm"]

    def shared(self, state: TrainState) -> Any:
        """Nothing: candidates are dealt out, never sharded."""
        return jax.tree.map(lambda _: False, state)

    def init(self, key: jax.Array, hyper: Any, schedule: int) -> TrainState:
        """A fresh strategy; `schedule`, in generations, is what a curriculum follows."""
        agent_key, key = jax.random.split(key)
        progress = Progress(jnp.zeros((), jnp.int32), jnp.asarray(schedule, jnp.int32))
        return TrainState(self.strategy.init(agent_key, hyper), hyper, (), (), (), key, progress, jnp.ones((), bool))

    def advance(self, state: TrainState, updates: Any) -> tuple[TrainState, Metrics]:
        """`updates` generations, one block after another. Across devices: population.generations."""
        def generation(_, carry):
            state, sums = carry
            results = jax.lax.map(lambda block: self.evaluate(state, block), jnp.arange(self.blocks, dtype=jnp.int32))
            return self.tell(state, sums, results)

        state, sums = jax.lax.fori_loop(0, updates, generation, (state, self.zeros(state)))
        return state, self.reported(sums)

    # ---------------------------------------------------------------- one block

    def evaluate(self, state: TrainState, block: jax.Array) -> Result:
        """Play the candidates of one block: to the end of the longest of their episodes."""
        ids = block * self.size + jnp.arange(self.size, dtype=jnp.int32)
        actors = self.strategy.ask(state.agent, state.hyper, ids)
        progress = self._progress(state)
        params = jax.tree.map(jnp.asarray, self.params)
        if self.curriculum is not None:
            params = self.curriculum(params, progress)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(
            jax.random.fold_in(state.key, state.progress.update), ids // 2)              # a pair's starts are the same
        start_keys, run_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        worlds, inputs = jax.vmap(self.env.init, (0, None))(start_keys, params)
        memory = jax.vmap(lambda _: self.strategy.carry(self.env.num_envs))(ids)
        axes = jax.tree.map(lambda _: None, actors)._replace(params=0)
        act = jax.vmap(self._act, (axes, None, 0, 0, None, 0))

        def step(carry):
            t, worlds, memory, played = carry
            now = jax.vmap(jax.random.fold_in, (0, None))(run_keys, t)
            act_keys, env_keys = jnp.moveaxis(jax.vmap(jax.random.split)(now), 1, 0)
            inputs = jax.vmap(self.env.input)(worlds)
            action, memory = act(actors, state.hyper, memory, inputs, progress, act_keys)
            worlds, after = jax.vmap(self.env.step)(env_keys, worlds, action)
            return t + 1, worlds, memory, self._seen(played, inputs, after)

        shape = (self.size, self.env.num_envs)
        example = jax.tree.map(lambda x: x[0, 0], inputs.obs)
        played = Played(jnp.zeros(shape, bool), jnp.zeros(shape), jnp.zeros(shape, jnp.int32),
                        normalize.init(example) if self.statistics else ())
        going = lambda carry: (carry[0] < self.limit) & ~jnp.all(carry[-1].done)
        *_, played = jax.lax.while_loop(going, step, (jnp.zeros((), jnp.int32), worlds, memory, played))
        return Result(played.returns.mean(axis=1), played.steps.sum(axis=1), played.statistics)

    def _act(self, actor: Any, hyper: Any, memory: Any, inputs: Any, progress: jax.Array, key: jax.Array):
        """-> (actions of one candidate's environments, carry)."""
        if self.strategy.explore is None:
            return self.strategy.greedy(actor, memory, inputs, key)
        return self.strategy.explore(actor, hyper, memory, inputs, progress, key)[:2]

    def _seen(self, played: Played, inputs: Any, after: Any) -> Played:
        """`played` after a step, of which only that of episodes that still go on counts."""
        statistics = played.statistics
        if self.statistics:
            statistics = normalize.update(statistics, inputs.obs, ~played.done)
        return Played(played.done | after.input.first, jnp.where(played.done, played.returns, after.episode_return),
                      jnp.where(played.done, played.steps, after.episode_length), statistics)

    # ---------------------------------------------------------------- a generation

    def tell(self, state: TrainState, sums: Sums, results: Result) -> tuple[TrainState, Sums]:
        """The next generation, of the results [blocks, ...] of all blocks in order. A strategy all of whose candidates
        diverge, or whose update is not finite, stays as it is and is no longer alive."""
        fitness = results.fitness.reshape(-1)
        ids = jnp.arange(self.population, dtype=jnp.int32)
        agent, metrics = self.strategy.tell(state.agent, state.hyper, ids, fitness, results.statistics)
        fine = jnp.stack([jnp.isfinite(fitness).any(), jnp.isfinite(metrics["update_norm"])])
        wrong = jnp.where(fine.all(), 0, 1 + jnp.argmin(fine)).astype(jnp.int32)
        ok = state.alive & (wrong == 0)
        keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, old)
        progress = state.progress._replace(update=state.progress.update + 1)
        one = Sums(metrics, jnp.ones(()), jnp.sum(results.steps.astype(jnp.float32)), jnp.zeros((), jnp.int32))
        added = keep(jax.tree.map(jnp.add, sums, one), sums)
        added = added._replace(nonfinite=jnp.where(state.alive, wrong, sums.nonfinite))
        return state._replace(agent=keep(agent, state.agent), progress=keep(progress, state.progress), alive=ok), added

    def zeros(self, state: TrainState) -> Sums:
        """Sums of no generation yet."""
        some = jax.eval_shape(self.evaluate, state, jax.ShapeDtypeStruct((), jnp.int32))
        stacked = jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.blocks, *x.shape), x.dtype), some)
        ids = jax.ShapeDtypeStruct((self.population,), jnp.int32)
        fitness = jax.ShapeDtypeStruct((self.population,), jnp.float32)
        metrics = jax.eval_shape(self.strategy.tell, state.agent, state.hyper, ids, fitness, stacked.statistics)[1]
        return Sums({name: jnp.zeros(()) for name in metrics}, jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))

    def reported(self, sums: Sums) -> Metrics:
        """Means over generations; `episodes`, `steps_real`: sums; NaN of no generation."""
        mean = lambda x: jnp.where(sums.generations > 0, x / jnp.maximum(sums.generations, 1), jnp.nan)
        episodes = sums.generations * self.num_envs
        metrics = {name: mean(x) for name, x in sums.strategy.items()}
        length = jnp.where(episodes > 0, sums.steps / jnp.maximum(episodes, 1), jnp.nan)
        return metrics | {"steps_real": sums.steps, "episodes": episodes, "return_mean": metrics["fitness_mean"],
                          "length_mean": length, "nonfinite": sums.nonfinite}

    def _progress(self, state: TrainState) -> jax.Array:
        return jnp.clip(state.progress.update / jnp.maximum(state.progress.schedule, 1), 0.0, 1.0)
