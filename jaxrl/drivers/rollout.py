"""What drivers of compiled environments share: T steps in N of them, then a subclass learns; metrics, divergence."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.vector import VectorEnv
from jaxrl.types import Agent, Metrics, Progress, TrainState, Trajectory


class Compiled:
    """A Runner (jaxrl.types) for one learner; pure functions, to be jitted, vmapped and donated by the caller.

    A subclass gives `learn`, and where it keeps a replay, `memory`; it may act otherwise than the agent (`act`).
    """

    def __init__(self, agent: Agent, env: VectorEnv, params: Any, rollout_length: int, curriculum: Any = None):
        """curriculum: (params, progress) -> the environments' params of the next update; None: they stay `params`."""
        self.agent, self.env, self.params, self.rollout_length = agent, env, params, rollout_length
        self.curriculum = curriculum
        self.num_envs, self.steps_per_update, self.groups = env.num_envs, rollout_length * env.num_envs, env.num_groups

    def watched(self, metrics: Metrics) -> list[str]:
        """What is looked at for numbers that are not finite; `metrics["nonfinite"]`: 1 + the place of the first, or 0.

        A learner reports its loss and the norm of its gradients: while these are finite, so are its parameters.
        """
        return ["observation", "reward", *sorted(metrics, key=lambda name: (name != "loss", name))]

    def shared(self, state: TrainState) -> Any:
        """A tree of bools like `state`: the leaves whose first axis is one of environments, or of groups of them."""
        whole = jax.tree.map(lambda _: False, state)
        return whole._replace(env=self.env.shared(state.env), carry=jax.tree.map(lambda _: True, state.carry))

    def init(self, key: jax.Array, hyper: Any, schedule: int) -> TrainState:
        """A fresh learner whose schedules end after `schedule` updates."""
        key, agent_key, env_key = jax.random.split(key, 3)
        env, _ = self.env.init(env_key, self.params)
        progress = Progress(jnp.zeros((), jnp.int32), jnp.asarray(schedule, jnp.int32))
        state = TrainState(self.agent.init(agent_key, hyper), hyper, env, self.agent.carry(self.env.num_envs), (), key,
                           progress, jnp.ones((), bool))
        return state._replace(replay=self.memory(state))

    def memory(self, state: TrainState) -> Any:
        """The empty replay of a learner whose other state is `state`."""
        return ()

    def act(self, state: TrainState, actor: Any, memory: Any, inputs: Any, progress: jax.Array, key: jax.Array):
        """-> (action, carry, extras), in training."""
        return self.agent.explore(actor, state.hyper, memory, inputs, progress, key)

    def learn(self, state: TrainState, batch: Trajectory, progress: jax.Array, key: jax.Array):
        """-> (state with another agent, metrics of the learner, whether it learned: 1.0 or 0.0)."""
        raise TypeError(f"{type(self).__name__} does not define learn")

    def advance(self, state: TrainState, updates: Any) -> tuple[TrainState, Metrics]:
        """`updates` (may be traced: one program for every chunk length) updates.

        Metrics are means over the updates that learned, `return_mean` and `length_mean` over the episodes that ended
        (NaN if none).
        A member whose update is not finite keeps the agent before it and is no longer alive.
        """
        names = list(jax.eval_shape(self._update, state)[1].learner)

        def body(_, carry):
            state, sums = carry
            new, now = self._update(state)
            now = now._replace(learner=jnp.stack([now.learner[name] for name in names]))
            ok = state.alive & (now.nonfinite == 0)
            keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, old)
            added = keep(jax.tree.map(jnp.add, sums, now), sums)
            added = added._replace(nonfinite=jnp.where(state.alive, now.nonfinite, sums.nonfinite))
            progress = keep(new.progress, state.progress)
            return new._replace(agent=keep(new.agent, state.agent), progress=progress, alive=ok), added

        zero, none = jnp.zeros(()), jnp.zeros((), jnp.int32)
        zeros = Sums(jnp.zeros(len(names)), zero, zero, zero, zero, none)
        state, sums = jax.lax.fori_loop(0, updates, body, (state, zeros))
        mean = lambda x, n: jnp.where(n > 0, x / jnp.maximum(n, 1), jnp.nan)
        return state, dict(zip(names, mean(sums.learner, sums.updates))) | {
            "episodes": sums.episodes, "return_mean": mean(sums.returns, sums.episodes),
            "length_mean": mean(sums.lengths, sums.episodes), "nonfinite": sums.nonfinite}

    def _update(self, state: TrainState) -> tuple[TrainState, Sums]:
        key, rollout_key, learn_key = jax.random.split(state.key, 3)
        progress = jnp.clip(state.progress.update / jnp.maximum(state.progress.schedule, 1), 0.0, 1.0)
        if self.curriculum is not None:
            state = state._replace(env=state.env._replace(params=self.curriculum(state.env.params, progress)))
        env, carry, batch, episodes = self.rollout(state, progress, rollout_key)
        new, metrics, learned = self.learn(state._replace(env=env, carry=carry, key=key), batch, progress, learn_key)
        new = new._replace(progress=state.progress._replace(update=state.progress.update + 1))
        return new, Sums(metrics, learned, *episodes, self._nonfinite(batch, metrics))

    def _nonfinite(self, batch: Trajectory, metrics: Metrics) -> jax.Array:
        learner = jnp.stack([metrics[name] for name in self.watched(metrics)[2:]])
        finite = jnp.concatenate([jnp.stack([_finite(batch.input.obs), _finite(batch.reward)]), jnp.isfinite(learner)])
        return jnp.where(finite.all(), 0, 1 + jnp.argmin(finite)).astype(jnp.int32)

    def rollout(self, state: TrainState, progress: jax.Array, key: jax.Array):
        """-> (environment state, carry, Trajectory [T, N], (episodes, sum of returns, sum of lengths) that ended)."""
        actor = self.agent.actor(state.agent)

        def step(carry, keys):
            env, memory = carry
            inputs = self.env.input(env)
            action, memory, extras = self.act(state, actor, memory, inputs, progress, keys[0])
            env, after = self.env.step(keys[1], env, action)
            seen = Trajectory(inputs, action, extras, after.reward, after.terminated, after.truncated,
                              after.final_input, carry0=())
            return (env, memory), (seen, after.input.first, after.episode_return, after.episode_length)

        keys = jax.random.split(key, (self.rollout_length, 2))
        (env, carry), (batch, ended, returns, lengths) = jax.lax.scan(step, (state.env, state.carry), keys)
        returns = returns.reshape(*ended.shape, -1).mean(-1)      # of several agents: their mean
        total = lambda x: jnp.sum(jnp.where(ended, x, 0), dtype=jnp.float32)
        return env, carry, batch._replace(carry0=state.carry), (total(1), total(returns), total(lengths))


class Sums(NamedTuple):
    """Metrics of several updates, added up."""

    learner: Any             # one update: a dict; several: their sums, as one array
    updates: jax.Array
    episodes: jax.Array
    returns: jax.Array
    lengths: jax.Array
    nonfinite: jax.Array


def _finite(tree: Any) -> jax.Array:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in floats])) if floats else jnp.ones((), bool)
