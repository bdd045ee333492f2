"""The environment protocol: pure functions for one environment, without auto-reset or time limit.

`VectorEnv` (vector.py) steps a batch of environments and adds auto-reset. Wrappers (wrappers/) keep
the protocol, so they compose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax

from envs_jax import spaces

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from jaxtyping import Array, Bool, Float, Key, UInt8

Obs = Any
State = Any
Action = Any
Params = Any
Info = dict[str, Any]

if TYPE_CHECKING:
    # (observation, state, reward, terminated, truncated, info), as `Environment.step` returns them
    StepResult = tuple[
        Obs, State, Float[Array, "*agents"], Bool[Array, "*agents"], Bool[Array, ""], Info]


class Input(NamedTuple):
    """The input of a policy for B environments. A field that an environment lacks is None."""

    obs: Any                   # pytree [B, ...], or [B, agents, ...]
    first: jax.Array           # [B] bool: an episode starts here; recurrent networks reset on it
    mask: Any = None           # [B, actions] bool: the legal actions
    prev_action: Any = None    # the action that led here, zeros at the start of an episode
    prev_reward: Any = None    # the reward of that action, zeros at the start of an episode
    state: Any = None          # global state, for centralized critics and mixers
    slot: Any = None           # [B] int32: index of the environment, for exploration ladders
    env_state: Any = None      # for search only


class TimeStep(NamedTuple):
    """The result of one step of N environments, after auto-reset."""

    input: Input               # next input of the policy: where an episode ended, of the new one
    reward: jax.Array          # [N] or [N, agents] float32
    terminated: jax.Array      # [N] or [N, agents] bool: a true end, whose future is worth 0
    truncated: jax.Array       # like terminated: a cut for all agents, worth V(final_input)
    final_input: Input         # the input that followed the step, before any reset
    episode_return: jax.Array  # [N] or [N, agents]: undiscounted return so far, with this step
    episode_length: jax.Array  # [N] int32: steps of the episode so far, with this step


class EnvSpec(NamedTuple):
    """The description of an environment that an algorithm receives."""

    observation: Any           # Space, or pytree of spaces
    action: Any                # Space
    masked: bool = False       # Input.mask is given
    state: Any = None          # Space of the global state; None without one
    agents: int | None = None  # length of the agents' axis, which follows the batch axis
    max_steps: int | None = None


class Environment:
    """Base class of all environments.

    Write an environment as a frozen dataclass that defines `default_params`, `reset`, `step`,
    `observation_space` and `action_space`. Everything else is optional. `reset` and `step` are pure
    functions of their arguments, and JAX traces them: use `jnp.where` and `jax.lax`, not `if`, on
    anything that comes from `state`, `action` or `params`.

    - One object is one environment. `VectorEnv` makes batches with `jax.vmap`.
    - Do not reset, truncate after a number of steps, or add up returns in `step`: `VectorEnv`,
      `TimeLimit` and `EpisodeStatistics` do so. Declare the usual limit as `time_limit`.
    - Numbers of the dynamics belong in `params`, a NamedTuple of numbers. They are traced, so they
      may change, be vmapped or be drawn at random without a new compilation.
    - Settings that change a shape or a space are dataclass fields. The environment is hashable.
    - `step` returns a state of the same structure, shapes and dtypes as `reset` does. Rewards are
      float32, flags are bool, and observations have the dtypes of `observation_space`.
    - With several agents, set `agents`. Observations, actions, rewards and `terminated` have a
      leading axis of agents; the spaces are those of one agent; `truncated` is a scalar.

    Three optional methods are None where an environment lacks them:

    - `action_mask(state, params)` -> [actions] bool (or [agents, actions]), True for legal actions.
      Needs a Discrete action space. At least one action is always legal.
    - `global_state(state, params)` -> an element of `state_space`, for centralized critics.
    - `render(state, params)` -> NumPy array [height, width, 3] uint8, a picture of one environment.
      It receives a concrete state without a batch axis and is never traced. render.py has tools.
    """

    default_params: Params = ()
    time_limit: ClassVar[int | None] = None   # usual limit in steps; `envs_jax.make` applies it
    max_steps: int | None = None              # length of the longest possible episode, if known
    agents: int | None = None                 # number of agents; None for a single agent, no axis
    action_mask: Callable[..., Bool[Array, "*agents actions"]] | None = None
    global_state: Callable[..., Any] | None = None
    render: Callable[..., UInt8[np.ndarray, "height width 3"]] | None = None

    @property
    def name(self) -> str:
        """The name used in messages."""
        return type(self).__name__

    def reset(self, key: Key[Array, ""], params: Params) -> tuple[Obs, State]:
        """Return (observation, state) at the start of a new episode.

        key: the only source of randomness. params: `default_params`, or a copy with other values.
        The state is a pytree of arrays (usually a NamedTuple) with everything that `step` needs.
        """
        raise TypeError(f"{type(self).__name__} does not define reset")

    def step(self, key: Key[Array, ""], state: State, action: Action, params: Params) -> StepResult:
        """Return (observation, state, reward, terminated, truncated, info) after one step.

        key: a new key for each step; deterministic dynamics ignore it.
        state: from `reset` or the last `step`. action: an element of `action_space`, unchecked.
        observation: what follows the action, also at the end of an episode.
        reward: float32 scalar, or [agents].
        terminated: bool like the reward: the episode has ended by itself, and its future is worth
        0. With several agents, the episode ends when all of them are terminated.
        truncated: bool scalar: the episode is cut, and its future keeps its value. Usually
        `jnp.bool_(False)`, because `TimeLimit` truncates. Never True where all is terminated.
        info: dict of further arrays with the same keys in every step, {} for none.
        """
        raise TypeError(f"{type(self).__name__} does not define step")

    def observation_space(self, params: Params) -> Any:
        """Return the space of observations, or a pytree of spaces; `params` is concrete."""
        raise TypeError(f"{type(self).__name__} does not define observation_space")

    def action_space(self, params: Params) -> spaces.Space:
        """Return the space of actions; `params` is concrete."""
        raise TypeError(f"{type(self).__name__} does not define action_space")

    def state_space(self, params: Params) -> Any:
        """Return the space of `global_state`; None without one."""
        return None


def spec(env: Environment, params: Params = None) -> EnvSpec:
    """Return the description of `env` for an algorithm; `params` default to the environment's."""
    if params is None:
        params = env.default_params
    return EnvSpec(
        observation=env.observation_space(params),
        action=env.action_space(params),
        masked=env.action_mask is not None,
        state=env.state_space(params),
        agents=env.agents,
        max_steps=env.max_steps,
    )
