"""Networks of action values: one number per action, or several that describe its return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.blocks.exploration import EpsilonConfig, epsilon, epsilon_greedy, greedy
from jaxrl.blocks.losses.value import dueling, quantile_midpoints
from jaxrl.blocks.networks.actor_critic import (
    TrunkConfig,
    candidate_features,
    empty_carry,
    example,
    input_features,
    without_unread,
)
from jaxrl.blocks.networks.initializers import orthogonalize
from jaxrl.types import EnvSpec, Input

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

# Number of fractions, midpoints of equal parts, that a mean is taken over: as many as in the paper.
POINTS = 32


class Outputs(NamedTuple):
    """Numbers of every action, [T, B, actions, n]: its value (n = 1), or n numbers of its return.
    """

    z: jax.Array
    tau: jax.Array | None = None      # [T, B, n]: the fractions of which z are the quantiles (IQN)


@dataclass(frozen=True, eq=False)
class QNetwork:
    """A network of action values, as pure functions of its parameters.

    `key` draws noise for noisy layers; None: no noise. `fractions` is a key that draws `size`
    fractions (IQN); None: the midpoints of 32 equal parts, whose mean does not have the noise of a
    draw.
    """

    config: TrunkConfig
    spec: EnvSpec
    size: int                          # numbers per action
    duel: bool
    noisy: bool
    implicit: bool
    features: Callable[[Input], jax.Array]
    trunk: Any                         # flax modules
    advantages: Any
    state_value: Any
    fractions: Callable[[int], Any]    # (size of the features) -> module

    def init(self, key: PRNGKeyArray) -> Any:
        """Return fresh parameters."""
        keys = jax.random.split(key, 5)
        inputs = example(self.spec)
        carry = self.carry(1)
        features = self.features(inputs)
        params = {"trunk": self.trunk.init(keys[0], carry, features, inputs.first, None)}
        x, _, _ = self.trunk.apply(params["trunk"], carry, features, inputs.first, None)
        params["advantage"] = self.advantages.init(keys[1], x, self._candidates(inputs))
        if self.duel:
            params["value"] = self.state_value.init(keys[2], x)
        if self.implicit:
            params["fractions"] = self.fractions(x.shape[-1]).init(keys[3], jnp.zeros((1, 1, 1)))
        return orthogonalize(keys[4], params)

    def reads(self, inputs: Input) -> Input:
        """Return the Input without the fields that the network does not read."""
        return without_unread(self.config, inputs)

    def carry(self, batch: int) -> Any:
        """Return the recurrent state of `batch` slots; () if there is none."""
        return empty_carry(self.config, batch)

    def outputs(self, params: Any, carry: Any, inputs: Input, key: PRNGKeyArray | None = None,
                final: Input | None = None, fractions: PRNGKeyArray | None = None
                ) -> tuple[Outputs, Outputs | None, Any]:
        """Return (Outputs of each input, Outputs of what really followed each or None, carry).

        inputs, final: [T, B]; `final` holds what really followed.
        """
        noise, final_noise = _split(key)
        draw, final_draw = _split(fractions)
        final_features = None if final is None else self.features(final)
        x, final_x, carry = self.trunk.apply(
            params["trunk"], carry, self.features(inputs), inputs.first, final_features)
        out = self._head(params, x, inputs, noise, draw)
        if final is None:
            return out, None, carry
        return out, self._head(params, final_x, final, final_noise, final_draw), carry

    def values(self, params: Any, carry: Any, inputs: Input, key: PRNGKeyArray | None = None
               ) -> tuple[Float[Array, "T B actions"], Any]:
        """Return (mean of z, carry): Q where z is one number, or quantiles."""
        out, _, carry = self.outputs(params, carry, inputs, key)
        return out.z.mean(axis=-1), carry

    def both(self, params: Any, carry: Any, inputs: Input, final: Input,
             key: PRNGKeyArray | None = None
             ) -> tuple[Float[Array, "T B actions"], Float[Array, "T B actions"]]:
        """Return the mean of z for each input, and for what really followed each."""
        out, final_out, _ = self.outputs(params, carry, inputs, key, final)
        return out.z.mean(axis=-1), final_out.z.mean(axis=-1)

    def _candidates(self, inputs: Input) -> jax.Array | None:
        return candidate_features(self.config, self.spec, inputs)

    def _head(self, params: Any, x: Float[Array, "T B features"], inputs: Input,
              key: PRNGKeyArray | None, draw: PRNGKeyArray | None) -> Outputs:
        rngs = [{}, {}]
        if self.noisy and key is not None:
            rngs = [{"noise": key} for key in jax.random.split(key)]
        tau = None
        candidates = self._candidates(inputs)
        mask = inputs.mask
        if self.implicit:
            tau = self._fractions(x.shape[:-1], draw)
            x = self._gated(params["fractions"], x, tau)
            candidates = _for_each_fraction(candidates, tau.shape)
            mask = _for_each_fraction(mask, tau.shape)
        z = self.advantages.apply(params["advantage"], x, candidates, rngs=rngs[0])
        if self.duel:
            value = self.state_value.apply(params["value"], x, rngs=rngs[1])
            z = dueling(value[..., 0, :], z, mask, axis=-2)
        if self.implicit:
            z = jnp.moveaxis(z[..., 0], -2, -1)
        return Outputs(z, tau)

    def _fractions(self, batch: tuple[int, ...], draw: PRNGKeyArray | None
                   ) -> Float[Array, "T B fractions"]:
        if draw is None:
            return jnp.broadcast_to(quantile_midpoints(POINTS), (*batch, POINTS))
        return jax.random.uniform(draw, (*batch, self.size))

    def _gated(self, params: Any, x: Float[Array, "T B features"],
               tau: Float[Array, "T B fractions"]) -> Float[Array, "T B fractions features"]:
        """Return the features, gated by an embedding of each fraction."""
        gate = self.fractions(x.shape[-1]).apply(params, tau)
        return jnp.broadcast_to(x.astype(jnp.float32)[..., None, :], gate.shape) * gate


def _split(key: PRNGKeyArray | None) -> tuple[PRNGKeyArray | None, PRNGKeyArray | None]:
    if key is None:
        return None, None
    first, second = jax.random.split(key)
    return first, second


def _for_each_fraction(x: jax.Array | None, shape: tuple[int, ...]) -> jax.Array | None:
    """Return [T, B, ...] repeated over the fractions: [T, B, N, ...], where `shape` is [T, B, N].
    """
    if x is None:
        return None
    return jnp.broadcast_to(jnp.expand_dims(x, 2), (*shape, *x.shape[2:]))


@dataclass(frozen=True, eq=False)
class EpsilonGreedy:
    """Acting by the values of a network, recurrent or not. The Actor has the network's `params`."""

    network: QNetwork
    config: EpsilonConfig

    def explore(self, actor: Any, hyper: Any, carry: Any, inputs: Input, progress: jax.Array,
                key: PRNGKeyArray) -> tuple[Int[Array, " B"], Any, dict]:
        """Return (action, carry, extras) with an epsilon-greedy action."""
        q, carry = self._values(actor, carry, inputs)
        chance = epsilon(self.config, hyper, inputs, progress)
        return epsilon_greedy(key, q, chance, inputs.mask), carry, {}

    def greedy(self, actor: Any, carry: Any, inputs: Input, key: PRNGKeyArray
               ) -> tuple[Int[Array, " B"], Any]:
        """Return (action, carry) with the action of the highest value."""
        q, carry = self._values(actor, carry, inputs)
        return greedy(q, inputs.mask), carry

    def _values(self, actor: Any, carry: Any, inputs: Input
                ) -> tuple[Float[Array, "B actions"], Any]:
        inputs = jax.tree.map(lambda x: x[None], self.network.reads(inputs))
        q, carry = self.network.values(actor.params, carry, inputs)
        return q[0], carry


def q_network(config: TrunkConfig, spec: EnvSpec, *, size: int = 1, duel: bool = False,
              noisy: bool = False, implicit: bool = False) -> QNetwork:
    """Return a network for the actions of a Discrete space, or for their features if `parametric`.

    size: numbers per action.
    duel: the network gives a state's value and the actions' advantages.
    noisy: the layers after the trunk are noisy.
    implicit: the numbers are the quantiles of `size` fractions, drawn anew each time (IQN).
    """
    from jaxrl.blocks.networks import modules

    numbers = 1 if implicit else size
    return QNetwork(
        config=config,
        spec=spec,
        size=size,
        duel=duel,
        noisy=noisy,
        implicit=implicit,
        features=input_features(config, spec),
        trunk=modules.Trunk(config, jnp.dtype(config.compute_dtype)),
        advantages=modules.Scores(spec.action.n, numbers, noisy=noisy),
        state_value=modules.Scores(1, numbers, noisy=noisy),
        fractions=modules.Fractions)
