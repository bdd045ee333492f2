"""What the adapters share: an environment of another package, made once, whose numbers get the types they should have.

Rewards become float32, flags bool, observations what their space says; parameters and states become strongly typed and
keep their types over time. A cast to the type that a value has already costs nothing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.core import Environment
from envs_jax.spaces import Box, Discrete, MultiDiscrete, as_bound

# arguments of constructors that are not offered: a setting of this name is our wrapper's; the others are objects
HIDDEN = ("time_limit",
          "viewer", "generator", "reward_fn", "reward_function", "done_function", "action_mapping_key")


@dataclass(frozen=True, init=False)
class Adapter(Environment):
    """The environment that the package calls `id`; `arguments` go to its constructor. Equal ones share theirs.

    A subclass gives `constructor`, `start`, `advance` and the two spaces.
    """

    suite: ClassVar[str]
    id: str
    arguments: tuple[tuple[str, Any], ...]

    def __init__(self, id: str, **arguments: Any):
        values = ((key, tuple(value) if isinstance(value, list) else value) for key, value in arguments.items())
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "arguments", tuple(sorted(values)))
        self.check(self.theirs)

    @classmethod
    def constructor(cls, id: str) -> Callable[..., Any]:
        """Makes their environment `id`; its signature says what `arguments` may be."""
        raise TypeError(f"{cls.__name__} does not define constructor")

    def check(self, theirs: Any) -> None:
        """Raises ValueError where our protocol cannot express the environment."""

    def start(self, key: jax.Array, params: Any) -> tuple[Any, Any]:
        """`reset`, of any types."""
        raise TypeError(f"{type(self).__name__} does not define start")

    def advance(self, key: jax.Array, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
        """`step`, of any types; truncated is not yet asked to be False where all is terminated."""
        raise TypeError(f"{type(self).__name__} does not define advance")

    @classmethod
    def signature(cls, id: str) -> inspect.Signature:
        """What the adapter takes beside `id`: the named arguments of the constructor."""
        named = (p for p in inspect.signature(cls.constructor(id)).parameters.values()
                 if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in HIDDEN)
        return inspect.Signature([p.replace(kind=p.KEYWORD_ONLY) for p in named])

    @property
    def theirs(self) -> Any:
        """The package's environment."""
        return _make(type(self), self.id, self.arguments)

    @property
    def name(self) -> str:
        return f"{self.suite}/{self.id}"

    def reset(self, key, params):
        with jax.numpy_rank_promotion("allow"):          # several packages broadcast across ranks
            obs, state = self.start(key, self._declared(params))
        return conform(obs, self.observation_space(self.default_params)), jax.tree.map(strong, state)

    def step(self, key, state, action, params):
        before = jax.tree.map(lambda x: x, state)        # theirs may write into the containers of a state
        with jax.numpy_rank_promotion("allow"):
            obs, after, reward, terminated, truncated, info = self.advance(key, before, action, self._declared(params))
        obs = conform(obs, self.observation_space(self.default_params))
        after = jax.tree.map(lambda new, old: as_type(new, old.dtype), after, state)
        terminated = jnp.asarray(terminated, bool)
        truncated = jnp.asarray(truncated, bool) & ~jnp.all(terminated)
        return obs, after, jnp.asarray(reward, jnp.float32), terminated, truncated, jax.tree.map(strong, info)

    def _declared(self, params: Any) -> Any:
        """Of the types that the defaults have: those of their states depend on it."""
        return jax.tree.map(lambda value, default: jnp.asarray(value, dtype(default)), params, self.default_params)


@functools.lru_cache(maxsize=64)
def _make(kind: type[Adapter], id: str, arguments: tuple[tuple[str, Any], ...]) -> Any:
    with jax.ensure_compile_time_eval(), jax.numpy_rank_promotion("allow"):    # tables are arrays, never tracers
        return kind.constructor(id)(**dict(arguments))


def space_of(theirs: Any) -> Any:
    """Our space for one of gymnax's, or of its copies in jaxmarl and craftax; a pytree of spaces for Dict and Tuple."""
    kind = type(theirs).__name__
    if kind == "Discrete":
        return Discrete(int(theirs.n))
    if kind == "MultiDiscrete":
        return MultiDiscrete(tuple(map(int, theirs.num_categories)))
    if kind == "Box":
        return box(theirs.low, theirs.high, theirs.shape, theirs.dtype)
    if kind == "Dict":
        return {key: space_of(space) for key, space in theirs.spaces.items()}
    if kind == "Tuple":
        return tuple(map(space_of, theirs.spaces))
    raise ValueError(f"no space of ours is like a {kind}")


def box(low: Any, high: Any, shape: Any, dtype: Any) -> Box:
    """A Box with bounds that are numbers where they are all the same; the largest float32 stands for infinity."""
    return Box(_bound(low), _bound(high), tuple(shape), jnp.dtype(dtype).type)


def _bound(theirs: Any) -> Any:
    bound = np.asarray(theirs, np.float64)
    bound = np.where(np.abs(bound) >= np.finfo(np.float32).max, np.copysign(np.inf, bound), bound)
    return as_bound(bound)


def conform(obs: Any, space: Any) -> Any:
    """`obs` in the structure and of the types of `space`; a dict of spaces may describe a dataclass or NamedTuple."""
    if isinstance(space, dict):
        get = obs.__getitem__ if isinstance(obs, Mapping) else functools.partial(getattr, obs)
        return {key: conform(get(key), inner) for key, inner in space.items()}
    if isinstance(space, tuple):
        return tuple(map(conform, obs, space))
    return jnp.asarray(obs, space.dtype)


def dtype(x: Any) -> Any:
    """The type of a number or array, keys included, as JAX would compute with it."""
    return jax.dtypes.canonicalize_dtype(jnp.result_type(x), allow_extended_dtype=True)


def as_type(x: Any, type: Any) -> Any:
    """`x` as a strongly typed array of `type`; keys as they are."""
    return x if jnp.issubdtype(type, jax.dtypes.prng_key) else jnp.asarray(x, type)


def strong(x: Any) -> Any:
    """`x` as a strongly typed array of the type that it has."""
    return as_type(x, dtype(x))
