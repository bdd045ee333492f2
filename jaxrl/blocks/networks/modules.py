"""The flax modules of the networks. Importing flax takes half a second: only builders import this.

A torso is a module of the table `jaxrl.networks`. It is made with (NetworkConfig, dtype) and maps
features [N, F] to [N, H], or images [N, height, width, channels] if its class has `images = True`.

Kernels are initialized with their gain (`initializers.gain`); the networks then make them
orthogonal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from envs_jax.sharding import sharded
from jaxrl import registry
from jaxrl.blocks.losses.value import cosine_embedding
from jaxrl.blocks.networks.initializers import gain
from jaxrl.blocks.networks.noisy import NoisyDense

if TYPE_CHECKING:
    from jaxtyping import Array, Float

ACTIVATIONS: dict[str, Callable] = {
    "tanh": jnp.tanh, "relu": nn.relu, "elu": nn.elu, "silu": nn.silu, "gelu": nn.gelu}


def dense(size: int, scale: float, dtype: Any, name: str) -> nn.Dense:
    """Return a dense layer with an orthogonal kernel of gain `scale`."""
    return nn.Dense(size, kernel_init=gain(scale), dtype=dtype, name=name)


class MLP(nn.Module):
    """Dense layers that map [..., features] to [..., hidden[-1]]."""

    config: Any
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch hidden"]:
        for i, size in enumerate(self.config.hidden):
            x = dense(size, 2**0.5, self.dtype, f"dense_{i}")(x)
            if self.config.layer_norm:
                x = nn.LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x)
            x = ACTIVATIONS[self.config.activation](x)
        return x


class CNN(nn.Module):
    """3x3 convolutions without padding, then the MLP.

    It maps [..., height, width, channels] to [..., hidden[-1]].
    """

    config: Any
    dtype: Any
    images: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: Float[Array, "*batch height width channels"]
                 ) -> Float[Array, "*batch hidden"]:
        for i, channels in enumerate(self.config.channels):
            layer = nn.Conv(channels, (3, 3), padding="VALID", kernel_init=gain(2**0.5),
                            dtype=self.dtype, name=f"conv_{i}")
            x = layer(x)
            x = ACTIVATIONS[self.config.activation](x)
        return MLP(self.config, self.dtype, name="mlp")(x.reshape(*x.shape[:-3], -1))


class Cell(nn.Module):
    """One step of a recurrent core, whose carry is zeroed where an episode starts.

    It also returns the next output for the observation that really followed, which the carry does
    not see.
    """

    kind: str
    size: int
    dtype: Any

    @nn.compact
    def __call__(self, carry: Any, step: tuple[jax.Array, jax.Array, jax.Array | None]
                 ) -> tuple[Any, tuple[jax.Array, jax.Array | None]]:
        x, first, final_x = step
        cells = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}
        cell = cells[self.kind](
            self.size, kernel_init=gain(1.0), recurrent_kernel_init=gain(1.0), dtype=self.dtype,
            param_dtype=jnp.float32, name="cell")
        carry = jax.tree.map(lambda c: jnp.where(first[..., None], jnp.zeros_like(c), c), carry)
        next_carry, out = cell(carry, x)
        next_carry = jax.tree.map(lambda new, old: new.astype(old.dtype), next_carry, carry)
        if final_x is None:
            return next_carry, (out, None)
        _, final_out = cell(next_carry, final_x)
        return next_carry, (out, final_out)


def flatly(module: Callable, x: jax.Array, kept: int) -> Any:
    """Return `module` of x [T, B, ...], where `kept` axes are not batch axes, over one batch axis.

    The gradient of a product over two batch axes is slower on a CPU. Where devices share B, it goes
    first, so that the items of a device stay there.
    """
    if sharded():
        return jax.tree.map(_swapped, _over_one_axis(module, _swapped(x), kept))
    return _over_one_axis(module, x, kept)


def _over_one_axis(module: Callable, x: jax.Array, kept: int) -> Any:
    lead = x.shape[: x.ndim - kept]
    y = module(x.reshape(-1, *x.shape[x.ndim - kept:]))
    return jax.tree.map(lambda y: y.reshape(*lead, *y.shape[1:]), y)


def _swapped(x: jax.Array) -> jax.Array:
    return x.swapaxes(0, 1)


class Trunk(nn.Module):
    """A torso and, for a recurrent network, the core unrolled over time-major inputs [T, B, ...].
    """

    config: Any
    dtype: Any

    @nn.compact
    def __call__(self, carry: Any, x: jax.Array, first: jax.Array, final_x: jax.Array | None
                 ) -> tuple[jax.Array, jax.Array | None, Any]:
        torso = registry.network(self.config.torso)(self.config, self.dtype, name="torso")
        kept = 3 if getattr(torso, "images", False) else 1
        x = flatly(torso, x, kept)
        if final_x is not None:
            final_x = flatly(torso, final_x, kept)
        if self.config.recurrent == "none":
            return x, final_x, carry
        core = nn.scan(Cell, variable_broadcast="params", split_rngs={"params": False})(
            self.config.recurrent, self.config.recurrent_size, self.dtype, name="core")
        carry, (x, final_x) = core(carry, (x, first, final_x))
        return x, final_x, carry


class Policy(nn.Module):
    """Layers from features to (outputs of the action head, log standard deviations or None).

    candidates: as for Scores.
    """

    size: int
    log_std_size: int
    log_std: float

    @nn.compact
    def __call__(self, x: Float[Array, "*batch F"],
                 candidates: Float[Array, "*batch actions d"] | None = None
                 ) -> tuple[Float[Array, "*batch outputs"], Float[Array, " d"] | None]:
        if candidates is not None:
            return Scores(self.size, scale=0.01, name="scores")(x, candidates)[..., 0], None
        outputs = flatly(dense(self.size, 0.01, jnp.float32, "head"), x.astype(jnp.float32), 1)
        if not self.log_std_size:
            return outputs, None
        start = nn.initializers.constant(self.log_std)
        return outputs, self.param("log_std", start, (self.log_std_size,))


class Scores(nn.Module):
    """Layers from features [..., F] to `size` numbers for each action, [..., actions, size].

    candidates: the features of each action. All are then scored by the same layer of F units, which
    reads them beside the state's; without them each action has outputs of its own.
    """

    actions: int
    size: int = 1
    scale: float = 1.0
    noisy: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*batch F"],
                 candidates: Float[Array, "*batch actions d"] | None = None
                 ) -> Float[Array, "*batch actions size"]:
        x = x.astype(jnp.float32)
        if candidates is None:
            y = flatly(self._head(self.actions * self.size), x, 1)
            return y.reshape(*y.shape[:-1], self.actions, self.size)
        width = x.shape[-1]
        state = flatly(dense(width, 1.0, jnp.float32, "state"), x, 1)
        layer = nn.Dense(width, use_bias=False, kernel_init=gain(1.0), name="action")
        action = flatly(layer, candidates, 1)
        hidden = nn.relu(jnp.broadcast_to(state[..., None, :], action.shape) + action)
        return flatly(self._head(self.size), hidden, 1)

    def _head(self, size: int) -> nn.Module:
        if self.noisy:
            return NoisyDense(size, name="head")
        return dense(size, self.scale, jnp.float32, "head")


class Fractions(nn.Module):
    """IQN's embedding of fractions by cosines (Dabney et al. 2018, arXiv:1806.06923, eq. 4)."""

    features: int
    cosines: int = 64

    @nn.compact
    def __call__(self, tau: Float[Array, "*batch N"]) -> Float[Array, "*batch N features"]:
        layer = dense(self.features, 2**0.5, jnp.float32, "dense")
        return nn.relu(flatly(layer, cosine_embedding(tau, self.cosines), 1))


class Value(nn.Module):
    """A dense layer from features to the value of the state."""

    @nn.compact
    def __call__(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        return flatly(dense(1, 1.0, jnp.float32, "head"), x.astype(jnp.float32), 1)[..., 0]
