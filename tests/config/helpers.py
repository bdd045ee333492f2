"""Helpers of the tests of configs."""

from __future__ import annotations

import re

import pytest

from jaxrl import config
from jaxrl.config.reading import declared, declared_of_env
from jaxrl.errors import UserError

BASE = ["algo=ppo", "env=cartpole", "preset=none"]


def problems(*words: str) -> list[str]:
    """Return the messages of the UserError that `words` raise, in BASE if they name nothing."""
    named = any(word.startswith(("algo=", "env=", "config=")) for word in words)
    with pytest.raises(UserError) as caught:
        config.compose(words if named else [*BASE, *words])
    return [problem.message for problem in caught.value.problems]


def with_helps(text: str) -> str:
    """Return `text` with the help text of KEY in place of each <KEY>."""
    known = {**declared("ppo"), **declared_of_env("cartpole")}
    return re.sub(r"<([\w.]+)>", lambda found: known[found[1]].help, text)
