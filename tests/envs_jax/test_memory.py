"""Tests of the memory tasks: loops written from the papers, and returns with and without memory."""

import itertools

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import make
from envs_jax.memory.chain import MemoryChain, MemoryChainState
from envs_jax.memory.repeat import RepeatPrevious, RepeatPreviousState
from envs_jax.memory.tmaze import EAST, NORTH, SOUTH, WEST, TMaze, TMazeState
from tests.envs_jax.cases import assert_agents_are_shown, rollout

# ---------------------------------------------------------------- T-maze


class Bakker:
    """The T-maze of the paper, one agent at a time."""

    def __init__(self, length, goal):
        self.length = length
        self.goal = goal
        self.place = 0

    def see(self):
        if self.place == 0:
            return (1, 1, 0) if self.goal == NORTH else (0, 1, 1)
        return (0, 1, 0) if self.place == self.length else (1, 0, 1)

    def act(self, action):
        """Return (reward, over)."""
        if self.place == self.length and action in (NORTH, SOUTH):
            return (4.0 if action == self.goal else -0.1), True
        if action == EAST and self.place < self.length:
            self.place += 1
        elif action == WEST and self.place > 0:
            self.place -= 1
        else:
            return -0.1, False                              # stands still
        return 0.0, False


@pytest.mark.parametrize("length", [1, 3])
def test_tmaze_is_the_papers(length, batch=128, steps=30):
    env, params = make("tmaze", length=length)
    obs, action, reward, terminated, truncated, _ = rollout(env, params, steps, batch=batch)
    ends = set()
    for b in range(batch):
        goal = NORTH if obs[b, 0].tolist() == [1, 1, 0] else SOUTH
        maze = Bakker(length, goal)
        for t in range(min(steps, env.max_steps)):
            assert tuple(obs[b, t]) == maze.see()
            want, over = maze.act(action[b, t])
            assert reward[b, t] == np.float32(want) and terminated[b, t] == over
            assert truncated[b, t] == (t + 1 == env.max_steps and not over)
            if over:
                ends.add((goal, float(reward[b, t]) > 0))
                break
    assert ends == {(goal, won) for goal in (NORTH, SOUTH) for won in (True, False)}


def test_tmaze_with_memory_and_without():
    """All 256 policies without memory, for both goals, and one policy with memory."""
    seen = [(1, 1, 0), (0, 1, 1), (1, 0, 1), (0, 1, 0)]
    length = 3

    def play(answers, goal):
        maze = Bakker(length, goal)
        total = 0.0
        over = False
        for _ in range(40):
            reward, over = maze.act(answers[maze.see()])
            total += reward
            if over:
                break
        return total

    best = max(np.mean([play(dict(zip(seen, actions)), goal) for goal in (NORTH, SOUTH)])
               for actions in itertools.product(range(4), repeat=4))
    facts = TMaze(length)
    assert facts.chance_return() == pytest.approx(best) == pytest.approx(1.95)
    assert facts.optimal_return() == 4.0
    assert facts.optimal_return(gamma=0.98) == pytest.approx(4 * 0.98**3)
    assert facts.chance_return(gamma=0.98) == pytest.approx(1.95 * 0.98**3)


def test_tmaze_played():
    env, params = make("tmaze", penalty=0.5)
    facts = env.unwrapped

    def knowing(obs, state):
        state = env.inner_state(state).env
        return jnp.where(state.place < facts.length, EAST, jnp.where(state.south, SOUTH, NORTH))

    obs, _, reward, terminated, _, _ = rollout(env, params, 11, knowing, batch=64)
    assert np.all(reward.sum(1) == facts.optimal_return(params))
    assert np.all(np.flatnonzero(~terminated[0]) == range(10))
    # no sign on the way
    assert np.all(obs[:, 1:10] == [1, 0, 1]) and np.all(obs[:, 10] == [0, 1, 0])
    south = obs[:, 0, 2]
    assert set(south) == {0.0, 1.0} and abs(south.mean() - 0.5) < 0.25
    north = jnp.full((512, 11), EAST).at[:, 10].set(NORTH)
    returns = rollout(env, params, 11, actions=north, batch=512)[2].sum(1)
    assert abs(returns.mean() - facts.chance_return(params)) < 4 * returns.std() / np.sqrt(512)
    assert facts.chance_return(params) == 1.75 and env.max_steps == 110


# ---------------------------------------------------------------- memory chain


@pytest.mark.parametrize("length, bits", [(1, 1), (2, 3), (8, 1)])
def test_memory_chain_is_gymnaxs(rng, length, bits, batch=16):
    """Steps from equal contexts and queries; gymnax's observations are outside its own space."""
    from gymnax.environments.bsuite.memory_chain import EnvState

    env = MemoryChain(length, bits)
    other, gymnax_params = gymnax.make("MemoryChain-bsuite", num_bits=bits)
    gymnax_params = gymnax_params.replace(memory_length=length)
    context = jnp.asarray(rng.integers(2, size=(batch, bits)), jnp.int32)
    query = jnp.asarray( rng.integers(bits, size=batch), jnp.int32)
    actions = jnp.asarray(rng.integers(2, size=(batch, length + 1)), jnp.int32)
    key = jax.random.key(0)
    zero = jnp.int32(0)

    def both(context, query, actions):
        def step(carry, action):
            ours, reference = carry
            obs, ours, reward, terminated, *_ = env.step(key, ours, action, ())
            their_obs, reference, their_reward, their_terminated, _ = other.step_env(
                key, reference, action, gymnax_params
            )
            return (ours, reference), (
                (obs, reward, terminated),
                (their_obs, their_reward, their_terminated),
            )

        reference = EnvState(
            context=context,
            query=query,
            total_perfect=zero,
            total_regret=jnp.float32(0.0),
            time=zero,
        )
        return jax.lax.scan(step, (MemoryChainState(context, query, zero), reference), actions)[1]

    ours, want = jax.jit(jax.vmap(both))(context, query, actions)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), ours, want)
    obs, reward, terminated = map(np.asarray, ours)
    np.testing.assert_array_equal(terminated, np.arange(length + 1) == np.full((batch, 1), length))
    assert np.all(np.abs(reward[:, -1]) == 1) and np.all(reward[:, :-1] == 0)
    assert np.any(obs[:, 0, 2:] < float(other.observation_space(gymnax_params).low))


