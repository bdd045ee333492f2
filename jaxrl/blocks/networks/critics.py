"""A policy and an ensemble of critics that learn from a replay: the parts of DDPG, TD3 and SAC.

Actions of a Box are vectors u in [-1, 1]^d here, whatever its shape and bounds. Noise, entropy and
the inputs of critics are in units of half its range, so that one number suits every environment.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from envs_jax.spaces import Box
from jaxrl.blocks import normalize
from jaxrl.blocks.networks.actor_critic import (
    TrunkConfig,
    candidate_features,
    encode,
    example,
    in_unit_range,
    input_features,
    reads_images,
    without_unread,
)
from jaxrl.blocks.networks.distributions import finite_bounds
from jaxrl.blocks.networks.initializers import orthogonalize
from jaxrl.blocks.optim import Descent, adam, descend, scheduled
from jaxrl.blocks.replay import Transitions
from jaxrl.blocks.replay.config import ReplayConfig
from jaxrl.declare import defaults, hyper, nested, static
from jaxrl.types import EnvSpec, Input, Metrics

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


@dataclass(frozen=True)
class CriticsConfig(defaults(ReplayConfig, num_envs=1, gradient_steps=1, batch_size=128,
                             max_grad_norm=1e9)):
    """Settings of all methods with a policy and critics.

    An algorithm gives defaults of its own (`declare.defaults`) and adds fields.
    """

    critics: int = static(
        2, low=1, high=100, help="number of Q functions; targets use the smallest of their values")
    tau: float = hyper(
        0.005, low=0.0, high=1.0,
        help="Polyak step of target networks towards the learned ones; 1: copy")
    noise_correlation: float = hyper(
        0.0, low=0.0, high=1.0,
        help="correlation of the exploration noise of one step with the next, within an episode "
             "(Box actions); 0: independent")
    normalize_observation: bool = static(
        False, help="observations minus their running mean, over their running deviation, clipped "
                    "at 10")
    network: TrunkConfig = nested(TrunkConfig, activation="relu")

    def problems(self, spec: EnvSpec) -> list[str]:
        """Return one message for each incompatible setting."""
        found = super().problems(spec)
        if self.network.recurrent != "none":
            found.append("{algo} learns from single transitions; algo.network.recurrent has to be "
                         "none")
        if self.normalize_observation:
            found += normalize.problems(spec.observation)
        box = spec.action
        if isinstance(box, Box) and not (box.bounded and np.all(np.less(box.low, box.high))):
            found.append(f"{{algo}} needs actions with finite bounds, one below the other, {{env}} "
                         f"has {spec.action}. Try: {{others}}")
        return found


@dataclass(frozen=True, eq=False)
class PolicyCritics:
    """A policy and critics, as pure functions of {"policy": ..., "critics": ...}.

    The critics' parameters have a leading axis C. Inputs are a batch [B].
    """

    config: CriticsConfig
    spec: EnvSpec
    features: Callable[[Input], jax.Array]
    trunk: Any                   # flax modules
    joint: Any                   # the layer that reads an image's features beside an action
    policy_head: Any
    q_head: Any

    @property
    def continuous(self) -> bool:
        """True if actions are of a Box, which critics read beside the observation."""
        return isinstance(self.spec.action, Box)

    @property
    def images(self) -> bool:
        """True if the torso reads images."""
        return reads_images(self.config.network)

    def init(self, key: PRNGKeyArray) -> Any:
        """Return fresh parameters."""
        keys = jax.random.split(key, self.config.critics + 2)
        u = jnp.zeros((1, 1, math.prod(self.spec.action.shape))) if self.continuous else None
        policy = self._new(self.policy_head, keys[1], None)
        critics = [self._new(self.q_head, key, u) for key in keys[2:]]
        params = orthogonalize(keys[0], {"policy": policy, "critics": critics})
        return params | {"critics": jax.tree.map(lambda *x: jnp.stack(x), *params["critics"])}

    def reads(self, inputs: Input) -> Input:
        """Return the Input without the fields that the networks do not read."""
        return without_unread(self.config.network, inputs)

    def moments(self) -> Any:
        """Return the statistics of observations before the first, () when off."""
        return normalize.init(self.spec.observation) if self.config.normalize_observation else ()

    def merge(self, moments: Any, inputs: Input) -> Any:
        """Return the statistics after a batch of inputs."""
        if not self.config.normalize_observation:
            return ()
        return normalize.update(moments, inputs.obs)

    def observe(self, moments: Any, inputs: Input) -> Input:
        """Return the Input as the networks read it."""
        if not self.config.normalize_observation:
            return inputs
        return inputs._replace(obs=normalize.normalize(moments, inputs.obs))

    def outputs(self, policy: Any, inputs: Input) -> Float[Array, "B outputs"]:
        """Return the outputs of the policy network params["policy"]."""
        return self._run(self.policy_head, policy, inputs)[0][0]

    def values(self, critics: Any, inputs: Input, u: Float[Array, "B d"] | None = None
               ) -> Float[Array, "C B *actions"]:
        """Return Q [C, B] of actions u; for Discrete actions u is None and Q is [C, B, actions]."""
        def run(params: Any, inputs: Input, u: jax.Array | None) -> jax.Array:
            return self._run(self.q_head, params, inputs, u)

        q = jax.vmap(run, in_axes=(0, None, None))(critics, inputs, u)[:, 0, ..., 0]
        return q[..., 0] if self.continuous else q

    def taken(self, critics: Any, inputs: Input, action: jax.Array) -> Float[Array, "C B"]:
        """Return Q of actions [B, ...] of the space."""
        chosen = encode(self.spec.action, in_unit_range(self.spec.action, action), 1)
        if self.continuous:
            return self.values(critics, inputs, chosen)
        q = self.values(critics, inputs)
        return jnp.sum(q * jnp.broadcast_to(chosen, q.shape), axis=-1)

    def action(self, u: Float[Array, "B d"]) -> jax.Array:
        """Return the actions [B, ...] of the Box, within its bounds."""
        low, high = finite_bounds(self.spec.action)
        low = jnp.broadcast_to(low.reshape(-1), u.shape)
        high = jnp.broadcast_to(high.reshape(-1), u.shape)
        scaled = 0.5 * (low + high) + 0.5 * (high - low) * u
        scaled = jnp.clip(scaled, low, high)                    # rounding may overshoot
        return scaled.reshape(*u.shape[:-1], *self.spec.action.shape)

    def _candidates(self, inputs: Input) -> jax.Array | None:
        return candidate_features(self.config.network, self.spec, inputs)

    def _new(self, head: Any, key: PRNGKeyArray, u: jax.Array | None) -> Any:
        """Return the parameters of one network; u [1, 1, d]: the action that it reads, or None."""
        keys = jax.random.split(key, 3)
        inputs = example(self.spec)
        x = beside(self.features(inputs), None if self.images else u)
        params = {"trunk": self.trunk.init(keys[0], (), x, inputs.first, None)}
        x, _, _ = self.trunk.apply(params["trunk"], (), x, inputs.first, None)
        if self.images and u is not None:
            params["joint"] = self.joint.init(keys[1], beside(x, u))
            x = self.joint.apply(params["joint"], beside(x, u))
        params["head"] = head.init(keys[2], x, self._candidates(inputs))
        return params

    def _run(self, head: Any, params: Any, inputs: Input, u: jax.Array | None = None) -> Any:
        """Return the head's outputs for Inputs [B]."""
        inputs, u = jax.tree.map(lambda x: x[None], (inputs, u))
        x = beside(self.features(inputs), None if self.images else u)
        x, _, _ = self.trunk.apply(params["trunk"], (), x, inputs.first, None)
        if self.images and u is not None:
            x = self.joint.apply(params["joint"], beside(x, u))
        return head.apply(params["head"], x, self._candidates(inputs))


