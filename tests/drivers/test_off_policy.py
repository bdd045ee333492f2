"""The driver of a replay: what it stores of images, frames and carries, and when it learns."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos import ddpg, dqn, r2d2
from envs_jax import make
from envs_jax.core import Environment, spec
from envs_jax.sizes import ceil_div
from envs_jax.spaces import Box, Discrete
from envs_jax.wrappers import FrameStack, TimeLimit
from jaxrl.blocks.networks.actor_critic import TrunkConfig
from jaxrl.blocks.networks.q_networks import q_network
from jaxrl.declare import hypers
from jaxrl.drivers.build import DRIVERS
from jaxrl.errors import UserError


class Painted(NamedTuple):
    seed: Any
    time: Any


@dataclasses.dataclass(frozen=True)
class Paint(Environment):
    """Frames of `shape`, uint8 or float32, no two alike; an episode ends with probability 1/6."""

    shape: tuple[int, ...] = (3, 2, 2)
    dtype: Any = jnp.uint8

    def _see(self, state):
        key = jax.random.fold_in(jax.random.key(state.seed), state.time)
        if self.dtype == jnp.uint8:
            return jax.random.randint(key, self.shape, 0, 256).astype(jnp.uint8)
        return jax.random.normal(key, self.shape)

    def reset(self, key, params):
        state = Painted(jax.random.bits(key, dtype=jnp.uint32), jnp.int32(0))
        return self._see(state), state

    def step(self, key, state, action, params):
        state = state._replace(time=state.time + 1)
        over = jax.random.uniform(key) < 1 / 6
        return self._see(state), state, state.time.astype(jnp.float32), over, jnp.bool_(False), {}

    def observation_space(self, params):
        if self.dtype == jnp.uint8:
            return Box(0, 255, self.shape, jnp.uint8)
        return Box(-9.0, 9.0, self.shape)

    def action_space(self, params):
        return Discrete(3)


T = 4
N = 3
ROLLOUTS = 6
COMMON = {"num_envs": N, "rollout_length": T, "warmup": 60, "batch_size": 64,
          "replay_capacity": N * T * (ROLLOUTS + 2)}
RECURRENT = TrunkConfig(hidden=(4,), recurrent="gru", recurrent_size=3)
SEQUENCES = {**COMMON, "burn_in": 3, "sequence_length": 5, "period": 4, "network": RECURRENT}


def driver(algorithm, env, **settings):
    config = algorithm.config(**settings)
    agent = algorithm.make_agent(config, spec(env))
    return DRIVERS[algorithm.experience](agent, env, env.default_params, config, {}), config


def collected(runner, config, seed=0):
    """-> (state after some rollouts, what the environments showed: a Trajectory [rows, N])."""
    def step(state, key):
        env, carry, batch, _ = runner.rollout(state, jnp.zeros(()), key)
        replay = runner.replay.insert(state.replay, runner._rows(batch), batch.carry0)
        return state._replace(env=env, carry=carry, replay=replay), batch._replace(carry0=())

    def all_of(key):
        state = runner.init(key, hypers(config), 100)
        return jax.lax.scan(step, state, jax.random.split(key, ROLLOUTS))

    state, seen = jax.jit(all_of)(jax.random.key(seed))
    return state, jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), seen)


@pytest.mark.parametrize("shape, dtype, stack", [
    ((3, 2, 2), jnp.uint8, 1), ((3, 2, 2), jnp.uint8, 3), ((), jnp.float32, 3)])
def test_transitions_are_what_the_environment_showed(shape, dtype, stack):
    env = TimeLimit(Paint(shape, dtype), 7)
    env = FrameStack(env, stack) if stack > 1 else env
    runner, config = driver(dqn.DQN, env, network=TrunkConfig(hidden=(4,)), **COMMON)
    state, seen = collected(runner, config)
    rows = state.replay.ring.rows
    images = len(shape) == 3
    assert (rows.final_input is None) == images
    shape = shape or (1,)
    assert rows.input.obs.shape == (T * (ROLLOUTS + 2), N, *shape)
    assert rows.input.obs.dtype == dtype

    def sample(state):
        return runner.replay.sample(state.replay, jax.random.key(1), 200, gamma=0.5)

    batch = jax.jit(sample)(state)
    row, b = np.divmod(np.asarray(batch.index), N)
    assert len(set(row)) > ROLLOUTS * T - stack - 2 and batch.weight.all()
    assert seen.input.obs.dtype == batch.start.input.obs.dtype == dtype
    np.testing.assert_array_equal(batch.start.input.obs, seen.input.obs[row, b])
    np.testing.assert_array_equal(batch.next_input.obs[batch.discount > 0],
                                  seen.final_input.obs[row, b][batch.discount > 0])
    np.testing.assert_array_equal(batch.discount, np.where(seen.terminated[row, b], 0.0, 0.5))
    np.testing.assert_array_equal(batch.reward, seen.reward[row, b])
    assert seen.truncated[row, b].any() != images
    assert seen.terminated[row, b].any() and seen.input.first[row, b].any()


@pytest.mark.slow
@pytest.mark.parametrize("stack", [1, 3])
def test_sequences_are_what_the_environment_showed(stack):
    """And they start from the carry that the policy had there."""
    env = TimeLimit(Paint(), 7)
    env = FrameStack(env, stack) if stack > 1 else env
    runner, config = driver(r2d2.R2D2, env, **SEQUENCES)
    state, seen = collected(runner, config)
    batch = jax.jit(lambda state: runner.replay.sample(state.replay, jax.random.key(1), 64))(state)
    row, b = np.divmod(np.asarray(batch.index), N)
    row *= config.period
    assert len(set(row)) >= 3
    steps = row + np.arange(8)[:, None]
    at = jax.tree.map(lambda x: x[steps, b], seen)
    np.testing.assert_array_equal(batch.burn_in.input.obs, at.input.obs[:3])
    np.testing.assert_array_equal(batch.rows.input.obs, at.input.obs[3:])
    np.testing.assert_array_equal(batch.rows.input.first, at.input.first[3:])
    assert batch.rows.input.obs.dtype == jnp.uint8 and at.input.first[1:].any()
    np.testing.assert_array_equal(batch.valid, ~at.truncated[3:])
    known = ~(at.terminated | at.truncated)
    followed = at.final_input.obs[-1][known[-1]]
    np.testing.assert_array_equal(batch.last_input.obs[known[-1]], followed)
    following, truncated = r2d2.followed(batch)
    known = known[3:]
    np.testing.assert_array_equal(following.obs[known], at.final_input.obs[3:][known])
    np.testing.assert_array_equal(truncated[:-1], at.truncated[3:-1] | at.truncated[4:])

    network = q_network(config.network, spec(env), duel=True)
    inputs = network.reads(jax.tree.map(jnp.asarray, seen.input))

    def step(carry, x):
        _, after = network.values(state.agent.params, carry, jax.tree.map(lambda y: y[None], x))
        return after, carry

    _, before = jax.jit(lambda inputs: jax.lax.scan(step, network.carry(N), inputs))(inputs)
    np.testing.assert_allclose(batch.carry0, np.asarray(before)[row, b], rtol=1e-5, atol=1e-6)
    assert np.abs(batch.carry0).max() > 0.01


def test_a_replay_of_transitions_keeps_no_carry():
    env, _ = make("pendulum")
    runner, config = driver(ddpg.DDPG, env, warmup=60)
    state = jax.eval_shape(lambda key: runner.init(key, hypers(config), 100), jax.random.key(0))
    assert state.carry.shape == (1, 1) and state.replay.carry == ()
    after = jax.eval_shape(runner.advance, state, jnp.int32(1))[0]
    assert after.replay == state.replay


@pytest.mark.slow
def test_a_replay_of_frames_is_not_copied(optimized):
    """Peak memory of updates is that of the state: little more than one byte for each pixel."""
    env = FrameStack(TimeLimit(Paint((8, 8, 1)), 7), 4)
    settings = SEQUENCES | {"replay_capacity": 300_000, "batch_size": 4}
    runner, config = driver(r2d2.R2D2, env, **settings)
    state = jax.eval_shape(lambda key: runner.init(key, hypers(config), 100), jax.random.key(0))
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.replay))
    lowered = jax.jit(runner.advance, donate_argnums=0).lower(state, jnp.int32(3))
    memory = lowered.compile().memory_analysis()
    assert 64 * 299_000 < size < 90 * 300_000
    assert memory.alias_size_in_bytes > size
    assert memory.argument_size_in_bytes + memory.temp_size_in_bytes < 1.2 * size


def test_a_run_that_goes_on_without_its_replay_collects_before_it_learns():
    """It collects by its policy, which here never acts at random, unlike a fresh run."""
    env, _ = make("cartpole")
    runner, config = driver(dqn.DQN, env, **COMMON | {
        "network": TrunkConfig(hidden=(8,)), "epsilon_start": 0.0, "epsilon_end": 0.0,
        "prioritized": True})
    init = jax.jit(lambda key: runner.init(key, hypers(config), 100))
    advance = jax.jit(runner.advance)
    warm = 60 // (N * T)
    state, metrics = advance(init(jax.random.key(0)), warm)
    assert state.agent.updates == 0 and np.isnan(metrics["loss"])
    state, metrics = advance(state, 2)
    assert state.agent.updates == 4 and metrics["priority"] > 0
    assert metrics["replay_size"] == N * T * (warm + 1.5)

    empty = state._replace(replay=init(jax.random.key(0)).replay)
    again, metrics = advance(empty, warm)
    jax.tree.map(np.testing.assert_array_equal, again.agent, state.agent)
    assert np.isnan(metrics["loss"]) and again.alive and again.replay.ring.size == warm * T
    rows = jax.tree.map(lambda x: np.asarray(x[: warm * T]), again.replay.ring.rows)
    network = q_network(config.network, spec(env))
    q, _ = network.values(state.agent.params, (), rows.input)
    np.testing.assert_array_equal(rows.action, q.argmax(axis=-1))
    assert advance(again, 1)[0].agent.updates == 6


def test_more_warm_up_than_the_replay_holds_is_no_deadlock():
    env, _ = make("cartpole")
    settings = {"network": TrunkConfig(hidden=(4,)), "warmup": 1000, "batch_size": 8}
    runner, config = driver(dqn.DQN, env, **COMMON | settings)
    held = 1 + COMMON["replay_capacity"] // (N * T)
    warm = ceil_div(1000, N * T)

    def trained(key, updates):
        return runner.advance(runner.init(key, hypers(config), 200), updates)

    state, _ = jax.jit(trained)(jax.random.key(0), held)
    assert state.agent.updates == 2 and held < warm


def test_a_replay_too_short_for_an_item_is_said():
    runner, config = driver(r2d2.R2D2, Paint(), **SEQUENCES | {"replay_capacity": 30})
    text = r"algo\.replay_capacity=30: a replay of 30 steps .* is too short for"
    with pytest.raises(UserError, match=text):
        jax.eval_shape(lambda key: runner.init(key, hypers(config), 100), jax.random.key(0))
