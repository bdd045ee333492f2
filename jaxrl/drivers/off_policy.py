"""The off-policy driver: T steps in N compiled environments into a replay, then U updates from what it holds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from envs_jax import spaces
from envs_jax.vector import VectorEnv
from jaxrl.blocks import replay as replays
from jaxrl.blocks.exploration import uniform_action
from jaxrl.blocks.replay import Replay
from jaxrl.blocks.replay import ring as rings
from jaxrl.drivers.rollout import Compiled
from jaxrl.errors import UserError
from jaxrl.types import Agent, Input, TrainState, Trajectory


class OffPolicy(Compiled):
    """Keeps every step. The first `warmup` environment steps are taken at random, and only stored.

    Learning waits until the replay holds as many, so that a run that goes on without its replay collects before it
    learns on, by its policy. Of image observations a frame is kept once, not again as what followed the step before.
    Where an environment stacks `stack` frames (FrameStack, outermost), the newest is kept: `replay` stacks them again.
    """

    def __init__(self, agent: Agent, env: VectorEnv, params: Any, rollout_length: int, curriculum: Any = None, *,
                 replay: Replay, capacity: int, batch_size: int, updates: int, warmup: int, stack: int = 1):
        super().__init__(agent, env, params, rollout_length, curriculum)
        self.replay, self.capacity, self.batch_size, self.updates = replay, capacity, batch_size, updates
        self.warm = -(-warmup // self.steps_per_update)          # in updates of the driver
        self.space, self.stack = env.env.action_space(params), stack
        self.images = has_images(env.env.observation_space(params))

    def row(self, state: TrainState) -> Trajectory:
        """Shapes of what is kept of a step of all environments."""
        rollout = lambda state: self._rows(self.rollout(state, jnp.zeros(()), state.key)[2])
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), jax.eval_shape(rollout, state))

    def check_fits(self, state: TrainState, free: int) -> int:
        """Bytes of the replay of a member like `state` (shapes will do). ValueError if those are more than `free`."""
        return replays.check_fits(self.replay, self.row(state), self.capacity, free, state.carry)

    def memory(self, state):
        try:
            return self.replay.init(self.row(state), self.capacity, state.carry)
        except ValueError as error:                              # too short for a single item
            raise UserError(f"algo.replay_capacity={self.capacity:,}: {error}") from None

    def act(self, state, actor, memory, inputs, progress, key):
        key, random_key = jax.random.split(key)
        action, memory, extras = super().act(state, actor, memory, inputs, progress, key)
        anything = lambda: uniform_action(random_key, self.space, inputs.first.shape, inputs.mask)
        warming = any_member(state.progress.update < self.warm)
        return jax.lax.cond(warming, anything, lambda: action), memory, extras

    def learn(self, state, batch, progress, key):
        held, _ = rings.shape(state.replay.ring)
        ready = any_member(state.replay.ring.size >= min(self.warm * self.rollout_length, held))
        replay, hyper = self.replay.insert(state.replay, self._rows(batch), batch.carry0), state.hyper
        beta = hyper.beta + progress * (1.0 - hyper.beta)
        by_priority = bool(jax.tree.leaves(replay.memory))

        def once(agent, replay, key):
            sample_key, learn_key = jax.random.split(key)
            items = self.replay.sample(replay, sample_key, self.batch_size, gamma=hyper.gamma, beta=beta)
            agent, metrics, priority = self.agent.learn(agent, hyper, items, progress, learn_key)
            replay = self.replay.update(replay, items.index, priority, alpha=hyper.alpha)
            return agent, replay, metrics | ({"priority": priority.mean()} if by_priority else {})

        names = list(jax.eval_shape(once, state.agent, replay, key)[2])

        def body(i, carry):
            agent, replay, sums = carry
            agent, replay, metrics = once(agent, replay, jax.random.fold_in(key, i))
            return agent, replay, sums + jnp.stack([metrics[name] for name in names])

        start = state.agent, replay, jnp.zeros(len(names))
        agent, replay, sums = jax.lax.fori_loop(0, jnp.where(ready, self.updates, 0), body, start)
        learned = ready.astype(jnp.float32)
        metrics = dict(zip(names, sums / self.updates))
        metrics["replay_size"] = learned * replay.ring.size * self.num_envs     # as all of them 0 where nothing learned
        return state._replace(agent=agent, replay=replay), metrics, learned

    def _rows(self, batch: Trajectory) -> Trajectory:
        """What a replay keeps of a rollout: what the learner reads."""
        kept = lambda inputs: self._newest(self.agent.reads(inputs))
        final = None if self.images else kept(batch.final_input)
        return batch._replace(input=kept(batch.input), final_input=final, extras=(), carry0=())

    def _newest(self, inputs: Input) -> Input:
        """Of stacked frames the last."""
        last = lambda x: x[..., -(x.shape[-1] // self.stack):]
        return inputs if self.stack == 1 else inputs._replace(obs=jax.tree.map(last, inputs.obs))


def has_images(space: Any) -> bool:
    """Whether part of an observation has three axes or more."""
    leaves = jax.tree.leaves(space, is_leaf=lambda s: isinstance(s, spaces.Space))
    return any(len(getattr(leaf, "shape", ())) >= 3 for leaf in leaves)


@custom_vmap
def any_member(flag: jax.Array) -> jax.Array:
    """`flag` of one learner; under vmap whether it is up for any: one answer for all, so that a loop that depends on it
    stays a loop of no turn, where a batched one would select among copies of the replay."""
    return flag


@any_member.def_vmap
def _(size, batched, flag):
    return jnp.any(flag), False
