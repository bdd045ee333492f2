"""Our environments as those of Gymnasium: NumPy in and out, around one compiled step.

    env = envs_jax.to_gymnasium("cartpole")
    envs = envs_jax.to_gymnasium_vector("cartpole", num_envs=64)

Programs are compiled once per environment value, whatever the number of instances.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import spaces, vector
from envs_jax.bridges import single_agent
from envs_jax.core import Environment
from envs_jax.render import ansi
from envs_jax.wrappers import Wrapper

try:
    import gymnasium
except ImportError as missing:
    raise ImportError("Gymnasium is not installed. Try: pip install 'jaxrl[gymnasium]'") from missing

from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

FPS = 30      # at which a recorded video plays


def to_gymnasium(env_or_name: Environment | str, params: Any = None, *, render_mode: str | None = None,
                 **settings: Any) -> GymnasiumEnv:
    """A `gymnasium.Env`. A name is made with `settings` as `envs_jax.make` does, an environment is taken as it is.

    Episodes end and stay ended (no auto-reset); a time limit truncates. Randomness comes from `reset(seed=...)`. Legal
    actions are in info["action_mask"], int8, as `Discrete.sample` takes them. render_mode: "rgb_array" or "ansi", where
    the environment renders.
    """
    env, values = single_agent(env_or_name, params, settings, "Gymnasium")
    name = env_or_name if isinstance(env_or_name, str) else env.name
    spec = gymnasium.envs.registration.EnvSpec(
        f"envs_jax/{name.replace('/', ':')}", entry_point="envs_jax.bridges.gymnasium:to_gymnasium",
        kwargs={"env_or_name": env_or_name, "params": params, "render_mode": render_mode, **settings})
    return GymnasiumEnv(env, values, render_mode, spec)


def to_gymnasium_vector(env_or_name: Environment | str, num_envs: int, params: Any = None, *,
                        render_mode: str | None = None, **settings: Any) -> GymnasiumVectorEnv:
    """A `gymnasium.vector.VectorEnv` of `num_envs` copies, all stepped by one program; else as `to_gymnasium`.

    Its autoreset_mode is SAME_STEP: where an episode ends, the observation is the first of the next one, and what
    really followed is in infos["final_obs"] and infos["final_info"], as with Gymnasium's own SyncVectorEnv.
    """
    env, values = single_agent(env_or_name, params, settings, "Gymnasium")
    return GymnasiumVectorEnv(env, values, num_envs, render_mode)


class GymnasiumEnv(gymnasium.Env):
    """See `to_gymnasium`."""

    def __init__(self, env: Environment, params: Any, render_mode: str | None, spec: Any):
        self.metadata, self.render_mode = _metadata(env, render_mode), render_mode
        self.spec, self._env, self._params, self._now = spec, env, _arrays(params), None
        self._observation, self._action = env.observation_space(params), env.action_space(params)
        self.observation_space, self.action_space = to_space(self._observation), to_space(self._action)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """-> (observation, info) of a fresh episode; `options` are not used."""
        super().reset(seed=seed)
        self._now, (obs, info) = _reset(self._env, _draw(self.np_random), self._params)
        return to_numpy(self._observation, obs), _info(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """-> (observation, reward, terminated, truncated, info)."""
        action = _checked(self._action, action)
        self._now, (obs, reward, terminated, truncated, info) = _step(self._env, self._begun(), action, self._params)
        return to_numpy(self._observation, obs), float(reward), bool(terminated), bool(truncated), _info(info)

    def render(self) -> np.ndarray | str | None:
        """The picture [height, width, 3] uint8, or its text; None without a render_mode."""
        if self.render_mode is None:
            return None
        return _picture(self._env, self._begun()[1], self._params, self.render_mode)

    def _begun(self) -> Any:
        if self._now is None:
            raise gymnasium.error.ResetNeeded("call reset before step and render")
        return self._now


class GymnasiumVectorEnv(gymnasium.vector.VectorEnv):
    """See `to_gymnasium_vector`."""

    def __init__(self, env: Environment, params: Any, num_envs: int, render_mode: str | None):
        self.metadata = {**_metadata(env, render_mode), "autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs, self.render_mode, self._now = num_envs, render_mode, None
        self._env, self._params = Informed(env), _arrays(params)
        self._observation, self._action = env.observation_space(params), env.action_space(params)
        self.single_observation_space, self.single_action_space = map(to_space, (self._observation, self._action))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """-> (observations, infos) of fresh episodes in all environments."""
        if options and "reset_mask" in options:
            raise ValueError("reset_mask: environments that reset in the same step are reset all together")
        super().reset(seed=seed)
        self._now, (obs, mask) = _vector_reset(self._env, self.num_envs, _draw(self.np_random), self._params)
        return to_numpy(self._observation, obs), self._masks({}, mask)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict]:
        """-> (observations, rewards float64, terminations, truncations, infos), each of num_envs."""
        actions = _checked(self._action, actions, (self.num_envs,))
        if self._now is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        self._now, said = _vector_step(self._env, self.num_envs, self._now, actions)
        obs, mask, reward, terminated, truncated, final_obs, final_mask, info = jax.tree.map(np.array, said)
        infos, done = {}, terminated | truncated
        if done.any():
            ends = np.full(self.num_envs, None, object)
            final = to_numpy(self._observation, final_obs)
            for i in np.flatnonzero(done):
                ends[i] = jax.tree.map(lambda x, i=i: x[i], final)
            infos |= {"final_obs": ends, "_final_obs": done.copy(), "_final_info": done.copy(),
                      "final_info": _infos(_with_mask(info, final_mask), done)}
        if not done.all():
            infos |= _infos(info, ~done)
        return (to_numpy(self._observation, obs), reward.astype(np.float64), terminated, truncated,
                self._masks(infos, mask))

    def render(self) -> tuple | None:
        """One picture, or text, per environment."""
        if self.render_mode is None:
            return None
        if self._now is None:
            raise gymnasium.error.ResetNeeded("call reset before render")
        env, states = vector.VectorEnv(self._env, self.num_envs).env, self._now[1].env
        return tuple(_picture(env, jax.tree.map(lambda x, i=i: x[i], states), self._params, self.render_mode)
                     for i in range(self.num_envs))

    def _masks(self, infos: dict, mask: Any) -> dict:
        """`infos` with the legal actions of the observations beside them, of all environments."""
        return infos | _infos(_with_mask({}, mask), np.ones(self.num_envs, bool))


class InformedState(NamedTuple):
    env: Any
    info: dict                 # what step said beside its result; zeros at an episode's start


@dataclass(frozen=True)
class Informed(Wrapper):
    """Hands `info` on in place of the global state, which the vectoriser reads before it resets: final_input.state."""

    def inner_state(self, state):
        return state.env

    @property
    def global_state(self):
        return lambda state, params: state.info

    def reset(self, key, params):
        obs, inner = self.env.reset(key, params)
        step = jax.eval_shape(self.env.step, key, inner, spaces.zeros(self.action_space(self.default_params)), params)
        return obs, InformedState(inner, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), step[-1]))

    def step(self, key, state, action, params):
        obs, inner, reward, terminated, truncated, info = self.env.step(key, state.env, action, params)
        return obs, InformedState(inner, info), reward, terminated, truncated, info


# ---------------------------------------------------------------- compiled


@functools.partial(jax.jit, static_argnums=0)
def _reset(env, seed, params):
    key, now = jax.random.split(jax.random.key(seed))
    obs, state = env.reset(now, params)
    return (key, state), (obs, _with_mask({}, env.action_mask and env.action_mask(state, params)))


@functools.partial(jax.jit, static_argnums=0)
def _step(env, now, action, params):
    key, step_key = jax.random.split(now[0])
    obs, state, *outcome, info = env.step(step_key, now[1], action, params)
    return (key, state), (obs, *outcome, _with_mask(info, env.action_mask and env.action_mask(state, params)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _vector_reset(env, num_envs, seed, params):
    key, now = jax.random.split(jax.random.key(seed))
    state, inputs = vector.VectorEnv(env, num_envs).init(now, params)
    return (key, state), (inputs.obs, inputs.mask)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _vector_step(env, num_envs, now, actions):
    key, step_key = jax.random.split(now[0])
    state, step = vector.VectorEnv(env, num_envs).step(step_key, now[1], actions)
    final = step.final_input
    return (key, state), (step.input.obs, step.input.mask, step.reward, step.terminated, step.truncated,
                          final.obs, final.mask, final.state)


# ---------------------------------------------------------------- from one side to the other


def to_space(space: Any) -> gymnasium.Space:
    """A space, or a pytree of them, as Gymnasium's."""
    if isinstance(space, spaces.Discrete):
        return gymnasium.spaces.Discrete(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return gymnasium.spaces.MultiDiscrete(space.nvec, dtype=np.dtype(space.dtype))
    if isinstance(space, spaces.Box):
        return gymnasium.spaces.Box(_bound(space, space.low), _bound(space, space.high), dtype=np.dtype(space.dtype))
    if isinstance(space, Mapping):
        return gymnasium.spaces.Dict({key: to_space(inner) for key, inner in space.items()})
    if hasattr(space, "_asdict"):
        return to_space(space._asdict())
    return gymnasium.spaces.Tuple(tuple(map(to_space, space)))


def _bound(space: spaces.Box, bound: Any) -> np.ndarray:
    bound = np.broadcast_to(np.asarray(bound), space.shape)
    whole = np.issubdtype(space.dtype, np.integer) and not np.isfinite(bound).all()     # Gymnasium puts in the limits
    return bound if whole else bound.astype(space.dtype)


def to_numpy(space: Any, x: Any) -> Any:
    """An observation, or a batch of them, of one of our spaces, as an element of `to_space(space)`."""
    if isinstance(space, spaces.Discrete):
        return np.asarray(x).astype(np.int64)[()]
    if isinstance(space, spaces.Space):
        return np.array(x, space.dtype)                     # a copy, which may be written
    if isinstance(space, Mapping):
        return {key: to_numpy(inner, x[key]) for key, inner in space.items()}
    if hasattr(space, "_asdict"):
        return to_numpy(space._asdict(), x._asdict())
    return tuple(map(to_numpy, space, x))


def _checked(space: spaces.Space, action: Any, batch: tuple[int, ...] = ()) -> np.ndarray:
    """The action as the step takes it. JAX would clamp one that does not exist, so that is an error here."""
    array = np.asarray(action)
    if array.shape != batch + space.shape:
        raise ValueError(f"an action of shape {array.shape} where {space} needs {batch + space.shape}")
    if not isinstance(space, spaces.Box):
        choices = space.n if isinstance(space, spaces.Discrete) else np.array(space.nvec)
        if array.dtype.kind not in "iu" or np.any((array < 0) | (array >= choices)):
            raise ValueError(f"action {array.tolist()} is not in {space}")
    return array.astype(space.dtype)


def _with_mask(info: dict, mask: Any) -> dict:
    return info if mask is None else info | {"action_mask": mask.astype(np.int8)}


def _info(info: dict) -> dict:
    """Arrays as NumPy's, scalars as numbers: Gymnasium's vector environments make an array of a number's own type."""
    def leaf(x):
        x = np.array(x)
        return x if x.ndim else x.item() if x.dtype == bool else x[()]
    return jax.tree.map(leaf, info)


def _infos(info: dict, who: np.ndarray) -> dict:
    """Arrays [N, ...], zeros where not `who`, each beside its mask "_key": how vector environments return infos."""
    infos = {}
    for key, value in info.items():
        if isinstance(value, dict):
            infos[key] = _infos(value, who)
        else:
            infos[key] = np.where(who.reshape(-1, *[1] * (value.ndim - 1)), value, np.zeros_like(value))
        infos[f"_{key}"] = who.copy()
    return infos


def _metadata(env: Environment, render_mode: str | None) -> dict[str, Any]:
    modes = [] if env.render is None else ["rgb_array", "ansi"]
    if render_mode is not None and render_mode not in modes:
        raise ValueError(f"{env.name} has no render_mode {render_mode!r}; it has: {', '.join(modes) or 'none'}")
    return {"render_modes": modes, "render_fps": FPS}


def _picture(env: Environment, state: Any, params: Any, render_mode: str) -> np.ndarray | str:
    picture = np.asarray(env.render(state, params))
    return ansi(picture) if render_mode == "ansi" else picture


def _arrays(params: Any) -> Any:
    """Numbers as arrays of a fixed type: passed to every step, they are put on the device once."""
    return jax.tree.map(lambda x: jnp.asarray(x, jax.dtypes.canonicalize_dtype(jnp.result_type(x))), params)


def _draw(rng: np.random.Generator) -> np.uint32:
    return rng.integers(2**32, dtype=np.uint32)
