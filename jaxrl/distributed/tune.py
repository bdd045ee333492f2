"""Ray Tune, which wants a class of its own kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jaxrl.errors import UserError


class Trial(Protocol):
    """What Tune drives."""

    def train(self) -> dict[str, Any]:
        """Some more training -> what is reported; with `done`."""

    def save(self, folder: str) -> None:
        """All of it into a folder."""

    def load(self, folder: str) -> None:
        """The state that another wrote there, with this one's values."""

    def reset(self, values: Mapping[str, Any]) -> None:
        """Starts afresh with other values."""


def trainable(make: Callable[[Mapping[str, Any]], Trial]) -> type:
    """A class for `ray.tune.Tuner`: make(values) is a trial with the values that Tune has chosen. Raises UserError
    where Ray Tune is not installed."""
    try:
        from ray import tune
    except ImportError as error:
        raise UserError(f"Ray Tune is not installed ({error}).", "pip install 'jaxrl[tune]'") from None

    class Trainable(tune.Trainable):
        """One trial. Actors can be reused (reuse_actors=True)."""

        def setup(self, config: dict) -> None:
            """Tune's values."""
            self.trial = make(config)

        def step(self) -> dict:
            """One report."""
            return self.trial.train()

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Where Tune says."""
            self.trial.save(checkpoint_dir)

        def load_checkpoint(self, checkpoint: str) -> None:
            """Of this trial, or of one that it copies: then Tune has reset the values before."""
            self.trial.load(checkpoint)

        def reset_config(self, new_config: dict) -> bool:
            """Another trial, in the same process."""
            self.trial.reset(new_config)
            return True

    return Trainable
