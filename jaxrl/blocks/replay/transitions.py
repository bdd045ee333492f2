"""Transitions of n steps, with frames stacked as they are read."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.blocks.losses.value import n_step_window
from jaxrl.blocks.replay import buffer
from jaxrl.blocks.replay.draws import Draw, uniform
from jaxrl.blocks.replay.ring import Reach, take


class Transitions(NamedTuple):
    """Items of a batch [B, ...]. The n-step target of a value V is reward + discount * V(next_input)."""

    start: Any               # the row in which each begins, without its `final_input`; observations stacked
    reward: jax.Array        # sum over the m steps of the window of gamma^k r_k, m <= n
    discount: jax.Array      # gamma^m, 0 where the episode terminated
    next_input: Any          # what the policy would see after the window
    weight: jax.Array        # [B] importance, 0 where there was nothing to draw
    index: jax.Array         # [B] int32: what `update` calls them


def transitions(*, n: int = 1, stack: int = 1, draw: Draw | None = None, rows_per_insert: int = 1) -> buffer.Replay:
    """Replay of n-step transitions (learning targets of Sutton and Barto 2018, eq. 7.1). See buffer.Replay.

    A window ends with its episode: a terminated step is its last, with discount 0, a truncated one its last, with
    what followed it to bootstrap from (or the one before, where rows do not hold `final_input`). Rewards and
    terminated may have an axis of agents; an agent that terminates earns no more, the window goes on for the others.

    stack: rows hold single frames, and `input.obs` becomes the last `stack` of them along the last axis, the newest
    last, as envs_jax.wrappers.FrameStack gives it: an episode, which `input.first` tells, starts with copies of its
    first frame. A start then needs stack - 1 rows before it.
    """
    if n < 1 or stack < 1:
        raise ValueError(f"transitions need n >= 1 and stack >= 1, not {n} and {stack}")

    def reach(rows):
        return Reach(behind=stack - 1, ahead=n + implicit(rows))

    def startable(rows):
        return (lambda rows, row, env: ~cut(rows, row, env)) if implicit(rows) else None

    def read(rows, row, env, gamma):
        reward, discount, taken = window(rows, row, env, gamma)
        start = take(rows._replace(input=None, **_dropped(rows)), row, env)
        start = start._replace(input=stacked(rows.input, row, env, stack))
        if implicit(rows):
            following = stacked(rows.input, row + taken, env, stack)
        else:
            following = stacked_final(rows, row + taken - 1, env, stack)
        return Transitions(start, reward, discount, following, weight=None, index=None)

    def window(rows, row, env, gamma):
        """(sum of discounted rewards, discount of what follows, number of steps [B]) of the windows that start here."""
        steps = row[None] + jnp.arange(n, dtype=jnp.int32)[:, None]
        env = jnp.broadcast_to(env[None], steps.shape)
        reward, terminated = take((rows.reward, rows.terminated), steps, env)
        ends = cut(rows, steps + implicit(rows), env)             # a window ends with a cut, or before one
        ends = jnp.broadcast_to(ends.reshape(ends.shape + (1,) * (reward.ndim - ends.ndim)), reward.shape)
        reward, discount, last = n_step_window(reward, terminated, ends, gamma=gamma)
        return reward, discount, 1 + last.reshape(*row.shape, -1).max(axis=-1)      # of the agents, if there are any

    return buffer.make(buffer.Reading(reach, startable, read), uniform() if draw is None else draw, rows_per_insert)


def implicit(rows: Any) -> bool:
    """Whether what followed a step is to be read from the next row."""
    return getattr(rows, "final_input", None) is None


def cut(rows: Any, row: jax.Array, env: jax.Array) -> jax.Array:
    """Whether the step at (row, env) truncated its episode, which did not end by itself; never by agent."""
    terminated, truncated = (x.reshape(*row.shape, -1) for x in take((rows.terminated, rows.truncated), row, env))
    return truncated.any(axis=-1) & ~terminated.all(axis=-1)


def stacked(inputs: Any, row: jax.Array, env: jax.Array, stack: int) -> Any:
    """The inputs at (row, env), their observations with the frames before them in the same episode."""
    if stack == 1:
        return take(inputs, row, env)
    now = take(inputs._replace(obs=None), row, env)
    return now._replace(obs=_frames(inputs, row, env, stack))


def stacked_final(rows: Any, row: jax.Array, env: jax.Array, stack: int) -> Any:
    """What really followed (row, env), with the frames before it."""
    final = take(rows.final_input, row, env)
    if stack == 1:
        return final
    before = _frames(rows.input, row, env, stack - 1)

    def append(before, now):
        return jnp.concatenate([before, now if now.ndim > row.ndim else now[..., None]], axis=-1)

    return final._replace(obs=jax.tree.map(append, before, final.obs))


def _frames(inputs: Any, row: jax.Array, env: jax.Array, count: int) -> Any:
    """The last `count` observations along the last axis, the oldest first; before an episode its first one again."""
    back = [jnp.zeros_like(row)]
    for _ in range(count - 1):
        back.append(back[-1] + ~take(inputs.first, row - back[-1], env))
    back = jnp.stack(back[::-1])
    frames = take(inputs.obs, row[None] - back, jnp.broadcast_to(env[None], back.shape))     # one gather: fast on a CPU

    def side_by_side(x):
        x = x if x.ndim > back.ndim else x[..., None]
        return jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], count * x.shape[-1])

    return jax.tree.map(side_by_side, frames)


def _dropped(rows: Any) -> dict:
    return {"final_input": None} if hasattr(rows, "final_input") else {}
