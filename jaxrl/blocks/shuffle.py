"""Random permutations for minibatches."""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["permutation"]


def permutation(key: jax.Array, n: int) -> jax.Array:
    """A random order of 0 .. n-1, int32 [n]; `n` is static.

    Up to 65,536 items a sort of single words, several times faster on a CPU than jax.random's sort of pairs. Items
    whose random bits are equal (1 in 64 at 8,192) fall in an order that is fair for every pair of them; above 8,192
    items a second shuffle of the first leaves none to speak of.
    """
    if n > 2**16:
        return jax.random.permutation(key, n).astype(jnp.int32)
    if n <= 2**13:
        return _packed_sort(key, n)
    first, second = jax.random.split(key)
    return _packed_sort(first, n)[_packed_sort(second, n)]


def _packed_sort(key: jax.Array, n: int) -> jax.Array:
    """Sort words of random high bits and the index, xor a random number so that ties favour nobody, in the low bits."""
    low = jnp.uint32(2 ** max(n - 1, 0).bit_length() - 1)
    random = jax.random.bits(key, (n,), jnp.uint32)
    flip = random[:1] & low   # the low bits of the draw are free
    packed = jax.lax.sort((random & ~low) | (jnp.arange(n, dtype=jnp.uint32) ^ flip), is_stable=False)
    return ((packed & low) ^ flip).astype(jnp.int32)
