"""Transitions of n steps, with frames stacked as they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl.blocks.losses.value import n_step_window
from jaxrl.blocks.replay import buffer
from jaxrl.blocks.replay.draws import Draw, uniform
from jaxrl.blocks.replay.ring import Reach, take

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Int


class Transitions(NamedTuple):
    """A batch [B, ...] of items.

    The n-step target of a value V is reward + discount * V(next_input).
    """

    start: Any               # first row of each, without `final_input`; observations stacked
    reward: jax.Array        # sum over the m steps of the window of gamma^k r_k, m <= n
    discount: jax.Array      # gamma^m, 0 where the episode terminated
    next_input: Any          # what the policy would see after the window
    weight: jax.Array        # [B] importance, 0 where there was nothing to draw
    index: jax.Array         # [B] int32: the items' numbers, for `Replay.update`


def transitions(*, n: int = 1, stack: int = 1, draw: Draw | None = None, rows_per_insert: int = 1
                ) -> buffer.Replay:
    """Return a replay of n-step transitions. See buffer.Replay.

    A window (Sutton and Barto 2018, eq. 7.1) ends with its episode. A terminated step is its last,
    with discount 0. A truncated step is its last, with what followed it to bootstrap from (or the
    step before, if rows do not hold `final_input`). Rewards and terminated may have an axis of
    agents; an agent that terminates earns no more, while the window continues for the others.

    stack: rows hold single frames, and `input.obs` becomes the last `stack` of them along the last
    axis, the newest last, as from envs_jax.wrappers.FrameStack. An episode, marked by
    `input.first`, starts with copies of its first frame. A start then needs stack - 1 rows before
    it. Raises ValueError if n < 1 or stack < 1.
    """
    if n < 1 or stack < 1:
        raise ValueError(f"transitions need n >= 1 and stack >= 1, not {n} and {stack}")
    draw = uniform() if draw is None else draw
    return buffer.make(WindowReading(n, stack), draw, rows_per_insert)


@dataclass(frozen=True)
class WindowReading:
    """The reading of n-step windows. See buffer.Reading."""

    n: int
    stack: int
    stores_carry: bool = False

    def reach(self, rows: Any) -> Reach:
        return Reach(behind=self.stack - 1, ahead=self.n + implicit(rows))

    def startable(self, rows: Any) -> Callable | None:
        return _not_cut if implicit(rows) else None

    def read(self, rows: Any, row: Int[Array, " B"], env: Int[Array, " B"], gamma: ArrayLike
             ) -> Transitions:
        reward, discount, taken = self._window(rows, row, env, gamma)
        start = take(rows._replace(input=None, **_dropped(rows)), row, env)
        start = start._replace(input=stacked(rows.input, row, env, self.stack))
        if implicit(rows):
            next_input = stacked(rows.input, row + taken, env, self.stack)
        else:
            next_input = stacked_final(rows, row + taken - 1, env, self.stack)
        return Transitions(start, reward, discount, next_input, weight=None, index=None)

    def _window(self, rows: Any, row: Int[Array, " B"], env: Int[Array, " B"], gamma: ArrayLike
                ) -> tuple[jax.Array, jax.Array, Int[Array, " B"]]:
        """Return (sum of discounted rewards, discount of what follows, number of steps) of windows.
        """
        steps = row[None] + jnp.arange(self.n, dtype=jnp.int32)[:, None]
        env = jnp.broadcast_to(env[None], steps.shape)
        reward, terminated = take((rows.reward, rows.terminated), steps, env)
        # a window ends with a cut, or before one
        ends = cut(rows, steps + implicit(rows), env)
        agents = (1,) * (reward.ndim - ends.ndim)
        ends = jnp.broadcast_to(ends.reshape(ends.shape + agents), reward.shape)
        reward, discount, last = n_step_window(reward, terminated, ends, gamma=gamma)
        taken = 1 + last.reshape(*row.shape, -1).max(axis=-1)     # over the agents, if any
        return reward, discount, taken


def implicit(rows: Any) -> bool:
    """Return True if what followed a step has to be read from the next row."""
    return getattr(rows, "final_input", None) is None


def cut(rows: Any, row: Int[Array, "*shape"], env: Int[Array, "*shape"]) -> Bool[Array, "*shape"]:
    """Return True where the step at (row, env) truncated an episode that did not end by itself.

    The result has no axis of agents.
    """
    terminated, truncated = take((rows.terminated, rows.truncated), row, env)
    terminated = terminated.reshape(*row.shape, -1)
    truncated = truncated.reshape(*row.shape, -1)
    return truncated.any(axis=-1) & ~terminated.all(axis=-1)


def _not_cut(rows: Any, row: Int[Array, "*shape"], env: Int[Array, "*shape"]
             ) -> Bool[Array, "*shape"]:
    return ~cut(rows, row, env)


def stacked(inputs: Any, row: Int[Array, "*shape"], env: Int[Array, "*shape"], stack: int) -> Any:
    """Return the inputs at (row, env), with the frames before them in the same episode."""
    if stack == 1:
        return take(inputs, row, env)
    current = take(inputs._replace(obs=None), row, env)
    return current._replace(obs=_frames(inputs, row, env, stack))


def stacked_final(rows: Any, row: Int[Array, "*shape"], env: Int[Array, "*shape"], stack: int
                  ) -> Any:
    """Return the input that really followed (row, env), with the frames before it."""
    final = take(rows.final_input, row, env)
    if stack == 1:
        return final
    before = _frames(rows.input, row, env, stack - 1)

    def append(before: jax.Array, frame: jax.Array) -> jax.Array:
        if frame.ndim == row.ndim:
            frame = frame[..., None]
        return jnp.concatenate([before, frame], axis=-1)

    return final._replace(obs=jax.tree.map(append, before, final.obs))


def _frames(inputs: Any, row: Int[Array, "*shape"], env: Int[Array, "*shape"], count: int) -> Any:
    """Return the last `count` observations along the last axis, the oldest first.

    Before an episode its first observation is repeated.
    """
    back = [jnp.zeros_like(row)]
    for _ in range(count - 1):
        back.append(back[-1] + ~take(inputs.first, row - back[-1], env))
    back = jnp.stack(back[::-1])
    # one gather: fast on a CPU
    frames = take(inputs.obs, row[None] - back, jnp.broadcast_to(env[None], back.shape))

    def side_by_side(x: jax.Array) -> jax.Array:
        if x.ndim == back.ndim:
            x = x[..., None]
        return jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], count * x.shape[-1])

    return jax.tree.map(side_by_side, frames)


def _dropped(rows: Any) -> dict[str, None]:
    return {"final_input": None} if hasattr(rows, "final_input") else {}
