"""value.py: the papers' loops, worked numbers, gradients and properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.blocks.losses import value as value_losses
from jaxrl.blocks.losses.returns import n_step_returns
from tests import reference


def close(got, want, **kw):
    return np.testing.assert_allclose(got, want, **{"rtol": 1e-5, "atol": 1e-6} | kw)


seeds = st.integers(0, 2**31)

# compiled as a whole: op by op they take seconds
project = jax.jit(value_losses.categorical_projection)
quantile_huber = jax.jit(value_losses.quantile_huber)
window = jax.jit(value_losses.n_step_window)
full_n_step = jax.jit(n_step_returns, static_argnames="n")
both_rescalings = jax.jit(
    lambda x, e: (value_losses.rescale(x, e), value_losses.inverse_rescale(x, e))
)
soft_value = jax.jit(value_losses.soft_value)
weights = jax.jit(value_losses.importance_weights)


# ---- huber


def test_huber_is_the_two_cases_and_its_slope_is_clipped(rng):
    x = np.concatenate([3 * rng.normal(size=40), [0.0, 1.5, -1.5]]).astype(np.float32)
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(value_losses.huber), in_axes=(0, None)))(
        x, 1.5
    )
    close(value, [reference.huber(x.astype(float), 1.5) for x in x])
    close(slope, np.clip(x, -1.5, 1.5))
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(value_losses.huber), in_axes=(0, None)))(
        x, np.inf
    )
    close(value, x**2 / 2)
    close(slope, x)


# ---- n-step windows

@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0, 1), st.floats(0, 0.7))
def test_n_step_window_is_the_loop_and_row_0_of_n_step_returns(seed, gamma, ends):
    rng = np.random.default_rng(seed)
    reward, next_value = rng.normal(size=(2, 4, 6)).astype(np.float32)
    dead, late = rng.random((2, 4, 6)) < ends
    total, discount, last = window(reward, dead, late, gamma=gamma)
    assert total.dtype == discount.dtype == jnp.float32 and last.dtype == jnp.int32
    for b in range(6):
        want = reference.n_step_window(reward[:, b].astype(float), dead[:, b], late[:, b], gamma)
        close((total[b], discount[b], last[b]), want)
    target = total + discount * next_value[np.asarray(last), np.arange(6)]
    close(target, full_n_step(reward, next_value, dead, late, gamma=gamma, n=4)[0], atol=1e-5)


def test_n_step_window_worked_numbers():
    """Rewards 1, 2, 4 and gamma 1/2.

    Going on, dead at once, cut in the middle, dead in the middle, both at once.
    """
    reward = np.tile(np.float32([[1], [2], [4]]), 5)
    dead, late = np.zeros((2, 3, 5), bool)
    dead[0, 1] = late[1, 2] = dead[1, 3] = dead[1, 4] = late[1, 4] = True
    total, discount, last = window(reward, dead, late, gamma=0.5)
    close(total, [3, 1, 2, 2, 2])
    close(discount, [0.125, 0, 0.25, 0, 0])
    np.testing.assert_array_equal(last, [2, 0, 1, 1, 1])


# ---- categorical

def test_projection_worked_numbers():
    z = jnp.array([0.0, 1, 2])
    p = np.tile(np.float32([0.2, 0.5, 0.3]), (3, 1))
    atoms = value_losses.target_atoms(z, jnp.array([0.5, 0.5, 1.0]), jnp.array([0.9, 0.0, 1.0]))
    close(project(z, p, atoms), [[0.1, 0.4, 0.5], [0.5, 0.5, 0.0], [0.0, 0.2, 0.8]])


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(-50, 50), st.floats(0.1, 100), st.booleans())
def test_projection_is_algorithm_1_and_keeps_mass_and_mean(seed, low, width, on_the_support):
    rng = np.random.default_rng(seed)
    z = np.linspace(low, low + width, 11, dtype=np.float32)
    p = rng.dirichlet(np.ones(7), size=4).astype(np.float32)
    atoms = rng.uniform(low - width / 2, low + 1.5 * width, (4, 7)).astype(np.float32)
    if on_the_support:
        atoms = z[rng.integers(0, 11, (4, 7))]          # where l = u: the mass must not be lost
    got = np.asarray(project(z, p, atoms))
    rounding = 1e-5 + 4e-6 * abs(low) / width           # of the places, in units of the spacing
    for b in range(4):
        close(
            got[b],
            reference.categorical_projection(*(x.astype(float) for x in (z, p[b], atoms[b]))),
            atol=rounding,
        )
    close(got.sum(-1), 1.0)
    assert np.all(np.asarray(got) >= 0.0)
    close(
        (got * z).sum(-1),
        (p * np.clip(atoms, z[0], z[-1])).sum(-1),
        rtol=1e-4,
        atol=1e-5 * (width + abs(low)),
    )


def test_projection_of_a_death_and_of_axes_in_front():
    """A death puts all mass around the reward whatever followed.

    More batch axes are more of the same.
    """
    z = jnp.linspace(-10.0, 10.0, 51)
    p = np.random.default_rng(1).dirichlet(np.ones(51), size=(2, 3)).astype(np.float32)
    reward = jnp.array([[0.0, 0.4, -3.1], [10.0, -99.0, 99.0]])
    got = np.asarray(project(z, p, value_losses.target_atoms(z, reward, jnp.zeros((2, 3)))))
    close(got.sum(-1), 1.0)
    close((got * np.asarray(z)).sum(-1), np.clip(reward, -10, 10), atol=1e-5)
    assert np.all((got > 1e-6).sum(-1) <= 2)
    assert got[0, 0].argmax() == 25
    close((got[1, 0, -1], got[1, 1, 0], got[1, 2, -1]), 1.0)


def test_categorical_loss(rng):
    logits = rng.normal(size=(5, 7)).astype(np.float32)
    target = rng.dirichlet(np.ones(7), size=5).astype(np.float32)
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(value_losses.categorical_loss)))(
        logits, target
    )
    for b in range(5):
        p, _ = reference.categorical(logits[b].astype(float), np.ones(7, bool))
        close(value[b], -sum(m * np.log(q) for m, q in zip(target[b], p)))
        close(slope[b], p - target[b])                  # so the minimum is the target itself
    one_hot = np.eye(3, dtype=np.float32)[:1]
    assert np.isfinite(value_losses.categorical_loss(jnp.array([[0.0, -1e9, -1e9]]), one_hot)).all()


# ---- quantiles

def test_quantile_worked_numbers():
    tau = value_losses.quantile_midpoints(2)
    close(tau, [0.25, 0.75])
    close(quantile_huber(jnp.array([0.0, 1]), tau, jnp.array([0.5, 2]), 1.0), 0.40625)
    rlax = jnp.array([-1.0, 3]), jnp.array([0.2, 0.7]), jnp.array([-3.0, 4, 2])
    close(quantile_huber(*rlax, 0.0), 2.0)
    close(2 * quantile_huber(*rlax, 2.0), 2.5)          # rlax does not divide by kappa


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([0.0, 0.3, 1.0, 5.0]))
def test_quantile_huber_is_the_double_sum(seed, kappa):
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(3, 5)).astype(np.float32)
    target = rng.normal(size=(3, 4)).astype(np.float32)
    target[:, 0] = theta[:, 0]                          # u = 0
    tau = rng.uniform(size=(3, 5)).astype(np.float32)
    want = [
        reference.quantile_huber(*(x.astype(float) for x in row), kappa)
        for row in zip(theta, tau, target)
    ]
    close(quantile_huber(theta, tau, target, kappa), want)
    slope = quantile_slope(theta, tau, target, kappa)
    assert np.all(np.isfinite(slope))
    step = 1e-6
    # finite differences in float64; theta[0] is on a kink
    for i in range(1, 5):
        moved = [theta.astype(float) + sign * step * np.eye(5)[i] for sign in (1, -1)]
        up, down = (
            [
                reference.quantile_huber(*(x.astype(float) for x in row), kappa)
                for row in zip(m, tau, target)
            ]
            for m in moved
        )
        close(slope[:, i], (np.array(up) - down) / (2 * step), rtol=1e-3, atol=1e-3)


@jax.jit
def quantile_slope(theta, tau, target, kappa):
    return jax.grad(lambda theta: value_losses.quantile_huber(theta, tau, target, kappa).sum())(
        theta
    )


def test_quantile_regression_is_least_at_the_quantiles():
    """On a grid, the loss of the fraction tau is smallest at the samples' quantile."""
    samples = np.random.default_rng(0).normal(size=(1, 201)).astype(np.float32)
    grid = np.linspace(-2, 2, 401, dtype=np.float32)[:, None]
    for tau in (0.1, 0.5, 0.9):
        loss = quantile_huber(
            grid, np.full((401, 1), tau, np.float32), np.tile(samples, (401, 1)), 0.0
        )
        assert abs(grid[loss.argmin(), 0] - np.quantile(samples, tau)) < 0.02


