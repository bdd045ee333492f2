"""The learners of a run: their keys and hyperparameters, their blocks on devices or workers, and
their state in a checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
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
from jaxrl.drivers.evolution import Evolution
from jaxrl.errors import UserError
from jaxrl.evaluate import make_evaluate
from jaxrl.population.generations import Evaluator, Generations
from jaxrl.population.members import Members
from jaxrl.population.protocol import Population
from jaxrl.population.remote import BlockHost, RemoteMembers
from jaxrl.population.remote_candidates import CandidateHost, RemoteEvaluator
from jaxrl.run.launch import Launch
from jaxrl.storage import checkpoint, folder
from jaxrl.types import TrainState

TRAIN, PERIODIC, FINAL = range(3)     # key streams: learning, evaluations in a run, `jaxrl eval`


def member_keys(seed: int, count: int, stream: int, step: int = 0) -> jax.Array:
    """Return one key [count] for each member. Every stream has keys of its own."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(count))


def spread(config: RunConfig, step: int = 0) -> Any:
    """Return the hyperparameters of all members at an environment step, leaves [num_seeds]."""
    hyper = hypers(config.agent)
    if config.schedule:
        scheduled = config.schedule.at(step)
        hyper = hyper._replace(**{name: jnp.float32(x) for name, x in scheduled.items()})
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (config.settings.num_seeds,)), hyper)


def make_members(config: RunConfig, learner: Learner, *, episodes: int,
                 layout: dict[str, Any] | None = None,
                 evaluator: Evaluator | None = None) -> Members:
    """Return the members of a config on the devices of this process.

    episodes: episodes per member of an evaluation. layout: the layout of a launch or a stored run.
    evaluator: player of a strategy's candidates, by default these devices.
    """
    s = config.settings
    play = make_evaluate(learner.agent, learner.env, learner.params, episodes)

    def evaluate(state: Any, key: jax.Array) -> jax.Array:
        return play(learner.agent.actor(state), key)

    devices = backend.devices(s.num_devices)
    if isinstance(learner.runner, Evolution):
        return Generations(learner.runner, s.num_seeds, devices, evaluate=evaluate,
                           evaluator=evaluator)
    stored = layout or {}
    return Members(learner.runner, s.num_seeds, devices,
                   size=stored.get("block_size") or s.block_size,
                   devices_each=stored.get("shards"), share=s.num_devices is not None,
                   evaluate=evaluate)


@contextlib.contextmanager
def open_members(launch: Launch) -> Iterator[Population]:
    """Open the members of a launch, on the devices of this process or on its Ray workers."""
    config = launch.config
    s = config.settings
    if not s.workers:
        yield make_members(config, launch.learner, episodes=s.eval_episodes, layout=launch.layout)
    elif isinstance(launch.learner.runner, Evolution):
        with _open_evaluator(launch, launch.learner.runner) as evaluator:
            yield make_members(config, launch.learner, episodes=s.eval_episodes,
                               layout=launch.layout, evaluator=evaluator)
    else:
        with open_remote(launch) as members:
            yield members


@contextlib.contextmanager
def _open_evaluator(launch: Launch, runner: Evolution) -> Iterator[RemoteEvaluator]:
    """Open Ray workers that play the candidates of strategies."""
    s = launch.config.settings

    def restore(worker: int) -> Sequence[tuple[str, Any]]:
        return evaluator.restore(worker)         # assigned below, before a worker can be lost

    with open_pool(CandidateHost, configs.to_plain(launch.config), workers=s.workers,
                   address=s.address, restore=restore) as pool:
        evaluator = RemoteEvaluator(runner, pool)
        yield evaluator


@contextlib.contextmanager
def open_remote(launch: Launch, cluster: Cluster | None = None) -> Iterator[RemoteMembers]:
    """Open members on Ray workers of a connected `cluster`, or of one that is started for them."""
    s = launch.config.settings
    size = launch.layout["block_size"]

    def restore(worker: int) -> Sequence[tuple[str, Any]]:
        return members.restore(worker)           # assigned below, before a worker can be lost

    with open_pool(BlockHost, configs.to_plain(launch.config), size, s.eval_episodes,
                   workers=s.workers, address=s.address, cluster=cluster, restore=restore) as pool:
        members = RemoteMembers(launch.learner.runner, s.num_seeds, pool, size=size)
        yield members


def stored_state(config: RunConfig, members: Population, arrays: dict[str, np.ndarray], *,
                 replay: bool = True) -> TrainState:
    """Return the arrays of a checkpoint as the state of the members, with or without a replay.

    All leaves but keys stay NumPy arrays, so that no device holds more than its own members.
    Raises UserError if the arrays do not fit the config.
    """
    keys = member_keys(config.settings.seed, config.settings.num_seeds, TRAIN)
    template = jax.tree.map(_as_numpy, members.template(keys, spread(config)))
    if not replay:
        template = template._replace(replay=())
    return checkpoint.unflatten(template, arrays)


def _as_numpy(leaf: Any) -> Any:
    """Return a NumPy array of this shape and dtype that takes no memory; a key as it is."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def stored_agent(config: RunConfig, learner: Learner, arrays: dict[str, np.ndarray]) -> Any:
    """Return the arrays agent/... of a checkpoint as an agent state, leaves [num_seeds, ...]."""
    keys = member_keys(config.settings.seed, config.settings.num_seeds, TRAIN)
    template = jax.eval_shape(jax.vmap(learner.agent.init), keys, spread(config))
    return checkpoint.unflatten(template, arrays, prefix="agent")


def warm_start(launch: Launch) -> Any:
    """Return the agent state of the run `init_from`; None without one.

    A run of one seed starts all members, another run starts them seed for seed. Raises UserError
    if the numbers of seeds differ.
    """
    s = launch.config.settings
    if s.init_from is None:
        return None
    arrays, _ = checkpoint.load(folder.open_run(s.init_from), only="agent/")
    seeds = max((len(x) for x in arrays.values()), default=1)
    if seeds not in (1, s.num_seeds):
        raise UserError(f"init_from={s.init_from} has {seeds} seeds, this run has {s.num_seeds}. "
                        f"Use num_seeds={seeds}")
    arrays = {name: np.repeat(x, s.num_seeds // seeds, axis=0) for name, x in arrays.items()}
    return stored_agent(launch.config, launch.learner, arrays)
