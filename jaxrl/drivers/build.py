"""From a config to a learner: the one place where environment, algorithm and driver meet."""

from __future__ import annotations

from typing import Any, NamedTuple

from envs_jax import core
from envs_jax.vector import VectorEnv
from jaxrl.config.settings import RunConfig
from jaxrl.drivers.on_policy import OnPolicy
from jaxrl.errors import UserError
from jaxrl.types import Agent, EnvSpec, Runner


class Learner(NamedTuple):
    """One learner, ready to be jitted and vmapped."""

    agent: Agent
    runner: Runner
    env: core.Environment
    params: Any
    spec: EnvSpec


def on_policy(agent: Agent, env: core.Environment, params: Any, config: Any) -> Runner:
    """The on-policy Runner of an agent in `config.num_envs` environments."""
    return OnPolicy(agent, VectorEnv(env, config.num_envs), params, config.rollout_length)


DRIVERS = {"on_policy": on_policy}      # Algorithm.experience -> (agent, env, params, agent config) -> Runner


def build(config: RunConfig) -> Learner:
    """The learner of a config. Raises UserError where algorithm and environment do not fit."""
    algorithm, (env, params) = config.algorithm(), config.make_env()
    if algorithm.experience not in DRIVERS:
        raise UserError(f"{config.algo} learns from {algorithm.experience}; there are drivers for {', '.join(DRIVERS)}")
    spec = core.spec(env, params)
    agent = algorithm.make_agent(config.agent, spec)
    return Learner(agent, DRIVERS[algorithm.experience](agent, env, params, config.agent), env, params, spec)
