"""Learning tests train long."""

import pytest


@pytest.fixture(autouse=True)
def _optimized(optimized: None) -> None:
    pass
