"""JaxMARL (https://github.com/FLAIROx/JaxMARL, 0.2): several agents that act at once."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.adapters.adapter import Adapter, space_of
from envs_jax.spaces import Box, Discrete


@dataclass(frozen=True, init=False)
class JaxMARL(Adapter):
    """A JaxMARL environment of like agents, stacked in its order: observations, actions and rewards [agents, ...].

    A last step that comes when the environment's own `max_steps` are over is truncated. Its flag does not say why it
    ended, so an end by itself in just that step counts as truncated, too. Without `max_steps` every end is terminated.
    """

    suite = "jaxmarl"

    @classmethod
    def constructor(cls, id):
        import jaxmarl

        if id not in jaxmarl.registered_envs:
            raise ValueError(f"jaxmarl has no environment {id!r}")
        return functools.partial(jaxmarl.make, id)

    @classmethod
    def signature(cls, id):
        return super().signature(id).replace(parameters=[])      # jaxmarl.make tells the id only

    def check(self, theirs):
        obs, actions = _abstract(theirs)[0], {_action_space(theirs, agent) for agent in theirs.agents}
        kinds = {(obs[agent].shape, obs[agent].dtype) for agent in theirs.agents}
        if len(kinds) > 1 or len(actions) > 1:
            raise ValueError(f"the agents of {self.name} differ in what they see or do; only like ones are supported")

    @property
    def agents(self):
        return len(self.theirs.agents)

    @property
    def max_steps(self):
        from jaxmarl.environments.mpe.simple import SimpleMPE

        limit = getattr(self.theirs, "max_steps", None)
        return limit + 1 if isinstance(self.theirs, SimpleMPE) else limit     # it looks at the clock before the step

    def start(self, key, params):
        obs, state = self.theirs.reset(key)
        return self._stack(obs), state

    def advance(self, key, state, action, params):
        actions = dict(zip(self.theirs.agents, action))
        obs, state, reward, done, info = self.theirs.step_env(key, state, actions)
        over = done["__all__"] & (False if self.max_steps is None else _time(state) >= self.max_steps)
        terminated = (self._stack(done) | done["__all__"]) & ~over
        return self._stack(obs), state, self._stack(reward), terminated, over, info

    @property
    def action_mask(self):
        masked = isinstance(self.action_space(()), Discrete) and _abstract(self.theirs)[1]
        return self._mask if masked else None

    def _mask(self, state, params):
        with jax.numpy_rank_promotion("allow"):
            return self._stack(_legal(self.theirs)(state)).astype(bool)

    @property
    def global_state(self):
        return self._world if hasattr(self.theirs, "get_world_state") else None

    def _world(self, state, params):
        with jax.numpy_rank_promotion("allow"):
            return self.theirs.get_world_state(state)

    def observation_space(self, params):
        obs = _abstract(self.theirs)[0][self.theirs.agents[0]]
        return Box(-np.inf, np.inf, obs.shape, obs.dtype.type)      # their own bounds are often wrong or not given

    def action_space(self, params):
        return _action_space(self.theirs, self.theirs.agents[0])

    def state_space(self, params):
        world = _abstract(self.theirs)[2]
        return world and Box(-np.inf, np.inf, world.shape, world.dtype.type)

    def _stack(self, by_agent):
        return jnp.stack([by_agent[agent] for agent in self.theirs.agents])


def _action_space(theirs, agent):
    with jax.ensure_compile_time_eval():
        return space_of(theirs.action_space(agent))


@functools.lru_cache(maxsize=64)
def _abstract(theirs):
    """-> (observations, legal actions or None, world state or None), without values."""
    with jax.numpy_rank_promotion("allow"):
        obs, state = jax.eval_shape(theirs.reset, jax.random.key(0))
        world = jax.eval_shape(theirs.get_world_state, state) if hasattr(theirs, "get_world_state") else None
        try:
            return obs, jax.eval_shape(_legal(theirs), state), world
        except NotImplementedError:
            return obs, None, world


def _legal(theirs):
    """The function of a state that gives the legal actions; hanabi has its own name for it."""
    return getattr(theirs, "get_legal_moves", theirs.get_avail_actions)


def _time(state):
    """Steps taken; the environments of fixed enemies keep the state of the game inside theirs."""
    return state.step if hasattr(state, "step") else _time(state.state)
