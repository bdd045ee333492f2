"""The off-policy driver: T steps in N environments into a replay, then U updates from it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from envs_jax import spaces
from envs_jax.sizes import ceil_div
from envs_jax.vector import VectorEnv
from jaxrl.blocks import replay as replays
from jaxrl.blocks.exploration import uniform_action
from jaxrl.blocks.replay import Replay
from jaxrl.blocks.replay import ring as rings
from jaxrl.drivers.rollout import Compiled
from jaxrl.errors import UserError
from jaxrl.types import Agent, Input, Metrics, TrainState, Trajectory


class OffPolicy(Compiled):
    """Driver of agents that learn from a replay, in which every step is stored.

    The first `warmup` environment steps are random. Learning waits until the replay holds as many,
    so that a run resumed without its replay collects with its policy before it learns. A frame of
    image observations is kept once, not again as the next observation of the step before. If the
    outermost wrapper is FrameStack with `stack` frames, only the newest frame is kept, and `replay`
    stacks them again.
    """

    def __init__(self, agent: Agent, env: VectorEnv, params: Any, rollout_length: int,
                 curriculum: Any = None, *, replay: Replay, capacity: int, batch_size: int,
                 updates: int, warmup: int, stack: int = 1):
        """capacity, warmup: environment steps; updates: gradient steps after each rollout."""
        super().__init__(agent, env, params, rollout_length, curriculum)
        self.replay = replay
        self.capacity = capacity
        self.batch_size = batch_size
        self.updates = updates
        self.warm = ceil_div(warmup, self.steps_per_update)       # in updates of the driver
        self.space = env.env.action_space(params)
        self.stack = stack
        self.images = has_images(env.env.observation_space(params))

    def row(self, state: TrainState) -> Trajectory:
        """Return the shapes of what is stored of one step of all environments."""
        def rows(state: TrainState) -> Trajectory:
            _, _, batch, _ = self.rollout(state, jnp.zeros(()), state.key)
            return self._rows(batch)

        shapes = jax.eval_shape(rows, state)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), shapes)

    def check_fits(self, state: TrainState, free: int) -> int:
        return replays.check_fits(self.replay, self.row(state), self.capacity, free, state.carry)

    def empty_replay(self, state: TrainState) -> Any:
        try:
            return self.replay.init(self.row(state), self.capacity, state.carry)
        except ValueError as error:                              # too short for a single item
            raise UserError(f"algo.replay_capacity={self.capacity:,}: {error}") from None

    def act(self, state: TrainState, actor: Any, carry: Any, inputs: Input, progress: jax.Array,
            key: jax.Array) -> tuple[Any, Any, Any]:
        key, random_key = jax.random.split(key)
        action, carry, extras = super().act(state, actor, carry, inputs, progress, key)

        def random_action() -> Any:
            return uniform_action(random_key, self.space, inputs.first.shape, inputs.mask)

        warming_up = any_member(state.progress.update < self.warm)
        return jax.lax.cond(warming_up, random_action, lambda: action), carry, extras

    def learn(self, state: TrainState, batch: Trajectory, progress: jax.Array,
              key: jax.Array) -> tuple[TrainState, Metrics, jax.Array]:
        held, _ = rings.shape(state.replay.ring)
        warmup_rows = min(self.warm * self.rollout_length, held)
        can_sample = any_member(state.replay.ring.size >= warmup_rows)
        replay = self.replay.insert(state.replay, self._rows(batch), batch.carry0)
        hyper = state.hyper
        beta = hyper.beta + progress * (1.0 - hyper.beta)
        by_priority = bool(jax.tree.leaves(replay.memory))

        def gradient_step(agent: Any, replay: Any, key: jax.Array) -> tuple[Any, Any, Metrics]:
            sample_key, learn_key = jax.random.split(key)
            items = self.replay.sample(replay, sample_key, self.batch_size, gamma=hyper.gamma,
                                       beta=beta)
            agent, metrics, priority = self.agent.learn(agent, hyper, items, progress, learn_key)
            replay = self.replay.update(replay, items.index, priority, alpha=hyper.alpha)
            if by_priority:
                metrics = metrics | {"priority": priority.mean()}
            return agent, replay, metrics

        names = list(jax.eval_shape(gradient_step, state.agent, replay, key)[2])

        def body(i: jax.Array, loop: tuple) -> tuple:
            agent, replay, sums = loop
            agent, replay, metrics = gradient_step(agent, replay, jax.random.fold_in(key, i))
            return agent, replay, sums + jnp.stack([metrics[name] for name in names])

        start = (state.agent, replay, jnp.zeros(len(names)))
        steps = jnp.where(can_sample, self.updates, 0)
        agent, replay, sums = jax.lax.fori_loop(0, steps, body, start)
        learned = can_sample.astype(jnp.float32)
        metrics = dict(zip(names, sums / self.updates))
        # like all metrics 0 where nothing was learned
        metrics["replay_size"] = learned * replay.ring.size * self.num_envs
        return state._replace(agent=agent, replay=replay), metrics, learned

    def _rows(self, batch: Trajectory) -> Trajectory:
        """Return the part of a rollout that is stored: what the learner reads."""
        inputs = self._newest(self.agent.reads(batch.input))
        final = None if self.images else self._newest(self.agent.reads(batch.final_input))
        return batch._replace(input=inputs, final_input=final, extras=(), carry0=())

    def _newest(self, inputs: Input) -> Input:
        """Return inputs with the last of their stacked frames alone."""
        if self.stack == 1:
            return inputs

        def last(x: jax.Array) -> jax.Array:
            return x[..., -(x.shape[-1] // self.stack):]

        return inputs._replace(obs=jax.tree.map(last, inputs.obs))


def has_images(space: Any) -> bool:
    """Return whether part of an observation has three axes or more."""
    leaves = jax.tree.leaves(space, is_leaf=lambda s: isinstance(s, spaces.Space))
    return any(len(getattr(leaf, "shape", ())) >= 3 for leaf in leaves)


@custom_vmap
def any_member(flag: jax.Array) -> jax.Array:
    """Return `flag` of one learner; under vmap, whether it is set for any member.

    With one answer for all members a loop that depends on it stays a loop without iterations. A
    batched flag would make it select among copies of the replay in every iteration.
    """
    return flag


@any_member.def_vmap
def _any_of(size: int, batched: Any, flag: jax.Array) -> tuple[jax.Array, bool]:
    return jnp.any(flag), False
