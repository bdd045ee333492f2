"""Tests of CartPole with parametric actions: only a policy that uses the features can play it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import make
from envs_jax.classic.candidates import CandidateCartPole, CandidateCartPoleState
from envs_jax.classic.cartpole import CartPole, CartPoleState
from tests.envs_jax.cases import rollout

BATCH = 64


def way(obs):
    """Return the direction of a linear controller of CartPole: 1 pushes right, -1 left."""
    return jnp.where(obs @ jnp.float32([0.0, 0.2, 1.0, 0.6]) > 0.0, 1.0, -1.0)


def reader(env):
    """Return the legal candidate whose features point most in the controller's direction."""
    def policy(obs, state):
        score = obs["candidates"] @ jnp.asarray(env.unwrapped.direction) * way(obs["obs"])
        return jnp.argmax(
            jnp.where(env.action_mask(state, env.default_params), score, -jnp.inf)
        ).astype(jnp.int32)
    return policy


@pytest.mark.parametrize(
    "settings", [{}, {"slots": 3, "features": 5, "p_legal": 0.0}], ids=["default", "three slots"]
)
def test_a_reader_of_features_reaches_500(settings):
    """The best return implies that no action was illegal."""
    env, params = make("cartpole-candidates", **settings)
    *_, terminated, truncated, info = rollout(env, params, env.max_steps, reader(env), batch=BATCH)
    assert not terminated.any() and truncated[:, -1].all()
    np.testing.assert_array_equal(info["episode_return"][:, -1], 500.0)
    assert not info["illegal"].any()


@pytest.fixture(scope="module")
def played():
    """Return (obs, action, reward, terminated, illegal, right, legal) [BATCH, 40, ...].

    Slots are random, legal or not.
    """
    env = CandidateCartPole()
    params = CandidateCartPole.default_params
    actions = np.random.default_rng(1).integers(env.slots, size=(BATCH, 40)).astype(np.int32)

    def one(key, actions):
        start, *keys = jax.random.split(key, 41)
        return jax.lax.scan(step, env.reset(start, params), (jnp.stack(keys), actions))[1]

    def step(carry, x):
        (obs, state) = carry
        (key, action) = x
        after, next_state, reward, terminated, _, info = env.step(key, state, action, params)
        return (after, next_state), (
            obs,
            action,
            reward,
            terminated,
            info["illegal"],
            state.right,
            state.legal,
            after,
        )

    return jax.tree.map(
        np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), BATCH), actions)
    )


def chosen(table, action):
    return np.take_along_axis(table, action[..., None], -1)[..., 0]


def test_the_motion_is_cartpoles(played):
    """The step equals CartPole's with the push of the slot, legal or not."""
    obs, action, _, terminated, _, right, _, after = played
    push = chosen(right, action).astype(np.int32).ravel()
    state = CartPoleState(*obs["obs"].reshape(-1, 4).T)

    def step(s, a):
        return CartPole().step(None, s, a, CartPole.default_params)

    want, _, _, fallen, *_ = jax.jit(jax.vmap(step))(state, push)
    np.testing.assert_allclose(after["obs"].reshape(-1, 4), want, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(terminated.ravel(), fallen)


def test_an_illegal_action_is_told_and_costs(played):
    _, action, reward, _, illegal, _, legal, _ = played
    assert illegal.dtype == np.int32
    np.testing.assert_array_equal(illegal == 1, ~chosen(legal, action))
    np.testing.assert_array_equal(reward, np.where(illegal == 1, -1.0, 1.0))
    # two always, and half of eight
    np.testing.assert_allclose(illegal.mean(), 0.8 * 0.5, atol=0.05)


def test_both_ways_are_always_open(played):
    *_, right, legal, _ = played
    assert (right & legal).any(-1).all() and (~right & legal).any(-1).all()
    count = legal.sum(-1)
    # any number, in 2560 steps
    assert set(np.unique(count)) == set(range(2, 11))
    np.testing.assert_allclose(count.mean(), 2 + 0.5 * 8, atol=0.1)


def test_slots_tell_nothing(played):
    """Slots are independent between steps: each is equally often right, left and legal."""
    *_, right, legal, _ = played
    for table, share in ((right, 0.5), (legal, 0.6)):
        np.testing.assert_allclose(table.mean((0, 1)), share, atol=0.05)
        before = table[:, :-1].reshape(-1, 10)
        after = table[:, 1:].reshape(-1, 10)
        for slot in range(10):
            both = np.mean(before[:, slot] & after[:, slot])
            np.testing.assert_allclose(both, share**2, atol=0.05)
    np.testing.assert_allclose(np.mean(right[legal]), 0.5, atol=0.02)    # nor does the mask


def test_features_tell_the_way(played):
    obs, *_, right, legal, _ = played
    env = CandidateCartPole()
    noise = obs["candidates"] - np.where(right[..., None], env.direction, -env.direction)
    assert np.abs(noise).max() <= env.noise
    np.testing.assert_allclose([noise.mean(), noise.std()], [0.0, 0.5 / np.sqrt(3)], atol=0.01)
    np.testing.assert_array_equal(obs["candidates"] @ env.direction > 0, right)
    # not the mask
    np.testing.assert_allclose(np.abs(noise[legal]).mean(), np.abs(noise[~legal]).mean(), atol=0.01)
    flat = noise.reshape(-1, 20)
    assert np.abs(np.corrcoef(flat.T) - np.eye(20)).max() < 0.1


def test_a_reader_of_slots_falls():
    """The best policy of slots, one for each direction, is as bad as random pushes."""
    env, params = make("cartpole-candidates", p_legal=1.0)

    def by_slot(obs, state):
        return jnp.where(way(obs["obs"]) > 0, jnp.int32(1), 0)

    *_, terminated, _, info = rollout(env, params, 100, by_slot, batch=BATCH)
    assert terminated.any(1).mean() > 0.95 and not info["illegal"].any()
    # random play of CartPole lasts 22
    assert np.mean(terminated.argmax(1) + 1) < 40


def test_the_params_are_cartpoles_and_more():
    assert CandidateCartPole.default_params[:8] == CartPole.default_params
    env, params = make("cartpole-candidates", length=1.0, p_legal=1, penalty=7.0)
    assert (params.length, params.p_legal, params.penalty) == (1.0, 1.0, 7.0)
    assert env.time_limit == 500
    right = np.arange(10) > 4
    state = CandidateCartPoleState(CartPoleState(*np.float32([0.1, 0, 0.2, 0])), right, ~right)
    step = jax.jit(env.unwrapped.step)
    cartpole = jax.jit(CartPole().step)
    for slot, reward in ((7, -7.0), (2, 1.0)):
        obs, after, got, *_ = step(jax.random.key(0), state, jnp.int32(slot), params)
        want, *_ = cartpole(
            None, state.cart, jnp.int32(right[slot]), CartPole.default_params._replace(length=1.0)
        )
        np.testing.assert_allclose(obs["obs"], want, rtol=1e-6)
        assert got == reward and after.legal.all()


def test_too_few_slots():
    with pytest.raises(
        ValueError, match="needs slots >= 2 and features >= 1, not slots = 1 and features = 2"
    ):
        CandidateCartPole(slots=1)
    with pytest.raises(ValueError, match="not slots = 10 and features = 0"):
        make("cartpole-candidates", features=0)
