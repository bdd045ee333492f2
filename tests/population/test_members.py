"""Blocks of members: their bits depend on the block size alone, and nothing is compiled twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.sizes import ceil_div
from jaxrl.errors import UserError
from jaxrl.population.members import Members, block_size, shards
from jaxrl.storage import checkpoint
from jaxrl.types import Progress, TrainState


class Hyper(NamedTuple):
    rate: jax.Array


class Walker:
    """A Runner without an environment: a noisy linear map that depends on the order of keys."""

    steps_per_update = 4
    num_envs = groups = 1

    def __init__(self):
        self.traced = {"init": 0, "advance": 0, "evaluate": 0}

    def init(self, key, hyper, schedule):
        self.traced["init"] += 1
        progress = Progress(jnp.zeros((), jnp.int32), schedule)
        agent = {"w": jax.random.uniform(key, (5,))}
        return TrainState(agent, hyper, (), (), (), key, progress, jnp.ones((), bool))

    def advance(self, state, updates):
        self.traced["advance"] += 1

        def body(_, state):
            key = jax.random.fold_in(state.key, state.progress.update)
            noise = jax.random.key_data(key).astype(jnp.float32)[0] / 2.0**32
            w = state.agent["w"][::-1] * state.hyper.rate
            w = 1.5 * jnp.sin(3.0 * w + noise * jnp.arange(5.0))
            progress = state.progress._replace(update=state.progress.update + 1)
            return state._replace(agent={"w": w}, key=key, progress=progress)

        state = jax.lax.fori_loop(0, updates, body, state)
        return state, {"norm": jnp.linalg.norm(state.agent["w"])}

    def evaluate(self, agent, key):
        self.traced["evaluate"] += 1
        return agent["w"].sum() + jax.random.key_data(key).astype(jnp.float32)


def make(count, devices, **more):
    runner = Walker()
    return Members(runner, count, devices, evaluate=runner.evaluate, **more)


def keys(count):
    return jax.random.split(jax.random.key(7), count)


def hyper(count):
    return Hyper(jnp.linspace(0.1, 0.9, count))


def played(members, updates=(2, 3)):
    """Everything that comes out of some chunks and an evaluation."""
    population = members.init(keys(members.count), hyper(members.count), 10)
    metrics = []
    for n in updates:
        population, found = members.advance(population, n)
        metrics.append(found)
    state = members.to_host(population)
    return state, metrics, members.evaluate(population, keys(members.count))


def bits(tree):
    def data(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return [np.asarray(data(x)).tobytes() for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize("count, devices, size", [
    (1, 1, 1), (1, 4, 1), (2, 2, 1), (3, 2, 2), (5, 2, 3), (8, 2, 4), (4, 3, 2), (9, 4, 3),
    (3, 1, 3), (64, 8, 8), (65, 8, 9)])
def test_block_size(count, devices, size):
    assert block_size(count, devices) == size
    blocks = ceil_div(count, size)
    assert blocks <= devices
    assert blocks * size >= count > (blocks - 1) * size      # no block holds copies alone


@pytest.mark.parametrize("envs, groups, devices, asked, each", [
    (1024, 8, 8, True, 8), (1024, 8, 6, True, 4), (1024, 8, 3, True, 2), (64, 1, 8, True, 1),
    (1024, 8, 2, False, 1),
    (2048, 8, 2, False, 2), (4096, 8, 8, False, 4), (2048, 1, 2, False, 1)])
def test_devices_of_one_learner(envs, groups, devices, asked, each):
    """They divide the groups evenly and, unless asked for, have 1,024 environments each."""
    assert shards(SimpleNamespace(num_envs=envs, groups=groups), devices, asked) == each


@pytest.mark.parametrize("count, size", [(1, 1), (3, 2), (5, 2), (4, 4)])
def test_results_do_not_depend_on_the_number_of_devices(count, size):
    real = jax.devices()
    alone = make(count, real[:1], size=size)
    several = make(count, (real * 3)[:3], size=size)
    assert alone.blocks == several.blocks == ceil_div(count, size)
    one = played(alone)
    other = played(several)
    assert bits(one) == bits(other)
    state, metrics, returns = one
    assert state.agent["w"].shape == (count, 5) and returns.shape == (count, 2)
    assert all(m["norm"].shape == (count,) for m in metrics)


def test_a_member_does_not_depend_on_its_neighbours():
    """Neither copies in the last block nor the other members of a block change anything."""
    five = make(5, jax.devices()[:1], size=2)
    three = make(3, jax.devices()[:1], size=2)

    def advanced(members):
        own = Hyper(hyper(5).rate[: members.count])
        population = members.init(keys(5)[: members.count], own, 10)
        return members.to_host(members.advance(population, 4)[0])

    one = advanced(five)
    other = advanced(three)
    assert bits(jax.tree.map(lambda x: x[:3], one)) == bits(other)


@pytest.mark.parametrize("count, size", [(1, 1), (3, 2), (5, 3)])
def test_to_the_host_and_back(count, size):
    members = make(count, jax.devices(), size=size)
    population, _ = members.advance(members.init(keys(count), hyper(count), 10), 3)
    state = members.to_host(population)
    again = members.from_host(state)
    assert bits(members.to_host(again)) == bits(state)
    assert [bits(block) for block in again] == [bits(block) for block in population]
    stored = checkpoint.flatten(state)
    template = members.template(keys(count), hyper(count))
    third = members.from_host(checkpoint.unflatten(template, stored))
    for block, other, (device,) in zip(third, population, members.places):
        assert bits(block) == bits(other)
        assert all(x.devices() == {device} for x in jax.tree.leaves(block))
    assert bits(members.advance(third, 2)) == bits(members.advance(population, 2))


def test_chunks_add_up():
    members = make(3, jax.devices(), size=2)
    first = members.init(keys(3), hyper(3), 10)
    second = members.init(keys(3), hyper(3), 10)
    once = members.advance(first, 5)[0]
    for n in (1, 3, 1):
        second = members.advance(second, n)[0]
    assert bits(members.to_host(once)) == bits(members.to_host(second))


def test_one_compilation_per_device_and_program():
    """Whatever the chunk length, the hyperparameters and the keys are."""
    members = make(5, jax.devices(), size=2)
    submit = members._threads.submit
    compiled = []

    def counted(function):
        compiled.append(function)
        return submit(function)

    members._threads.submit = counted
    population = members.init(keys(5), hyper(5), 10)
    members.compile(population, keys(5))
    seconds = members.compile_seconds
    used = len(members.devices)
    assert len(compiled) == 1 + 2 * used and seconds > 0
    for n in (1, 2, 7):
        population, _ = members.advance(population, n)
        members.evaluate(population, jax.random.split(jax.random.key(n), 5))
        state = members.to_host(population)
        population = members.from_host(state._replace(hyper=Hyper(state.hyper.rate * 0.5)))
    members.init(keys(5), Hyper(jnp.ones(5)), 99)
    assert len(compiled) == 1 + 2 * used and members.runner.traced["init"] == 1
    assert members.runner.traced["advance"] <= used and members.runner.traced["evaluate"] <= used


def test_compile_seconds_count_no_work():
    members = make(2, jax.devices(), size=1)
    population = members.init(keys(2), hyper(2), 10)
    members.compile(population, keys(2))
    members.evaluate(population, keys(2))
    before = members.compile_seconds
    population, _ = members.advance(population, 20_000)
    assert members.compile_seconds - before < 0.05


def test_more_devices_than_there_are():
    from jaxrl import backend

    text = rf"num_devices=999 was asked for, JAX sees {len(jax.devices())}: "
    with pytest.raises(UserError, match=text):
        backend.devices(999)
    assert backend.devices(1) == jax.devices()[:1] and backend.devices() == jax.devices()
