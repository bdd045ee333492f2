"""distributions.py: the heads of all kinds of action spaces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from envs_jax import spaces
from jaxrl.blocks.networks.distributions import (
    action_head,
    finite_bounds,
    squash,
    tanh_normal_head,
)
from tests.blocks.networks.test_distributions import close, key, look

# ---- heads

TANH_BOXES = [
    spaces.Box(-2.0, 2.0, (1,)),
    spaces.Box(0.0, 1.0, ()),
    spaces.Box((-1.0, 0.1), (0.7, 4.0), (2,)),
    spaces.Box(((-1.0, -2.0, -3.0),) * 2, ((1.0, 0.0, -1.0), (4.0, 5.0, 6.0)), (2, 3)),
]


@pytest.mark.parametrize(
    "batch, space", [((4, 3), space) for space in TANH_BOXES] + [((), TANH_BOXES[3])], ids=str
)
def test_tanh_head_of_every_box(rng, batch, space):
    head = tanh_normal_head(space)
    size = int(np.prod(space.shape))
    assert (head.size, head.log_std_size) == (2 * size, 0)
    # far out: bounds are met
    outputs = (10 * rng.normal(size=(*batch, 2 * size))).astype(np.float32)
    policy = head.distribution(outputs)
    action, log_prob = jax.jit(lambda policy, key: policy.sample_and_log_prob(key))(policy, key)
    assert action.shape == policy.mode().shape == (*batch, *space.shape) and log_prob.shape == batch
    assert np.all(np.isfinite(log_prob)) and action.dtype == space.dtype
    for a in (
        *np.asarray(action).reshape(-1, *space.shape),
        *np.asarray(policy.mode()).reshape(-1, *space.shape),
    ):
        assert space.contains(a)
    # all of its arrays have the batch axes
    each = jax.tree.map(lambda x: x[0], policy) if batch else policy
    close(each.mode(), policy.mode()[0] if batch else policy.mode())
    vector = getattr(policy, "base", policy)
    assert np.all((vector.log_std >= -5) & (vector.log_std <= 2))
    mean = outputs[..., :size].astype(float)
    low, high = (
        np.broadcast_to(np.asarray(b), space.shape).reshape(-1) for b in (space.low, space.high)
    )
    want = (low + (high - low) * (np.tanh(mean) + 1) / 2).reshape(*batch, *space.shape)
    close(policy.mode(), want, atol=1e-5)


def test_tanh_head_brings_log_std_into_its_range():
    head = tanh_normal_head(TANH_BOXES[0], (-4.0, 1.0))
    policy = head.distribution(jnp.array([[0.3, 0.0], [0.3, 50.0], [0.3, -50.0]]))
    close(policy.log_std, [[-1.5], [1.0], [-4.0]])
    close(policy.mean, 0.3)


@settings(max_examples=40, deadline=None)
@given(
    st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
    st.floats(2**-10, 1e4),
    st.floats(-30, 30),
)
def test_squash_never_leaves_its_bounds(low, width, u):
    low, high = np.float32(low), np.float32(low) + np.float32(width)
    got = np.asarray(squash(jnp.array([u, 50.0, -50.0]), low, high))
    assert np.all((got >= low) & (got <= high))
    rounding = 1e-6 * (abs(low) + abs(high))
    close(got[1:], [high, low], atol=rounding)
    close(
        got[0],
        low + (float(high) - float(low)) * (np.tanh(float(u)) + 1) / 2,
        rtol=1e-5,
        atol=rounding,
    )


def test_actions_without_bounds_are_refused():
    for low, high in (
        (-np.inf, np.inf),
        ((-1.0, -np.inf), (1.0, 1.0)),
        ((-1.0, 0.0), (1.0, np.inf)),
    ):
        with pytest.raises(ValueError, match="set finite bounds"):
            tanh_normal_head(spaces.Box(low, high, (2,)))
    with pytest.raises(ValueError, match="no range"):
        finite_bounds(spaces.Box((-1.0, 3.0), (1.0, 3.0), (2,)))
    with pytest.raises(TypeError, match="Discrete"):
        tanh_normal_head(spaces.Discrete(3))
    with pytest.raises(ValueError, match="among its outputs"):
        tanh_normal_head(TANH_BOXES[0]).distribution(jnp.zeros((1, 2)), jnp.zeros(1))


HEADS = [
    (spaces.Discrete(3), 3, 0),
    (spaces.MultiDiscrete((2, 3)), 5, 0),
    (spaces.MultiDiscrete((4,)), 4, 0),
    (spaces.Box(-2.0, 2.0, (1,)), 1, 1),
    (spaces.Box(0.0, 1.0, ()), 1, 1),
    (spaces.Box((-1.0, 0.0, -np.inf), (1.0, 4.0, np.inf), (3,)), 3, 3),
    (spaces.Box(-np.inf, np.inf, (2, 3)), 6, 6),
]


@pytest.mark.parametrize("batch, space, size, log_std_size", [((4, 3), *head) for head in HEADS] + [
    ((), *HEADS[0]), ((5,), *HEADS[1]), ((), *HEADS[-1])], ids=str)
def test_head_of_every_space(rng, batch, space, size, log_std_size):
    head = action_head(space)
    assert (head.size, head.log_std_size) == (size, log_std_size)
    outputs = rng.normal(size=(*batch, size)).astype(np.float32)
    log_std = np.full((log_std_size,), -1.0, np.float32) if log_std_size else None
    policy = head.distribution(outputs, log_std)
    action = look(policy, np.zeros((*batch, *space.shape), space.dtype))[0]
    _, mode, log_prob, entropy = look(policy, action)
    assert action.shape == mode.shape == (*batch, *space.shape)
    assert action.dtype == mode.dtype == space.dtype
    assert log_prob.shape == entropy.shape == batch and log_prob.dtype == jnp.float32
    assert np.all(np.isfinite(log_prob)) and np.all(np.isfinite(entropy))
    assert np.all(look(policy, mode)[2] >= log_prob - 1e-5)
    if not isinstance(space, spaces.Box):
        assert all(space.contains(a) for a in np.asarray(action).reshape(-1, *space.shape))
    if len(batch) == 2:
        def each(x, action):
            return head.distribution(x, log_std).log_prob(action)

        close(jax.jit(jax.vmap(jax.vmap(each)))(outputs, action), log_prob, atol=1e-5)


def test_box_head_works_in_units_of_the_half_range():
    head = action_head(spaces.Box((-2.0, 0.0, -np.inf, 3.0), (2.0, 1.0, 5.0, 3.0), (4,)))
    outputs = jnp.array([[0.5, -1.0, 7.0, 0.0]])
    log_std = jnp.array([0.0, -1.0, 0.5, 0.0])
    policy = head.distribution(outputs, log_std)
    close(policy.mean[0, :3], [1.0, 0.0, 7.0])
    # a point: no range to speak of
    close(jnp.exp(policy.log_std[0]), [2.0, 0.5 * np.exp(-1.0), np.exp(0.5), 1.0])
    action = policy.sample(key)
    oracle = scipy.stats.norm(
        np.asarray(policy.mean, float), np.exp(np.asarray(policy.log_std, float))
    )
    close(policy.log_prob(action), oracle.logpdf(action).sum(-1), rtol=1e-4)


def test_box_of_two_axes_keeps_rows_and_columns_apart():
    space = spaces.Box(((-1.0, -2.0), (-3.0, -4.0)), ((1.0, 2.0), (3.0, 4.0)), (2, 2))
    policy = action_head(space).distribution(jnp.ones((1, 4)), jnp.zeros(4))
    close(policy.mode()[0], [[1.0, 2.0], [3.0, 4.0]])


def test_head_masks(rng):
    outputs = rng.normal(size=(50, 5)).astype(jnp.bfloat16)
    mask = rng.random((50, 5)) < 0.3
    mask[:, 1] = mask[:, 4] = True
    policy = jax.jit(action_head(spaces.Discrete(5)).distribution)(outputs, mask=mask)
    action = look(policy, np.zeros(50, np.int32))[0]
    assert mask[np.arange(50), action].all()
    policy = jax.jit(action_head(spaces.MultiDiscrete((2, 3))).distribution)(outputs, mask=mask)
    action, _, log_prob, _ = look(policy, np.zeros((50, 2), np.int32))
    assert mask[np.arange(50), action[:, 0]].all() and mask[np.arange(50), 2 + action[:, 1]].all()
    # though the network is bfloat16
    assert log_prob.dtype == jnp.float32


def test_head_errors():
    with pytest.raises(ValueError, match="log_std"):
        action_head(spaces.Box(-1.0, 1.0, (2,))).distribution(jnp.zeros((1, 2)))
    with pytest.raises(TypeError, match="no action head"):
        action_head("Discrete")
