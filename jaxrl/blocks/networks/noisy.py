"""A dense layer whose weights are noisy, for exploration that is learned. Importing it imports flax."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class NoisyDense(nn.Module):
    """[..., p] -> [..., features] by (mu_w + sigma_w eps_w) x + mu_b + sigma_b eps_b, mu and sigma learned (Fortunato
    et al. 2018, arXiv:1706.10295, eq. 9), with factorised noise: eps_w = f(e_i) f(e_j), eps_b = f(e_j),
    f(x) = sign(x) sqrt|x| (eqs. 10 and 11).

    The noise comes from the rng stream "noise": one draw for the whole batch of a call, other ones for other layers.
    Without that stream the layer acts by its mean. Noise for each slot of its own: `jax.vmap` over keys and inputs,
    which costs no weights for each, since the noise is multiplied onto inputs and outputs.
    mu starts uniform within +-1 / sqrt(p), sigma at sigma0 / sqrt(p): not to be made orthogonal.
    """

    features: int
    sigma0: float = 0.5
    dtype: Any = jnp.float32      # of the computation; parameters are float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        p, q = x.shape[-1], self.features
        bound = p**-0.5
        uniform = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)
        constant = nn.initializers.constant(self.sigma0 * bound)
        parameter = lambda name, init, shape: self.param(name, init, shape).astype(self.dtype)
        mu_w, mu_b = parameter("mu_kernel", uniform, (p, q)), parameter("mu_bias", uniform, (q,))
        sigma_w, sigma_b = parameter("sigma_kernel", constant, (p, q)), parameter("sigma_bias", constant, (q,))
        like = lambda row: jnp.broadcast_to(row, (*x.shape[:-1], row.shape[0]))
        x = x.astype(self.dtype)
        y = x @ mu_w + like(mu_b)
        if not self.has_rng("noise"):
            return y
        e = jax.random.normal(self.make_rng("noise"), (p + q,))
        noise = (jnp.sign(e) * jnp.sqrt(jnp.abs(e))).astype(self.dtype)
        return y + ((x * like(noise[:p])) @ sigma_w + like(sigma_b)) * like(noise[p:])
