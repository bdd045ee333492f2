"""replay/: random programs of inserts and draws against a plain replay, a list of steps for each
environment.

The plain replay forgets the oldest steps and finds what an item holds by walking along the list.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs_jax.classic.cartpole import CartPole
from envs_jax.vector import VectorEnv
from envs_jax.wrappers import FrameStack, TimeLimit
from jaxrl.blocks.replay import (
    prioritized,
    sequences,
    transitions,
    tree,
    uniform,
)
from jaxrl.types import Input, Trajectory

ENVS = 3
LENGTH = 12
STEPS = 36
BATCH = 8
programs = settings(max_examples=6, deadline=None)


class Mode(NamedTuple):
    explicit: bool               # rows hold what really followed
    prioritized: bool
    rows: int                    # of an insert
    stack: int = 1
    n: int = 1
    agents: tuple = ()           # (number of agents,) or ()
    length: int = 0              # of sequences; 0: transitions
    burn_in: int = 0
    period: int = 1

    @property
    def ahead(self):
        return (self.burn_in + self.length or self.n) + (not self.explicit)

    def make(self):
        how = {"draw": prioritized() if self.prioritized else uniform(), "stack": self.stack,
               "rows_per_insert": self.rows}
        if self.length:
            return sequences(length=self.length, burn_in=self.burn_in, period=self.period, **how)
        return transitions(n=self.n, **how)


TRANSITIONS = {
    "explicit": Mode(True, False, rows=1),
    "explicit, 3 steps, stacked, prioritized": Mode(True, True, rows=2, n=3, stack=3),
    "explicit, 2 steps, agents, prioritized": Mode(True, True, rows=4, n=2, agents=(2,)),
    "implicit, 3 steps": Mode(False, False, rows=3, n=3),
    "implicit, 2 steps, stacked, prioritized": Mode(False, True, rows=1, n=2, stack=4),
}
SEQUENCES = {
    "explicit, burn-in, overlapping, prioritized": Mode(
        True, True, rows=1, length=3, burn_in=2, period=3
    ),
    "implicit, stacked": Mode(False, False, rows=2, stack=2, length=4, period=2),
    "implicit, apart, prioritized": Mode(False, True, rows=2, length=3, period=6),
    "explicit, stacked": Mode(True, False, rows=4, stack=3, length=2, burn_in=1, period=4),
}


def experience(rng, mode, steps=STEPS):
    """Rows [steps, ENVS, ...] of random episodes; every frame [1, 2] is another one."""
    lead = (steps, ENVS)
    terminated = rng.random((*lead, *mode.agents)) < (0.5 if mode.agents else 0.12)
    cut = (rng.random(lead) < 0.12).reshape(*lead, *(1 for _ in mode.agents)) & np.ones(
        terminated.shape, bool
    )

    def by_env(x, how):
        return how(x.reshape(*lead, -1), axis=-1)

    ended = by_env(terminated, np.all) | by_env(cut, np.any)
    first = np.concatenate([np.ones((1, ENVS), bool), ended[:-1]])
    frames = 1 + np.arange(2 * 2 * steps * ENVS, dtype=np.int32).reshape(2, steps, ENVS, 1, 2)
    after = np.concatenate([frames[0, 1:], frames[1, -1:]])
    final = np.where(ended[..., None, None], frames[1], after)
    return Trajectory(
        Input(frames[0], first),
        rng.integers(0, 9, lead, np.int32),
        {},
        rng.normal(size=terminated.shape).astype("f4"),
        terminated,
        cut,
        Input(final, np.zeros(lead, bool)) if mode.explicit else None,
        carry0=(),
    )


@functools.cache
def program(mode):
    """The jitted (rows, priorities [inserts, BATCH], key, gamma) -> what happened at every insert.
    """
    replay = mode.make()

    def run(rows, priorities, key, gamma):
        rows = jax.tree.map(lambda x: x.reshape(STEPS // mode.rows, mode.rows, *x.shape[1:]), rows)
        carries = (
            100.0 * jnp.arange(STEPS, dtype=jnp.float32).reshape(-1, mode.rows)[:, :1]
            + jnp.arange(ENVS)[None]
        )
        one = jax.tree.map(lambda x: x[0, 0], rows)
        state = replay.init(one, ENVS * LENGTH, carries[0] if mode.length else ())

        def turn(state, now):
            rows, carry, priority, key = now
            state = replay.insert(state, rows, carry if mode.length else ())
            batch = replay.sample(state, key, BATCH, gamma=gamma, beta=0.4)
            leaves = tree.leaves(state.memory.sums) if mode.prioritized else ()
            return replay.update(state, batch.index, priority, alpha=0.6), (
                replay.available(state),
                leaves,
                batch,
            )

        keys = jax.random.split(key, STEPS // mode.rows)
        return jax.lax.scan(turn, state, (rows, carries, priorities, keys))[1]

    return jax.jit(run)


class Plain:
    """All steps so far, of which the last LENGTH are held."""

    def __init__(self, mode, rows, gamma):
        self.mode = mode
        self.rows = rows
        self.gamma = gamma
        self.now = 0
        self.leaf = {}
        self.highest = 1.0

    def cut(self, t, e):
        return self.rows.truncated[t, e].any() and not self.rows.terminated[t, e].all()

    def starts(self):
        """Numbers of items -> the step and environment where each starts."""
        mode = self.mode
        found = {}
        for t in range(max(self.now - LENGTH, 0) + mode.stack - 1, self.now - mode.ahead + 1):
            for e in range(ENVS):
                if t % mode.period == 0 and (mode.explicit or mode.length or not self.cut(t, e)):
                    found[t % LENGTH // mode.period * ENVS + e] = t, e
        return found

    def frames(self, t, e, final=False):
        """The observation of step t, or what followed it, with those before it as FrameStack would
        have it.
        """
        first = t
        while not self.rows.input.first[first, e]:
            first -= 1
        episode = [self.rows.input.obs[first, e]] * self.mode.stack + list(
            self.rows.input.obs[first + 1 : t + 1, e]
        )
        if final:
            episode.append(self.rows.final_input.obs[t, e])
        return np.concatenate(episode[-self.mode.stack:], axis=-1)

    def window(self, t, e):
        """(reward, discount, what the policy sees next)."""
        mode = self.mode
        rows = self.rows
        shape = rows.reward.shape[2:]
        m = 0
        over = False
        reward = np.zeros(shape)
        alive = np.ones(shape, bool)
        while m < mode.n and not over and not (not mode.explicit and self.cut(t + m, e)):
            reward = reward + np.where(alive, self.gamma**m * rows.reward[t + m, e], 0.0)
            alive = alive & ~rows.terminated[t + m, e]
            over = rows.terminated[t + m, e].all() or self.cut(t + m, e)
            m += 1
        follows = self.frames(t + m - 1, e, final=True) if mode.explicit else None
        if not mode.explicit and alive.any():
            follows = self.frames(t + m, e)
        return reward, np.where(alive, self.gamma**m, 0.0), follows

    def insert(self, count):
        before = set(self.starts().values())
        self.now += count
        now = set(self.starts().values())
        self.leaf = {item: self.leaf[item] if item in before else self.highest for item in now}

    def update(self, items, priorities, alpha=0.6):
        new = {}
        for item, priority in zip(items, priorities):
            new[item] = max(new.get(item, 0.0), priority**alpha)
        self.leaf |= {item: value for item, value in new.items() if item in self.leaf}
        self.highest = max(self.highest, *new.values())


def at(tree, *index):
    return jax.tree.map(lambda x: x[index], tree)


def check(mode, seed, gamma, item_check):
    rng = np.random.default_rng(seed)
    rows = experience(rng, mode)
    priorities = rng.gamma(1.0, size=(STEPS // mode.rows, BATCH)).astype("f4")
    # a few stand out, so that they come twice in a batch
    priorities[:, 0] *= 100
    happened = jax.device_get(
        program(mode)(rows, priorities, jax.random.key(seed), jnp.float32(gamma))
    )
    plain = Plain(mode, rows, gamma)
    for i, priority in enumerate(priorities):
        plain.insert(mode.rows)
        available, leaves, batch = at(happened, i)
        starts = plain.starts()
        lost = range(0)
        if not (mode.explicit or mode.length):
            first = max(plain.now - LENGTH, 0) + mode.stack - 1
            lost = range(first, max(plain.now - mode.ahead + 1, 0))
        assert available == len(starts) + sum(plain.cut(t, e) for t in lost for e in range(ENVS))
        drawn = batch.weight > 0
        if not mode.prioritized:
            assert set(batch.weight.tolist()) <= {0.0, 1.0}
            # tries may fail where few of many starts are any
            assert drawn.all() == bool(starts) or not mode.explicit
        else:
            assert drawn.all() == bool(starts)
            want = np.zeros(len(leaves))
            for number, item in starts.items():
                want[number] = plain.leaf[item]
            np.testing.assert_allclose(leaves, want, rtol=1e-5)
        items = [starts[number] for number in batch.index[drawn]]
        if mode.prioritized and items:
            p = np.array([plain.leaf[item] for item in items])
            np.testing.assert_allclose(batch.weight, (p / p.min()) ** -0.4, rtol=1e-4)
            plain.update(items, priority)
        for b, item in zip(np.flatnonzero(drawn), items):
            item_check(plain, batch, b, *item)


def check_transition(plain, batch, b, t, e):
    reward, discount, follows = plain.window(t, e)
    np.testing.assert_allclose(batch.reward[b], reward, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(batch.discount[b], discount, rtol=1e-5)
    if discount.any():
        np.testing.assert_array_equal(batch.next_input.obs[b], follows)
    assert batch.start.final_input is None
    assert batch.start.action[b] == plain.rows.action[t, e]
    np.testing.assert_array_equal(batch.start.input.obs[b], plain.frames(t, e))


def check_sequence(plain, batch, b, t, e):
    mode = plain.mode
    rows = plain.rows
    assert batch.carry0[b] == 100 * t + e
    for part, begin, count in (
        (batch.burn_in, t, mode.burn_in),
        (batch.rows, t + mode.burn_in, mode.length),
    ):
        assert part.reward.shape[0] == count
        for i, k in enumerate(range(begin, begin + count)):
            for name in ("action", "reward", "terminated", "truncated"):
                assert getattr(part, name)[i, b] == getattr(rows, name)[k, e]
            assert part.input.first[i, b] == rows.input.first[k, e]
            np.testing.assert_array_equal(part.input.obs[i, b], plain.frames(k, e))
            if mode.explicit:
                np.testing.assert_array_equal(
                    part.final_input.obs[i, b], plain.frames(k, e, final=True)
                )
    last = t + mode.burn_in + mode.length - 1
    np.testing.assert_array_equal(batch.valid[:, b], [mode.explicit or not plain.cut(k, e)
                                                      for k in range(t + mode.burn_in, last + 1)])
    want = plain.frames(last, e, final=True) if mode.explicit else plain.frames(last + 1, e)
    np.testing.assert_array_equal(batch.last_input.obs[b], want)


@pytest.mark.parametrize("name", TRANSITIONS)
@programs
@given(seed=st.integers(0, 2**31 - 1), gamma=st.sampled_from([1.0, 0.9, 0.0]))
def test_transitions_are_those_of_a_plain_replay(name, seed, gamma):
    check(TRANSITIONS[name], seed, gamma, check_transition)


@pytest.mark.parametrize("name", SEQUENCES)
@programs
@given(seed=st.integers(0, 2**31 - 1))
def test_sequences_are_those_of_a_plain_replay(name, seed):
    check(SEQUENCES[name], seed, 1.0, check_sequence)


def test_a_replay_per_seed_gives_the_same_bits(rng):
    mode = TRANSITIONS["implicit, 2 steps, stacked, prioritized"]
    both = [experience(rng, mode), experience(rng, mode)]
    priorities = rng.gamma(1.0, size=(2, STEPS, BATCH)).astype("f4")
    keys = jax.random.split(jax.random.key(0))
    gamma = jnp.array([0.9, 0.5])
    together = jax.jit(jax.vmap(program(mode)))(
        jax.tree.map(lambda *x: np.stack(x), *both), priorities, keys, gamma
    )
    for i, rows in enumerate(both):
        alone = program(mode)(rows, priorities[i], keys[i], gamma[i])
        jax.tree.map(np.testing.assert_array_equal, at(together, i), alone)


@pytest.mark.parametrize("explicit", [True, False])
def test_frames_are_stacked_as_the_wrapper_does(explicit):
    """CartPole pushed one way, its poles fall in 8 to 10 steps.

    Some before the time limit, others not.
    """
    plain = TimeLimit(CartPole(), 9)
    steps = 24
    replay = transitions(stack=3)

    def play(env, key):
        env = VectorEnv(env, 4)
        world, _ = env.init(key, plain.default_params)

        def step(world, key):
            inputs = env.input(world)
            world, after = env.step(key, world, jnp.ones(4, jnp.int32))
            return world, Trajectory(
                inputs,
                jnp.ones(4, jnp.int32),
                {},
                after.reward,
                after.terminated,
                after.truncated,
                after.final_input,
                carry0=(),
            )

        return jax.lax.scan(step, world, jax.random.split(key, steps))[1]

    @jax.jit
    def run(key):
        rows = play(plain, key)
        wrapped = play(FrameStack(plain, 3), key)
        held = rows if explicit else rows._replace(final_input=None)
        state = replay.init(at(held, 0), 4 * steps)
        state, _ = jax.lax.scan(lambda state, row: (replay.insert(state, row), None), state,
                                jax.tree.map(lambda x: x[:, None], held))
        return wrapped, replay.sample(state, key, 256, gamma=0.9)

    wrapped, batch = run(jax.random.key(3))
    assert wrapped.terminated.any() and wrapped.truncated.any() and batch.weight.all()
    t = batch.index // 4
    e = batch.index % 4
    np.testing.assert_array_equal(batch.start.input.obs, wrapped.input.obs[t, e])
    alive = np.asarray(batch.discount > 0)
    assert (~alive).any() and np.asarray(wrapped.truncated[t, e]).any() == explicit
    np.testing.assert_array_equal(batch.next_input.obs[alive], wrapped.final_input.obs[t, e][alive])
