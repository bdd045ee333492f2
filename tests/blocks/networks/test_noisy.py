"""noisy.py.

The paper's sums entry by entry, its initial values, the mean without noise, fresh noise with every
key.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from jaxrl.blocks.networks.noisy import NoisyDense
from tests import reference


def close(got, want, **kw):
    return np.testing.assert_allclose(got, want, **{"rtol": 1e-5, "atol": 1e-5} | kw)


key = jax.random.key(0)
P = 6
Q = 4
layer = NoisyDense(Q)
params = layer.init(key, jnp.zeros((1, P)))["params"]
names = ("mu_kernel", "sigma_kernel", "mu_bias", "sigma_bias")
inputs = np.random.default_rng(0).normal(size=(3, P)).astype(np.float32)


@jax.jit
def noisy(params, x, key):
    return layer.apply({"params": params}, x, rngs={"noise": key})


def noise_of(key):
    """The noise of a call.

    (f(e_in), f(e_out), eps_w), shown by layers of which only one sigma is not 0.
    """
    zero = {name: jnp.zeros_like(params[name]) for name in names}
    out = np.asarray(noisy(zero | {"sigma_bias": jnp.ones(Q)}, jnp.zeros((1, P)), key))[0]
    both = np.asarray(noisy(zero | {"sigma_kernel": jnp.ones((P, Q))}, jnp.eye(P), key))
    return both[:, 0] / out[0], out, both


def test_is_equations_9_to_11():
    weights = [
        np.asarray(params[name], float)
        + 0.1 * np.random.default_rng(1).normal(size=params[name].shape)
        for name in names
    ]
    f_in, f_out, both = noise_of(key)
    close(both, np.outer(f_in, f_out))                              # factorized
    e_in, e_out = (np.sign(f) * f.astype(float) ** 2 for f in (f_in, f_out))
    got = noisy(dict(zip(names, (jnp.asarray(w, jnp.float32) for w in weights))), inputs, key)
    for x, y in zip(inputs, got):
        close(y, reference.noisy_dense(x, *weights, e_in, e_out))


def test_worked_number():
    """p = q = 1, mu_w 2, sigma_w .5, mu_b -1, sigma_b .25, x = 3: 5 + 1.5 f(a) f(b) + .25 f(b)."""
    one = NoisyDense(1)
    weights = dict(
        zip(names, (jnp.array([[2.0]]), jnp.array([[0.5]]), jnp.array([-1.0]), jnp.array([0.25])))
    )

    def show(**w):
        return float(
            one.apply(
                {"params": {n: 0 * v for n, v in weights.items()} | w},
                jnp.ones((1, 1)),
                rngs={"noise": key},
            )[0, 0]
        )

    f_b = show(sigma_bias=jnp.ones(1))
    f_ab = show(sigma_kernel=jnp.ones((1, 1)))
    got = one.apply({"params": weights}, jnp.full((1, 1), 3.0), rngs={"noise": key})
    close(got, [[5 + 1.5 * f_ab + 0.25 * f_b]])
    assert abs(f_ab) > 1e-3 and abs(f_b) > 1e-3


def test_initial_values():
    big = NoisyDense(64).init(key, jnp.zeros((1, 100)))["params"]
    assert {name: leaf.shape for name, leaf in big.items()} == {
        "mu_kernel": (100, 64), "sigma_kernel": (100, 64), "mu_bias": (64,), "sigma_bias": (64,)}
    for name in ("sigma_kernel", "sigma_bias"):
        close(big[name], 0.5 / 10)
    uniform = scipy.stats.uniform(-0.1, 0.2)
    assert scipy.stats.kstest(np.ravel(big["mu_kernel"]), uniform.cdf).pvalue > 1e-3
    assert scipy.stats.kstest(np.ravel(big["mu_bias"]), uniform.cdf).pvalue > 1e-3


def test_without_a_stream_it_acts_by_its_mean():
    got = jax.jit(lambda x: layer.apply({"params": params}, x))(inputs)
    close(got, inputs @ np.asarray(params["mu_kernel"]) + np.asarray(params["mu_bias"]))
    still = params | {
        "sigma_kernel": 0 * params["sigma_kernel"],
        "sigma_bias": 0 * params["sigma_bias"],
    }
    np.testing.assert_array_equal(noisy(still, inputs, key), got)   # sigma 0: the same


def test_noise_is_f_of_normals_and_new_with_every_key():
    keys = jax.random.split(jax.random.key(1), 50_000)
    zero = {name: jnp.zeros_like(params[name]) for name in names} | {"sigma_bias": jnp.ones(Q)}
    f = np.asarray(jax.jit(jax.vmap(lambda k: noisy(zero, jnp.zeros((1, P)), k)[0]))(keys))
    for j in range(Q):
        assert scipy.stats.kstest(np.sign(f[:, j]) * f[:, j] ** 2, "norm").pvalue > 1e-3
    assert np.all(np.abs(np.corrcoef(f.T) - np.eye(Q)) < 0.03)
    np.testing.assert_array_equal(noisy(params, inputs, keys[0]), noisy(params, inputs, keys[0]))


def test_layers_of_a_network_have_noise_of_their_own():
    two = nn.Sequential([NoisyDense(P), NoisyDense(P)])
    show = jax.tree.map(jnp.zeros_like, two.init(key, inputs))
    noise = []
    # the first layer's bias alone, seen through 1 x; then the second's
    for name in ("layers_0", "layers_1"):
        ones = {
            "params": show["params"] | {name: show["params"][name] | {"sigma_bias": jnp.ones(P)}}
        }
        ones["params"]["layers_1"] = ones["params"]["layers_1"] | {"mu_kernel": jnp.eye(P)}
        noise.append(np.asarray(two.apply(ones, inputs, rngs={"noise": key}))[0])
    assert np.abs(noise[0] - noise[1]).min() > 1e-4


def test_one_draw_for_the_batch_unless_vmapped_over_keys():
    same = np.tile(inputs[:1], (3, 1))
    batch = np.asarray(noisy(params, same, key))
    close(batch[1:], batch[:-1])
    close(noisy(params, same.reshape(3, 1, P), key).reshape(3, Q), batch)
    keys = jax.random.split(key, 3)
    each = np.asarray(jax.jit(jax.vmap(noisy, in_axes=(None, 0, 0)))(params, same, keys))
    for i in range(3):
        close(each[i], noisy(params, same[i], keys[i]))
    assert np.abs(each[0] - each[1]).max() > 1e-3


def test_gradient_of_sigma_is_the_noise():
    """The paper's eq. 9 gives d y_j / d sigma_ij = f_i f_j x_i, and f_j for the bias."""
    f_in, f_out, _ = noise_of(key)
    slope = jax.jit(jax.grad(lambda params: noisy(params, inputs[:1], key).sum()))(params)
    close(slope["sigma_kernel"], np.outer(f_in * inputs[0], f_out))
    close(slope["sigma_bias"], f_out)
    close(slope["mu_kernel"], np.tile(inputs[0][:, None], (1, Q)))


def test_bfloat16_keeps_float32_parameters():
    half = NoisyDense(Q, dtype=jnp.bfloat16)
    assert all(leaf.dtype == jnp.float32 for leaf in half.init(key, inputs)["params"].values())
    got = half.apply({"params": params}, inputs, rngs={"noise": key})
    assert got.dtype == jnp.bfloat16
    close(got.astype(np.float32), noisy(params, inputs, key), rtol=0.1, atol=0.1)
