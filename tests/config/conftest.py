"""Fixtures of the tests of configs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hydra.core.config_store import ConfigStore

from jaxrl import schemas


@pytest.fixture
def preset() -> Iterator[str]:
    """A tuned preset that is not in the package, found and applied as configs/experiment is."""
    store = ConfigStore.instance()
    store.store(group="experiment", name="ppo_probe-both", package="_global_",
                node={"total_steps": 7000, "algo": {"gamma": 0.5, "network": {"hidden": [8]}}})
    schemas._composed.cache_clear()
    yield "ppo_probe-both"
    schemas._composed.cache_clear()
    del store.repo["experiment"]["ppo_probe-both.yaml"]
