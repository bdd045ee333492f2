"""initializers.py: orthogonality for every kind of kernel, under vmap, without LAPACK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.blocks.networks.initializers import orthogonal


def assert_orthogonal(kernel, scale):
    matrix = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(gram, scale**2 * np.eye(len(gram)), atol=2e-6 * scale**2)


@pytest.mark.parametrize(
    "shape", [(64, 64), (4, 64), (64, 2), (1, 1), (5, 1), (1, 7), (3, 3, 4, 16), (2, 2, 1, 8)]
)
def test_orthogonal(shape, scale=2**0.5):
    kernel = jax.jit(orthogonal(scale), static_argnums=1)(jax.random.key(0), shape)
    assert kernel.shape == shape and kernel.dtype == jnp.float32
    assert_orthogonal(kernel, scale)


def test_sixteen_seeds_at_once_many_times():
    """Batched LAPACK once waited for its own threads here: a loop, so that a rare hang shows."""
    init = jax.jit(jax.vmap(lambda key: orthogonal(2**0.5)(key, (64, 64))))
    for repeat in range(20):
        kernels = init(jax.random.split(jax.random.key(repeat), 16))
    for kernel in kernels:
        assert_orthogonal(kernel, 2**0.5)
    alone = orthogonal(2**0.5)(jax.random.split(jax.random.key(19), 16)[3], (64, 64))
    np.testing.assert_allclose(alone, kernels[3], atol=1e-5)


def test_no_lapack_in_the_compiled_program():
    keys = jax.random.split(jax.random.key(0), 16)
    program = (
        jax.jit(jax.vmap(lambda key: orthogonal()(key, (8, 32)))).lower(keys).compile().as_text()
    )
    assert "custom-call" not in program


def test_uniform_over_the_orthogonal_group():
    """Haar measure.

    Each entry has mean 0 and mean square 1/n, each sign is fair (a plain QR fails this).
    """
    draws = 4000
    n = 3
    q = np.asarray(
        jax.vmap(lambda key: orthogonal()(key, (n, n)))(jax.random.split(jax.random.key(5), draws))
    )
    np.testing.assert_allclose(q.mean(0), 0.0, atol=5 / np.sqrt(n * draws))
    np.testing.assert_allclose((q**2).mean(0), 1 / n, atol=0.03)
    np.testing.assert_allclose((np.linalg.det(q) > 0).mean(), 0.5, atol=0.04)


def test_dtype_and_errors():
    assert orthogonal()(jax.random.key(0), (4, 4), jnp.bfloat16).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="two axes"):
        orthogonal()(jax.random.key(0), (4,))
