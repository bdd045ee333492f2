"""The flax modules behind actor_critic.py. Importing flax takes half a second, so only its builders do.

A torso is a module of the table `jaxrl.networks`: made with (NetworkConfig, dtype), it maps features [N, F] to [N, H],
or images [N, height, width, channels] if its class says `images = True`.

Kernels are initialised with the gain they shall have (`initializers.gain`); actor_critic.py makes them orthogonal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from envs_jax.sharding import sharded
from jaxrl import registry
from jaxrl.blocks.losses.value import cosine_embedding
from jaxrl.blocks.networks.initializers import gain
from jaxrl.blocks.networks.noisy import NoisyDense

ACTIVATIONS: dict[str, Callable] = {"tanh": jnp.tanh, "relu": nn.relu, "elu": nn.elu, "silu": nn.silu, "gelu": nn.gelu}


def dense(size: int, scale: float, dtype: Any, name: str) -> nn.Dense:
    """A dense layer with an orthogonal kernel of gain `scale`."""
    return nn.Dense(size, kernel_init=gain(scale), dtype=dtype, name=name)


class MLP(nn.Module):
    """[..., features] -> [..., hidden[-1]]."""

    config: Any
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, size in enumerate(self.config.hidden):
            x = dense(size, 2**0.5, self.dtype, f"dense_{i}")(x)
            if self.config.layer_norm:
                x = nn.LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x)
            x = ACTIVATIONS[self.config.activation](x)
        return x


class CNN(nn.Module):
    """[..., height, width, channels] -> [..., hidden[-1]]: 3x3 convolutions without padding, then the MLP."""

    config: Any
    dtype: Any
    images: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, channels in enumerate(self.config.channels):
            x = nn.Conv(channels, (3, 3), padding="VALID", kernel_init=gain(2**0.5), dtype=self.dtype,
                        name=f"conv_{i}")(x)
            x = ACTIVATIONS[self.config.activation](x)
        return MLP(self.config, self.dtype, name="mlp")(x.reshape(*x.shape[:-3], -1))


class Cell(nn.Module):
    """One step of a recurrent core, its carry zeroed where an episode starts; `peek` is what would come out next for
    the observation that really followed, without going on from it."""

    kind: str
    size: int
    dtype: Any

    @nn.compact
    def __call__(self, carry: Any, step: tuple) -> tuple[Any, tuple]:
        x, first, following = step
        cells = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}
        cell = cells[self.kind](self.size, kernel_init=gain(1.0), recurrent_kernel_init=gain(1.0), dtype=self.dtype,
                                param_dtype=jnp.float32, name="cell")
        carry = jax.tree.map(lambda c: jnp.where(first[..., None], jnp.zeros_like(c), c), carry)
        after, out = cell(carry, x)
        after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, carry)
        peek = None if following is None else cell(after, following)[1]
        return after, (out, peek)


def flatly(module: Callable, x: jax.Array, kept: int) -> Any:
    """`module` over [T, B, kept axes] as one batch axis: the gradient of a product over two is slower on CPU.

    Where devices share B it goes first, so that what belongs to a device stays there.
    """
    order = (lambda x: x.swapaxes(0, 1)) if sharded() else (lambda x: x)
    x = order(x)
    lead = x.shape[: x.ndim - kept]
    y = module(x.reshape(-1, *x.shape[x.ndim - kept:]))
    return jax.tree.map(lambda y: order(y.reshape(*lead, *y.shape[1:])), y)


class Trunk(nn.Module):
    """Torso and, for a recurrent network, the core unrolled over time-major inputs [T, B, ...]."""

    config: Any
    dtype: Any

    @nn.compact
    def __call__(self, carry: Any, x: jax.Array, first: jax.Array, following: jax.Array | None) -> tuple:
        torso = registry.network(self.config.torso)(self.config, self.dtype, name="torso")
        encode = lambda x: None if x is None else flatly(torso, x, 3 if getattr(torso, "images", False) else 1)
        x, following = encode(x), encode(following)
        if self.config.recurrent == "none":
            return x, following, carry
        core = nn.scan(Cell, variable_broadcast="params", split_rngs={"params": False})(
            self.config.recurrent, self.config.recurrent_size, self.dtype, name="core")
        carry, (x, following) = core(carry, (x, first, following))
        return x, following, carry


class Policy(nn.Module):
    """Features -> (outputs of the action head, log standard deviations or None). candidates: as for Scores."""

    size: int
    log_std_size: int
    log_std: float

    @nn.compact
    def __call__(self, x: jax.Array, candidates: jax.Array | None = None) -> tuple[jax.Array, jax.Array | None]:
        if candidates is not None:
            return Scores(self.size, scale=0.01, name="scores")(x, candidates)[..., 0], None
        outputs = flatly(dense(self.size, 0.01, jnp.float32, "head"), x.astype(jnp.float32), 1)
        if not self.log_std_size:
            return outputs, None
        return outputs, self.param("log_std", nn.initializers.constant(self.log_std), (self.log_std_size,))


class Scores(nn.Module):
    """Features [..., F] -> `size` numbers for each action, [..., actions, size].

    candidates [..., actions, d]: the features of each action. All are then scored by the same layer of F units, which
    sees them beside the state's; without them an action is its place.
    """

    actions: int
    size: int = 1
    scale: float = 1.0
    noisy: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, candidates: jax.Array | None = None) -> jax.Array:
        x = x.astype(jnp.float32)
        head = lambda size: (NoisyDense(size, name="head") if self.noisy
                             else dense(size, self.scale, jnp.float32, "head"))
        if candidates is None:
            y = flatly(head(self.actions * self.size), x, 1)
            return y.reshape(*y.shape[:-1], self.actions, self.size)
        width = x.shape[-1]
        state = flatly(dense(width, 1.0, jnp.float32, "state"), x, 1)
        action = flatly(nn.Dense(width, use_bias=False, kernel_init=gain(1.0), name="action"), candidates, 1)
        hidden = nn.relu(jnp.broadcast_to(state[..., None, :], action.shape) + action)
        return flatly(head(self.size), hidden, 1)


class Fractions(nn.Module):
    """Fractions tau [..., N] -> [..., N, features], by IQN's cosines (Dabney et al. 2018, arXiv:1806.06923, eq. 4)."""

    features: int
    cosines: int = 64

    @nn.compact
    def __call__(self, tau: jax.Array) -> jax.Array:
        layer = dense(self.features, 2**0.5, jnp.float32, "dense")
        return nn.relu(flatly(layer, cosine_embedding(tau, self.cosines), 1))


class Value(nn.Module):
    """Features -> state value, the last axis gone."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return flatly(dense(1, 1.0, jnp.float32, "head"), x.astype(jnp.float32), 1)[..., 0]
