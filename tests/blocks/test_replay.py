"""replay/: random programs of inserts and draws against a plain replay, a list of steps for each environment.

The plain replay forgets the oldest steps and finds what an item holds by walking along the list.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from envs_jax.classic.cartpole import CartPole
from envs_jax.vector import VectorEnv
from envs_jax.wrappers import FrameStack, TimeLimit
from jaxrl.blocks.replay import check_fits, nbytes, prioritized, sequences, transitions, tree, uniform
from jaxrl.types import Input, Trajectory

ENVS, LENGTH, STEPS, BATCH = 3, 12, 36, 8
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
    "explicit, burn-in, overlapping, prioritized": Mode(True, True, rows=1, length=3, burn_in=2, period=3),
    "implicit, stacked": Mode(False, False, rows=2, stack=2, length=4, period=2),
    "implicit, apart, prioritized": Mode(False, True, rows=2, length=3, period=6),
    "explicit, stacked": Mode(True, False, rows=4, stack=3, length=2, burn_in=1, period=4),
}


def experience(rng, mode, steps=STEPS):
    """Rows [steps, ENVS, ...] of random episodes; every frame [1, 2] is another one."""
    lead = (steps, ENVS)
    terminated = rng.random((*lead, *mode.agents)) < (0.5 if mode.agents else 0.12)
    cut = (rng.random(lead) < 0.12).reshape(*lead, *(1 for _ in mode.agents)) & np.ones(terminated.shape, bool)
    by_env = lambda x, how: how(x.reshape(*lead, -1), axis=-1)
    ended = by_env(terminated, np.all) | by_env(cut, np.any)
    first = np.concatenate([np.ones((1, ENVS), bool), ended[:-1]])
    frames = 1 + np.arange(2 * 2 * steps * ENVS, dtype=np.int32).reshape(2, steps, ENVS, 1, 2)
    after = np.concatenate([frames[0, 1:], frames[1, -1:]])
    final = np.where(ended[..., None, None], frames[1], after)
    return Trajectory(
        Input(frames[0], first), rng.integers(0, 9, lead, np.int32), {}, rng.normal(size=terminated.shape).astype("f4"),
        terminated, cut, Input(final, np.zeros(lead, bool)) if mode.explicit else None, carry0=())


@functools.cache
def program(mode):
    """The jitted (rows, priorities [inserts, BATCH], key, gamma) -> what happened at every insert."""
    replay = mode.make()

    def run(rows, priorities, key, gamma):
        rows = jax.tree.map(lambda x: x.reshape(STEPS // mode.rows, mode.rows, *x.shape[1:]), rows)
        carries = 100.0 * jnp.arange(STEPS, dtype=jnp.float32).reshape(-1, mode.rows)[:, :1] + jnp.arange(ENVS)[None]
        one = jax.tree.map(lambda x: x[0, 0], rows)
        state = replay.init(one, ENVS * LENGTH, carries[0] if mode.length else ())

        def turn(state, now):
            rows, carry, priority, key = now
            state = replay.insert(state, rows, carry if mode.length else ())
            batch = replay.sample(state, key, BATCH, gamma=gamma, beta=0.4)
            leaves = tree.leaves(state.memory.sums) if mode.prioritized else ()
            return replay.update(state, batch.index, priority, alpha=0.6), (replay.available(state), leaves, batch)

        keys = jax.random.split(key, STEPS // mode.rows)
        return jax.lax.scan(turn, state, (rows, carries, priorities, keys))[1]

    return jax.jit(run)


class Plain:
    """All steps so far, of which the last LENGTH are held."""

    def __init__(self, mode, rows, gamma):
        self.mode, self.rows, self.gamma, self.now = mode, rows, gamma, 0
        self.leaf, self.highest = {}, 1.0

    def cut(self, t, e):
        return self.rows.truncated[t, e].any() and not self.rows.terminated[t, e].all()

    def starts(self):
        """Numbers of items -> the step and environment where each starts."""
        mode, found = self.mode, {}
        for t in range(max(self.now - LENGTH, 0) + mode.stack - 1, self.now - mode.ahead + 1):
            for e in range(ENVS):
                if t % mode.period == 0 and (mode.explicit or mode.length or not self.cut(t, e)):
                    found[t % LENGTH // mode.period * ENVS + e] = t, e
        return found

    def frames(self, t, e, final=False):
        """The observation of step t, or what followed it, with those before it as FrameStack would have it."""
        first = t
        while not self.rows.input.first[first, e]:
            first -= 1
        episode = [self.rows.input.obs[first, e]] * self.mode.stack + list(self.rows.input.obs[first + 1:t + 1, e])
        if final:
            episode.append(self.rows.final_input.obs[t, e])
        return np.concatenate(episode[-self.mode.stack:], axis=-1)

    def window(self, t, e):
        """(reward, discount, what the policy sees next)."""
        mode, rows = self.mode, self.rows
        shape, m, over = rows.reward.shape[2:], 0, False
        reward, alive = np.zeros(shape), np.ones(shape, bool)
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
    priorities[:, 0] *= 100                                   # a few stand out, so that they come twice in a batch
    happened = jax.device_get(program(mode)(rows, priorities, jax.random.key(seed), jnp.float32(gamma)))
    plain = Plain(mode, rows, gamma)
    for i, priority in enumerate(priorities):
        plain.insert(mode.rows)
        available, leaves, batch = at(happened, i)
        starts = plain.starts()
        lost = () if mode.explicit or mode.length else range(max(plain.now - LENGTH, 0) + mode.stack - 1,
                                                             max(plain.now - mode.ahead + 1, 0))
        assert available == len(starts) + sum(plain.cut(t, e) for t in lost for e in range(ENVS))
        drawn = batch.weight > 0
        if not mode.prioritized:
            assert set(batch.weight.tolist()) <= {0.0, 1.0}
            assert drawn.all() == bool(starts) or not mode.explicit    # tries may fail where few of many starts are any
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
    mode, rows = plain.mode, plain.rows
    assert batch.carry0[b] == 100 * t + e
    for part, begin, count in ((batch.burn_in, t, mode.burn_in), (batch.rows, t + mode.burn_in, mode.length)):
        assert part.reward.shape[0] == count
        for i, k in enumerate(range(begin, begin + count)):
            for name in ("action", "reward", "terminated", "truncated"):
                assert getattr(part, name)[i, b] == getattr(rows, name)[k, e]
            assert part.input.first[i, b] == rows.input.first[k, e]
            np.testing.assert_array_equal(part.input.obs[i, b], plain.frames(k, e))
            if mode.explicit:
                np.testing.assert_array_equal(part.final_input.obs[i, b], plain.frames(k, e, final=True))
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
    keys, gamma = jax.random.split(jax.random.key(0)), jnp.array([0.9, 0.5])
    together = jax.jit(jax.vmap(program(mode)))(jax.tree.map(lambda *x: np.stack(x), *both), priorities, keys, gamma)
    for i, rows in enumerate(both):
        alone = program(mode)(rows, priorities[i], keys[i], gamma[i])
        jax.tree.map(np.testing.assert_array_equal, at(together, i), alone)


@pytest.mark.parametrize("explicit", [True, False])
def test_frames_are_stacked_as_the_wrapper_does(explicit):
    """CartPole pushed one way, its poles fall in 8 to 10 steps: some before the time limit, others not."""
    plain, steps, replay = TimeLimit(CartPole(), 9), 24, transitions(stack=3)

    def play(env, key):
        env = VectorEnv(env, 4)
        world, _ = env.init(key, plain.default_params)

        def step(world, key):
            inputs = env.input(world)
            world, after = env.step(key, world, jnp.ones(4, jnp.int32))
            return world, Trajectory(inputs, jnp.ones(4, jnp.int32), {}, after.reward, after.terminated,
                                     after.truncated, after.final_input, carry0=())

        return jax.lax.scan(step, world, jax.random.split(key, steps))[1]

    @jax.jit
    def run(key):
        rows, wrapped = play(plain, key), play(FrameStack(plain, 3), key)
        held = rows if explicit else rows._replace(final_input=None)
        state = replay.init(at(held, 0), 4 * steps)
        state, _ = jax.lax.scan(lambda state, row: (replay.insert(state, row), None), state,
                                jax.tree.map(lambda x: x[:, None], held))
        return wrapped, replay.sample(state, key, 256, gamma=0.9)

    wrapped, batch = run(jax.random.key(3))
    assert wrapped.terminated.any() and wrapped.truncated.any() and batch.weight.all()
    t, e = batch.index // 4, batch.index % 4
    np.testing.assert_array_equal(batch.start.input.obs, wrapped.input.obs[t, e])
    alive = np.asarray(batch.discount > 0)
    assert (~alive).any() and np.asarray(wrapped.truncated[t, e]).any() == explicit
    np.testing.assert_array_equal(batch.next_input.obs[alive], wrapped.final_input.obs[t, e][alive])


# ---------------------------------------------------------------- the sum tree, and priorities


@pytest.fixture(scope="module")
def worn_tree():
    """A tree of 100 leaves after 1e4 updates one by one in batches of 20, and 500 ranges of 30."""
    def turn(sums, key):
        where, value, first, values = jax.random.split(key, 4)
        leaf = jax.random.randint(where, (20,), 0, 100)
        sums = tree.set_max(sums, leaf, jax.random.exponential(value, (20,)))
        return tree.set_range(sums, jax.random.randint(first, (), 0, 71), jax.random.exponential(values, (30,))), None

    return jax.jit(lambda key: jax.lax.scan(turn, tree.init(100), jax.random.split(key, 500))[0])(jax.random.key(0))


def test_every_node_is_the_pairwise_sum_of_its_leaves_bit_for_bit(worn_tree):
    leaves, nodes = np.asarray(tree.leaves(worn_tree)), np.asarray(worn_tree)
    assert nodes.dtype == np.float32 and leaves.shape == (104,) and (leaves[:100] > 0).all()
    level = np.pad(leaves, (0, 512 - 104))
    for halvings, size, begin in ((3, 16, 8), (3, 8, 0), (3, 1, None)):     # 13 blocks of leaves, 2 above, 1 on top
        for _ in range(halvings):
            level = level[0::2] + level[1::2]
        found = nodes[begin:begin + size] if begin is not None else [tree.total(worn_tree)]
        np.testing.assert_array_equal(found, level[:size])
    assert nodes.shape == (8 + 16 + 104,)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 65, 511, 513, 4097, 33_000])
def test_the_levels_are_told_by_the_size(count):
    rng = np.random.default_rng(count)
    values = rng.random(count).astype("f4")
    sums = tree.set_range(tree.init(count), 0, values)
    assert tree.leaves(sums).shape == (-(-count // 8) * 8,) and sums.shape[0] < 8 / 7 * count + 8 * 7
    np.testing.assert_array_equal(tree.leaves(sums)[:count], values)
    assert float(tree.total(sums)) == pytest.approx(values.sum(dtype=float), rel=1e-5)


def test_find(worn_tree):
    find, tree_of = (jax.jit(lambda sums, mass: tree.find(sums, mass)[0]),
                     jax.jit(lambda leaves: tree.set_range(tree.init(len(leaves)), 0, leaves)))
    four = tree_of(np.array([1, 2, 3, 4], "f4"))
    np.testing.assert_array_equal(find(four, np.array([0.5, 1.5, 3.5, 6.5], "f4")), [0, 1, 2, 3])
    np.testing.assert_array_equal(find(four, np.array([0, 1, 3, 6, 10, 99], "f4")), [0, 1, 2, 3, 3, 3])
    some = tree_of(np.array([0, 0, 1e-9, 0, 1, 0, 0], "f4"))
    np.testing.assert_array_equal(find(some, np.array([0, 0.5, 1, 2], "f4")), [2, 4, 4, 4])
    leaves = np.asarray(tree.leaves(worn_tree)).astype(float)
    mass = np.random.default_rng(0).random(1000).astype("f4") * np.asarray(tree.total(worn_tree))
    found, values = (np.asarray(x) for x in jax.jit(tree.find)(worn_tree, mass))
    np.testing.assert_array_equal(values, np.asarray(tree.leaves(worn_tree))[found])
    below = np.concatenate([[0.0], leaves.cumsum()])
    assert (below[found] - 1e-3 < mass).all() and (mass < below[found + 1] + 1e-3).all()


def one_row(envs, obs=(2,), dtype=jnp.float32, explicit=True, lead=()):
    zeros = lambda shape, dtype: jnp.zeros((*lead, envs, *shape), dtype)
    inputs = Input(zeros(obs, dtype), zeros((), bool))
    return Trajectory(inputs, zeros((), jnp.int32), {}, zeros((), jnp.float32), zeros((), bool), zeros((), bool),
                      inputs if explicit else None, carry0=())


@pytest.fixture(scope="module")
def four():
    """A prioritized replay that holds 4 items of 8, its update, and (state, keys, size, beta) -> (index, weight)."""
    replay = transitions(draw=prioritized())
    state = jax.jit(lambda: replay.insert(replay.init(one_row(4), 8), one_row(4, lead=(1,))))()

    def draw(state, keys, size, beta):
        batch = jax.vmap(lambda key: replay.sample(state, key, size, gamma=0.9, beta=beta))(keys)
        return batch.index, batch.weight

    return state, jax.jit(replay.update), jax.jit(draw, static_argnums=2)


@pytest.mark.parametrize("alpha, beta, chances, weights", [
    (0.6, 0.4, [0.148230, 0.224674, 0.286555, 0.340542], [1.0, 0.846745, 0.768229, 0.716978]),
    (1.0, 1.0, [0.1, 0.2, 0.3, 0.4], [1.0, 0.5, 1 / 3, 0.25])])
def test_prioritized_worked_numbers(four, alpha, beta, chances, weights):
    state, update, draw = four
    state = update(state, np.arange(4), np.array([1, 2, 3, 4], "f4"), alpha=alpha)
    leaves = np.asarray(tree.leaves(state.memory.sums))
    np.testing.assert_allclose(leaves[:4] / np.asarray(tree.total(state.memory.sums)), chances, atol=1e-6)
    index, _ = draw(state, jax.random.split(jax.random.key(0), 100_000), 1, beta)
    counts = np.bincount(np.ravel(index), minlength=8)
    assert counts[4:].sum() == 0
    assert scipy.stats.chisquare(counts[:4], 1e5 * np.array(chances) / sum(chances)).pvalue > 1e-3
    index, weight = (np.asarray(x)[0] for x in draw(state, jax.random.key(1)[None], 64, beta))
    np.testing.assert_allclose(weight, np.array(weights)[index], atol=1e-5)
    np.testing.assert_allclose(np.bincount(index, minlength=4), 64 * np.array(chances), atol=2)      # strata


@pytest.mark.parametrize("index, priority, leaves", [
    ([2, 2, 2], [3.0, 7.0, 5.0], [1.0, 1.0, 7.0, 1.0]),
    ([0, 1, 2], [0.0, np.nan, np.inf], [1e-25, 1e-25, 1e25, 1.0]),
    ([3, 4, 7], [2.0, 9.0, 9.0], [1.0, 1.0, 1.0, 2.0])])
def test_priorities_stay_sound(four, index, priority, leaves):
    """The largest of one item's, in any order; no zeros, NaN or infinities; nothing where no item is."""
    state, update, _ = four
    for order in (slice(None), slice(None, None, -1)):
        after = update(state, np.array(index)[order], np.array(priority, "f4")[order], alpha=1.0)
        np.testing.assert_allclose(tree.leaves(after.memory.sums), [*leaves, 0, 0, 0, 0], rtol=1e-6)
        assert after.memory.highest == max(leaves)