def test_cosine_embedding(rng):
    tau = rng.uniform(size=(3, 4)).astype(np.float32)
    got = value_losses.cosine_embedding(tau, 64)
    assert got.shape == (3, 4, 64) and got.dtype == jnp.float32
    for i in range(64):
        close(got[..., i], np.cos(np.pi * i * tau.astype(float)), atol=3e-5)
    close(value_losses.cosine_embedding(jnp.array([0.5]), 5), [[1, 0, -1, 0, 1]])


# ---- values

def test_rescale_worked_numbers():
    forward, _ = both_rescalings(jnp.array([10.0, -99.0]), 1e-3)
    close(forward, [2.3266248, -9.099])
    _, back = both_rescalings(jnp.array([2.0]), 1e-3)
    close(both_rescalings(1 + 0.997 * back, 1e-3)[0], 2.1598795)


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e6, 1e6), st.sampled_from([0.0, 1e-3, 1e-2, 1.0]))
def test_rescale_is_h_and_its_inverse_is_exact(x, epsilon):
    x = np.float32(x)
    there, back = both_rescalings(jnp.array([x]), epsilon)
    close(there, reference.rescale(float(x), epsilon), rtol=1e-6, atol=1e-12)
    close(both_rescalings(there, epsilon)[1], x, rtol=2e-6, atol=1e-30)
    if abs(x) < 1e4:
        close(back, reference.inverse_rescale(float(x), epsilon), rtol=2e-6, atol=1e-6)


