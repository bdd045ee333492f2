"""The base class of adapters: wraps an environment of another package and corrects its dtypes.

Rewards become float32, flags become bool, and observations get the dtypes of their space.
Parameters and states become strongly typed and keep their dtypes. Casting a value to the dtype it
already has costs nothing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Action, Environment, Obs, Params, State
from envs_jax.spaces import Box, Discrete, MultiDiscrete, as_bound

if TYPE_CHECKING:
    from jaxtyping import Array, Key

    from envs_jax.core import StepResult

# constructor arguments that are not offered: `time_limit` is a setting of `envs_jax.build`, and the
# others are objects
HIDDEN = (
    "time_limit",
    "viewer", "generator", "reward_fn", "reward_function", "done_function", "action_mapping_key")


@dataclass(frozen=True, init=False)
class Adapter(Environment):
    """Base class of adapters: the environment `id` of the package, made with `arguments`.

    Equal adapters share one environment of the package. A subclass defines `suite`, `constructor`,
    `start`, `advance` and the two spaces.
    """

    suite: ClassVar[str]
    id: str
    arguments: tuple[tuple[str, Any], ...]

    def __init__(self, id: str, **arguments: Any):
        object.__setattr__(self, "id", id)
        for key, value in arguments.items():
            if isinstance(value, list):
                arguments[key] = tuple(value)          # an adapter is a hashable value
        object.__setattr__(self, "arguments", tuple(sorted(arguments.items())))
        self.check(self.theirs)

    @classmethod
    def constructor(cls, id: str) -> Callable[..., Any]:
        """Return the function that makes the package's environment `id`.

        Its signature defines the possible `arguments`. Raises ValueError if `id` is unknown.
        """
        raise TypeError(f"{cls.__name__} does not define constructor")

    def check(self, theirs: Any) -> None:
        """Raise ValueError if the protocol of core.py cannot express the environment."""

    def start(self, key: Key[Array, ""], params: Params) -> tuple[Any, Any]:
        """Return the result of `reset` in any dtypes."""
        raise TypeError(f"{type(self).__name__} does not define start")

    def advance(self, key: Key[Array, ""], state: State, action: Action, params: Params,
                ) -> tuple[Any, ...]:
        """Return the result of `step` in any dtypes; truncated may be True beside terminated."""
        raise TypeError(f"{type(self).__name__} does not define advance")

    @classmethod
    def signature(cls, id: str) -> inspect.Signature:
        """Return the arguments of the adapter after `id`: the constructor's named arguments."""
        named = []
        for parameter in inspect.signature(cls.constructor(id)).parameters.values():
            by_name = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if by_name and parameter.name not in HIDDEN:
                named.append(parameter.replace(kind=parameter.KEYWORD_ONLY))
        return inspect.Signature(named)

    @property
    def theirs(self) -> Any:
        """The environment object of the package."""
        return _make(type(self), self.id, self.arguments)

    @property
    def name(self) -> str:
        return f"{self.suite}/{self.id}"

    def reset(self, key: Key[Array, ""], params: Params) -> tuple[Obs, State]:
        with jax.numpy_rank_promotion("allow"):          # several packages broadcast across ranks
            obs, state = self.start(key, self._declared(params))
        obs = conform(obs, self.observation_space(self.default_params))
        return obs, jax.tree.map(strong, state)

    def step(self, key: Key[Array, ""], state: State, action: Action, params: Params) -> StepResult:
        copy = jax.tree.map(lambda x: x, state)          # packages may write into containers
        with jax.numpy_rank_promotion("allow"):
            obs, next_state, reward, terminated, truncated, info = self.advance(
                key, copy, action, self._declared(params))
        obs = conform(obs, self.observation_space(self.default_params))
        next_state = jax.tree.map(lambda new, old: as_type(new, old.dtype), next_state, state)
        terminated = jnp.asarray(terminated, bool)
        truncated = jnp.asarray(truncated, bool) & ~jnp.all(terminated)
        reward = jnp.asarray(reward, jnp.float32)
        return obs, next_state, reward, terminated, truncated, jax.tree.map(strong, info)

    def _declared(self, params: Params) -> Params:
        """Return `params` in the dtypes of the defaults, which determine the dtypes of states."""
        return jax.tree.map(lambda value, default: jnp.asarray(value, dtype(default)),
                            params, self.default_params)


@functools.lru_cache(maxsize=64)
def _make(kind: type[Adapter], id: str, arguments: tuple[tuple[str, Any], ...]) -> Any:
    # tables that the constructor computes must be arrays, not tracers
    with jax.ensure_compile_time_eval(), jax.numpy_rank_promotion("allow"):
        return kind.constructor(id)(**dict(arguments))


def space_of(foreign: Any) -> Any:
    """Return the space for one of gymnax, jaxmarl or craftax; a pytree for Dict and Tuple.

    Raises ValueError if there is no such space.
    """
    kind = type(foreign).__name__
    if kind == "Discrete":
        return Discrete(int(foreign.n))
    if kind == "MultiDiscrete":
        return MultiDiscrete(tuple(map(int, foreign.num_categories)))
    if kind == "Box":
        return box(foreign.low, foreign.high, foreign.shape, foreign.dtype)
    if kind == "Dict":
        return {key: space_of(space) for key, space in foreign.spaces.items()}
    if kind == "Tuple":
        return tuple(map(space_of, foreign.spaces))
    raise ValueError(f"envs_jax has no space for a {kind}")


def box(low: Any, high: Any, shape: Any, dtype: Any) -> Box:
    """Return a Box; the largest float32 means infinity, and equal bounds become one number."""
    return Box(_bound(low), _bound(high), tuple(shape), jnp.dtype(dtype).type)


def _bound(foreign: Any) -> Any:
    bound = np.asarray(foreign, np.float64)
    infinite = np.abs(bound) >= np.finfo(np.float32).max
    return as_bound(np.where(infinite, np.copysign(np.inf, bound), bound))


def conform(obs: Any, space: Any) -> Any:
    """Return `obs` in the structure and dtypes of `space`.

    A dict of spaces may describe a mapping, a dataclass or a NamedTuple.
    """
    if isinstance(space, dict):
        get = obs.__getitem__ if isinstance(obs, Mapping) else functools.partial(getattr, obs)
        return {key: conform(get(key), inner) for key, inner in space.items()}
    if isinstance(space, tuple):
        return tuple(map(conform, obs, space))
    return jnp.asarray(obs, space.dtype)


def dtype(x: Any) -> Any:
    """Return the dtype in which JAX computes with `x`: a number, an array or a key."""
    return jax.dtypes.canonicalize_dtype(jnp.result_type(x), allow_extended_dtype=True)


def as_type(x: Any, type: Any) -> Array:
    """Return `x` as a strongly typed array of dtype `type`; keys are unchanged."""
    return x if jnp.issubdtype(type, jax.dtypes.prng_key) else jnp.asarray(x, type)


def strong(x: Any) -> Array:
    """Return `x` as a strongly typed array of its own dtype."""
    return as_type(x, dtype(x))