@pytest.mark.parametrize("mode", [Mode(True, False, rows=1, n=3), Mode(False, False, rows=1, n=2),
                                  Mode(False, False, rows=1, length=3, period=2)])
def test_uniform_is_uniform_over_what_can_start(rng, mode):
    rows, replay = experience(rng, mode, steps=17), mode.make()

    @jax.jit
    def run(rows, key):
        rows = jax.tree.map(lambda x: x[:, None], rows)
        state = replay.init(at(rows, 0, 0), ENVS * LENGTH, carry=())
        state, _ = jax.lax.scan(lambda state, now: (replay.insert(state, now), None), state, rows)
        return replay.sample(state, key, 30_000, gamma=1.0).index

    plain = Plain(mode, rows, 1.0)
    plain.now = 17
    numbers, counts = np.unique(run(rows, jax.random.key(0)), return_counts=True)
    assert set(numbers) == set(plain.starts())
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


# ---------------------------------------------------------------- memory, and what is refused


def test_size_is_known_before_anything_is_allocated():
    replay = transitions(n=3, draw=prioritized(), rows_per_insert=4)
    row = jax.eval_shape(lambda: one_row(16, obs=(84, 84, 4), dtype=jnp.uint8))
    state = replay.init(one_row(16), 1000)
    assert nbytes(replay, one_row(16), 1000) == sum(x.nbytes for x in jax.tree.leaves(state))
    assert state.ring.rows.reward.shape == (60, 16)                # 62 rows, down to a multiple of 4
    size = nbytes(replay, row, 1_000_000)
    assert size == pytest.approx(1e6 * (2 * 28_224 + 12), rel=1e-3)
    assert check_fits(replay, row, 1_000_000, size) == size
    with pytest.raises(ValueError, match=r"^replay of 1,000,000 x 28,224-byte observations needs 52\.6 GiB, 21\.9 GiB "
                                         r"are free\. Try: algo\.replay_capacity=410000$"):
        check_fits(replay, row, 1_000_000, int(21.9 * 2**30))
    assert nbytes(replay, row, 410_000) <= 21.9 * 2**30 < nbytes(replay, row, 420_000)
    with pytest.raises(ValueError, match="Not even the shortest for 16 environments fits"):
        check_fits(replay, row, 1_000_000, 2**20)


