"""Adapter of jumanji 1.1 (https://github.com/instadeepai/jumanji): puzzles, packing and routing."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.adapters.adapter import Adapter, box
from envs_jax.spaces import Box, Discrete, MultiDiscrete

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Key

    from envs_jax.core import Action, Params
    from envs_jax.spaces import Space


@dataclass(frozen=True, init=False)
class Jumanji(Adapter):
    """Combinatorial task of jumanji: array or dict observation, one or several choices.

    An observation with several parts is a dict from their names. Only tasks with a single reward
    are supported. If the action is one choice, the part `action_mask` becomes the action mask; with
    several choices, it has another shape and stays in the observation.

    A last step with discount 0 is terminated, and truncated with any other discount. Most of
    jumanji's environments have discount 0 at their own time limit, too.
    """

    suite = "jumanji"

    @classmethod
    def constructor(cls, id: str) -> Callable[..., Any]:
        from jumanji import registration

        if id not in registration._REGISTRY:
            raise ValueError(f"jumanji has no environment {id!r}")
        spec = registration._REGISTRY[id]
        return functools.partial(registration.load(spec.entry_point), **spec.kwargs)

    def check(self, theirs: Any) -> None:
        shape = theirs.reward_spec.shape
        if shape:
            raise ValueError(f"{self.name} has rewards of shape {shape}; only a single reward is "
                             "supported")
        self.action_space(())

    @property
    def max_steps(self) -> int | None:
        return getattr(self.theirs, "time_limit", None)

    def start(self, key: Key[Array, ""], params: Params) -> tuple[Any, Any]:
        state, step = self.theirs.reset(key)
        return step.observation, (state, self._mask_in(step.observation))

    def advance(self, key: Key[Array, ""], state: Any, action: Action, params: Params,
                ) -> tuple[Any, ...]:
        inner, step = self.theirs.step(state[0], action)
        terminated = step.last() & (step.discount == 0)
        truncated = step.last() & ~terminated
        state = (inner, self._mask_in(step.observation))
        return step.observation, state, step.reward, terminated, truncated, dict(step.extras)

    @property
    def action_mask(self) -> Callable | None:
        return (lambda state, params: state[1]) if self._masked else None

    @property
    def _masked(self) -> bool:
        has_mask = "action_mask" in self.theirs.observation_spec._specs
        return has_mask and isinstance(self.action_space(()), Discrete)

    def _mask_in(self, observation: Any) -> Any:
        return observation.action_mask if self._masked else ()

    def observation_space(self, params: Params) -> Any:
        space = _space(self.theirs.observation_spec)
        if not isinstance(space, dict):
            return space
        # a number, as in most of jumanji's environments, instead of one of 4000 choices
        if isinstance(space.get("step_count"), Discrete):
            space["step_count"] = Box(0, space["step_count"].n - 1, (), jnp.int32)
        # a tour starts without a city, -1
        if self.id == "TSP-v1":
            space["position"] = Box(-1, space["position"].n - 1, (), jnp.int32)
        if self._masked:
            del space["action_mask"]
        return space

    def action_space(self, params: Params) -> Space:
        spec = self.theirs.action_spec
        if type(spec).__name__ == "MultiDiscreteArray" and np.ndim(spec.num_values) == 1:
            return MultiDiscrete(tuple(np.asarray(spec.num_values).tolist()))
        space = _space(spec)
        real = isinstance(space, Box) and np.issubdtype(space.dtype, np.floating)
        if not real and not isinstance(space, Discrete):
            raise ValueError(f"{self.name} has actions {spec}; envs_jax has no space for them")
        return space


def _space(spec: Any) -> Any:
    """Return the space of a jumanji spec: a dict if it has parts, unbounded if it has no bounds."""
    if spec._specs:
        return {key: _space(part) for key, part in spec._specs.items()}
    if type(spec).__name__ == "DiscreteArray":
        return Discrete(int(spec.num_values))
    with jax.ensure_compile_time_eval():
        low = getattr(spec, "minimum", -np.inf)
        high = getattr(spec, "maximum", np.inf)
        return box(low, high, spec.shape, spec.dtype)
