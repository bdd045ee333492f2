"""Settings of every test process: strict promotion, two CPU devices, XLA's effort, one cache."""

from __future__ import annotations

import os
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from tests import parts, xla
from tests.cpu_seconds import (  # noqa: F401  (hooks that pytest finds here)
    pytest_runtest_protocol,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)

# One profile for everybody. Under `CI=true` Hypothesis would choose another one than at home.
PROFILE = {"database": None, "deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, **PROFILE)
settings.register_profile("explore", **PROFILE)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("jaxrl")
    group.addoption(
        "--compile", choices=("quick", "full"), default="quick",
        help="XLA's effort: quick (compiles six times faster, runs four times slower) or full (as "
             "users' programs)")
    group.addoption(
        "--also", action="append", default=[], metavar="FILE",
        help="with --splits: a file whose tests run whichever part they belong to")


def pytest_configure(config: pytest.Config) -> None:
    explore = config.getoption("hypothesis_seed", None) is not None
    settings.load_profile("explore" if explore else "repeatable")
    xla.configure(config)
    if hasattr(config, "workerinput"):      # xdist passes on the width of the user's terminal
        os.environ.pop("COLUMNS", None)
    config.pluginmanager.register(parts.Also())
    config.pluginmanager.register(parts.AlsoAfter())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def optimized() -> Iterator[None]:
    """For a test that trains long: XLA's optimizations, whatever --compile says."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="session")
def made_members():
    return {}


@pytest.fixture
def shared(made_members, monkeypatch):
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
    """A compilation cache for processes that tests kill; their torn entries harm nobody else."""
    return tmp_path_factory.mktemp("compiled")
