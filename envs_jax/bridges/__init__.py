"""Bridges: environments of this package in the interfaces of Gymnasium and gymnax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from envs_jax import make

if TYPE_CHECKING:
    from envs_jax.core import Environment, Params


def single_agent(env_or_name: Environment | str, params: Params, settings: Mapping[str, Any],
                 package: str) -> tuple[Environment, Params]:
    """Return (environment, params) for the interface of `package`, which has a single agent.

    Raises ValueError if there are several agents, or settings for an environment without a name.
    """
    if isinstance(env_or_name, str):
        env, default = make(env_or_name, **settings)
    elif settings:
        raise ValueError(f"{', '.join(settings)}: settings go with a name; "
                         "an environment object is used unchanged")
    else:
        env = env_or_name
        default = env.default_params
    if env.agents is not None:
        raise ValueError(f"{env.name} has {env.agents} agents; "
                         f"environments of {package} have one")
    return env, default if params is None else params
