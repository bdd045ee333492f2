"""Memory that a population needs, computed before any of it is allocated."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.sizes import ceil_div
from jaxrl import backend
from jaxrl.errors import UserError
from jaxrl.population.members import block_size
from jaxrl.storage.files import size_text
from jaxrl.types import Runner, TrainState


class Need(NamedTuple):
    """Bytes that the states of members need, and bytes that are free."""

    each: int                # of one member
    members: int             # including the copies that fill up the last block
    free: int                # of the memory that holds these members, 0 if unknown

    def __str__(self) -> str:
        free = f", {size_text(self.free)} free" if self.free else ""
        total = size_text(self.each * self.members)
        return f"{size_text(self.each)} a member, {total} in all{free}"


def member(runner: Runner, hyper: Any) -> TrainState:
    """Return the shapes and dtypes of one member's state."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(runner.init, key, hyper, jax.ShapeDtypeStruct((), jnp.int32))


def need(state: TrainState, members: int, size: int, free: int = 0) -> Need:
    """Return the need of `members` members like `state`, in blocks of `size`."""
    return Need(nbytes(state), together(members, size, 1), free)


def check(runner: Runner, state: TrainState, members: int, devices: list[jax.Device],
          size: int | None = None) -> Need:
    """Return the need of `members` members like `state`, in blocks of `size`, on `devices`.

    CPU devices share the memory of the host; any other device has to hold its own blocks. Raises
    UserError, with the setting to lower, if that is more than is free.
    """
    each = nbytes(state)
    size = size or block_size(members, len(devices))
    total, free = backend.memory(devices[0])
    memories = 1 if devices[0].platform == "cpu" else len(devices)
    here = together(members, size, memories)
    if not total or each * here <= free:
        return need(state, members, size, free)
    free_for_replay = free // here - (each - nbytes(state.replay))       # for each member
    if free_for_replay > 0:
        _check_replay(runner, state, here, free_for_replay)
    raise UserError(
        f"{here} members of {size_text(each)} each need {size_text(each * here)}, "
        f"{size_text(free)} are free.",
        "Try: fewer num_seeds (or population), fewer algo.num_envs, a shorter algo.rollout_length")


def _check_replay(runner: Runner, state: TrainState, members: int, free: int) -> None:
    """Raise UserError if the replay of each of `members` members is larger than `free`."""
    try:
        runner.check_fits(state, free)
    except ValueError as error:
        times = f"{members} times: " if members > 1 else ""
        raise UserError(times + str(error)) from None


def together(members: int, size: int, memories: int) -> int:
    """Return the most members that one of `memories` memories holds.

    `members` are divided into blocks of `size`, and these among the memories. Copies that fill up
    the last block are counted.
    """
    blocks = ceil_div(members, size)
    return size * ceil_div(blocks, memories)


def nbytes(tree: Any) -> int:
    """Return the bytes of a tree of arrays, or of their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
