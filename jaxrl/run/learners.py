"""The learners that a config asks for: their keys and hyperparameters, their blocks on devices or workers, and what a
checkpoint holds of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import backend
from jaxrl import config as configs
from jaxrl.config.settings import RunConfig
from jaxrl.declare import hypers
from jaxrl.distributed import open_pool
from jaxrl.distributed.cluster import Cluster
from jaxrl.drivers.build import Learner
from jaxrl.errors import UserError
from jaxrl.evaluate import make_evaluate
from jaxrl.population import budget
from jaxrl.population.generations import Evaluator, Generations
from jaxrl.population.members import Members, block_size
from jaxrl.population.protocol import Population
from jaxrl.population.remote import BlockHost, RemoteMembers
from jaxrl.population.remote_candidates import CandidateHost, RemoteEvaluator
from jaxrl.storage import checkpoint, folder
from jaxrl.types import Strategy, TrainState

TRAIN, PERIODIC, FINAL = range(3)                 # key streams: learning, evaluations of a run, `jaxrl eval`


def member_keys(seed: int, count: int, stream: int, step: int = 0) -> jax.Array:
    """One key [count] per member: its own stream for every purpose."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(count))


def spread(config: RunConfig, step: int = 0) -> Any:
    """The hyperparameters of every member at an environment step, leaves [num_seeds]."""
    own = hypers(config.agent)
    if config.schedule:
        own = own._replace(**{name: jnp.float32(value) for name, value in config.schedule.at(step).items()})
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (config.settings.num_seeds,)), own)


def make_members(config: RunConfig, learner: Learner, *, episodes: int, layout: dict[str, Any] | None = None,
                 evaluator: Evaluator | None = None) -> Members:
    """The population of a config on this process's devices. layout: that of a stored run. evaluator: who plays the
    candidates of strategies, if not these devices."""
    play = make_evaluate(learner.agent, learner.env, learner.params, episodes)
    evaluate = lambda state, key: play(learner.agent.actor(state), key)
    devices = backend.devices(config.settings.num_devices)
    stored = layout or {}
    if isinstance(learner.agent, Strategy):
        return Generations(learner.runner, config.settings.num_seeds, devices, evaluate=evaluate,
                           evaluator=evaluator)
    size = stored.get("block_size") or config.settings.block_size
    return Members(learner.runner, config.settings.num_seeds, devices, size=size,
                   devices_each=stored.get("shards"), share=config.settings.num_devices is not None, evaluate=evaluate)


@contextlib.contextmanager
def open_members(config: RunConfig, learner: Learner, *, layout: dict[str, Any] | None = None) -> Iterator[Population]:
    """The population of a config, on this process's devices or on as many Ray workers as it asks for."""
    s = config.settings
    if not s.workers:
        yield make_members(config, learner, episodes=s.eval_episodes, layout=layout)
        return
    if isinstance(learner.agent, Strategy):
        evaluators: list[RemoteEvaluator] = []
        with open_pool(CandidateHost, configs.to_plain(config), workers=s.workers, address=s.address,
                       restore=lambda worker: evaluators[0].restore(worker)) as pool:
            evaluators.append(RemoteEvaluator(learner.runner, pool))
            yield make_members(config, learner, episodes=s.eval_episodes, layout=layout, evaluator=evaluators[0])
        return
    size = (layout or {}).get("block_size") or s.block_size or block_size(s.num_seeds, len(backend.devices()))
    with open_remote(config, learner, size) as members:
        yield members


@contextlib.contextmanager
def open_remote(config: RunConfig, learner: Learner, size: int, cluster: Cluster | None = None
                ) -> Iterator[RemoteMembers]:
    """Members in blocks of `size` on Ray workers: of a `cluster` that is connected already, or of one for them."""
    s = config.settings
    members: list[RemoteMembers] = []
    with open_pool(BlockHost, configs.to_plain(config), size, s.eval_episodes, workers=s.workers, address=s.address,
                   cluster=cluster, restore=lambda worker: members[0].restore(worker)) as pool:
        members.append(RemoteMembers(learner.runner, s.num_seeds, pool, size=size))
        yield members[0]


def check_memory(config: RunConfig, learner: Learner, size: int | None = None) -> tuple[budget.Need, TrainState]:
    """(What the members need, shapes of one). Raises UserError if it is more than there is, or devices are missing.
    size: of their blocks, if they are already dealt out. What machines of another Ray have is not known here."""
    s, state = config.settings, budget.member(learner.runner, hypers(config.agent))
    devices = backend.devices(s.num_devices)
    size = size or (1 if isinstance(learner.agent, Strategy) else s.block_size)
    if s.workers and s.address:
        return budget.need(state, s.num_seeds, size or block_size(s.num_seeds, len(devices))), state
    return budget.check(learner.runner, state, s.num_seeds, devices, size), state


def stored_state(config: RunConfig, members: Population, arrays: dict[str, np.ndarray], *,
                 replay: bool = True) -> TrainState:
    """The arrays of a checkpoint as the members' state, without a replay where that was left out. Raises UserError
    where they do not fit the config. They stay NumPy's, keys apart: no device holds more than its own members."""
    keys = member_keys(config.settings.seed, config.settings.num_seeds, TRAIN)
    template = members.template(keys, spread(config))
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    template = jax.tree.map(lambda x: x if is_key(x) else np.broadcast_to(np.zeros((), x.dtype), x.shape), template)
    return checkpoint.unflatten(template if replay else template._replace(replay=()), arrays)


def stored_agent(config: RunConfig, learner: Learner, arrays: dict[str, np.ndarray]) -> Any:
    """The arrays agent/... of a checkpoint as the members' agent state [num_seeds, ...]."""
    keys = member_keys(config.settings.seed, config.settings.num_seeds, TRAIN)
    template = jax.eval_shape(jax.vmap(learner.agent.init), keys, spread(config))
    return checkpoint.unflatten(template, arrays, prefix="agent")


def warm_start(config: RunConfig, learner: Learner) -> Any:
    """The whole agent state of the run `init_from`, its only seed for all or seed for seed; None without one."""
    s = config.settings
    if s.init_from is None:
        return None
    arrays, _ = checkpoint.load(folder.open_run(s.init_from), only="agent/")
    seeds = max((len(x) for x in arrays.values()), default=1)
    if seeds not in (1, s.num_seeds):
        raise UserError(f"init_from={s.init_from} has {seeds} seeds, this run has {s.num_seeds}. Use num_seeds={seeds}")
    arrays = {name: np.repeat(x, s.num_seeds // seeds, axis=0) for name, x in arrays.items()}
    return stored_agent(config, learner, arrays)