def policy_critics(config: CriticsConfig, spec: EnvSpec, size: int) -> PolicyCritics:
    """Return a policy of `size` outputs and `config.critics` critics.

    Actions are of a Discrete space or a bounded Box. Critics of a Box read the action beside the
    observation; beside an image's features, in one more layer.
    """
    from jaxrl.blocks.networks import modules

    network = config.network
    dtype = jnp.dtype(network.compute_dtype)
    scores = 1 if isinstance(spec.action, Box) else spec.action.n
    return PolicyCritics(
        config=config,
        spec=spec,
        features=input_features(network, spec),
        trunk=modules.Trunk(network, dtype),
        joint=modules.MLP(dataclasses.replace(network, hidden=network.hidden[-1:]), dtype),
        policy_head=modules.Policy(size, 0, 0.0),
        q_head=modules.Scores(scores))


def beside(x: Float[Array, "*batch F"], u: Float[Array, "*batch d"] | None
           ) -> Float[Array, "*batch features"]:
    """Return `x` with `u`, if there is one, appended along the last axis."""
    return x if u is None else jnp.concatenate([x, u.astype(x.dtype)], axis=-1)


class Optimizers(NamedTuple):
    """Adam for each part of `params`, with a state of its own: the parts take their steps in turn.
    """

    hyper: Any
    progress: ArrayLike

    def init(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the state for every part."""
        return {name: scheduled(adam, self.hyper, self.progress).init(part)
                for name, part in params.items()}

    def step(self, loss: Callable[[Any], tuple[jax.Array, Any]], part: Any, opt_state: Any
             ) -> Descent:
        """Take one step of a part down loss(part) -> (scalar, aux)."""
        return descend(loss, part, opt_state, scheduled(adam, self.hyper, self.progress))


def critic_loss(q: Float[Array, "C B"], target: Float[Array, " B"], weight: Float[Array, " B"]
                ) -> tuple[Float[Array, ""], Float[Array, "C B"]]:
    """Return (loss, errors) of Q.

    The loss is half the squared errors, summed over the critics, as a weighted mean over the batch.
    No gradient flows into the target.
    """
    error = q - jnp.broadcast_to(jax.lax.stop_gradient(target), q.shape)
    return jnp.mean(weight * 0.5 * jnp.sum(jnp.square(error), axis=0)), error


class Fit(NamedTuple):
    """The result of a step of the critics."""

    critics: Any
    opt_state: Any
    metrics: Metrics
    error: jax.Array         # [B], mean over the critics of |error|: the priorities


def fit(network: PolicyCritics, optimizers: Optimizers, critics: Any, opt_state: Any, inputs: Input,
        batch: Transitions, target: Float[Array, " B"]) -> Fit:
    """Take one step of the critics to the targets of a batch.

    inputs: the starts of its items, as the networks read them.
    """
    def loss(critics: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        q = network.taken(critics, inputs, batch.start.action)
        total, error = critic_loss(q, target, batch.weight)
        return total, (q, jnp.mean(jnp.abs(error), axis=0))

    step = optimizers.step(loss, critics, opt_state)
    q, error = step.aux
    metrics = {"loss": step.loss, "grad_norm": step.grad_norm, "td_error": error.mean(),
               "q": q.mean()}
    return Fit(step.params, step.opt_state, metrics, error)
