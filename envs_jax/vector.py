"""Vectorization: N environments stepped together, with auto-reset.

Resetting every environment in every step costs more than stepping cheap environments. A group of
environments therefore shares a pool of start states, drawn for many steps at once: the k-th
environment to end takes the k-th unused start. Each start is used at most once, so the distribution
is exactly that of resetting in every step. When a pool runs low, its remaining starts are discarded
without being looked at, which depends on how many were used and never on their values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax import spaces
from envs_jax.core import Action, Environment, Input, Params, TimeStep
from envs_jax.sharding import independently
from envs_jax.wrappers import EpisodeStatistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Bool, Int, Key


class Pool(NamedTuple):
    """Start states of one group; the first `used` are taken."""

    key: jax.Array
    starts: Any            # (observation, environment state) [P, ...]
    used: jax.Array        # int32


class VectorState(NamedTuple):
    """State of all environments: leaves [environments, ...], or [groups, environments, ...]."""

    params: Any
    env: Any
    input: Input
    pool: Pool


class VectorEnv:
    """A batch of `num_envs` copies of `env`, each reset when its episode ends.

    group_size: number of environments that share one pool (a divisor of num_envs; default: all).
    Devices share the groups.
    pool_size: number of starts drawn together (default: 4 for each environment, at least 64).
    reset: "pool" (default), "always" (draws a start for each environment in each step, a slow
    reference for tests), or "never" (keeps environments whose episode has ended as they are, for
    evaluating one episode).
    Raises ValueError if the sizes do not fit together.
    """

    def __init__(self, env: Environment, num_envs: int, *, group_size: int | None = None,
                 pool_size: int | None = None, reset: str = "pool"):
        if reset not in ("pool", "always", "never"):
            raise ValueError(f'reset = "{reset}" is not one of "pool", "always", "never"')
        group_size = group_size or num_envs
        if num_envs % group_size:
            raise ValueError(
                f"num_envs = {num_envs} is not a multiple of group_size = {group_size}")
        pool_size = pool_size or max(4 * group_size, 64)
        if pool_size < group_size:
            raise ValueError(f"pool_size = {pool_size} is smaller than group_size = {group_size}; "
                             "a pool needs at least one start for each environment of the group")
        self.env = env if _has_statistics(env) else EpisodeStatistics(env)
        self.num_envs = num_envs
        self.group_size = group_size
        self.num_groups = num_envs // group_size
        self.pool_size = pool_size
        self.reset = reset

    # ------------------------------------------------------------ public, over all environments

    def init(self, key: Key[Array, ""], params: Params) -> tuple[VectorState, Input]:
        """Return (state, first Input [num_envs, ...])."""
        params = jax.tree.map(_as_array, params)
        slot = jnp.arange(self.num_envs, dtype=jnp.int32)
        if self.num_groups == 1:
            state = self._init(key, params, slot)
        else:
            keys = jax.random.split(key, self.num_groups)
            slots = slot.reshape(self.num_groups, -1)
            state = jax.vmap(self._init, in_axes=(0, None, 0))(keys, params, slots)
            state = state._replace(params=params)
        return state, self.input(state)

    def step(self, key: Key[Array, ""], state: VectorState, action: Action,
             ) -> tuple[VectorState, TimeStep]:
        """Step every environment with `action` [num_envs, ...]. Return (state, TimeStep)."""
        if self.num_groups == 1:
            return self._step(key, state, action)
        by_group = (self.num_groups, self.group_size)
        action = jax.tree.map(lambda x: x.reshape(*by_group, *x.shape[1:]), action)
        state_axes = VectorState(params=None, env=0, input=0, pool=0)
        in_axes = (0, state_axes, 0)
        out_axes = (state_axes, 0)
        step = independently(jax.vmap(self._step, in_axes, out_axes), in_axes, out_axes)
        state, time_step = step(jax.random.split(key, self.num_groups), state, action)
        return state, jax.tree.map(self._flat, time_step)

    def input(self, state: VectorState) -> Input:
        """Return the Input [num_envs, ...] for the next action of the policy."""
        if self.num_groups == 1:
            return state.input
        return jax.tree.map(self._flat, state.input)

    def shared(self, state: VectorState) -> VectorState:
        """Return a tree of bools like `state`: True for leaves whose first axis is the groups.

        Devices may share these leaves.
        """
        has_groups = self.num_groups > 1
        flags = jax.tree.map(lambda _: has_groups, state)
        return flags._replace(params=jax.tree.map(lambda _: False, state.params))

    # ------------------------------------------------------------ one group

    def _init(self, key: Key[Array, ""], params: Params, slot: Int[Array, " n"]) -> VectorState:
        n = self.group_size
        key, start_key = jax.random.split(key)
        starts = self._fresh(start_key, params, n + self.pool_size)
        obs, env = jax.tree.map(lambda x: x[:n], starts)
        pool_starts = jax.tree.map(lambda x: x[n:], starts)
        pool = Pool(key, pool_starts, jnp.zeros((), jnp.int32))
        batch = (n,) if self.env.agents is None else (n, self.env.agents)
        # spaces need concrete parameters, and `params` may be traced
        action = spaces.zeros(self.env.action_space(self.env.default_params), batch)
        reward = jnp.zeros(batch, jnp.float32)
        first = jnp.ones(n, bool)
        inputs = self._input(params, env, obs, first, action, reward, slot)
        return VectorState(params, env, inputs, pool)

    def _step(self, key: Key[Array, ""], state: VectorState, action: Action,
              ) -> tuple[VectorState, TimeStep]:
        n = self.group_size
        params = state.params
        slot = state.input.slot
        keys = jax.random.split(key, n)                  # dead code if the dynamics ignore the key
        step = jax.vmap(self.env.step, in_axes=(0, 0, 0, None))
        obs, env, reward, terminated, truncated, info = step(keys, state.env, action, params)
        final = self._input(params, env, obs, jnp.zeros(n, bool), action, reward, slot)
        # the episode of several agents ends when all of them are terminated
        done = terminated.reshape(n, -1).all(axis=-1) | truncated
        (obs, env), pool = self._starts(state.pool, params, done, (obs, env))
        prev_action = _where(done, jax.tree.map(jnp.zeros_like, action), action)
        prev_reward = _where(done, jnp.zeros_like(reward), reward)
        fresh = self._input(params, env, obs, done, prev_action, prev_reward, slot)
        truncated = truncated.reshape(-1, *[1] * (reward.ndim - 1))
        truncated = jnp.broadcast_to(truncated, reward.shape)
        time_step = TimeStep(fresh, reward, terminated, truncated, final,
                             info["episode_return"], info["episode_length"])
        return VectorState(params, env, fresh, pool), time_step

    def _starts(self, pool: Pool, params: Params, done: Bool[Array, " n"], current: Any,
                ) -> tuple[Any, Pool]:
        """Return (`current` with a new start where `done`, the remaining pool)."""
        if self.reset == "never":
            return current, pool
        if self.reset == "always":
            key, start_key = jax.random.split(pool.key)
            starts = self._fresh(start_key, params, self.group_size)
            return _where(done, starts, current), pool._replace(key=key)
        pool = self._refilled(pool, params)              # before the pool is read, to avoid a copy
        used = pool.used + jnp.cumsum(done, dtype=jnp.int32)
        taken = jax.tree.map(lambda x: x[jnp.where(done, used - 1, 0)], pool.starts)
        return _where(done, taken, current), pool._replace(used=used[-1])

    def _refilled(self, pool: Pool, params: Params) -> Pool:
        """Return a pool with a start for every environment: `pool`, or a new one.

        This is a loop of zero or one iteration instead of `lax.cond`. Under vmap a loop still skips
        the draw unless some member needs it, where a `cond` would run both branches; and a loop
        updates the pool in place, where a `cond` would copy it in every step.
        """
        def low(pool: Pool) -> Bool[Array, ""]:
            return pool.used > self.pool_size - self.group_size

        def draw(pool: Pool) -> Pool:
            key, start_key = jax.random.split(pool.key)
            starts = self._fresh(start_key, params, self.pool_size)
            return Pool(key, starts, jnp.zeros((), jnp.int32))

        return jax.lax.while_loop(low, draw, pool)

    def _fresh(self, key: Key[Array, ""], params: Params, n: int) -> tuple[Any, Any]:
        """Return `n` starts: (observation, environment state) [n, ...]."""
        return jax.vmap(self.env.reset, in_axes=(0, None))(jax.random.split(key, n), params)

    def _input(self, params: Params, env: Any, obs: Any, first: Bool[Array, " n"], action: Action,
               reward: Array, slot: Int[Array, " n"]) -> Input:
        def of_state(function: Callable | None) -> Any:
            if function is None:
                return None
            return jax.vmap(function, in_axes=(0, None))(env, params)

        mask = of_state(self.env.action_mask)
        state = of_state(self.env.global_state)
        return Input(obs, first, mask, action, reward, state, slot)

    def _flat(self, x: Array) -> Array:
        """Return an array [groups, environments, ...] as [num_envs, ...]."""
        return x.reshape(self.num_envs, *x.shape[2:])


def _as_array(x: Any) -> Array:
    """Return a number as a strongly typed array."""
    return jnp.asarray(x, jax.dtypes.canonicalize_dtype(jnp.result_type(x)))


def _has_statistics(env: Environment | None) -> bool:
    while env is not None:
        if isinstance(env, EpisodeStatistics):
            return True
        env = getattr(env, "env", None)
    return False


def _where(flag: Bool[Array, " n"], new: Any, old: Any) -> Any:
    """Return `new` where `flag`, else `old`: trees [n, ...], which may contain keys."""
    def pick(a: Array, b: Array) -> Array:
        return jnp.where(flag.reshape(flag.shape + (1,) * (b.ndim - flag.ndim)), a, b)

    return jax.tree.map(pick, new, old)
