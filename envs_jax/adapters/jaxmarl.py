"""Adapter of JaxMARL 0.2 (https://github.com/FLAIROx/JaxMARL): several agents that act at once."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.adapters.adapter import Adapter, space_of
from envs_jax.spaces import Box, Discrete

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Mapping

    from jaxtyping import Array, Bool, Int, Key

    from envs_jax.core import Action, Params
    from envs_jax.spaces import Space


@dataclass(frozen=True, init=False)
class JaxMARL(Adapter):
    """Multi-agent environment of JaxMARL: observations, actions and rewards [agents, ...].

    All agents must have the same spaces. The step in which the environment's own `max_steps` are
    over is truncated. JaxMARL does not report why an episode ended, so a termination in exactly
    that step counts as truncated, too. Without `max_steps`, every end is a termination.
    """

    suite = "jaxmarl"

    @classmethod
    def constructor(cls, id: str) -> Callable[..., Any]:
        import jaxmarl

        if id not in jaxmarl.registered_envs:
            raise ValueError(f"jaxmarl has no environment {id!r}")
        return functools.partial(jaxmarl.make, id)

    @classmethod
    def signature(cls, id: str) -> inspect.Signature:
        # the signature of jaxmarl.make does not name the arguments of the environment
        return super().signature(id).replace(parameters=[])

    def check(self, theirs: Any) -> None:
        obs, _, _ = _abstract(theirs)
        observations = {(obs[agent].shape, obs[agent].dtype) for agent in theirs.agents}
        actions = {_action_space(theirs, agent) for agent in theirs.agents}
        if len(observations) > 1 or len(actions) > 1:
            raise ValueError(f"the agents of {self.name} have different observations or actions; "
                             "all agents must have the same")

    @property
    def agents(self) -> int:
        return len(self.theirs.agents)

    @property
    def max_steps(self) -> int | None:
        from jaxmarl.environments.mpe.simple import SimpleMPE

        limit = getattr(self.theirs, "max_steps", None)
        # MPE checks the time before the step
        return limit + 1 if isinstance(self.theirs, SimpleMPE) else limit

    def start(self, key: Key[Array, ""], params: Params) -> tuple[Any, Any]:
        obs, state = self.theirs.reset(key)
        return self._stack(obs), state

    def advance(self, key: Key[Array, ""], state: Any, action: Action, params: Params,
                ) -> tuple[Any, ...]:
        actions = dict(zip(self.theirs.agents, action))
        obs, state, reward, done, info = self.theirs.step_env(key, state, actions)
        truncated = jnp.bool_(False)
        if self.max_steps is not None:
            truncated = done["__all__"] & (_time(state) >= self.max_steps)
        terminated = (self._stack(done) | done["__all__"]) & ~truncated
        return self._stack(obs), state, self._stack(reward), terminated, truncated, info

    @property
    def action_mask(self) -> Callable | None:
        _, legal, _ = _abstract(self.theirs)
        return self._mask if legal and isinstance(self.action_space(()), Discrete) else None

    def _mask(self, state: Any, params: Params) -> Bool[Array, "agents actions"]:
        with jax.numpy_rank_promotion("allow"):
            return self._stack(_legal(self.theirs)(state)).astype(bool)

    @property
    def global_state(self) -> Callable | None:
        return self._world if hasattr(self.theirs, "get_world_state") else None

    def _world(self, state: Any, params: Params) -> Array:
        with jax.numpy_rank_promotion("allow"):
            return self.theirs.get_world_state(state)

    def observation_space(self, params: Params) -> Box:
        obs, _, _ = _abstract(self.theirs)
        obs = obs[self.theirs.agents[0]]
        # JaxMARL's own bounds are often wrong or missing
        return Box(-np.inf, np.inf, obs.shape, obs.dtype.type)

    def action_space(self, params: Params) -> Space:
        return _action_space(self.theirs, self.theirs.agents[0])

    def state_space(self, params: Params) -> Box | None:
        _, _, world = _abstract(self.theirs)
        return world and Box(-np.inf, np.inf, world.shape, world.dtype.type)

    def _stack(self, by_agent: Mapping[str, Array]) -> Array:
        return jnp.stack([by_agent[agent] for agent in self.theirs.agents])


def _action_space(theirs: Any, agent: str) -> Space:
    with jax.ensure_compile_time_eval():
        return space_of(theirs.action_space(agent))


@functools.lru_cache(maxsize=64)
def _abstract(theirs: Any) -> tuple[Any, Any, Any]:
    """Return shapes and dtypes of (observations, legal actions or None, world state or None)."""
    world = None
    with jax.numpy_rank_promotion("allow"):
        obs, state = jax.eval_shape(theirs.reset, jax.random.key(0))
        if hasattr(theirs, "get_world_state"):
            world = jax.eval_shape(theirs.get_world_state, state)
        try:
            legal = jax.eval_shape(_legal(theirs), state)
        except NotImplementedError:
            legal = None
    return obs, legal, world


def _legal(theirs: Any) -> Callable:
    """Return the function from a state to the legal actions, which has another name in hanabi."""
    return getattr(theirs, "get_legal_moves", theirs.get_avail_actions)


def _time(state: Any) -> Int[Array, ""]:
    """Return the steps taken; environments with scripted enemies nest the state of the game."""
    return state.step if hasattr(state, "step") else _time(state.state)
