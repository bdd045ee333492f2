"""What holds for every test: strict promotion, two CPU devices, a cache of compiled programs that is nobody's own.

Below, the fixtures of tests of runs.
"""

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


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="session")
def made_members():
    return {}


@pytest.fixture
def shared(quick_compile, made_members, monkeypatch):
    """Equal learners share their compiled programs, whichever run they are of."""
    from jaxrl.run import learners
    from tests.helpers import static_part

    make = learners.make_members

    def shared(config, learner, *, layout=None, episodes):
        s, stored = config.settings, layout or {}
        key = repr((config.algo, static_part(config), config.env, s.num_seeds, s.num_devices,
                    stored.get("block_size"), stored.get("shards"), episodes))
        if key not in made_members:
            made_members[key] = make(config, learner, layout=layout, episodes=episodes)
        return made_members[key]

    monkeypatch.setattr(learners, "make_members", shared)


@pytest.fixture
def poisoned(monkeypatch):
    """The environment tests.helpers.Poisoned, by the name "poisoned"."""
    from jaxrl import registry

    monkeypatch.setitem(registry.environments(), "poisoned", "tests.helpers:Poisoned")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A compilation cache for the processes of a test session."""
    return tmp_path_factory.mktemp("compiled")
