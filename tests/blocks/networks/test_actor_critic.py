"""actor_critic.py.

Every kind of network on every kind of observation, what recurrence forgets, what is shared.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import spaces
from envs_jax.core import EnvSpec, Input
from jaxrl.blocks.networks.actor_critic import NetworkConfig, actor_critic, encode, example
from tests.compiled import compiled

VECTOR = EnvSpec(spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(2))
T, B = 6, 4


def inputs_of(rng, spec=VECTOR, first=None):
    inputs = example(spec, (T, B))
    obs = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), inputs.obs)
    return inputs._replace(
        obs=obs, first=jnp.zeros((T, B), bool) if first is None else jnp.asarray(first)
    )


def test_dense_layers_are_the_numpy_ones(rng):
    network = compiled(actor_critic)(NetworkConfig(hidden=(8, 5)), VECTOR)
    params = network.init(jax.random.key(0))
    inputs = inputs_of(rng)
    policy, value = network.both(params, (), inputs)

    def mlp(part, head, x):
        def dense(p, x):
            return np.asarray(x, np.float64) @ np.asarray(p["kernel"]) + np.asarray(p["bias"])

        torso = part["trunk"]["params"]["torso"]
        for layer in ("dense_0", "dense_1"):
            x = np.tanh(dense(torso[layer], x))
        return dense(part[head]["params"]["head"], x)

    np.testing.assert_allclose(policy.logits, mlp(params["actor"], "policy", inputs.obs), atol=1e-6)
    np.testing.assert_allclose(value, mlp(params["critic"], "value", inputs.obs)[..., 0], atol=1e-5)


def test_initial_gains(rng):
    """Orthogonal: sqrt 2 hidden, 0.01 policy, 1 value; biases 0."""
    params = compiled(actor_critic)(NetworkConfig(hidden=(8, 8)), VECTOR).init(jax.random.key(1))
    gains = {"dense_0": 2**0.5, "dense_1": 2**0.5}
    for part, head, scale in (("actor", "policy", 0.01), ("critic", "value", 1.0)):
        layers = {
            **params[part]["trunk"]["params"]["torso"],
            "head": params[part][head]["params"]["head"],
        }
        for name, layer in layers.items():
            singular = np.linalg.svd(layer["kernel"], compute_uv=False)
            np.testing.assert_allclose(singular, gains.get(name, scale), rtol=1e-4)
            assert not np.any(layer["bias"])


@pytest.mark.parametrize("recurrent", ["gru", "lstm"])
def test_a_recurrent_network_forgets_at_the_start_of_an_episode(recurrent, rng):
    network = compiled(actor_critic)(
        NetworkConfig(hidden=(5,), recurrent=recurrent, recurrent_size=7), VECTOR
    )
    params = network.init(jax.random.key(0))
    first = np.zeros((T, B), bool)
    first[3, 1] = True
    inputs = inputs_of(rng, first=first)
    carry = jax.tree.map(lambda x: x + 0.5, network.carry(B))
    whole, after = network.policy(params["actor"], carry, inputs)
    # step by step is the same as unrolled
    steps = []
    memory = carry
    for t in range(T):
        policy, memory = network.policy(
            params["actor"], memory, jax.tree.map(lambda x, t=t: x[t : t + 1], inputs)
        )
        steps.append(policy.logits[0])
    np.testing.assert_allclose(whole.logits, np.stack(steps), atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after, memory)
    # what came before the start does not matter after it, and does where there was none
    other = inputs._replace(obs=inputs.obs.at[:3].add(1.0))
    changed, _ = network.policy(params["actor"], carry, other)
    np.testing.assert_array_equal(changed.logits[3:, 1], whole.logits[3:, 1])
    assert np.all(np.any(changed.logits[3:, 0] != whole.logits[3:, 0], axis=-1))


@pytest.mark.parametrize("recurrent", ["none", "gru", "lstm"])
def test_values_of_what_really_followed(recurrent, rng):
    """V(final_input[t]) is the value that one more step from the carry after step t would give."""
    config = NetworkConfig(hidden=(5,), recurrent=recurrent, recurrent_size=7)
    network = compiled(actor_critic)(config, VECTOR)
    params = network.init(jax.random.key(0))
    inputs = inputs_of(rng)
    final = inputs_of(rng)
    value, following = network.values(params, network.carry(B), inputs, final)
    np.testing.assert_allclose(value, network.both(params, network.carry(B), inputs)[1], atol=1e-6)
    for t in range(T):
        longer = jax.tree.map(
            lambda x, y, t=t: jnp.concatenate([x[: t + 1], y[t : t + 1]]), inputs, final
        )
        np.testing.assert_allclose(
            following[t], network.both(params, network.carry(B), longer)[1][-1], atol=1e-6
        )


def test_cnn_and_shared_trunk(rng):
    spec = EnvSpec(spaces.Box(0.0, 1.0, (7, 7, 2)), spaces.Discrete(3))
    network = compiled(actor_critic)(
        NetworkConfig(torso="cnn", channels=(4, 6), hidden=(8,), shared=True), spec
    )
    params = network.init(jax.random.key(0))
    inputs = inputs_of(rng, spec)
    policy, value = network.both(params, (), inputs)
    assert policy.logits.shape == (T, B, 3) and value.shape == (T, B)
    assert set(params["critic"]) == {"value"} and set(params["actor"]) == {"trunk", "policy"}

    def loss(p):
        return network.both(p, (), inputs)[1].sum()

    assert np.any(jax.grad(loss)(params)["actor"]["trunk"]["params"]["torso"]["conv_0"]["kernel"])
    # a picture that moves by a pixel is another one
    moved, _ = network.both(params, (), inputs._replace(obs=jnp.roll(inputs.obs, 1, axis=-2)))
    assert np.all(np.any(moved.logits != policy.logits, axis=-1))


def test_dict_discrete_and_multidiscrete_observations():
    space = {
        "a": spaces.Discrete(3),
        "b": spaces.Box(-1.0, 1.0, (2, 2)),
        "c": spaces.MultiDiscrete((2, 2)),
    }
    x = {
        "a": jnp.array([2, 0]),
        "b": jnp.arange(8.0).reshape(2, 2, 2),
        "c": jnp.array([[0, 1], [1, 1]]),
    }
    want = [[0, 0, 1, 0, 1, 2, 3, 1, 0, 0, 1], [1, 0, 0, 4, 5, 6, 7, 0, 1, 0, 1]]
    np.testing.assert_array_equal(encode(space, x, 1), want)
    spec = EnvSpec(space, spaces.Discrete(2))
    network = compiled(actor_critic)(NetworkConfig(hidden=(4,)), spec)
    assert network.both(network.init(jax.random.key(0)), (), example(spec, (T, B)))[1].shape == (
        T,
        B,
    )


def test_previous_action_and_reward_are_read_only_if_asked(rng):
    for previous in (False, True):
        network = compiled(actor_critic)(NetworkConfig(hidden=(8,), previous=previous), VECTOR)
        params = network.init(jax.random.key(0))
        inputs = inputs_of(rng)
        other = inputs._replace(prev_reward=inputs.prev_reward + 1.0)
        a, b = (network.both(params, (), network.reads(x))[1] for x in (inputs, other))
        assert bool(np.any(a != b)) == previous
        assert isinstance(network.reads(inputs), Input) and network.reads(inputs).slot is None


def test_bfloat16_keeps_float32_parameters_and_outputs(rng):
    network = compiled(actor_critic)(NetworkConfig(hidden=(32,), compute_dtype="bfloat16"), VECTOR)
    exact = compiled(actor_critic)(NetworkConfig(hidden=(32,)), VECTOR)
    params = network.init(jax.random.key(0))
    inputs = inputs_of(rng)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    (policy, value) = network.both(params, (), inputs)
    (_, want) = exact.both(params, (), inputs)
    assert policy.logits.dtype == value.dtype == jnp.float32
    assert 0 < np.abs(value - want).max() < 0.05
