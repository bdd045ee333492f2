"""Random permutations for minibatches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Int, PRNGKeyArray

__all__ = ["permutation"]


def permutation(key: PRNGKeyArray, n: int) -> Int[Array, " {n}"]:
    """Return a random order of 0 .. n-1 as int32; `n` is static.

    Up to 65,536 items it is a sort of single words, several times faster on a CPU than jax.random's
    sort of pairs. Items whose random bits are equal (1 in 64 at 8,192) fall in an order that is
    fair for every pair of them. Above 8,192 items a second shuffle leaves practically none.
    """
    if n > 2**16:
        return jax.random.permutation(key, n).astype(jnp.int32)
    if n <= 2**13:
        return _packed_sort(key, n)
    first, second = jax.random.split(key)
    return _packed_sort(first, n)[_packed_sort(second, n)]


def _packed_sort(key: PRNGKeyArray, n: int) -> Int[Array, " {n}"]:
    """Return the order of n random words.

    Random high bits decide. The low bits hold the index, xor a random number so that ties favor
    nobody.
    """
    low = jnp.uint32(2 ** max(n - 1, 0).bit_length() - 1)
    random = jax.random.bits(key, (n,), jnp.uint32)
    flip = random[:1] & low   # the low bits of the draw are free
    words = (random & ~low) | (jnp.arange(n, dtype=jnp.uint32) ^ flip)
    packed = jax.lax.sort(words, is_stable=False)
    return ((packed & low) ^ flip).astype(jnp.int32)
