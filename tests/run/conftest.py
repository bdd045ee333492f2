"""Fixtures of the tests of runs."""

import pytest

from jaxrl import registry
from jaxrl.run import learners
from tests.run.helpers import static_part


@pytest.fixture(scope="session")
def made_members():
    return {}


@pytest.fixture
def shared(made_members, monkeypatch):
    """Equal learners share their compiled programs, whichever run they are of."""
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
    """The environment tests.run.helpers.Poisoned, by the name "poisoned"."""
    monkeypatch.setitem(registry.environments(), "poisoned", "tests.run.helpers:Poisoned")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A compilation cache for the processes of a test session."""
    return tmp_path_factory.mktemp("compiled")