@pytest.mark.parametrize("length, bits", [(8, 1), (4, 5)])
def test_memory_chain_with_memory_and_without(length, bits, batch=2000):
    """The first observation contains the answer, and no later one does."""
    env, params = make("memory-chain", length=length, bits=bits)
    obs, action, reward, terminated, truncated, _ = rollout(env, params, length + 1, batch=batch)
    assert terminated[:, -1].all() and not truncated.any() and env.max_steps == length + 1
    queries = obs[:, -1, 1].astype(int)
    contexts = obs[:, 0, 2:]
    answer = (contexts[np.arange(batch), queries] + 1) / 2
    np.testing.assert_array_equal(reward[:, -1], np.where(action[:, -1] == answer, 1, -1))
    assert env.unwrapped.optimal_return() == 1
    assert np.all(obs[:, 2:, 2:] == 0)
    assert np.all(obs[:, :-1, 1] == 0)
    clock = [1, *np.linspace(1, 1 / length, length)]
    np.testing.assert_allclose(obs[:, :, 0], np.broadcast_to(clock, (batch, length + 1)), rtol=1e-6)
    np.testing.assert_allclose(contexts.mean(0), 0.0, atol=4 / np.sqrt(batch))
    np.testing.assert_allclose(np.bincount(queries, minlength=bits) / batch, 1 / bits, atol=0.05)
    for blind in (0, 1):  # the same answer for every query
        assert abs(
            np.where(answer == blind, 1.0, -1.0).mean() - env.unwrapped.chance_return()
        ) < 4 / np.sqrt(batch)


# ---------------------------------------------------------------- repeat previous


@pytest.mark.parametrize("delay, symbols", [(2, 4), (1, 3), (64, 3)])
def test_repeat_previous_against_a_loop(delay, symbols):
    env, params = make("repeat-previous", delay=delay, symbols=symbols)
    steps = env.max_steps
    obs, action, reward, terminated, truncated, _ = rollout(env, params, steps, batch=64)
    shown = obs.argmax(-1)
    np.testing.assert_array_equal(obs.sum(-1), 1.0)
    want = np.zeros(reward.shape)
    for t in range(delay, steps):
        want[:, t] = action[:, t] == shown[:, t - delay]
    np.testing.assert_array_equal(reward, want)
    assert not terminated.any() and truncated[:, -1].all()
    np.testing.assert_allclose(np.bincount(shown.ravel()) / shown.size, 1 / symbols, atol=0.05)
    returns = reward.sum(1)
    chance = env.unwrapped.chance_return(steps)
    assert abs(returns.mean() - chance) < 4 * returns.std() / np.sqrt(64)
    assert chance == env.unwrapped.optimal_return(steps) / symbols


def test_repeat_previous_with_memory_and_without():
    env, params = make("repeat-previous")
    facts = env.unwrapped
    assert facts.optimal_return(32) == 30 and facts.chance_return(32) == 7.5 and env.max_steps == 32

    def echo(obs, state):
        return jnp.argmax(obs)

    np.testing.assert_allclose(
        rollout(env, params, 32, echo, batch=512)[2].sum(1).mean(), 7.5, atol=0.5
    )


@pytest.mark.parametrize("delay", [2, 64])
def test_repeat_previous_optimum_is_the_same_for_every_delay(delay):
    env, params = make("repeat-previous", delay=delay)
    facts = env.unwrapped
    # the content of memory
    def remember(obs, state):
        return jnp.maximum(env.inner_state(state).env.symbols[0], 0)

    assert np.all(rollout(env, params, env.max_steps, remember, batch=4)[2].sum(1) == 30)
    assert facts.optimal_return(env.max_steps) == 30 and env.max_steps == delay + 30


# ---------------------------------------------------------------- pictures


def test_pictures_show_where_we_are():
    number = jnp.int32
    context = jnp.int32([0, 1, 1])
    chain = MemoryChain(6, bits=3)
    previous = RepeatPrevious(delay=3)
    # after the last step
    boards = [
        (TMaze(5), TMazeState(number(2), jnp.bool_(True)), (1, 2), (3, 6)),
        (TMaze(5), TMazeState(number(5), jnp.bool_(False)), (1, 5), (3, 6)),
        (chain, MemoryChainState(context, number(2), number(4)), (0, 4), (2, 7)),
        (chain, MemoryChainState(context, number(0), number(7)), (0, 6), (2, 7)),
        (previous, RepeatPreviousState(jnp.int32([-1, -1, 0, 3])), (1, 3), (2, 4)),
    ]
    assert_agents_are_shown(boards)
    goals = [
        TMaze(5).render(TMazeState(number(0), jnp.bool_(south)), ()) for south in (False, True)
    ]
    assert np.any(goals[0] != goals[1])
