"""From a config to a learner: the one place where environment, algorithm and driver meet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from envs_jax import core
from envs_jax.vector import VectorEnv
from envs_jax.wrappers import FrameStack
from jaxrl.blocks import replay
from jaxrl.config.settings import RunConfig
from jaxrl.drivers import curriculum
from jaxrl.drivers.evolution import Evolution
from jaxrl.drivers.off_policy import OffPolicy
from jaxrl.drivers.on_policy import OnPolicy
from jaxrl.errors import UserError
from jaxrl.types import Agent, EnvSpec, Runner, Strategy


class Learner(NamedTuple):
    """One learner, ready to be jitted and vmapped."""

    agent: Agent | Strategy
    runner: Runner
    env: core.Environment
    params: Any            # parameters of evaluations: those at the end of a curriculum
    spec: EnvSpec


def on_policy(agent: Agent, env: core.Environment, params: Any, config: Any,
              lines: curriculum.Lines) -> Runner:
    """Return the on-policy runner of an agent in `config.num_envs` environments."""
    group_size = config.num_envs // groups(config.num_envs)
    vector = VectorEnv(env, config.num_envs, group_size=group_size)
    return OnPolicy(agent, vector, curriculum.at_start(params, lines), config.rollout_length,
                    curriculum.follow(lines))


def off_policy(agent: Agent, env: core.Environment, params: Any, config: Any,
               lines: curriculum.Lines) -> Runner:
    """Return the runner of an agent in `config.num_envs` environments, replaying transitions."""
    transitions = partial(replay.transitions, n=config.n_step)
    return _with_replay(agent, env, params, config, lines, transitions)


def sequences(agent: Agent, env: core.Environment, params: Any, config: Any,
              lines: curriculum.Lines) -> Runner:
    """Return the runner of an agent in `config.num_envs` environments, replaying sequences.

    Sequences start from the carry that they were collected with.
    """
    items = partial(replay.sequences, length=config.sequence_length, burn_in=config.burn_in,
                    period=config.period)
    return _with_replay(agent, env, params, config, lines, items)


def _with_replay(agent: Agent, env: core.Environment, params: Any, config: Any,
                 lines: curriculum.Lines, items: Callable[..., replay.Replay]) -> Runner:
    stack = env.n if isinstance(env, FrameStack) else 1
    draw = replay.prioritised() if config.prioritized else replay.uniform()
    buffer = items(stack=stack, draw=draw, rows_per_insert=config.rollout_length)
    return OffPolicy(
        agent, VectorEnv(env, config.num_envs), curriculum.at_start(params, lines),
        config.rollout_length, curriculum.follow(lines), replay=buffer,
        capacity=config.replay_capacity, stack=stack, batch_size=config.batch_size,
        updates=config.gradient_steps, warmup=config.warmup)


def evolution(strategy: Strategy, env: core.Environment, params: Any, config: Any,
              lines: curriculum.Lines) -> Runner:
    """Return the runner of a strategy with `config.population` candidates, in blocks."""
    return Evolution(
        strategy, env, curriculum.at_start(params, lines), population=config.population,
        block_size=config.size, episodes=config.episodes, episode_steps=config.episode_steps,
        statistics=config.normalize_observation, curriculum=curriculum.follow(lines))


def groups(num_envs: int, *, most: int = 8, least_size: int = 128) -> int:
    """Return the number of groups of environments that devices may share, a power of two.

    It depends on `num_envs` alone, because each group draws keys of its own: the same seed gives
    the same result on any number of devices.
    """
    count = most
    while count > 1 and (num_envs % count or num_envs // count < least_size):
        count //= 2
    return count


# Algorithm.experience -> (agent, env, params, agent config, lines of the curriculum) -> Runner
DRIVERS = {"on_policy": on_policy, "replay": off_policy, "sequences": sequences,
           "evolution": evolution}


def build(config: RunConfig) -> Learner:
    """Return the learner of a config.

    Raises UserError if there is no driver for the algorithm, or it does not fit the environment.
    """
    algorithm = config.algorithm()
    env, params = config.make_env()
    lines = config.env.curriculum
    if algorithm.experience not in DRIVERS:
        raise UserError(f"{config.algo} learns from {algorithm.experience}; there are drivers for "
                        f"{', '.join(DRIVERS)}")
    spec = curriculum.spec(env, params, lines)
    agent = algorithm.make_agent(config.agent, spec)
    runner = DRIVERS[algorithm.experience](agent, env, params, config.agent, lines)
    return Learner(agent, runner, env, curriculum.at_end(params, lines), spec)
