"""gymnax (https://github.com/RobertTLange/gymnax, 1.x): classic control, MinAtar, bsuite and small tasks.

Stepped by `step_env`, without gymnax's auto-reset, so that what followed the last step stays visible.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from envs_jax.adapters.adapter import Adapter, space_of

LIMIT = "max_steps_in_episode"

# Observations of these leave the bounds that gymnax declares (rewards or a sign among them); here they have none.
WRONG_BOUNDS = frozenset({"GaussianBandit-misc", "MemoryChain-bsuite", "MetaMaze-misc", "MNISTBandit-bsuite"})


@dataclass(frozen=True, init=False)
class Gymnax(Adapter):
    """A gymnax environment. It truncates by itself, after params.max_steps_in_episode steps.

    That number is an argument, too, so that `max_steps` knows it.
    """

    suite = "gymnax"

    @classmethod
    def constructor(cls, id):
        from gymnax import registration

        if id not in registration._registry:
            raise ValueError(f"gymnax has no environment {id!r}")

        def make(**arguments):
            if id == "MNISTBandit-bsuite":
                _require_mnist()
            return registration.make(id, **{key: value for key, value in arguments.items() if key != LIMIT})[0]

        limit = inspect.Parameter(LIMIT, inspect.Parameter.KEYWORD_ONLY, default=None)
        own = inspect.signature(registration._registry[id]).parameters.values()
        make.__signature__ = inspect.Signature([*own, limit])
        return make

    @property
    def default_params(self):
        limit, params = dict(self.arguments).get(LIMIT), self.theirs.default_params
        return params if limit is None else replace(params, max_steps_in_episode=limit)

    @property
    def max_steps(self):
        return int(self.default_params.max_steps_in_episode)

    def start(self, key, params):
        return self.theirs.reset_env(key, params)

    def advance(self, key, state, action, params):
        obs, state, reward, terminated, info = self.theirs.step_env(key, state, action, params)
        return obs, state, reward, terminated, self.theirs.is_truncated(state, params), info

    def observation_space(self, params):
        with jax.ensure_compile_time_eval():              # some of theirs compute bounds with jax.numpy
            space = space_of(self.theirs.observation_space(params))
        return replace(space, low=-np.inf, high=np.inf) if self.id in WRONG_BOUNDS else space

    def action_space(self, params):
        with jax.ensure_compile_time_eval():
            return space_of(self.theirs.action_space(params))

    @property
    def render(self):
        return self._picture if self.id.endswith("-MinAtar") else None

    def _picture(self, state, params):
        from envs_jax.adapters.minatar import picture

        return picture(self.id.removesuffix("-MinAtar"), self.theirs.observe(None, state, None, params))


def _require_mnist() -> None:
    """Their constructor would download the files."""
    from gymnax.utils import load_mnist

    folder = Path(inspect.signature(load_mnist.load_mnist).parameters["directory"].default)
    files = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{', '.join(missing)} not found in {folder}, where gymnax looks for MNIST. Put the files "
                         f"there, or let gymnax.make('MNISTBandit-bsuite') download them once")
