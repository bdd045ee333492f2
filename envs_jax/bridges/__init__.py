"""The other way: our environments as those of other packages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from envs_jax import make

if TYPE_CHECKING:
    from envs_jax.core import Environment


def single_agent(env_or_name: Environment | str, params: Any, settings: Mapping[str, Any],
                 whose: str) -> tuple[Environment, Any]:
    """-> (environment, params) for an interface (`whose`, for the message) that knows one agent."""
    if isinstance(env_or_name, str):
        env, default = make(env_or_name, **settings)
    elif settings:
        raise ValueError(f"{', '.join(settings)}: settings go with a name, an environment is taken as it is")
    else:
        env, default = env_or_name, env_or_name.default_params
    if env.agents is not None:
        raise ValueError(f"{env.name} has {env.agents} agents, an environment of {whose} has one")
    return env, default if params is None else params
