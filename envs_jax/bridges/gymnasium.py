"""Bridge to Gymnasium: environments of this package with NumPy arrays and one compiled step.

    env = envs_jax.to_gymnasium("cartpole")
    envs = envs_jax.to_gymnasium_vector("cartpole", num_envs=64)

Programs are compiled once for each environment value, independent of the number of instances.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import spaces, vector
from envs_jax.bridges import single_agent
from envs_jax.core import Action, Environment, Info, Obs, Params, State
from envs_jax.render import ansi
from envs_jax.wrappers import Wrapper

try:
    import gymnasium
except ImportError as missing:
    message = "Gymnasium is not installed. Try: pip install 'jaxrl[gymnasium]'"
    raise ImportError(message) from missing

from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Bool, Key, UInt32

    from envs_jax.core import StepResult

    KeyAndState = tuple[Key[Array, ""], Any]

FPS = 30      # frames per second of a recorded video


def to_gymnasium(env_or_name: Environment | str, params: Params = None, *,
                 render_mode: str | None = None, **settings: Any) -> GymnasiumEnv:
    """Return a `gymnasium.Env` for an environment, or for a name and `settings` of `envs_jax.make`.

    There is no auto-reset; a time limit truncates. `reset(seed=...)` sets the source of randomness.
    Legal actions are info["action_mask"], int8, as `Discrete.sample` takes them.
    render_mode: "rgb_array" or "ansi", if the environment has pictures.
    Raises ValueError if the environment has several agents, or lacks the render_mode.
    """
    env, values = single_agent(env_or_name, params, settings, "Gymnasium")
    name = env_or_name if isinstance(env_or_name, str) else env.name
    arguments = {
        "env_or_name": env_or_name, "params": params, "render_mode": render_mode, **settings}
    spec = gymnasium.envs.registration.EnvSpec(
        f"envs_jax/{name.replace('/', ':')}",
        entry_point="envs_jax.bridges.gymnasium:to_gymnasium", kwargs=arguments)
    return GymnasiumEnv(env, values, render_mode, spec)


def to_gymnasium_vector(env_or_name: Environment | str, num_envs: int, params: Params = None, *,
                        render_mode: str | None = None, **settings: Any) -> GymnasiumVectorEnv:
    """Return a `gymnasium.vector.VectorEnv` of `num_envs` copies, stepped by one program.

    All other arguments are those of `to_gymnasium`. The autoreset_mode is SAME_STEP, as in
    Gymnasium's SyncVectorEnv: where an episode ends, the observation is the first of the next
    episode, and the last one is in infos["final_obs"], with its info in infos["final_info"].
    """
    env, values = single_agent(env_or_name, params, settings, "Gymnasium")
    return GymnasiumVectorEnv(env, values, num_envs, render_mode)


class GymnasiumEnv(gymnasium.Env):
    """Environment in Gymnasium's interface; see `to_gymnasium`."""

    def __init__(self, env: Environment, params: Params, render_mode: str | None, spec: Any):
        self.metadata = _metadata(env, render_mode)
        self.render_mode = render_mode
        self.spec = spec
        self._env = env
        self._params = jax.tree.map(_as_array, params)
        self._current = None                                   # (key, state) of the episode
        self._observation = env.observation_space(params)
        self._action = env.action_space(params)
        self.observation_space = to_space(self._observation)
        self.action_space = to_space(self._action)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """Return (observation, info) at the start of an episode; `options` are not used."""
        super().reset(seed=seed)
        seed = _draw_seed(self.np_random)
        self._current, obs, info = _reset(self._env, seed, self._params)
        return to_numpy(self._observation, obs), _to_info(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """Return (observation, reward, terminated, truncated, info).

        Raises ValueError if `action` is not in the action space.
        """
        action = _checked(self._action, action)
        self._current, obs, reward, terminated, truncated, info = _step(
            self._env, self._started(), action, self._params)
        obs = to_numpy(self._observation, obs)
        return obs, float(reward), bool(terminated), bool(truncated), _to_info(info)

    def render(self) -> np.ndarray | str | None:
        """Return the picture [height, width, 3] uint8, or text; None without a render_mode."""
        if self.render_mode is None:
            return None
        _, state = self._started()
        return _picture(self._env, state, self._params, self.render_mode)

    def _started(self) -> KeyAndState:
        if self._current is None:
            raise gymnasium.error.ResetNeeded("call reset before step and render")
        return self._current


class GymnasiumVectorEnv(gymnasium.vector.VectorEnv):
    """Batch of environments in Gymnasium's interface; see `to_gymnasium_vector`."""

    def __init__(self, env: Environment, params: Params, num_envs: int, render_mode: str | None):
        self.metadata = {
            **_metadata(env, render_mode), "autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs = num_envs
        self.render_mode = render_mode
        self._env = Informed(env)
        self._params = jax.tree.map(_as_array, params)
        self._current = None                                   # (key, state) of the episodes
        self._observation = env.observation_space(params)
        self._action = env.action_space(params)
        self.single_observation_space = to_space(self._observation)
        self.single_action_space = to_space(self._action)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """Return (observations, infos) at the start of an episode in all environments.

        Raises ValueError if `options` has a reset_mask.
        """
        if options and "reset_mask" in options:
            raise ValueError("reset_mask is not supported: reset starts all environments together")
        super().reset(seed=seed)
        seed = _draw_seed(self.np_random)
        self._current, obs, mask = _vector_reset(self._env, self.num_envs, seed, self._params)
        return to_numpy(self._observation, obs), self._masks(mask)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Return (observations, rewards float64, terminations, truncations, infos) [num_envs].

        Raises ValueError if an action is not in the action space.
        """
        actions = _checked(self._action, actions, (self.num_envs,))
        self._current, results = _vector_step(
            self._env, self.num_envs, self._started(), actions)
        results = jax.tree.map(np.array, results)
        infos = self._infos(results) | self._masks(results.mask)
        obs = to_numpy(self._observation, results.obs)
        reward = results.reward.astype(np.float64)
        return obs, reward, results.terminated, results.truncated, infos

    def render(self) -> tuple | None:
        """Return one picture, or text, for each environment; None without a render_mode."""
        if self.render_mode is None:
            return None
        _, state = self._started()
        env = vector.VectorEnv(self._env, self.num_envs).env
        return tuple(_picture(env, _at(state.env, i), self._params, self.render_mode)
                     for i in range(self.num_envs))

    def _started(self) -> KeyAndState:
        if self._current is None:
            raise gymnasium.error.ResetNeeded("call reset before step and render")
        return self._current

    def _infos(self, results: _VectorResults) -> dict:
        """Return the infos of a step, with those of ended episodes in final_obs and final_info."""
        infos = {}
        done = results.terminated | results.truncated
        if done.any():
            final_obs = to_numpy(self._observation, results.final_obs)
            infos["final_obs"] = np.full(self.num_envs, None, object)
            for i in np.flatnonzero(done):
                infos["final_obs"][i] = _at(final_obs, i)
            infos["_final_obs"] = done.copy()
            final_info = _with_mask(results.info, results.final_mask)
            infos["final_info"] = _vector_info(final_info, done)
            infos["_final_info"] = done.copy()
        if not done.all():
            infos |= _vector_info(results.info, ~done)
        return infos

    def _masks(self, mask: Any) -> dict:
        """Return infos with the legal actions of all environments; {} without a mask."""
        return _vector_info(_with_mask({}, mask), np.ones(self.num_envs, bool))


class InformedState(NamedTuple):
    """State of Informed."""

    env: Any
    info: dict                 # info of the last step; zeros at the start of an episode


@dataclass(frozen=True)
class Informed(Wrapper):
    """Wrapper that returns `info` as the global state, which VectorEnv keeps in final_input."""

    def inner_state(self, state: InformedState) -> State:
        return state.env

    @property
    def global_state(self) -> Callable:
        return lambda state, params: state.info

    def reset(self, key: Key[Array, ""], params: Params) -> tuple[Obs, InformedState]:
        obs, inner = self.env.reset(key, params)
        action = spaces.zeros(self.action_space(self.default_params))
        *_, info = jax.eval_shape(self.env.step, key, inner, action, params)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), info)
        return obs, InformedState(inner, zeros)

    def step(self, key: Key[Array, ""], state: InformedState, action: Action, params: Params,
             ) -> StepResult:
        obs, inner, reward, terminated, truncated, info = self.env.step(
            key, state.env, action, params)
        return obs, InformedState(inner, info), reward, terminated, truncated, info


# ------------------------------------------------------------ compiled programs


class _VectorResults(NamedTuple):
    """Results of a step of all environments, [num_envs, ...]."""

    obs: Any
    mask: Any
    reward: Any
    terminated: Any
    truncated: Any
    final_obs: Any
    final_mask: Any
    info: Any


@functools.partial(jax.jit, static_argnums=0)
def _reset(env: Environment, seed: UInt32[np.ndarray, ""], params: Params,
           ) -> tuple[KeyAndState, Obs, Info]:
    key, reset_key = jax.random.split(jax.random.key(seed))
    obs, state = env.reset(reset_key, params)
    return (key, state), obs, _with_mask({}, _mask(env, state, params))


@functools.partial(jax.jit, static_argnums=0)
def _step(env: Environment, current: KeyAndState, action: Action, params: Params) -> tuple:
    key, state = current
    key, step_key = jax.random.split(key)
    obs, state, *outcome, info = env.step(step_key, state, action, params)
    return (key, state), obs, *outcome, _with_mask(info, _mask(env, state, params))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _vector_reset(env: Environment, num_envs: int, seed: UInt32[np.ndarray, ""], params: Params,
                  ) -> tuple[KeyAndState, Obs, Any]:
    key, init_key = jax.random.split(jax.random.key(seed))
    state, inputs = vector.VectorEnv(env, num_envs).init(init_key, params)
    return (key, state), inputs.obs, inputs.mask


@functools.partial(jax.jit, static_argnums=(0, 1))
def _vector_step(env: Environment, num_envs: int, current: KeyAndState, actions: Action,
                 ) -> tuple[KeyAndState, _VectorResults]:
    key, state = current
    key, step_key = jax.random.split(key)
    state, step = vector.VectorEnv(env, num_envs).step(step_key, state, actions)
    final = step.final_input
    results = _VectorResults(
        step.input.obs, step.input.mask, step.reward, step.terminated, step.truncated,
        final.obs, final.mask, final.state)
    return (key, state), results


def _mask(env: Environment, state: State, params: Params) -> Bool[Array, " actions"] | None:
    if env.action_mask is None:
        return None
    return env.action_mask(state, params)


# ------------------------------------------------------------ conversions


def to_space(space: Any) -> gymnasium.Space:
    """Return the Gymnasium space for a space, or for a pytree of spaces."""
    if isinstance(space, spaces.Discrete):
        return gymnasium.spaces.Discrete(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return gymnasium.spaces.MultiDiscrete(space.nvec, dtype=np.dtype(space.dtype))
    if isinstance(space, spaces.Box):
        low = _bound(space, space.low)
        high = _bound(space, space.high)
        return gymnasium.spaces.Box(low, high, dtype=np.dtype(space.dtype))
    if isinstance(space, Mapping):
        return gymnasium.spaces.Dict({key: to_space(inner) for key, inner in space.items()})
    if hasattr(space, "_asdict"):
        return to_space(space._asdict())
    return gymnasium.spaces.Tuple(tuple(map(to_space, space)))


def _bound(space: spaces.Box, bound: Any) -> np.ndarray:
    bound = np.broadcast_to(np.asarray(bound), space.shape)
    if np.issubdtype(space.dtype, np.integer) and not np.isfinite(bound).all():
        return bound                 # Gymnasium replaces infinity by the limits of the dtype
    return bound.astype(space.dtype)


def to_numpy(space: Any, x: Any) -> Any:
    """Return an observation of `space`, or a batch, as an element of `to_space(space)`."""
    if isinstance(space, spaces.Discrete):
        return np.asarray(x).astype(np.int64)[()]
    if isinstance(space, spaces.Space):
        return np.array(x, space.dtype)                     # a writable copy
    if isinstance(space, Mapping):
        return {key: to_numpy(inner, x[key]) for key, inner in space.items()}
    if hasattr(space, "_asdict"):
        return to_numpy(space._asdict(), x._asdict())
    return tuple(map(to_numpy, space, x))


def _checked(space: spaces.Space, action: Any, batch: tuple[int, ...] = ()) -> np.ndarray:
    """Return `action` in the dtype of `space`.

    Raises ValueError if it is not in `space`: JAX would silently clamp an index out of bounds.
    """
    array = np.asarray(action)
    shape = batch + space.shape
    if array.shape != shape:
        raise ValueError(f"the action has shape {array.shape}; {space} needs {shape}")
    if not isinstance(space, spaces.Box):
        choices = space.n if isinstance(space, spaces.Discrete) else np.array(space.nvec)
        if array.dtype.kind not in "iu" or np.any((array < 0) | (array >= choices)):
            raise ValueError(f"action {array.tolist()} is not in {space}")
    return array.astype(space.dtype)


def _with_mask(info: Info, mask: Any) -> Info:
    """Return `info` with the legal actions as Gymnasium expects them, if there is a mask."""
    if mask is None:
        return info
    return info | {"action_mask": mask.astype(np.int8)}


def _to_info(info: Info) -> Info:
    """Return an info of NumPy arrays and scalars.

    Flags become bool: Gymnasium's vector environments make arrays in the type of a scalar.
    """
    def leaf(x: Any) -> Any:
        x = np.array(x)
        if x.ndim:
            return x
        return x.item() if x.dtype == bool else x[()]

    return jax.tree.map(leaf, info)


def _vector_info(info: Info, chosen: np.ndarray) -> Info:
    """Return the infos of a vector environment: arrays [N, ...], each with its mask "_key".

    Rows that are not `chosen` are zeros.
    """
    infos = {}
    for key, value in info.items():
        if isinstance(value, dict):
            infos[key] = _vector_info(value, chosen)
        else:
            mask = chosen.reshape(-1, *[1] * (value.ndim - 1))
            infos[key] = np.where(mask, value, np.zeros_like(value))
        infos[f"_{key}"] = chosen.copy()
    return infos


def _at(tree: Any, i: int) -> Any:
    """Return the i-th entries of arrays [N, ...]."""
    return jax.tree.map(lambda x: x[i], tree)


def _metadata(env: Environment, render_mode: str | None) -> dict[str, Any]:
    modes = [] if env.render is None else ["rgb_array", "ansi"]
    if render_mode is not None and render_mode not in modes:
        raise ValueError(f"{env.name} has no render_mode {render_mode!r}; "
                         f"it has: {', '.join(modes) or 'none'}")
    return {"render_modes": modes, "render_fps": FPS}


def _picture(env: Environment, state: State, params: Params, render_mode: str) -> np.ndarray | str:
    picture = np.asarray(env.render(state, params))
    return ansi(picture) if render_mode == "ansi" else picture


def _as_array(x: Any) -> Array:
    """Return a number as a strongly typed array, which is transferred to the device only once."""
    return jnp.asarray(x, jax.dtypes.canonicalize_dtype(jnp.result_type(x)))


def _draw_seed(rng: np.random.Generator) -> np.uint32:
    return rng.integers(2**32, dtype=np.uint32)
