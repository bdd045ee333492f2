"""N environments at once, with auto-reset.

A reset per environment per step is where the speed of cheap environments goes. So a group of environments shares a
pool of fresh starts, drawn for many steps at once: the k-th environment to end takes the k-th unused start. Each start
is used at most once, so the distribution is exactly that of resetting always; what is left of a pool that runs low is
thrown away unseen, which depends on how many were taken and never on what they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax import spaces
from envs_jax.core import Environment, Input, TimeStep
from envs_jax.sharding import independently
from envs_jax.wrappers import EpisodeStatistics


class Pool(NamedTuple):
    """Fresh starts of one group, `used` of which are taken."""

    key: jax.Array
    starts: Any            # (observation, environment state) [P, ...]
    used: jax.Array        # int32


class VectorState(NamedTuple):
    """Leaves [environments, ...]; with several groups [groups, environments of a group, ...]."""

    params: Any
    env: Any
    input: Input
    pool: Pool


class VectorEnv:
    """`num_envs` copies of `env`, reset when their episode ends.

    `group_size` (a divisor of num_envs, default all) environments share one pool; what is sharded over devices is the
    groups. `pool_size` starts are drawn together (default 4 per environment, at least 64). `reset="always"` draws a
    fresh start per environment per step: the slow reference for tests. `reset="never"` leaves an environment whose
    episode ended as it is, for who looks at one episode.
    """

    def __init__(self, env: Environment, num_envs: int, *, group_size: int | None = None,
                 pool_size: int | None = None, reset: str = "pool"):
        if reset not in ("pool", "always", "never"):
            raise ValueError(f'reset = "{reset}" is not one of "pool", "always", "never"')
        group_size = group_size or num_envs
        if num_envs % group_size:
            raise ValueError(f"num_envs = {num_envs} is not a multiple of group_size = {group_size}")
        pool_size = pool_size or max(4 * group_size, 64)
        if pool_size < group_size:
            raise ValueError(f"pool_size = {pool_size} is smaller than a group of {group_size} environments")
        self.env = env if _has_statistics(env) else EpisodeStatistics(env)
        self.num_envs, self.group_size, self.pool_size, self.reset = num_envs, group_size, pool_size, reset
        self.num_groups = num_envs // group_size

    # ---------------------------------------------------------------- public, over all environments

    def init(self, key: jax.Array, params: Any) -> tuple[VectorState, Input]:
        """-> (state, the first Input [num_envs, ...])."""
        params = jax.tree.map(lambda x: jnp.asarray(x, jax.dtypes.canonicalize_dtype(jnp.result_type(x))), params)
        slot = jnp.arange(self.num_envs, dtype=jnp.int32)
        if self.num_groups == 1:
            state = self._init(key, params, slot)
        else:
            keys = jax.random.split(key, self.num_groups)
            state = jax.vmap(self._init, in_axes=(0, None, 0))(keys, params, slot.reshape(self.num_groups, -1))
            state = state._replace(params=params)
        return state, self.input(state)

    def step(self, key: jax.Array, state: VectorState, action: Any) -> tuple[VectorState, TimeStep]:
        """Step every environment with `action` [num_envs, ...]; see TimeStep for what comes back."""
        if self.num_groups == 1:
            return self._step(key, state, action)
        action = jax.tree.map(lambda x: x.reshape(self.num_groups, self.group_size, *x.shape[1:]), action)
        axes = VectorState(params=None, env=0, input=0, pool=0)
        in_axes, out_axes = (0, axes, 0), (axes, 0)
        step = independently(jax.vmap(self._step, in_axes, out_axes), in_axes, out_axes)
        state, step = step(jax.random.split(key, self.num_groups), state, action)
        return state, jax.tree.map(self._flat, step)

    def input(self, state: VectorState) -> Input:
        """The Input [num_envs, ...] that the policy sees now."""
        return state.input if self.num_groups == 1 else jax.tree.map(self._flat, state.input)

    def shared(self, state: VectorState) -> VectorState:
        """A tree of bools like `state`: the leaves whose first axis is of groups, which devices may share."""
        all_of = lambda tree, flag: jax.tree.map(lambda _: flag, tree)
        return all_of(state, self.num_groups > 1)._replace(params=all_of(state.params, False))

    # ---------------------------------------------------------------- one group

    def _init(self, key: jax.Array, params: Any, slot: jax.Array) -> VectorState:
        key, now = jax.random.split(key)
        starts = self._fresh(now, params, self.group_size + self.pool_size)
        obs, env = jax.tree.map(lambda x: x[: self.group_size], starts)
        pool = Pool(key, jax.tree.map(lambda x: x[self.group_size:], starts), jnp.zeros((), jnp.int32))
        agents = () if self.env.agents is None else (self.env.agents,)
        action = spaces.zeros(self.env.action_space(self.env.default_params), (self.group_size, *agents))   # not traced
        reward = jnp.zeros((self.group_size, *agents), jnp.float32)
        first = jnp.ones(self.group_size, bool)
        inputs = self._input(params, env, obs, first, action, reward, slot)
        return VectorState(params, env, inputs, pool)

    def _step(self, key: jax.Array, state: VectorState, action: Any) -> tuple[VectorState, TimeStep]:
        params, slot = state.params, state.input.slot
        keys = jax.random.split(key, self.group_size)        # dead code where the dynamics ignore it
        obs, env, reward, terminated, truncated, info = jax.vmap(self.env.step, in_axes=(0, 0, 0, None))(
            keys, state.env, action, params)
        final = self._input(params, env, obs, jnp.zeros(self.group_size, bool), action, reward, slot)
        done = terminated.reshape(self.group_size, -1).all(axis=-1) | truncated      # agents end together
        (obs, env), pool = self._starts(state.pool, params, done, (obs, env))
        blank = lambda tree: _where(done, jax.tree.map(jnp.zeros_like, tree), tree)
        fresh = self._input(params, env, obs, done, blank(action), blank(reward), slot)
        truncated = jnp.broadcast_to(truncated.reshape(-1, *[1] * (reward.ndim - 1)), reward.shape)
        step = TimeStep(fresh, reward, terminated, truncated, final, info["episode_return"], info["episode_length"])
        return VectorState(params, env, fresh, pool), step

    def _starts(self, pool: Pool, params: Any, done: jax.Array, going: Any) -> tuple[Any, Pool]:
        """-> (`going`, with a fresh start where `done` [n]; the pool that is left)."""
        if self.reset == "never":
            return going, pool
        if self.reset == "always":
            key, now = jax.random.split(pool.key)
            return _where(done, self._fresh(now, params, self.group_size), going), pool._replace(key=key)
        pool = self._refilled(pool, params)                           # before it is read: then nothing is copied
        used = pool.used + jnp.cumsum(done, dtype=jnp.int32)          # the k-th to end takes the k-th unused start
        taken = jax.tree.map(lambda x: x[jnp.where(done, used - 1, 0)], pool.starts)
        return _where(done, taken, going), pool._replace(used=used[-1])

    def _refilled(self, pool: Pool, params: Any) -> Pool:
        """A pool that is enough for all: `pool`, or a new one.

        A loop of no turn or one, because that stays a branch under vmap (of `lax.cond` both sides run), taken if some
        member wants it, and leaves what it carries where it is (a `cond` copies it in every step).
        """
        def low(pool):
            return pool.used > self.pool_size - self.group_size

        def draw(pool):
            key, now = jax.random.split(pool.key)
            return Pool(key, self._fresh(now, params, self.pool_size), jnp.zeros((), jnp.int32))

        return jax.lax.while_loop(low, draw, pool)

    def _fresh(self, key: jax.Array, params: Any, n: int) -> tuple[Any, Any]:
        return jax.vmap(self.env.reset, in_axes=(0, None))(jax.random.split(key, n), params)

    def _input(self, params, env, obs, first, action, reward, slot) -> Input:
        extra = lambda f: None if f is None else jax.vmap(f, in_axes=(0, None))(env, params)
        mask, state = extra(self.env.action_mask), extra(self.env.global_state)
        return Input(obs, first, mask, action, reward, state, slot)

    def _flat(self, x: jax.Array) -> jax.Array:
        return x.reshape(self.num_envs, *x.shape[2:])


def _has_statistics(env: Environment) -> bool:
    while env is not None:
        if isinstance(env, EpisodeStatistics):
            return True
        env = getattr(env, "env", None)
    return False


def _where(flag: jax.Array, there: Any, here: Any) -> Any:
    """`there` where `flag` [n], else `here`: trees with any further axes, key arrays too."""
    def pick(a, b):
        return jnp.where(flag.reshape(flag.shape + (1,) * (b.ndim - flag.ndim)), a, b)
    return jax.tree.map(pick, there, here)
