"""The off-policy driver: T steps in N compiled environments into a replay, then U updates from what it holds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from envs_jax.vector import VectorEnv
from jaxrl.blocks.exploration import uniform_action
from jaxrl.blocks.replay import Replay
from jaxrl.drivers.compiled import Compiled
from jaxrl.types import Agent, TrainState, Trajectory


class OffPolicy(Compiled):
    """Keeps every step. The first `warmup` environment steps are taken at random, and only stored."""

    def __init__(self, agent: Agent, env: VectorEnv, params: Any, rollout_length: int, curriculum: Any = None, *,
                 replay: Replay, capacity: int, batch_size: int, updates: int, warmup: int):
        super().__init__(agent, env, params, rollout_length, curriculum)
        self.replay, self.capacity, self.batch_size, self.updates = replay, capacity, batch_size, updates
        self.warm = -(-warmup // self.steps_per_update)          # in updates of the driver
        self.space = env.env.action_space(params)

    def row(self, state: TrainState) -> Trajectory:
        """Shapes of what is kept of a step of all environments."""
        rollout = lambda state: self._rows(self.rollout(state, jnp.zeros(()), state.key)[2])
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), jax.eval_shape(rollout, state))

    def memory(self, state):
        return self.replay.init(self.row(state), self.capacity)

    def act(self, state, actor, memory, inputs, progress, key):
        key, random_key = jax.random.split(key)
        action, memory, extras = super().act(state, actor, memory, inputs, progress, key)
        anything = lambda: uniform_action(random_key, self.space, inputs.first.shape, inputs.mask)
        warming = any_member(state.progress.update < self.warm)
        return jax.lax.cond(warming, anything, lambda: action), memory, extras

    def learn(self, state, batch, progress, key):
        replay, hyper = self.replay.insert(state.replay, self._rows(batch)), state.hyper
        ready = any_member(state.progress.update >= self.warm)
        beta = hyper.beta + progress * (1.0 - hyper.beta)

        def once(agent, replay, key):
            sample_key, learn_key = jax.random.split(key)
            items = self.replay.sample(replay, sample_key, self.batch_size, gamma=hyper.gamma, beta=beta)
            agent, metrics, priority = self.agent.learn(agent, hyper, items, progress, learn_key)
            return agent, self.replay.update(replay, items.index, priority, alpha=hyper.alpha), metrics

        names = list(jax.eval_shape(once, state.agent, replay, key)[2])

        def body(i, carry):
            agent, replay, sums = carry
            agent, replay, metrics = once(agent, replay, jax.random.fold_in(key, i))
            return agent, replay, sums + jnp.stack([metrics[name] for name in names])

        start = state.agent, replay, jnp.zeros(len(names))
        agent, replay, sums = jax.lax.fori_loop(0, jnp.where(ready, self.updates, 0), body, start)
        state = state._replace(agent=agent, replay=replay)
        return state, dict(zip(names, sums / self.updates)), ready.astype(jnp.float32)

    def _rows(self, batch: Trajectory) -> Trajectory:
        """What a replay keeps of a rollout: what the learner reads."""
        final = self.agent.reads(batch.final_input)
        return batch._replace(input=self.agent.reads(batch.input), final_input=final, extras=(), carry0=())


@custom_vmap
def any_member(flag: jax.Array) -> jax.Array:
    """`flag` of one learner; under vmap whether it is up for any: one answer for all, so that a loop that depends on it
    stays a loop of no turn, where a batched one would select among copies of the replay."""
    return flag


@any_member.def_vmap
def _(size, batched, flag):
    return jnp.any(flag), False
