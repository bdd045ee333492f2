"""optim.py: the papers' loops, one program for all numbers, one vector or many leaves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.blocks.optim import adam, clip_by_global_norm, rmsprop
from tests import reference

MAKERS = [adam, rmsprop, functools.partial(adam, flat=True), functools.partial(rmsprop, flat=True)]
IDS = ["adam", "rmsprop", "adam-flat", "rmsprop-flat"]


def problem(rng, steps=12):
    shapes = {"a": (4, 3), "b": (3,), "c": {"d": (2, 2, 2)}}

    def draw(scale):
        return jax.tree.map(
            lambda s: (scale * rng.normal(size=s)).astype(np.float32),
            shapes,
            is_leaf=lambda s: isinstance(s, tuple),
        )

    # some are clipped, some are not
    return draw(1.0), [draw(10.0 ** rng.uniform(-3, 1)) for _ in range(steps)]


def train(make, params, gradients, learning_rate, limit, **options):
    @jax.jit
    def run(params, gradients, learning_rate, limit):
        # with tracers, as an agent does
        optimizer = make(learning_rate, max_grad_norm=limit, **options)

        def step(carry, grads):
            params, state = carry
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), ()

        return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[0][0]

    stacked = jax.tree.map(lambda *g: np.stack(g), *gradients)
    return run(params, stacked, learning_rate, limit)


@pytest.mark.parametrize("flat", [False, True])
def test_are_the_papers_loops(rng, flat):
    params, gradients = problem(rng)

    def leaves(tree):
        return [leaf.astype(np.float64) for leaf in jax.tree.leaves(tree)]

    raw = [leaves(g) for g in gradients]
    got = {
        "adam": train(adam, params, gradients, 1e-2, 0.5, flat=flat),
        "rmsprop": train(rmsprop, params, gradients, 1e-2, 0.5, flat=flat),
        "tf": train(
            functools.partial(rmsprop, decay=0.9, eps=1e-3, initial_scale=1.0),
            params,
            gradients,
            1e-2,
            0.5,
        ),
    }
    want = {
        "adam": reference.adam(leaves(params), raw, 1e-2, 0.5, 1e-5),
        "rmsprop": reference.rmsprop(leaves(params), raw, 1e-2, 0.5, 1e-5, 0.99, 0.0),
        "tf": reference.rmsprop(leaves(params), raw, 1e-2, 0.5, 1e-3, 0.9, 1.0),
    }
    for name in got:
        for x, y in zip(jax.tree.leaves(got[name]), want[name]):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5, err_msg=name)


def test_worked_numbers():
    """The first Adam step is lr g / (|g| + eps), the first RMSprop step lr g / sqrt(g^2 / 100 +
    eps).
    """
    # norm 5, clipped to 1
    grads = jnp.array([3.0, 4.0])

    def first(optimizer):
        return jax.jit(lambda g: optimizer.update(g, optimizer.init(g))[0])(grads)

    np.testing.assert_allclose(
        first(adam(0.1, max_grad_norm=1.0, eps=1e-5)), [-0.1, -0.1], rtol=1e-4
    )
    np.testing.assert_allclose(
        first(adam(0.1, max_grad_norm=1.0, eps=0.2)), [-0.075, -0.08], rtol=1e-5
    )
    np.testing.assert_allclose(
        first(rmsprop(0.1, max_grad_norm=1.0)), [-0.9986140, -0.9992197], rtol=1e-4
    )
    np.testing.assert_allclose(
        first(rmsprop(0.1, max_grad_norm=1.0, eps=0.0064)), [-0.6, -0.70710678], rtol=1e-4
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_clip_keeps_direction_and_limits_the_norm(seed, scale, limit):
    grads = np.random.default_rng(seed).normal(size=(2, 5)).astype(np.float32) * np.float32(scale)
    clipped = clip_program((grads[0], grads[1]), limit)
    want = reference.clip_gradient([g.astype(float) for g in grads], limit)
    np.testing.assert_allclose(clipped, want, rtol=1e-5)


clip_program = jax.jit(
    lambda grads, limit: clip_by_global_norm(limit).update(grads, optax.EmptyState())[0]
)


def test_clip_edge_cases():
    with jax.debug_nans(True):
        np.testing.assert_array_equal(
            clip_by_global_norm(0.5).update(jnp.zeros(3), ())[0], np.zeros(3)
        )
        np.testing.assert_array_equal(
            clip_by_global_norm(jnp.inf).update(jnp.full(3, 1e9), ())[0], np.full(3, 1e9)
        )
        small = jnp.array([0.3, 0.4])
        # not a bit changes
        np.testing.assert_array_equal(clip_by_global_norm(0.5001).update(small, ())[0], small)
    # seen, not hidden
    assert np.isnan(clip_by_global_norm(0.5).update(jnp.array([jnp.nan, 1.0]), ())[0]).all()


@pytest.mark.parametrize("make", MAKERS, ids=IDS)
def test_state_keeps_tree_shapes_dtypes_and_weak_types(rng, make):
    params, gradients = problem(rng, 1)
    params = jax.tree.map(jnp.asarray, params)

    def describe(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)

    update = jax.jit(lambda g, s, p, lr, c: make(lr, max_grad_norm=c).update(g, s, p))
    state = jax.jit(lambda p, lr, c: make(lr, max_grad_norm=c).init(p))(params, 1e-3, 0.5)
    other = jax.eval_shape(make(5.0, max_grad_norm=jnp.inf).init, params)
    # does not depend on the numbers
    assert describe(state) == describe(other)
    for numbers in [
        (1e-3, 0.5),
        (jnp.float32(1e-3), jnp.float32(0.5)),
        (np.float32(1e-3), jnp.asarray(0.5)),
    ]:
        updates, after = update(gradients[0], state, params, *numbers)
        assert describe(after) == describe(state)
        assert describe(jax.eval_shape(optax.apply_updates, params, updates)) == describe(params)


@pytest.mark.parametrize("make", MAKERS[:2], ids=IDS[:2])
def test_one_vector_is_the_same(rng, make):
    params, gradients = problem(rng, 30)
    apart = train(make, params, gradients, 1e-2, 0.5)
    together = train(make, params, gradients, 1e-2, 0.5, flat=True)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6), apart, together
    )


@pytest.mark.parametrize("make", MAKERS, ids=IDS)
def test_vmap_over_learning_rates_compiles_once(rng, make):
    params, gradients = problem(rng, 1)
    traces = []

    def step(learning_rate, limit):
        traces.append(())
        optimizer = make(learning_rate, max_grad_norm=limit)
        return optimizer.update(gradients[0], optimizer.init(params), params)[0]

    program = jax.jit(jax.vmap(step))
    rates = np.array([1e-3, 1e-2, 0.0], np.float32)
    limits = np.array([0.1, 0.5, 1.0], np.float32)
    program(2 * rates, limits)
    together = program(rates, limits)
    assert len(traces) == 1
    once = jax.jit(step)
    for i in range(3):
        alone = once(rates[i], limits[i])
        jax.tree.map(
            lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-5, atol=1e-8),
            together,
            alone,
        )