def test_rescaling_is_accurate_and_smooth_near_zero():
    """1e-4 comes back as 1e-4, where the printed formulas cancel in float32.

    And the slopes are the limit's.
    """
    x = jnp.array([1e-4, -1e-6, 0.0], jnp.float32)
    close(both_rescalings(both_rescalings(x, 1e-3)[0], 1e-3)[1], x, rtol=1e-6, atol=0)
    slope = jax.jit(jax.vmap(jax.grad(lambda x: value_losses.rescale(x))))(x)
    inverse = jax.jit(jax.vmap(jax.grad(lambda x: value_losses.inverse_rescale(x))))(x)
    close(slope, 0.501, rtol=1e-4)
    close(inverse, 1 / 0.501, rtol=1e-3)


@pytest.mark.parametrize("masked", [False, True])
def test_dueling(rng, masked):
    value = rng.normal(size=(5,)).astype(np.float32)
    advantage = rng.normal(size=(5, 4)).astype(np.float32)
    mask = (rng.random((5, 4)) < 0.5) | (np.arange(4) == 2) if masked else None
    legal = mask if masked else np.ones((5, 4), bool)
    q = np.asarray(value_losses.dueling(value, advantage, mask))
    for b in range(5):
        mean = np.mean([advantage[b, a] for a in range(4) if legal[b, a]])
        close(q[b], value[b] + advantage[b] - mean)
        close(q[b][legal[b]].mean(), value[b])          # V is identified: the mean of Q
    close(value_losses.dueling(value, advantage + 7, mask), q, atol=1e-5)
    # [5, 4, 3]: actions at -2
    atoms = np.stack([advantage, 2 * advantage, -advantage], -1)
    got = value_losses.dueling(np.stack([value, value, -value], -1), atoms, mask, axis=-2)
    close(got[..., 0], q)
    close(got[..., 2], -q)


