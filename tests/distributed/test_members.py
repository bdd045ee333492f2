"""Members on workers: the same bits as on the devices of one host, also after workers were lost."""

from __future__ import annotations

import os
import re
import signal

import jax
import numpy as np
import pytest

import jaxrl
from jaxrl import config as configs
from jaxrl.distributed.actors import RayPool
from jaxrl.distributed.cluster import Share, connect
from jaxrl.distributed.pool import InlinePool
from jaxrl.drivers.build import build
from jaxrl.errors import RunError
from jaxrl.population.members import on_host
from jaxrl.population.remote import BlockHost, RemoteMembers
from jaxrl.run import learners

COUNT = 5
SIZE = 2
EPISODES = 3
WORDS = ["algo=dqn", "env=cartpole", "preset=none", f"num_seeds={COUNT}", f"block_size={SIZE}",
         "algo.warmup=40", "algo.replay_capacity=400", "algo.network.hidden=[8]",
         f"eval_episodes={EPISODES}", "num_devices=1"]
SOURCE = np.array([0, 3, 3, 4, 0])                         # within a block, and from others


@pytest.fixture(scope="module")
def config():
    return jaxrl.compose(WORDS)


@pytest.fixture(scope="module")
def learner(config):
    return build(config)


def start(config):
    hyper = learners.spread(config)
    rates = np.float32([1e-3, 2e-3, 3e-3, 4e-3, 5e-3])
    return learners.member_keys(0, COUNT, learners.TRAIN), hyper._replace(learning_rate=rates)


def live(members, config, harm=lambda moment: None):
    """Train five members; return (metrics, returns, state) as NumPy arrays.

    harm(moment) is called in between.
    """
    keys, hyper = start(config)
    population = members.init(keys, hyper, 100)
    population, _ = members.advance(population, 15)
    harm("before a checkpoint")
    members.to_host(population)
    population, _ = members.advance(population, 3)
    harm("after a checkpoint")
    again = jax.tree.map(lambda x: np.asarray(x)[SOURCE] * np.float32(0.5), hyper)
    population = members.copy(population, SOURCE, again)
    harm("after a copy")
    population, metrics = members.advance(population, 4)
    returns = members.evaluate(population, keys)
    return metrics, returns, on_host(members.to_host(population))


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def expected(config, learner):
    """The result on this host's device, without a pool."""
    return live(learners.make_members(config, learner, episodes=EPISODES), config)


def plain(config):
    return configs.to_plain(config), SIZE, EPISODES


@pytest.mark.slow
def test_workers_of_this_process_do_the_same(config, learner, expected):
    members = RemoteMembers(learner.runner, COUNT, InlinePool(BlockHost, plain(config)), size=SIZE)
    metrics, returns, state = live(members, config)
    same((metrics, returns, state), expected)
    assert returns.shape == (COUNT, EPISODES) and state.progress.update.tolist() == [22] * COUNT
    rates = np.float32([5e-4, 2e-3, 2e-3, 2.5e-3, 5e-4])
    np.testing.assert_array_equal(state.hyper.learning_rate, rates)
    back = members.from_host(members.to_host(list(range(members.blocks))))
    same(on_host(members.to_host(back)), state)
    emptied = members.empty_replays(back, *start(config))
    assert members.to_host(emptied).replay.ring.size.tolist() == [0] * COUNT
    bare = members.to_host(emptied, replay=False)
    assert bare.replay == ()
    # as when a run is resumed without its replay
    again = members.empty_replays(members.from_host(bare), *start(config))
    same(on_host(members.to_host(again)), on_host(members.to_host(emptied)))


@pytest.fixture(scope="module")
def cluster():
    with connect(2, store=200 << 20) as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.fault
def test_lost_workers_cost_time_and_nothing_else(config, learner, expected, cluster):
    """One worker is killed before and after a checkpoint and after a copy; then both at once."""
    with RayPool(cluster, BlockHost, plain(config), workers=2, share=Share(cpus=1),
                 restore=lambda worker: members.restore(worker)) as pool:
        members = RemoteMembers(learner.runner, COUNT, pool, size=SIZE)
        killed = []

        def harm(moment):
            for worker in ([0] if "checkpoint" in moment else [0, 1]):
                pid = int(re.search(r"process (\d+)", pool._all[worker].host)[1])
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

        text = r"worker \d on .* \(process \d+\) was lost \(.+\); another one"
        with pytest.warns(UserWarning, match=text) as warned:
            same(live(members, config, harm), expected)
        assert len(set(killed)) == len(warned) == 4
        same(live(members, config), expected)              # and once more, by the new workers


@pytest.mark.slow
def test_what_an_environment_raises_is_named(config, learner, cluster):
    broken = configs.to_plain(config)
    broken["env"] = {**broken["env"], "params": {"no_such": 1}}
    args = (broken, SIZE, EPISODES)
    with pytest.raises(RunError, match="no_such"), RayPool(cluster, BlockHost, args, workers=1):
        pass


