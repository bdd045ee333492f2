import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _most_optimisations(on):
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", not on)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def quick_compile():
    """For tests of what is computed, not of how: XLA without most of its optimisations compiles twice as fast."""
    yield from _most_optimisations(False)


@pytest.fixture
def full_compile():
    """For tests of bits, in a module of quick compilations."""
    yield from _most_optimisations(True)
