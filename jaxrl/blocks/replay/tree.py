"""A sum tree in one flat float32 array: levels of sums, the root's children first, the leaves last.

A node has 8 children side by side, so that a step down reads half a cache line; the steps between them are those of a
binary tree, whose sums are formed as they are needed. A node is always added up from its children pair by pair, never
moved by a difference: every node, the total too, is the pairwise sum of its leaves bit for bit, however many updates
there were. All is O(log leaves) for each leaf touched.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

WIDTH = 8


def init(count: int) -> jax.Array:
    """`count` leaves or a few more, all 0."""
    return jnp.zeros(WIDTH * sum(_levels(-(-count // WIDTH))), jnp.float32)


def total(tree: jax.Array) -> jax.Array:
    """The sum of all leaves."""
    return _pairwise(tree[:WIDTH])


def leaves(tree: jax.Array) -> jax.Array:
    """All leaves."""
    return tree[WIDTH * _offsets(tree)[-1]:]


def find(tree: jax.Array, mass: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(leaf int32, its value) [B] in whose share of [0, total) each `mass` [B] falls; never one of 0 while there are
    others."""
    blocks, offsets = tree.reshape(-1, WIDTH), jnp.array(_offsets(tree), jnp.int32)

    def descend(level, at):
        node, _, rest = at
        children = blocks.at[offsets[level] + node].get(mode="promise_in_bounds")
        children, node = [children[:, i] for i in range(WIDTH)], WIDTH * node
        while len(children) > 1:
            half = len(children) // 2
            left, right = _pairwise_of(children[:half]), _pairwise_of(children[half:])
            goes_right = (rest >= left) & (right > 0)        # rounding may leave more rest than there is: stay inside
            rest, node = jnp.where(goes_right, rest - left, rest), node + half * goes_right
            children = [jnp.where(goes_right, b, a) for a, b in zip(children[:half], children[half:])]
        return node, children[0], rest

    # A loop, because XLA fuses levels that follow one another into one kernel that reads each many times over; and the
    # value is read in it, because a read that nothing orders before the next write there makes XLA copy the tree.
    node, value, _ = jax.lax.fori_loop(0, len(offsets), descend, (jnp.zeros(mass.shape, jnp.int32), mass, mass))
    return node, value


def set_max(tree: jax.Array, leaf: jax.Array, value: jax.Array) -> jax.Array:
    """Leaves [B] get new values [B] >= 0; a leaf that is named more than once the largest, whatever the order.

    In place, if the values are not made from the tree's own.
    """
    levels, offsets = len(_offsets(tree)), jnp.array(_offsets(tree), jnp.int32)
    at = WIDTH * offsets[-1] + leaf
    tree = tree.at[at].set(0.0).at[at].max(value)

    def rise(step, at):
        tree, node = at
        level, node = levels - 1 - step, node // WIDTH
        below = tree.reshape(-1, WIDTH).at[offsets[level] + node].get(mode="promise_in_bounds")
        return tree.at[WIDTH * offsets[level - 1] + node].set(_pairwise(below)), node    # twice the same: any order

    return jax.lax.fori_loop(0, levels - 1, rise, (tree, leaf))[0]


def get_range(tree: jax.Array, first: jax.Array, count: int) -> jax.Array:
    """The `count` leaves from `first` on."""
    return jax.lax.dynamic_slice_in_dim(tree, WIDTH * _offsets(tree)[-1] + first, count)


def set_range(tree: jax.Array, first: jax.Array, values: jax.Array) -> jax.Array:
    """The leaves from `first` on get new values: one contiguous write at each level, an eighth as long at the next."""
    offsets, count = _offsets(tree), values.shape[0]
    sizes = [end - begin for begin, end in zip(offsets, [*offsets[1:], tree.shape[0] // WIDTH])]
    tree = jax.lax.dynamic_update_slice_in_dim(tree, values, WIDTH * offsets[-1] + first, axis=0)
    for level in range(len(offsets) - 1, 0, -1):
        count = min((count - 1) // WIDTH + 2, sizes[level])
        first = jnp.minimum(first // WIDTH, sizes[level] - count)
        below = jax.lax.dynamic_slice_in_dim(tree, WIDTH * (offsets[level] + first), WIDTH * count)
        sums = _pairwise(below.reshape(count, WIDTH))
        tree = jax.lax.dynamic_update_slice_in_dim(tree, sums, WIDTH * offsets[level - 1] + first, axis=0)
    return tree


def _levels(blocks: int) -> list[int]:
    """How many blocks of 8 nodes there are at each level, the root's first, of a tree with so many of leaves."""
    sizes = [blocks]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // WIDTH))
    return sizes[::-1]


def _offsets(tree: jax.Array) -> list[int]:
    """The first block of each level."""
    blocks = all_blocks = tree.shape[0] // WIDTH
    while sum(_levels(blocks)) > all_blocks:
        blocks -= max((sum(_levels(blocks)) - all_blocks) // 2, 1)
    sizes = _levels(blocks)
    return [sum(sizes[:level]) for level in range(len(sizes))]


def _pairwise(x: jax.Array) -> jax.Array:
    """Sums along the last axis."""
    return _pairwise_of([x[..., i] for i in range(x.shape[-1])])


def _pairwise_of(terms: list[jax.Array]) -> jax.Array:
    while len(terms) > 1:
        terms = [a + b for a, b in zip(terms[0::2], terms[1::2])]
    return terms[0]
