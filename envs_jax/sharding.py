"""Data parallelism: one learner on several devices, which share its environments.

The compiler divides the work according to the shardings of its arguments, and adds up gradients, so
no learner needs to know the number of devices. The functions of this file help the compiler where
it cannot find the best layout of an array, or cannot tell that groups of environments are
independent. On a single device they do nothing.
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
    """Return the mesh of `devices`, with one axis."""
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def sharded_over(devices: tuple[jax.Device, ...]) -> AbstractContextManager:
    """Return a context in which programs are traced for `devices`."""
    return jax.set_mesh(mesh_of(devices))


def sharded() -> bool:
    """Return True if the current trace is for several devices."""
    return AXIS in jax.sharding.get_abstract_mesh().axis_names


def over_devices(tree: Any, axis: int) -> Any:
    """Return `tree` with `axis` of each leaf divided among the devices; unchanged on one device."""
    return _constrained(tree, PartitionSpec(*[None] * axis, AXIS))


def on_all_devices(tree: Any) -> Any:
    """Return `tree` with a full copy on every device; unchanged on one device."""
    return _constrained(tree, PartitionSpec())


def independently(function: Callable, in_axes: tuple, out_axes: tuple) -> Callable:
    """Return `function` applied by each device to its part of the arguments; unchanged on one.

    in_axes and out_axes are those of vmap: prefixes of the arguments, with 0 for the axis that is
    divided among the devices, or None.
    """
    if not sharded():
        return function
    return jax.shard_map(function, in_specs=_specs(in_axes), out_specs=_specs(out_axes),
                         check_vma=False)


def _constrained(tree: Any, spec: PartitionSpec) -> Any:
    if not sharded():
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, spec), tree)


def _specs(axes: tuple) -> Any:
    def spec(axis: int | None) -> PartitionSpec:
        return PartitionSpec() if axis is None else PartitionSpec(AXIS)

    return jax.tree.map(spec, axes, is_leaf=lambda axis: axis is None)
