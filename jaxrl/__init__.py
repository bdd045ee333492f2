"""jaxrl: vectorized reinforcement learning in JAX.

    run = jaxrl.train("ppo", "cartpole", total_steps=5e5, num_seeds=8)
    run.returns
    jaxrl.load("runs/cartpole-ppo-...")

Importing this package imports neither JAX nor an algorithm. It registers the configs with Hydra,
and the reader of the run that `schedule=RUN` names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jaxrl.config import schedule, schemas

if TYPE_CHECKING:
    from jaxrl.api import load, make_runner, pbt, resume, resume_sweep, sweep, train, tune_trainable
    from jaxrl.config import compose

__all__ = ["compose", "load", "make_runner", "pbt", "resume", "resume_sweep", "sweep", "train",
           "tune_trainable"]

_HOMES = {"compose": "jaxrl.config", **{name: "jaxrl.api" for name in __all__ if name != "compose"}}


def _reader() -> schedule.Reader:
    """Return the reader of `schedule=RUN`, imported when it is needed."""
    from jaxrl.storage import lineage

    return lineage


schemas.register()
schedule.register(_reader)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
