"""A dense layer with noisy weights, for learned exploration. Importing this module imports flax."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


class NoisyDense(nn.Module):
    """A dense layer (mu_w + sigma_w eps_w) x + mu_b + sigma_b eps_b with learned mu and sigma.

    Fortunato et al. 2018, arXiv:1706.10295, eq. 9, with factorized noise: eps_w = f(e_i) f(e_j),
    eps_b = f(e_j), f(x) = sign(x) sqrt|x| (eqs. 10 and 11). It maps [..., p] to [..., features].

    The noise comes from the rng stream "noise": one draw for the whole batch of a call, and another
    one for every other layer. Without that stream the layer acts by its mean. For separate noise in
    each slot, `jax.vmap` over keys and inputs; that makes no copies of the weights, because the
    noise is multiplied onto inputs and outputs.

    mu starts uniform within +-1 / sqrt(p), sigma at sigma0 / sqrt(p). They must not be made
    orthogonal.
    """

    features: int
    sigma0: float = 0.5
    dtype: Any = jnp.float32      # of the computation; parameters are float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch p"]) -> Float[Array, "*batch q"]:
        p = x.shape[-1]
        q = self.features
        bound = p**-0.5
        constant = nn.initializers.constant(self.sigma0 * bound)

        def uniform(key: PRNGKeyArray, shape: tuple[int, ...]) -> jax.Array:
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        def parameter(name: str, init: Callable, shape: tuple[int, ...]) -> jax.Array:
            return self.param(name, init, shape).astype(self.dtype)

        def like(row: jax.Array) -> jax.Array:
            return jnp.broadcast_to(row, (*x.shape[:-1], row.shape[0]))

        mu_w = parameter("mu_kernel", uniform, (p, q))
        mu_b = parameter("mu_bias", uniform, (q,))
        sigma_w = parameter("sigma_kernel", constant, (p, q))
        sigma_b = parameter("sigma_bias", constant, (q,))
        x = x.astype(self.dtype)
        y = x @ mu_w + like(mu_b)
        if not self.has_rng("noise"):
            return y
        e = jax.random.normal(self.make_rng("noise"), (p + q,))
        noise = (jnp.sign(e) * jnp.sqrt(jnp.abs(e))).astype(self.dtype)
        return y + ((x * like(noise[:p])) @ sigma_w + like(sigma_b)) * like(noise[p:])
