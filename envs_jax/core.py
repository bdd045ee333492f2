"""The environment protocol: pure functions of (key, state, action, params), one environment at a time, no auto-reset.

`VectorEnv` (vector.py) makes a batch of it and adds auto-reset; wrappers (wrappers/) keep the protocol and compose.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax

from envs_jax import spaces

Obs = Any
State = Any
Params = Any


class Input(NamedTuple):
    """What a policy sees, for a batch of slots. A field that an environment lacks is None and costs nothing."""

    obs: Any                   # pytree [B, ...], or [B, agents, ...]
    first: jax.Array           # [B] bool: an episode starts here, recurrent networks reset their carry on it
    mask: Any = None           # [B, actions] bool: the legal actions
    prev_action: Any = None    # the action that led here, zeros at an episode's start
    prev_reward: Any = None    # the reward that came with it, zeros at an episode's start
    state: Any = None          # global state, for centralised critics and mixers
    slot: Any = None           # [B] int32: which environment, for exploration ladders
    env_state: Any = None      # for search only


class TimeStep(NamedTuple):
    """One step of N environments, after auto-reset."""

    input: Input               # what the policy sees next: the first observation of a new episode where one ended
    reward: jax.Array          # [N] or [N, agents] float32
    terminated: jax.Array      # [N] or [N, agents] bool: the episode ended by itself, its future is worth 0
    truncated: jax.Array       # as terminated: it was cut (for all agents), its future is worth V(final_input)
    final_input: Input         # what really followed, before any reset
    episode_return: jax.Array  # [N] (or [N, agents]) sum of rewards of the episode so far, this step included
    episode_length: jax.Array  # [N] int32 steps of the episode so far, this step included


class EnvSpec(NamedTuple):
    """All an algorithm may know of an environment."""

    observation: Any           # Space, or pytree of spaces
    action: Any                # Space
    masked: bool = False       # Input.mask is given
    state: Any = None          # Space of the global state, if there is one
    agents: int | None = None  # observations, actions and rewards carry an axis of this length after the batch
    max_steps: int | None = None


class Environment:
    """Base class. A subclass gives `default_params`, `reset`, `step` and the two spaces; the rest is optional.

    `action_mask(state, params)`, `global_state(state, params)` and `render(state, params)` are None where an
    environment has no such thing. Numbers of the dynamics live in `params` (a NamedTuple of numbers: traced, may be
    vmapped or resampled); whatever changes a shape is a constructor argument. Spaces are asked for with concrete
    params; with several agents they are those of one agent, and the arrays carry the agents' axis.

    `render(state, params)` -> NumPy [height, width, 3] uint8, a picture of one environment: the state is a concrete
    one, without an axis of environments, and never traced. render.py draws, and shows pictures in a terminal or a GIF.
    """

    default_params: Params = ()
    time_limit: ClassVar[int | None] = None   # the usual limit: `envs_jax.make` applies it (TimeLimit)
    max_steps: int | None = None              # the longest episode possible, if known
    agents: int | None = None
    action_mask = None
    global_state = None
    render = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return type(self).__name__

    def reset(self, key: jax.Array, params: Params) -> tuple[Obs, State]:
        """-> (observation, state) of a fresh episode."""
        raise TypeError(f"{type(self).__name__} does not define reset")

    def step(self, key: jax.Array, state: State, action: Any, params: Params):
        """-> (observation, state, reward float32, terminated bool, truncated bool, info dict)."""
        raise TypeError(f"{type(self).__name__} does not define step")

    def observation_space(self, params: Params) -> Any:
        """Space of an observation, or a pytree of spaces."""
        raise TypeError(f"{type(self).__name__} does not define observation_space")

    def action_space(self, params: Params) -> spaces.Space:
        """Space of an action."""
        raise TypeError(f"{type(self).__name__} does not define action_space")

    def state_space(self, params: Params) -> Any:
        """Space of `global_state`, None without one."""
        return None


def spec(env: Environment, params: Params = None) -> EnvSpec:
    """What an algorithm is told about `env`."""
    params = env.default_params if params is None else params
    return EnvSpec(
        observation=env.observation_space(params),
        action=env.action_space(params),
        masked=env.action_mask is not None,
        state=env.state_space(params),
        agents=env.agents,
        max_steps=env.max_steps,
    )
