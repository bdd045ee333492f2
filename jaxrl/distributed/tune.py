"""An adapter to Ray Tune, which drives classes of its own kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jaxrl.errors import UserError


class Trial(Protocol):
    """A learner that Tune drives."""

    def train(self) -> dict[str, Any]:
        """Train a while and return a report, with the entry `done`."""

    def save(self, folder: str) -> None:
        """Write the whole state into a folder."""

    def load(self, folder: str) -> None:
        """Read the state that a trial wrote; the values of this trial stay."""

    def reset(self, values: Mapping[str, Any]) -> None:
        """Start afresh with other values."""


def trainable(make: Callable[[Mapping[str, Any]], Trial]) -> type:
    """Return a class for `ray.tune.Tuner`; make(values) is a trial with values chosen by Tune.

    Raises UserError if Ray Tune is not installed.
    """
    try:
        from ray import tune
    except ImportError as error:
        raise UserError(f"Ray Tune is not installed ({error}).",
                        "pip install 'jaxrl[tune]'") from None

    class Trainable(tune.Trainable):
        """One trial; its actor may be reused (reuse_actors=True)."""

        def setup(self, config: dict) -> None:
            """Make the trial with Tune's values."""
            self.trial = make(config)

        def step(self) -> dict:
            """Return one report."""
            return self.trial.train()

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Write a checkpoint where Tune wants it."""
            self.trial.save(checkpoint_dir)

        def load_checkpoint(self, checkpoint: str) -> None:
            """Read a checkpoint of this trial, or of another one after Tune has reset the values.
            """
            self.trial.load(checkpoint)

        def reset_config(self, new_config: dict) -> bool:
            """Turn into another trial, in the same process."""
            self.trial.reset(new_config)
            return True

    return Trainable
