"""q_networks.py: every way to represent action values against NumPy.

And actions that are told by their features.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import spaces
from envs_jax.core import EnvSpec, Input
from jaxrl.blocks.networks.actor_critic import NetworkConfig, TrunkConfig, actor_critic, example
from jaxrl.blocks.networks.q_networks import q_network
from tests.compiled import compiled

A = 5
D = 3
T = 2
B = 4
VECTOR = EnvSpec(spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(A), masked=True)
OFFERED = EnvSpec(
    {"obs": spaces.Box(-1.0, 1.0, (2,)), "candidates": spaces.Box(-2.0, 2.0, (A, D))},
    spaces.Discrete(A),
    masked=True,
)
SMALL = TrunkConfig(hidden=(6,))


def inputs_of(rng, spec=VECTOR):
    inputs = example(spec, (T, B))
    mask = rng.random((T, B, A)) < 0.6
    mask[..., 2] = True
    obs = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), inputs.obs)
    return inputs._replace(obs=obs, first=jnp.zeros((T, B), bool), mask=jnp.asarray(mask))


def dense(layer, x):
    return np.asarray(x, np.float64) @ np.asarray(layer["kernel"], np.float64) + np.asarray(
        layer.get("bias", 0.0)
    )


def hidden(params, x, norm=False):
    torso = params["trunk"]["params"]["torso"]
    x = dense(torso["dense_0"], x)
    if norm:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return np.tanh(x)


def head(params, name, x):
    return dense(params[name]["params"]["head"], x)


def duel(value, advantage, mask):
    """[..., n], [..., A, n]"""
    q = np.empty_like(advantage)
    for i in np.ndindex(*advantage.shape[:-2]):
        q[i] = value[i] + advantage[i] - advantage[i][mask[i]].mean(axis=0)
    return q


@pytest.mark.parametrize(
    "size, dueling, norm", [(1, False, True), (1, True, False), (3, True, False)]
)
def test_outputs_are_the_numpy_ones(size, dueling, norm, rng):
    network = compiled(q_network)(
        TrunkConfig(hidden=(6,), layer_norm=norm), VECTOR, size=size, duel=dueling
    )
    params = network.init(jax.random.key(0))
    inputs = inputs_of(rng)
    (z, tau), following, carry = network.outputs(params, (), inputs)
    x = hidden(params, inputs.obs, norm)
    want = head(params, "advantage", x).reshape(T, B, A, size)
    if dueling:
        want = duel(head(params, "value", x), want, np.asarray(inputs.mask))
    np.testing.assert_allclose(z, want, atol=1e-5)
    np.testing.assert_allclose(network.values(params, (), inputs)[0], want.mean(-1), atol=1e-5)
    assert tau is None and following is None and carry == ()


def test_quantiles_of_any_fraction(rng, n=4):
    """IQN: features times what a layer makes of 64 cosines (arXiv:1806.06923, eq. 4)."""
    network = compiled(q_network)(SMALL, VECTOR, size=n, duel=True, implicit=True)
    params = network.init(jax.random.key(0))
    inputs = inputs_of(rng)
    (z, tau), _, _ = network.outputs(params, (), inputs, fractions=jax.random.key(1))
    assert (
        z.shape == (T, B, A, n)
        and len(np.unique(tau)) == T * B * n
        and tau.min() >= 0
        and tau.max() < 1
    )
    cosines = np.cos(np.pi * np.arange(64) * np.asarray(tau, np.float64)[..., None])
    gate = np.maximum(dense(params["fractions"]["params"]["dense"], cosines), 0.0)
    x = hidden(params, inputs.obs)[:, :, None] * gate
    mask = np.broadcast_to(np.asarray(inputs.mask)[:, :, None], (T, B, n, A))
    want = duel(head(params, "value", x), head(params, "advantage", x)[..., None], mask)[..., 0]
    np.testing.assert_allclose(z, np.moveaxis(want, -1, -2), atol=1e-5)
    _, fixed = network.outputs(params, (), inputs)[0]
    np.testing.assert_allclose(fixed[0, 0], (np.arange(32) + 0.5) / 32)


def test_noise_is_drawn_by_the_key_and_absent_without(rng):
    network = compiled(q_network)(SMALL, VECTOR, duel=True, noisy=True)
    params = network.init(jax.random.key(0))
    inputs = inputs_of(rng)
    keys = jax.random.split(jax.random.key(1))
    mean, one, two = (network.values(params, (), inputs, key)[0] for key in (None, *keys))

    def differ(a, b):
        return np.mean(np.abs(a - b) > 1e-3) > 0.9

    assert differ(one, two) and differ(one, mean)
    # what follows has noise of its own
    assert differ(*network.both(params, (), inputs, inputs, keys[0]))
    layer, other = (params[name]["params"]["head"] for name in ("advantage", "value"))
    assert np.abs(layer["mu_kernel"]).max() <= 6**-0.5 and np.allclose(
        other["sigma_kernel"], 0.5 * 6**-0.5
    )


@pytest.mark.parametrize("recurrent", ["none", "gru"])
def test_values_of_what_really_followed(recurrent, rng):
    network = compiled(q_network)(
        TrunkConfig(hidden=(5,), recurrent=recurrent, recurrent_size=7), VECTOR
    )
    params = network.init(jax.random.key(0))
    inputs = inputs_of(rng)
    final = inputs_of(rng)
    q, following = network.both(params, network.carry(B), inputs, final)
    one, memory = network.values(params, network.carry(B), jax.tree.map(lambda x: x[:1], inputs))
    np.testing.assert_allclose(q[:1], one, atol=1e-6)
    peek, _ = network.values(params, memory, jax.tree.map(lambda x: x[:1], final))
    np.testing.assert_allclose(following[:1], peek, atol=1e-6)


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"duel": True, "size": 3},
        {"implicit": True, "size": 4, "duel": True},
        {"noisy": True},
        "policy",
    ],
)
def test_an_action_told_by_its_features_has_no_place(kind, rng):
    """Candidates in another order have their scores in that order, whatever the network is made of.
    """
    inputs = inputs_of(rng, OFFERED)
    order = rng.permutation(A)
    moved = inputs._replace(
        mask=inputs.mask[..., order],
        obs={**inputs.obs, "candidates": inputs.obs["candidates"][..., order, :]},
    )
    if kind == "policy":
        network = compiled(actor_critic)(NetworkConfig(hidden=(6,)), OFFERED)
        params = network.init(jax.random.key(0))

        def scores(inputs):
            return network.policy(params["actor"], (), inputs)[0].logits
    else:
        network = compiled(q_network)(SMALL, OFFERED, **kind)
        params = network.init(jax.random.key(0))
        def scores(inputs):
            return network.outputs(params, (), inputs, jax.random.key(1))[0].z
    before, after = scores(inputs), scores(moved)
    np.testing.assert_allclose(after, before[:, :, order], atol=1e-5)
    assert np.abs(before[:, :, 0] - before[:, :, 1]).max() > 1e-4


def test_scores_of_candidates_are_the_numpy_ones(rng):
    network = compiled(q_network)(SMALL, OFFERED)
    params = network.init(jax.random.key(0))
    inputs = inputs_of(rng, OFFERED)
    layers = params["advantage"]["params"]
    state = dense(layers["state"], hidden(params, inputs.obs["obs"]))
    mixed = np.maximum(state[:, :, None] + dense(layers["action"], inputs.obs["candidates"]), 0.0)
    np.testing.assert_allclose(
        network.values(params, (), inputs)[0], dense(layers["head"], mixed)[..., 0], atol=1e-5
    )


def test_only_features_of_every_action_make_it_parametric():
    """A "candidates" of another length is an observation like any other."""
    more = {**OFFERED.observation, "candidates": spaces.Box(-2.0, 2.0, (A + 1, D))}
    other = EnvSpec(more, OFFERED.action)
    params = compiled(q_network)(SMALL, other).init(jax.random.key(0))
    assert params["trunk"]["params"]["torso"]["dense_0"]["kernel"].shape == (2 + (A + 1) * D, 6)
    assert isinstance(example(other), Input)