def test_soft_bandit():
    """Rewards 0, 1, 2 and alpha 1: the soft-optimal policy is a softmax.

    And its value a log-sum-exp.
    """
    q = jnp.array([0.0, 1, 2])
    close(jnp.exp(jax.nn.log_softmax(q)), [0.0900, 0.2447, 0.6652], atol=5e-5)
    close(soft_value(q, jax.nn.log_softmax(q), 1.0), 2.407606)


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0.01, 5))
def test_soft_value_is_the_sum_and_no_policy_beats_the_softmax(seed, alpha):
    rng = np.random.default_rng(seed)
    q, logits = rng.normal(size=(2, 6, 5)).astype(np.float32)
    log_p = np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    got = soft_value(q, log_p, alpha)
    for b in range(6):
        close(
            got[b],
            sum(np.exp(lp) * (v - alpha * lp) for lp, v in zip(log_p[b].astype(float), q[b])),
            atol=1e-5,
        )
    best = alpha * np.log(
        np.exp(q.astype(float) / alpha - (q / alpha).max(-1, keepdims=True)).sum(-1)
    ) + q.max(-1)
    assert np.all(got <= best + 1e-4)
    close(
        soft_value(q, np.asarray(jax.nn.log_softmax(jnp.asarray(q / np.float32(alpha)))), alpha),
        best,
        atol=1e-4,
    )


@pytest.mark.parametrize("illegal", [-1e9, -np.inf])
def test_soft_value_of_masked_actions(illegal):
    q = jnp.array([1.0, 100.0, 3.0])
    logits = jnp.array([0.0, illegal, 0.0])
    both = jax.jit(
        jax.value_and_grad(lambda x: value_losses.soft_value(q, jax.nn.log_softmax(x), 0.5))
    )
    value, slope = both(logits)
    close(value, 2.0 + 0.5 * np.log(2))
    close(slope, [-0.5, 0.0, 0.5])


# ---- prioritised replay

def test_importance_weights_worked_numbers():
    p = np.array([1, 2, 3, 4]) ** 0.6
    close(weights(jnp.asarray(p / p.sum(), jnp.float32), 0.4), [1, 0.846745, 0.768229, 0.716978])
    close(weights(jnp.array([0.1, 0.2, 0.3, 0.4]), 1.0), [1, 0.5, 1 / 3, 0.25])


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0, 1), st.integers(1, 10**6))
def test_importance_weights_do_not_depend_on_the_size(seed, beta, size):
    p = np.random.default_rng(seed).uniform(1e-7, 1e-3, 8).astype(np.float32)
    got = weights(p, beta)
    close(got, reference.importance_weights(p.astype(float), size, beta), rtol=1e-4)
    close(got.max(), 1.0)
    padded = weights(np.append(p[:7], np.float32(0)), beta)
    assert padded[7] == 0.0 and np.all(np.isfinite(padded))
    close(padded[:7], reference.importance_weights(p[:7].astype(float), size, beta), rtol=1e-4)


def test_numbers_may_differ_between_members(rng):
    """Under vmap, with strict promotion of ranks: populations have hyperparameters of their own."""
    x = rng.normal(size=(3, 4)).astype(np.float32)
    dead = np.zeros((3, 4), bool)
    calls = {
        "window": lambda h: value_losses.n_step_window(x, dead, dead, gamma=h)[0],
        "quantile": lambda h: value_losses.quantile_huber(
            x, value_losses.quantile_midpoints(4), x[:, :2], h
        ),
        "support": lambda h: value_losses.categorical_projection(
            jnp.linspace(-h, h, 5), jnp.abs(x), x
        ),
        "rescale": lambda h: value_losses.inverse_rescale(value_losses.rescale(x, h), h),
        "weights": lambda h: value_losses.importance_weights(jnp.abs(x[0]), h),
        "soft": lambda h: value_losses.soft_value(x, jax.nn.log_softmax(x), h),
        "huber": lambda h: value_losses.huber(x, h),
    }
    for name, call in calls.items():
        both = jax.jit(jax.vmap(call))(jnp.array([0.5, 0.9]))
        for i, h in enumerate((0.5, 0.9)):
            close(both[i], call(h), atol=1e-5, err_msg=name)
