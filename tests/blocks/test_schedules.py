"""schedules.py."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl.blocks import schedules

ALL = [schedules.linear, schedules.cosine, schedules.exponential]


@pytest.mark.parametrize("progress, linear, cosine, exponential", [
    (0.0, 2.0, 2.0, 2.0),
    (0.25, 1.55, 0.2 + 1.8 * (1 + math.sqrt(0.5)) / 2, 2 * 0.1**0.25),
    (0.5, 1.1, 1.1, 2 * math.sqrt(0.1)),
    (1.0, 0.2, 0.2, 0.2),
])
def test_worked_numbers(progress, linear, cosine, exponential):
    for schedule, want in zip(ALL, (linear, cosine, exponential)):
        assert schedule(2.0, 0.1, progress) == pytest.approx(want, rel=1e-6)


@given(st.floats(-1, 2), st.floats(0.01, 1), st.sampled_from(ALL))
def test_stays_between_its_ends_and_outside_them_still(progress, end_fraction, schedule):
    value = float(schedule(3.0, end_fraction, progress))
    assert 3.0 * end_fraction * (1 - 1e-6) <= value <= 3.0 * (1 + 1e-6)
    assert value == pytest.approx(
        float(schedule(3.0, end_fraction, min(max(progress, 0.0), 1.0))), rel=1e-6
    )
    # end_fraction 1: a constant
    assert float(schedule(3.0, 1.0, progress)) == 3.0


@pytest.mark.parametrize("schedule", ALL)
def test_traced(schedule):
    start = jnp.array([1.0, 2.0])
    end = jnp.array([0.5, 0.1])
    progress = jnp.array([0.3, 0.9])
    got = jax.jit(jax.vmap(schedule))(start, end, progress)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(
        got, [float(schedule(*map(float, x))) for x in zip(start, end, progress)], rtol=1e-6
    )


def test_linear_to_zero_ends_at_exactly_zero():
    assert schedules.linear(2.5e-4, 0.0, 1.0) == 0.0
