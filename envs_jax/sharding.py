"""One learner on several devices: its environments, and what is computed for each of them, are shared among them.

The compiler divides the work after the shardings of its arguments, and sums gradients; no learner says how many devices
there are. Where it cannot tell how an array is best laid out, or that groups of environments have nothing to do with
each other, the functions of this file say it. On a single device they do nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

AXIS = "env"


@functools.cache
def mesh_of(devices: tuple[jax.Device, ...]) -> Mesh:
    """The mesh of one axis."""
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def sharded_over(devices: tuple[jax.Device, ...]) -> AbstractContextManager:
    """What is traced inside is for these devices."""
    return jax.set_mesh(mesh_of(devices))


def sharded() -> bool:
    """Whether what is being traced is for several devices."""
    return AXIS in jax.sharding.get_abstract_mesh().axis_names


def over_devices(tree: Any, axis: int) -> Any:
    """`tree`, its leaves' `axis` divided among the devices; as it is on one device."""
    if not sharded():
        return tree
    place = lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec(*[None] * axis, AXIS))
    return jax.tree.map(place, tree)


def independently(function: Callable, in_axes: tuple, out_axes: tuple) -> Callable:
    """`function`, each device by itself for its part of the arguments; as it is on one device.

    in_axes and out_axes are vmap's (prefixes of the arguments, 0 or None); the axis is divided among the devices.
    """
    if not sharded():
        return function
    specs = lambda axes: jax.tree.map(lambda axis: PartitionSpec() if axis is None else PartitionSpec(AXIS), axes,
                                      is_leaf=lambda axis: axis is None)
    return jax.shard_map(function, in_specs=specs(in_axes), out_specs=specs(out_axes), check_vma=False)


def on_all_devices(tree: Any) -> Any:
    """`tree`, whole on every device; as it is on one device."""
    if not sharded():
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), tree)
