"""What a population takes of memory, known before any of it is allocated."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import backend
from jaxrl.errors import UserError
from jaxrl.population.members import block_size
from jaxrl.storage.files import size_text
from jaxrl.types import Runner, TrainState


class Need(NamedTuple):
    """Bytes of members' states, and what is free for those that one memory holds; 0 where that is not known."""

    each: int
    members: int             # copies that fill up the last block included
    free: int

    def __str__(self) -> str:
        free = f", {size_text(self.free)} free" if self.free else ""
        return f"{size_text(self.each)} a member, {size_text(self.each * self.members)} in all{free}"


def member(runner: Runner, hyper: Any) -> TrainState:
    """Shapes and dtypes of one member's state."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(runner.init, key, hyper, jax.ShapeDtypeStruct((), jnp.int32))


def need(state: TrainState, members: int, size: int, free: int = 0) -> Need:
    """Of members like `state` in blocks of `size`."""
    return Need(nbytes(state), together(members, size, 1), free)


def check(runner: Runner, state: TrainState, members: int, devices: list[jax.Device], size: int | None = None) -> Need:
    """What `members` members like `state`, in blocks of `size`, need on `devices`. Raises UserError, saying what to
    lower, if that is more than is free: of the host for CPU devices, which share it, else of a device for its blocks.
    """
    each, size = nbytes(state), size or block_size(members, len(devices))
    total, free = backend.memory(devices[0])
    here = together(members, size, 1 if devices[0].platform == "cpu" else len(devices))
    if not total or each * here <= free:
        return need(state, members, size, free)
    most = free // here - (each - nbytes(state.replay))          # for the replay of each, beside all else
    fits: Callable | None = getattr(runner, "check_fits", None)
    if fits is not None and most > 0:
        try:
            fits(state, most)
        except ValueError as error:
            raise UserError((f"{here} times: " if here > 1 else "") + str(error)) from None
    raise UserError(f"{here} members of {size_text(each)} each need {size_text(each * here)}, {size_text(free)} are "
                    "free.", "Try: fewer num_seeds (or population), fewer algo.num_envs, a shorter algo.rollout_length")


def together(members: int, size: int, memories: int) -> int:
    """How many of `members`, in blocks of `size` dealt out to `memories`, one of these holds at most; copies that fill
    up the last block included."""
    blocks = -(-members // size)
    return size * -(-blocks // memories)


def nbytes(tree: Any) -> int:
    """Of arrays or their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