@pytest.mark.parametrize("call, message", [
    (lambda: transitions(n=0), "n >= 1"),
    (lambda: transitions(rows_per_insert=0), "at least 1 row per insert, not 0"),
    (lambda: sequences(length=0, period=1), "length, period and stack >= 1"),
    (lambda: sequences(length=8, period=4, rows_per_insert=3), "an insert, 3, must divide the period of sequences, 4"),
    (lambda: transitions(n=5).init(one_row(4), 16), "a replay of 16 steps of 4 environments is too short for its "
                                                    "items: it needs 20 or more"),
    (lambda: insert(transitions(rows_per_insert=2), one_row(4, lead=(1,))), "takes 2 rows at a time, not 1"),
    (lambda: insert(transitions(), one_row(4, obs=(3,), lead=(1,))), r"float32\[4, 2\], not of float32\[4, 3\]"),
    (lambda: insert(transitions(), one_row(4, dtype=jnp.uint8, lead=(1,))), r"float32\[4, 2\], not of uint8\[4, 2\]")])
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def insert(replay, rows):
    return replay.insert(replay.init(one_row(4), 64), rows)


@pytest.mark.parametrize("seeds", [None, 2])
def test_a_donated_replay_is_never_copied(optimized, seeds):
    """Insert, draw and update a hundred times over: no second array of all the frames, or of the tree."""
    replay, capacity = transitions(n=3, stack=4, draw=prioritized(), rows_per_insert=4), 2**15
    row = functools.partial(one_row, 8, obs=(6, 6, 1), dtype=jnp.uint8, explicit=False)

    def turn(state, key):
        state = replay.insert(state, row(lead=(4,)))
        batch = replay.sample(state, key, 16, gamma=0.9, beta=0.4)
        bright = batch.next_input.obs.mean(axis=(1, 2, 3)) + batch.start.input.obs.mean(axis=(1, 2, 3))
        return replay.update(state, batch.index, batch.reward + bright, alpha=0.6), bright * batch.weight

    def run(state, keys):
        return jax.lax.scan(turn, state, keys)

    state, keys = jax.eval_shape(lambda: replay.init(row(), capacity)), jax.eval_shape(
        lambda: jax.random.split(jax.random.key(0), 100))
    if seeds:
        run = jax.vmap(run)
        state, keys = jax.tree.map(lambda x: jax.ShapeDtypeStruct((seeds, *x.shape), x.dtype), (state, keys))
    compiled = jax.jit(run, donate_argnums=0).lower(state, keys).compile()
    size, memory = nbytes(replay, row(), capacity) * (seeds or 1), compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= size
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    assert peak - memory.alias_size_in_bytes < 1.1 * size
    sums = (f"{seeds}," if seeds else "") + str(state.memory.sums.shape[-1])
    frames = (f"{seeds}," if seeds else "") + f"{capacity // 8},8,6,6,1"
    text = compiled.as_text()
    assert f"f32[{sums}]" in text and f"u8[{frames}]" in text
    large = [line for line in text.splitlines() if f"[{sums}]" in line or f"[{frames}]" in line]
    assert not [line for line in large if " copy(" in line or " copy-start(" in line]


