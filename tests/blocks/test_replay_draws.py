"""replay/: the sum tree, draws by priority, memory, and flashbax as a second oracle."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl.blocks.replay import (
    check_fits,
    nbytes,
    prioritized,
    sequences,
    transitions,
    tree,
)
from jaxrl.types import Input, Trajectory
from tests.blocks.test_replay import ENVS, LENGTH, Mode, Plain, at, experience

# ---------------------------------------------------------------- the sum tree, and priorities


@pytest.fixture(scope="module")
def worn_tree():
    """A tree of 100 leaves after 1e4 updates one by one in batches of 20, and 500 ranges of 30."""
    def turn(sums, key):
        where, value, first, values = jax.random.split(key, 4)
        leaf = jax.random.randint(where, (20,), 0, 100)
        sums = tree.set_max(sums, leaf, jax.random.exponential(value, (20,)))
        return tree.set_range(
            sums, jax.random.randint(first, (), 0, 71), jax.random.exponential(values, (30,))
        ), None

    return jax.jit(lambda key: jax.lax.scan(turn, tree.init(100), jax.random.split(key, 500))[0])(
        jax.random.key(0)
    )


def test_every_node_is_the_pairwise_sum_of_its_leaves_bit_for_bit(worn_tree):
    leaves = np.asarray(tree.leaves(worn_tree))
    nodes = np.asarray(worn_tree)
    assert nodes.dtype == np.float32 and leaves.shape == (104,) and (leaves[:100] > 0).all()
    level = np.pad(leaves, (0, 512 - 104))
    # 13 blocks of leaves, 2 above, 1 on top
    for halvings, size, begin in ((3, 16, 8), (3, 8, 0), (3, 1, None)):
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
    assert (
        tree.leaves(sums).shape == (-(-count // 8) * 8,) and sums.shape[0] < 8 / 7 * count + 8 * 7
    )
    np.testing.assert_array_equal(tree.leaves(sums)[:count], values)
    assert float(tree.total(sums)) == pytest.approx(values.sum(dtype=float), rel=1e-5)


def test_find(worn_tree):
    find = jax.jit(lambda sums, mass: tree.find(sums, mass)[0])
    tree_of = jax.jit(lambda leaves: tree.set_range(tree.init(len(leaves)), 0, leaves))
    four = tree_of(np.array([1, 2, 3, 4], "f4"))
    np.testing.assert_array_equal(find(four, np.array([0.5, 1.5, 3.5, 6.5], "f4")), [0, 1, 2, 3])
    np.testing.assert_array_equal(
        find(four, np.array([0, 1, 3, 6, 10, 99], "f4")), [0, 1, 2, 3, 3, 3]
    )
    some = tree_of(np.array([0, 0, 1e-9, 0, 1, 0, 0], "f4"))
    np.testing.assert_array_equal(find(some, np.array([0, 0.5, 1, 2], "f4")), [2, 4, 4, 4])
    leaves = np.asarray(tree.leaves(worn_tree)).astype(float)
    mass = np.random.default_rng(0).random(1000).astype("f4") * np.asarray(tree.total(worn_tree))
    found, values = (np.asarray(x) for x in jax.jit(tree.find)(worn_tree, mass))
    np.testing.assert_array_equal(values, np.asarray(tree.leaves(worn_tree))[found])
    below = np.concatenate([[0.0], leaves.cumsum()])
    assert (below[found] - 1e-3 < mass).all() and (mass < below[found + 1] + 1e-3).all()


def one_row(envs, obs=(2,), dtype=jnp.float32, explicit=True, lead=()):
    def zeros(shape, dtype):
        return jnp.zeros((*lead, envs, *shape), dtype)

    inputs = Input(zeros(obs, dtype), zeros((), bool))
    return Trajectory(
        inputs,
        zeros((), jnp.int32),
        {},
        zeros((), jnp.float32),
        zeros((), bool),
        zeros((), bool),
        inputs if explicit else None,
        carry0=(),
    )


@pytest.fixture(scope="module")
def four():
    """A prioritized replay that holds 4 items of 8, its update.

    And (state, keys, size, beta) -> (index, weight).
    """
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
    np.testing.assert_allclose(
        leaves[:4] / np.asarray(tree.total(state.memory.sums)), chances, atol=1e-6
    )
    index, _ = draw(state, jax.random.split(jax.random.key(0), 100_000), 1, beta)
    counts = np.bincount(np.ravel(index), minlength=8)
    assert counts[4:].sum() == 0
    assert scipy.stats.chisquare(counts[:4], 1e5 * np.array(chances) / sum(chances)).pvalue > 1e-3
    index, weight = (np.asarray(x)[0] for x in draw(state, jax.random.key(1)[None], 64, beta))
    np.testing.assert_allclose(weight, np.array(weights)[index], atol=1e-5)
    # strata
    np.testing.assert_allclose(np.bincount(index, minlength=4), 64 * np.array(chances), atol=2)


@pytest.mark.parametrize("index, priority, leaves", [
    ([2, 2, 2], [3.0, 7.0, 5.0], [1.0, 1.0, 7.0, 1.0]),
    ([0, 1, 2], [0.0, np.nan, np.inf], [1e-25, 1e-25, 1e25, 1.0]),
    ([3, 4, 7], [2.0, 9.0, 9.0], [1.0, 1.0, 1.0, 2.0])])
def test_priorities_stay_sound(four, index, priority, leaves):
    """The largest of one item's, in any order; no zeros, NaN or infinities.

    Nothing where no item is.
    """
    state, update, _ = four
    for order in (slice(None), slice(None, None, -1)):
        after = update(state, np.array(index)[order], np.array(priority, "f4")[order], alpha=1.0)
        np.testing.assert_allclose(tree.leaves(after.memory.sums), [*leaves, 0, 0, 0, 0], rtol=1e-6)
        assert after.memory.highest == max(leaves)


@pytest.mark.parametrize("mode", [Mode(True, False, rows=1, n=3), Mode(False, False, rows=1, n=2),
                                  Mode(False, False, rows=1, length=3, period=2)])
def test_uniform_is_uniform_over_what_can_start(rng, mode):
    rows = experience(rng, mode, steps=17)
    replay = mode.make()

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
    # 62 rows, down to a multiple of 4
    assert state.ring.rows.reward.shape == (60, 16)
    size = nbytes(replay, row, 1_000_000)
    assert size == pytest.approx(1e6 * (2 * 28_224 + 12), rel=1e-3)
    assert check_fits(replay, row, 1_000_000, size) == size
    with pytest.raises(
        ValueError,
        match=r"^replay of 1,000,000 x 28,224-byte observations needs 52\.6 GiB, 21\.9 GiB "
        r"are free\. Try: algo\.replay_capacity=410000$",
    ):
        check_fits(replay, row, 1_000_000, int(21.9 * 2**30))
    assert nbytes(replay, row, 410_000) <= 21.9 * 2**30 < nbytes(replay, row, 420_000)
    with pytest.raises(ValueError, match="Not even the shortest for 16 environments fits"):
        check_fits(replay, row, 1_000_000, 2**20)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: transitions(n=0), "n >= 1"),
        (lambda: transitions(rows_per_insert=0), "at least 1 row per insert, not 0"),
        (lambda: sequences(length=0, period=1), "length, period and stack >= 1"),
        (
            lambda: sequences(length=8, period=4, rows_per_insert=3),
            "an insert, 3, must divide the period of sequences, 4",
        ),
        (
            lambda: transitions(n=5).init(one_row(4), 16),
            "a replay of 16 steps of 4 environments is too short for its "
            "items: it needs 20 or more",
        ),
        (
            lambda: insert(transitions(rows_per_insert=2), one_row(4, lead=(1,))),
            "takes 2 rows at a time, not 1",
        ),
        (
            lambda: insert(transitions(), one_row(4, obs=(3,), lead=(1,))),
            r"float32\[4, 2\], not of float32\[4, 3\]",
        ),
        (
            lambda: insert(transitions(), one_row(4, dtype=jnp.uint8, lead=(1,))),
            r"float32\[4, 2\], not of uint8\[4, 2\]",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def insert(replay, rows):
    return replay.insert(replay.init(one_row(4), 64), rows)


@pytest.mark.parametrize("seeds", [None, 2])
def test_a_donated_replay_is_never_copied(optimized, seeds):
    """Insert, draw and update a hundred times over.

    No second array of all the frames, or of the tree.
    """
    replay = transitions(n=3, stack=4, draw=prioritized(), rows_per_insert=4)
    capacity = 2**15
    row = functools.partial(one_row, 8, obs=(6, 6, 1), dtype=jnp.uint8, explicit=False)

    def turn(state, key):
        state = replay.insert(state, row(lead=(4,)))
        batch = replay.sample(state, key, 16, gamma=0.9, beta=0.4)
        bright = batch.next_input.obs.mean(axis=(1, 2, 3)) + batch.start.input.obs.mean(
            axis=(1, 2, 3)
        )
        return replay.update(
            state, batch.index, batch.reward + bright, alpha=0.6
        ), bright * batch.weight

    def run(state, keys):
        return jax.lax.scan(turn, state, keys)

    state = jax.eval_shape(lambda: replay.init(row(), capacity))
    keys = jax.eval_shape(
        lambda: jax.random.split(jax.random.key(0), 100))
    if seeds:
        run = jax.vmap(run)
        state, keys = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((seeds, *x.shape), x.dtype), (state, keys)
        )
    compiled = jax.jit(run, donate_argnums=0).lower(state, keys).compile()
    size = nbytes(replay, row(), capacity) * (seeds or 1)
    memory = compiled.memory_analysis()
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
    """The runs of 4 steps that can be drawn, before and after the ring is full.

    And with what chance by priority.
    """
    flashbax = pytest.importorskip("flashbax")
    steps = jnp.arange(20 * ENVS, dtype=jnp.int32).reshape(20, ENVS)
    theirs = flashbax.make_prioritised_trajectory_buffer(
        add_batch_size=ENVS,
        sample_batch_size=512,
        sample_sequence_length=4,
        period=1,
        min_length_time_axis=4,
        max_length_time_axis=LENGTH,
        priority_exponent=0.6,
        device="cpu",
    )
    mode = Mode(True, True, rows=1, length=4)
    ours = mode.make()
    rows = experience(rng, mode, steps=20)._replace(action=steps)
    state = ours.init(at(rows, 0), ENVS * LENGTH)
    other = theirs.init(jnp.int32(0))
    insert = jax.jit(ours.insert)
    add = jax.jit(theirs.add)
    sample = jax.jit(
        lambda state, key: ours.sample(state, key, 512))
    draw = jax.jit(theirs.sample)
    for t in range(20):
        state = insert(state, jax.tree.map(lambda x, t=t: x[t:t + 1], rows))
        other = add(other, steps[t][:, None])
        if t not in (6, 19):
            continue
        mine = sample(state, jax.random.key(t))
        their = draw(other, jax.random.key(t))
        first = np.asarray(mine.rows.action)
        assert {tuple(run) for run in first.T.tolist()} == {
            tuple(run) for run in their.experience.tolist()
        }
    number, once = np.unique(np.asarray(mine.index), return_index=True)
    priority = rng.gamma(1.0, size=len(number)).astype("f4")
    by_start = dict(zip(first[0, once].tolist(), priority))
    state = ours.update(state, number, priority, alpha=0.6)

    def begins(their):
        return their.experience[:, 0].tolist()

    other = theirs.set_priorities(
        other, their.indices, jnp.array([by_start[start] for start in begins(their)])
    )
    their = draw(other, jax.random.key(0))
    leaf = dict(
        zip(
            first[0, once].tolist(),
            tree.leaves(state.memory.sums)[number] / tree.total(state.memory.sums),
        )
    )
    np.testing.assert_allclose(
        their.probabilities, [leaf[start] for start in begins(their)], rtol=1e-4
    )
