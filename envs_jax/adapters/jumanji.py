"""jumanji (https://github.com/instadeepai/jumanji, 1.1): puzzles, packing and routing, mostly with action masks."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.adapters.adapter import Adapter, box
from envs_jax.spaces import Box, Discrete, MultiDiscrete


@dataclass(frozen=True, init=False)
class Jumanji(Adapter):
    """A jumanji environment with one reward; an observation of several parts is a dict, by their names.

    The part `action_mask` becomes our mask where the action is one choice; for several choices at once it has other
    shapes, and stays in the observation. A last step of discount 0 is terminated, of another discount truncated; most
    of jumanji's environments give 0 at their own time limit, too.
    """

    suite = "jumanji"

    @classmethod
    def constructor(cls, id):
        from jumanji import registration

        if id not in registration._REGISTRY:
            raise ValueError(f"jumanji has no environment {id!r}")
        spec = registration._REGISTRY[id]
        return functools.partial(registration.load(spec.entry_point), **spec.kwargs)

    def check(self, theirs):
        if theirs.reward_spec.shape:
            raise ValueError(f"{self.name} gives rewards {theirs.reward_spec.shape}; only one reward is supported")
        self.action_space(())

    @property
    def max_steps(self):
        return getattr(self.theirs, "time_limit", None)

    def start(self, key, params):
        state, step = self.theirs.reset(key)
        return step.observation, (state, self._mask_in(step.observation))

    def advance(self, key, state, action, params):
        after, step = self.theirs.step(state[0], action)
        terminated = step.last() & (step.discount == 0)
        return (step.observation, (after, self._mask_in(step.observation)), step.reward, terminated,
                step.last() & ~terminated, dict(step.extras))

    @property
    def action_mask(self):
        return (lambda state, params: state[1]) if self._masked else None

    @property
    def _masked(self) -> bool:
        return "action_mask" in self.theirs.observation_spec._specs and isinstance(self.action_space(()), Discrete)

    def _mask_in(self, observation):
        return observation.action_mask if self._masked else ()

    def observation_space(self, params):
        space = _space(self.theirs.observation_spec)
        if not isinstance(space, dict):
            return space
        if isinstance(space.get("step_count"), Discrete):    # a number, as in most of theirs, not one of 4000 choices
            space["step_count"] = Box(0, space["step_count"].n - 1, (), jnp.int32)
        if self.id == "TSP-v1":                              # a tour starts at no city, -1
            space["position"] = Box(-1, space["position"].n - 1, (), jnp.int32)
        return {key: part for key, part in space.items() if key != "action_mask"} if self._masked else space

    def action_space(self, params):
        spec = self.theirs.action_spec
        if type(spec).__name__ == "MultiDiscreteArray" and np.ndim(spec.num_values) == 1:
            return MultiDiscrete(tuple(np.asarray(spec.num_values).tolist()))
        space = _space(spec)
        if isinstance(space, dict) or not (isinstance(space, Discrete) or np.issubdtype(space.dtype, np.floating)):
            raise ValueError(f"{self.name} has actions {spec}; no space of ours is like that")
        return space


def _space(spec):
    """Ours for one of jumanji's specs: a dict where it has parts; without bounds where it tells none."""
    if spec._specs:
        return {key: _space(part) for key, part in spec._specs.items()}
    if type(spec).__name__ == "DiscreteArray":
        return Discrete(int(spec.num_values))
    with jax.ensure_compile_time_eval():
        return box(getattr(spec, "minimum", -np.inf), getattr(spec, "maximum", np.inf), spec.shape, spec.dtype)