@pytest.fixture
def their_promotion():
    with jax.numpy_rank_promotion("allow"):
        yield


def test_flashbax_holds_the_same(rng, their_promotion):
    """Which runs of 4 steps can be drawn, before and after the ring is full; and with what chance by priority."""
    flashbax = pytest.importorskip("flashbax")
    steps = jnp.arange(20 * ENVS, dtype=jnp.int32).reshape(20, ENVS)
    theirs = flashbax.make_prioritised_trajectory_buffer(
        add_batch_size=ENVS, sample_batch_size=512, sample_sequence_length=4, period=1, min_length_time_axis=4,
        max_length_time_axis=LENGTH, priority_exponent=0.6, device="cpu")
    mode = Mode(True, True, rows=1, length=4)
    ours, rows = mode.make(), experience(rng, mode, steps=20)._replace(action=steps)
    state, other = ours.init(at(rows, 0), ENVS * LENGTH), theirs.init(jnp.int32(0))
    insert, add, sample, draw = jax.jit(ours.insert), jax.jit(theirs.add), jax.jit(
        lambda state, key: ours.sample(state, key, 512)), jax.jit(theirs.sample)
    for t in range(20):
        state, other = insert(state, jax.tree.map(lambda x, t=t: x[t:t + 1], rows)), add(other, steps[t][:, None])
        if t not in (6, 19):
            continue
        mine, their = sample(state, jax.random.key(t)), draw(other, jax.random.key(t))
        first = np.asarray(mine.rows.action)
        assert {tuple(run) for run in first.T.tolist()} == {tuple(run) for run in their.experience.tolist()}
    number, once = np.unique(np.asarray(mine.index), return_index=True)
    priority = rng.gamma(1.0, size=len(number)).astype("f4")
    by_start = dict(zip(first[0, once].tolist(), priority))
    state = ours.update(state, number, priority, alpha=0.6)
    begins = lambda their: their.experience[:, 0].tolist()
    other = theirs.set_priorities(other, their.indices, jnp.array([by_start[start] for start in begins(their)]))
    their = draw(other, jax.random.key(0))
    leaf = dict(zip(first[0, once].tolist(), tree.leaves(state.memory.sums)[number] / tree.total(state.memory.sums)))
    np.testing.assert_allclose(their.probabilities, [leaf[start] for start in begins(their)], rtol=1e-4)
