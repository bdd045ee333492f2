"""A sum tree in one flat float32 array: levels of sums, the root's children first, the leaves last.

A node has 8 children side by side, so that a step down reads half a cache line. The steps between
them are those of a binary tree, whose sums are formed when they are needed. A node is always added
up from its children pair by pair, never changed by a difference. So every node, the total too, is
the pairwise sum of its leaves bit for bit, after any number of updates. Each operation is O(log
leaves) per leaf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from envs_jax.sizes import ceil_div

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

WIDTH = 8


def init(count: int) -> Float[Array, " nodes"]:
    """Return a tree of `count` leaves or a few more, all 0."""
    return jnp.zeros(WIDTH * sum(_levels(ceil_div(count, WIDTH))), jnp.float32)


def total(tree: Float[Array, " nodes"]) -> Float[Array, ""]:
    """Return the sum of all leaves."""
    return _pairwise(tree[:WIDTH])


def leaves(tree: Float[Array, " nodes"]) -> Float[Array, " leaves"]:
    """Return all leaves."""
    return tree[WIDTH * _offsets(tree)[-1]:]


def find(tree: Float[Array, " nodes"], mass: Float[Array, " B"]
         ) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """Return (leaf int32, its value) in whose share of [0, total) each `mass` falls.

    A leaf of value 0 is never found while there are others.
    """
    blocks = tree.reshape(-1, WIDTH)
    offsets = jnp.array(_offsets(tree), jnp.int32)

    def descend(level: jax.Array, found: tuple[jax.Array, jax.Array, jax.Array]
                ) -> tuple[jax.Array, jax.Array, jax.Array]:
        node, _, rest = found
        block = blocks.at[offsets[level] + node].get(mode="promise_in_bounds")
        children = [block[:, i] for i in range(WIDTH)]
        node = WIDTH * node
        while len(children) > 1:
            half = len(children) // 2
            left = _pairwise_of(children[:half])
            right = _pairwise_of(children[half:])
            # rounding may leave more rest than there is: stay inside
            goes_right = (rest >= left) & (right > 0)
            rest = jnp.where(goes_right, rest - left, rest)
            node = node + half * goes_right
            pairs = zip(children[:half], children[half:])
            children = [jnp.where(goes_right, right, left) for left, right in pairs]
        return node, children[0], rest

    # A loop, because XLA fuses levels that follow one another into one kernel that reads each many
    # times over. The value is read in it, because XLA copies the tree for a read that nothing
    # orders before the next write.
    root = jnp.zeros(mass.shape, jnp.int32)
    node, value, _ = jax.lax.fori_loop(0, len(offsets), descend, (root, mass, mass))
    return node, value


def set_max(tree: Float[Array, " nodes"], leaf: Int[Array, " B"], value: Float[Array, " B"]
            ) -> Float[Array, " nodes"]:
    """Return the tree with new values >= 0 of leaves.

    A leaf that is given more than once gets the largest of its values, whatever their order. The
    update is in place if the values are not made from the tree's own.
    """
    levels = len(_offsets(tree))
    offsets = jnp.array(_offsets(tree), jnp.int32)
    at = WIDTH * offsets[-1] + leaf
    tree = tree.at[at].set(0.0).at[at].max(value)

    def rise(step: jax.Array, current: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        tree, node = current
        level = levels - 1 - step
        node = node // WIDTH
        below = tree.reshape(-1, WIDTH).at[offsets[level] + node].get(mode="promise_in_bounds")
        # a node that is set twice gets the same sum: any order
        return tree.at[WIDTH * offsets[level - 1] + node].set(_pairwise(below)), node

    return jax.lax.fori_loop(0, levels - 1, rise, (tree, leaf))[0]


def get_range(tree: Float[Array, " nodes"], first: Int[Array, ""], count: int
              ) -> Float[Array, " {count}"]:
    """Return the `count` leaves from `first` on."""
    return jax.lax.dynamic_slice_in_dim(tree, WIDTH * _offsets(tree)[-1] + first, count)


def set_range(tree: Float[Array, " nodes"], first: Int[Array, ""], values: Float[Array, " count"]
              ) -> Float[Array, " nodes"]:
    """Return the tree with new values of the leaves from `first` on.

    There is one contiguous write at each level, an eighth as long at the next.
    """
    offsets = _offsets(tree)
    count = values.shape[0]
    ends = [*offsets[1:], tree.shape[0] // WIDTH]
    sizes = [end - begin for begin, end in zip(offsets, ends)]
    start = WIDTH * offsets[-1] + first
    tree = jax.lax.dynamic_update_slice_in_dim(tree, values, start, axis=0)
    for level in range(len(offsets) - 1, 0, -1):
        count = min((count - 1) // WIDTH + 2, sizes[level])
        first = jnp.minimum(first // WIDTH, sizes[level] - count)
        start = WIDTH * (offsets[level] + first)
        below = jax.lax.dynamic_slice_in_dim(tree, start, WIDTH * count)
        sums = _pairwise(below.reshape(count, WIDTH))
        start = WIDTH * offsets[level - 1] + first
        tree = jax.lax.dynamic_update_slice_in_dim(tree, sums, start, axis=0)
    return tree


def _levels(blocks: int) -> list[int]:
    """Return the number of blocks of 8 nodes at each level, the root's first.

    blocks: those that hold the leaves.
    """
    sizes = [blocks]
    while sizes[-1] > 1:
        sizes.append(ceil_div(sizes[-1], WIDTH))
    return sizes[::-1]


def _offsets(tree: Float[Array, " nodes"]) -> list[int]:
    """Return the first block of each level."""
    all_blocks = tree.shape[0] // WIDTH
    blocks = all_blocks
    while sum(_levels(blocks)) > all_blocks:
        blocks -= max((sum(_levels(blocks)) - all_blocks) // 2, 1)
    sizes = _levels(blocks)
    return [sum(sizes[:level]) for level in range(len(sizes))]


def _pairwise(x: Float[Array, "*shape n"]) -> Float[Array, "*shape"]:
    """Return pairwise sums along the last axis."""
    return _pairwise_of([x[..., i] for i in range(x.shape[-1])])


def _pairwise_of(terms: list[jax.Array]) -> jax.Array:
    while len(terms) > 1:
        terms = [a + b for a, b in zip(terms[0::2], terms[1::2])]
    return terms[0]
