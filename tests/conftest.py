"""What holds for every test: strict promotion, two CPU devices, a cache of compiled programs that is nobody's own."""

import os
import tempfile

os.environ.setdefault("XDG_CACHE_HOME", os.path.join(tempfile.gettempdir(), f"jaxrl-tests-{os.getuid()}"))

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)


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
