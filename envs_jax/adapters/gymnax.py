"""Adapter of gymnax 1.x (https://github.com/RobertTLange/gymnax): classic control, MinAtar, bsuite.

The adapter calls `step_env`, without gymnax's auto-reset, so that the last observation of an
episode remains visible.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from envs_jax.adapters.adapter import Adapter, space_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Key

    from envs_jax.core import Action, Params
    from envs_jax.spaces import Space

LIMIT = "max_steps_in_episode"

# Observations of these environments leave the bounds that gymnax declares (they contain rewards, or
# have the wrong sign); here they have no bounds.
WRONG_BOUNDS = frozenset({
    "GaussianBandit-misc", "MemoryChain-bsuite", "MetaMaze-misc", "MNISTBandit-bsuite"})


@dataclass(frozen=True, init=False)
class Gymnax(Adapter):
    """Environment of gymnax: observations and actions as gymnax declares them.

    The environment truncates after params.max_steps_in_episode steps. This number is an argument,
    too, so that `max_steps` is known.
    """

    suite = "gymnax"

    @classmethod
    def constructor(cls, id: str) -> Callable[..., Any]:
        from gymnax import registration

        if id not in registration._registry:
            raise ValueError(f"gymnax has no environment {id!r}")

        def make(**arguments: Any) -> Any:
            if id == "MNISTBandit-bsuite":
                _require_mnist()
            arguments.pop(LIMIT, None)
            return registration.make(id, **arguments)[0]

        limit = inspect.Parameter(LIMIT, inspect.Parameter.KEYWORD_ONLY, default=None)
        own = inspect.signature(registration._registry[id]).parameters.values()
        make.__signature__ = inspect.Signature([*own, limit])
        return make

    @property
    def default_params(self) -> Params:
        limit = dict(self.arguments).get(LIMIT)
        params = self.theirs.default_params
        return params if limit is None else replace(params, max_steps_in_episode=limit)

    @property
    def max_steps(self) -> int:
        return int(self.default_params.max_steps_in_episode)

    def start(self, key: Key[Array, ""], params: Params) -> tuple[Any, Any]:
        return self.theirs.reset_env(key, params)

    def advance(self, key: Key[Array, ""], state: Any, action: Action, params: Params,
                ) -> tuple[Any, ...]:
        obs, state, reward, terminated, info = self.theirs.step_env(key, state, action, params)
        return obs, state, reward, terminated, self.theirs.is_truncated(state, params), info

    def observation_space(self, params: Params) -> Any:
        with jax.ensure_compile_time_eval():       # some environments compute bounds with jax.numpy
            space = space_of(self.theirs.observation_space(params))
        if self.id in WRONG_BOUNDS:
            space = replace(space, low=-np.inf, high=np.inf)
        return space

    def action_space(self, params: Params) -> Space:
        with jax.ensure_compile_time_eval():
            return space_of(self.theirs.action_space(params))

    @property
    def render(self) -> Callable | None:
        return self._picture if self.id.endswith("-MinAtar") else None

    def _picture(self, state: Any, params: Params) -> np.ndarray:
        from envs_jax.adapters.minatar import picture

        obs = self.theirs.observe(None, state, None, params)
        return picture(self.id.removesuffix("-MinAtar"), obs)


def _require_mnist() -> None:
    """Raise ValueError if the files of MNIST are missing, which gymnax would download."""
    from gymnax.utils import load_mnist

    default = inspect.signature(load_mnist.load_mnist).parameters["directory"].default
    folder = Path(default)
    files = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k")
             for kind in ("images-idx3", "labels-idx1")]
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{', '.join(missing)} not found in {folder}, where gymnax looks for "
                         "MNIST. Put the files there, or let gymnax.make('MNISTBandit-bsuite') "
                         "download them once")
