"""Drivers of compiled environments: T steps in N of them, then a subclass learns from these."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.vector import VectorEnv
from jaxrl.drivers.common import begin, fraction, mean, select
from jaxrl.types import Agent, Input, Metrics, Runner, TrainState, Trajectory

CHECKED = ("observation", "reward")      # checked to be finite, beside the metrics of the learner


class Compiled(Runner):
    """A Runner for one learner in compiled environments.

    A subclass defines `learn`, and `empty_replay` if it keeps one; it may change how the agent acts
    in training (`act`).
    """

    def __init__(self, agent: Agent, env: VectorEnv, params: Any, rollout_length: int,
                 curriculum: Any = None):
        """curriculum: (params, progress) -> params of an update; None if they never change."""
        self.agent = agent
        self.env = env
        self.params = params
        self.rollout_length = rollout_length
        self.curriculum = curriculum
        self.num_envs = env.num_envs
        self.steps_per_update = rollout_length * env.num_envs
        self.groups = env.num_groups

    def watched(self, metrics: Iterable[str]) -> list[str]:
        """Return observation, reward, loss and the learner's other metrics, the latter sorted.

        While the loss and the norm of the gradients are finite, so are the parameters.
        """
        return [*CHECKED, *sorted(metrics, key=lambda name: (name != "loss", name))]

    def shared(self, state: TrainState) -> Any:
        whole = jax.tree.map(lambda _: False, state)
        carry = jax.tree.map(lambda _: True, state.carry)
        return whole._replace(env=self.env.shared(state.env), carry=carry)

    def check_fits(self, state: TrainState, free: int) -> int:
        return 0

    def init(self, key: jax.Array, hyper: Any, schedule: Any) -> TrainState:
        key, agent_key, env_key = jax.random.split(key, 3)
        env, _ = self.env.init(env_key, self.params)
        agent = self.agent.init(agent_key, hyper)
        carry = self.agent.carry(self.env.num_envs)
        alive = jnp.ones((), bool)
        state = TrainState(agent, hyper, env, carry, (), key, begin(schedule), alive)
        return state._replace(replay=self.empty_replay(state))

    def empty_replay(self, state: TrainState) -> Any:
        """Return the empty replay of a learner whose state is `state` otherwise, () for none."""
        return ()

    def act(self, state: TrainState, actor: Any, carry: Any, inputs: Input, progress: jax.Array,
            key: jax.Array) -> tuple[Any, Any, Any]:
        """Return (action, carry, extras) of a step in training."""
        return self.agent.explore(actor, state.hyper, carry, inputs, progress, key)

    def learn(self, state: TrainState, batch: Trajectory, progress: jax.Array,
              key: jax.Array) -> tuple[TrainState, Metrics, jax.Array]:
        """Return (state with a new agent, metrics of the learner, 1.0 if it learned, else 0.0)."""
        raise TypeError(f"{type(self).__name__} does not define learn")

    def advance(self, state: TrainState, updates: Any) -> tuple[TrainState, Metrics]:
        """Run `updates` updates: one program for every length, since the number may be traced.

        Metrics are means over the updates that learned; `return_mean` and `length_mean` are means
        over the episodes that ended, NaN if none did.
        """
        names = list(jax.eval_shape(self._update, state)[1].learner)

        def body(_: jax.Array, loop: tuple[TrainState, Sums]) -> tuple[TrainState, Sums]:
            state, sums = loop
            new, update = self._update(state)
            update = update._replace(learner=jnp.stack([update.learner[name] for name in names]))
            ok = state.alive & (update.nonfinite == 0)
            added = select(ok, jax.tree.map(jnp.add, sums, update), sums)
            nonfinite = jnp.where(state.alive, update.nonfinite, sums.nonfinite)
            added = added._replace(nonfinite=nonfinite)
            progress = select(ok, new.progress, state.progress)
            agent = select(ok, new.agent, state.agent)
            return new._replace(agent=agent, progress=progress, alive=ok), added

        zero = jnp.zeros(())
        zeros = Sums(jnp.zeros(len(names)), zero, zero, zero, zero, jnp.zeros((), jnp.int32))
        state, sums = jax.lax.fori_loop(0, updates, body, (state, zeros))
        return state, dict(zip(names, mean(sums.learner, sums.updates))) | {
            "episodes": sums.episodes, "return_mean": mean(sums.returns, sums.episodes),
            "length_mean": mean(sums.lengths, sums.episodes), "nonfinite": sums.nonfinite}

    def _update(self, state: TrainState) -> tuple[TrainState, Sums]:
        key, rollout_key, learn_key = jax.random.split(state.key, 3)
        progress = fraction(state.progress)
        if self.curriculum is not None:
            params = self.curriculum(state.env.params, progress)
            state = state._replace(env=state.env._replace(params=params))
        env, carry, batch, episodes = self.rollout(state, progress, rollout_key)
        acted = state._replace(env=env, carry=carry, key=key)
        new, metrics, learned = self.learn(acted, batch, progress, learn_key)
        new = new._replace(progress=state.progress._replace(update=state.progress.update + 1))
        return new, Sums(metrics, learned, *episodes, self._nonfinite(batch, metrics))

    def _nonfinite(self, batch: Trajectory, metrics: Metrics) -> jax.Array:
        names = self.watched(metrics)[len(CHECKED):]
        learner = jnp.stack([metrics[name] for name in names])
        checked = jnp.stack([_finite(batch.input.obs), _finite(batch.reward)])
        finite = jnp.concatenate([checked, jnp.isfinite(learner)])
        return jnp.where(finite.all(), 0, 1 + jnp.argmin(finite)).astype(jnp.int32)

    def rollout(self, state: TrainState, progress: jax.Array,
                key: jax.Array) -> tuple[Any, Any, Trajectory, tuple[Any, Any, Any]]:
        """Step the environments `rollout_length` times.

        Returns (environment state, carry, Trajectory [T, N], totals of the episodes that ended:
        their number, the sum of their returns and that of their lengths).
        """
        actor = self.agent.actor(state.agent)

        def step(state_and_carry: tuple, keys: jax.Array) -> tuple:
            env, carry = state_and_carry
            inputs = self.env.input(env)
            action, carry, extras = self.act(state, actor, carry, inputs, progress, keys[0])
            env, timestep = self.env.step(keys[1], env, action)
            transition = Trajectory(inputs, action, extras, timestep.reward, timestep.terminated,
                                    timestep.truncated, timestep.final_input, carry0=())
            ended = timestep.input.first
            return (env, carry), (transition, ended, timestep.episode_return,
                                  timestep.episode_length)

        keys = jax.random.split(key, (self.rollout_length, 2))
        start = (state.env, state.carry)
        (env, carry), (batch, ended, returns, lengths) = jax.lax.scan(step, start, keys)
        returns = returns.reshape(*ended.shape, -1).mean(-1)      # the mean of several agents
        totals = (_total(1, ended), _total(returns, ended), _total(lengths, ended))
        return env, carry, batch._replace(carry0=state.carry), totals


class Sums(NamedTuple):
    """Sums of metrics over updates."""

    learner: Any             # of one update: a dict; of several: an array of the sums
    updates: jax.Array
    episodes: jax.Array
    returns: jax.Array
    lengths: jax.Array
    nonfinite: jax.Array


def _total(x: Any, ended: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(ended, x, 0), dtype=jnp.float32)


def _finite(tree: Any) -> jax.Array:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    if not floats:
        return jnp.ones((), bool)
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in floats]))
