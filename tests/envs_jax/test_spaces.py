"""Tests of spaces: samples, membership and pytrees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs_jax import spaces
from envs_jax.spaces import Box, Discrete, MultiDiscrete

INF = float("inf")
SPACES = [
    Discrete(1),
    Discrete(5),
    MultiDiscrete((3,)),
    MultiDiscrete((2, 7, 1)),
    Box(-1.0, 1.0, ()),
    Box(-2.0, 3.0, (4,)),
    Box(-INF, INF, (2, 3)),
    Box((-1.0, -INF, 0.0), (1.0, 0.5, INF), (3,)),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_samples_are_contained(space):
    many = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 200))
    assert many.shape == (200, *space.shape) and many.dtype == space.dtype
    assert all(space.contains(x) for x in np.asarray(many))


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_is_a_value(space):
    assert hash(space) == hash(space) and space == space and str(space)
    with pytest.raises(AttributeError):
        space.shape = (9,)


def test_samples_cover_the_choices():
    keys = jax.random.split(jax.random.key(0), 500)
    counts = np.bincount(jax.vmap(Discrete(4).sample)(keys), minlength=4)
    assert counts.min() > 80
    pairs = jax.vmap(MultiDiscrete((2, 3)).sample)(keys)
    assert len({tuple(p) for p in np.asarray(pairs)}) == 6
    box = np.asarray(jax.vmap(Box(-2.0, 3.0, (1,)).sample)(keys))
    assert box.min() < -1.9 and box.max() > 2.9 and abs(box.mean() - 0.5) < 0.2


@pytest.mark.parametrize(
    "space, stranger",
    [
        (Discrete(3), 3),
        (Discrete(3), -1),
        (Discrete(3), 1.0),
        (Discrete(3), [1]),
        (MultiDiscrete((2, 3)), [1, 3]),
        (MultiDiscrete((2, 3)), [1]),
        (MultiDiscrete((2, 3)), [-1, 0]),
        (MultiDiscrete((2, 3)), [0.0, 0.0]),
        (Box(-1.0, 1.0, (2,)), [0.0, 1.5]),
        (Box(-1.0, 1.0, (2,)), [0.0]),
        (Box(-1.0, 1.0, (2,)), [0.0, np.nan]),
        (Box(0.0, 1.0, (1,), jnp.int32), [0.5]),
    ],
)
def test_strangers_are_not_contained(space, stranger):
    assert not space.contains(np.asarray(stranger))


@given(st.integers(1, 50), st.integers(-5, 60))
@settings(max_examples=50, deadline=None)
def test_discrete_contains_exactly_its_range(n, x):
    assert Discrete(n).contains(x) == (0 <= x < n)


def test_bounded():
    assert Box(0.0, 1.0, (2,)).bounded and Box((0.0, -1.0), 1.0, (2,)).bounded
    assert not Box(0.0, INF, (2,)).bounded and not Box((0.0, -INF), 1.0, (2,)).bounded


def test_pytrees_of_spaces():
    tree = {"where": Box(-1.0, 1.0, (2,)), "what": (Discrete(3), MultiDiscrete((2, 2)))}
    zeros = spaces.zeros(tree, (5,))
    assert zeros["where"].shape == (5, 2) and zeros["where"].dtype == jnp.float32
    assert zeros["what"][0].shape == (5,) and zeros["what"][1].dtype == jnp.int32
    one = jax.tree.map(lambda x: x[0], zeros)
    assert spaces.contains(tree, one)
    assert not spaces.contains(tree, {**one, "where": jnp.full(2, 2.0)})
    assert not spaces.contains(tree, {"where": one["where"]})
    assert not spaces.contains(tree, zeros)
