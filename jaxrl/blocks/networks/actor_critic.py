"""Networks as values: pure functions of parameters, carry and time-major Inputs [T, B, ...].

Feed-forward and recurrent networks have one interface; the carry of a feed-forward one is (). Only
the functions of this file that build networks import flax.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import spaces
from jaxrl import registry
from jaxrl.blocks.networks.distributions import ActionHead, Distribution, action_head
from jaxrl.blocks.networks.initializers import orthogonalize
from jaxrl.declare import static
from jaxrl.types import EnvSpec, Input

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray

CANDIDATES = "candidates"        # the part of an observation that holds the features of each action


@dataclass(frozen=True)
class TrunkConfig:
    """Settings of any network."""

    torso: str = static("mlp", choices=registry.networks,
                        help="layers that read the observation: dense ones (mlp), or 3x3 "
                             "convolutions before them (cnn)")
    hidden: tuple[int, ...] = static(
        (64, 64), low=1, high=10**5, help="sizes of the dense layers")
    channels: tuple[int, ...] = static(
        (16, 32), low=1, high=10**5, help="channels of the convolutions (cnn)")
    activation: str = static("tanh", choices=("tanh", "relu", "elu", "silu", "gelu"),
                             help="nonlinearity after every hidden layer")
    layer_norm: bool = static(
        False, help="layer normalization of each dense layer, before the activation")
    recurrent: str = static("none", choices=("none", "gru", "lstm"),
                            help="recurrent core after the torso, reset where an episode starts")
    recurrent_size: int = static(64, low=1, high=10**5, help="size of the recurrent core")
    previous: bool = static(False, help="previous action and reward as further inputs")
    scale_observation: bool = static(
        False, help="observations scaled from their bounds, where finite, to -1 to 1")
    compute_dtype: str = static("float32", choices=("float32", "bfloat16"),
                                help="data type of the hidden layers; parameters stay float32")

    def problems(self, spec: EnvSpec) -> list[str]:
        """Return one message for each setting that does not fit the environment."""
        # The usual torso is not asked: loading it would import flax.
        shape = getattr(spec.observation, "shape", ())
        if self.torso != "mlp" and reads_images(self) and len(shape) != 3:
            return [f"algo.network.torso={self.torso} needs [height, width, channels] "
                    f"observations, the environment has {spec.observation}. "
                    "Try: algo.network.torso=mlp"]
        return []


@dataclass(frozen=True)
class NetworkConfig(TrunkConfig):
    """Settings of an actor-critic."""

    shared: bool = static(False, help="one torso for the policy and the value; recurrent networks "
                                      "always share theirs")
    log_std: float = static(0.0, low=-10.0, high=3.0,
                            help="initial log standard deviation of continuous actions, in units "
                                 "of half the action range")


def reads_images(config: TrunkConfig) -> bool:
    """Return True if the torso reads observations [height, width, channels] instead of features."""
    return getattr(registry.network(config.torso), "images", False)


def encode(space: Any, x: Any, batch_ndim: int) -> Float[Array, "*batch features"]:
    """Return an observation or action as one float32 feature vector for each item of a batch.

    Numbers are flattened, choices become one-hot. batch_ndim: the number of leading batch axes of
    `x`.
    """
    def leaf(space: spaces.Space, x: jax.Array) -> jax.Array:
        if isinstance(space, spaces.Discrete):
            return jax.nn.one_hot(x, space.n)
        if isinstance(space, spaces.MultiDiscrete):
            parts = [jax.nn.one_hot(x[..., i], n) for i, n in enumerate(space.nvec)]
            return jnp.concatenate(parts, axis=-1)
        return x.reshape(*x.shape[:batch_ndim], -1).astype(jnp.float32)

    leaves = jax.tree.leaves(jax.tree.map(leaf, space, x, is_leaf=_is_space))
    return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves, axis=-1)


def in_unit_range(space: Any, x: Any) -> Any:
    """Return `x` as float32, with bounded entries of every Box scaled from their bounds to [-1, 1].
    """
    def leaf(space: spaces.Space, x: jax.Array) -> jax.Array:
        if not isinstance(space, spaces.Box):
            return x
        low = np.broadcast_to(np.asarray(space.low, np.float32), space.shape)
        high = np.broadcast_to(np.asarray(space.high, np.float32), space.shape)
        bounded = np.isfinite(low) & np.isfinite(high) & (low < high)
        center = np.where(bounded, (low + high) / 2, 0.0)
        half = np.where(bounded, (high - low) / 2, 1.0)
        center = jnp.broadcast_to(center.astype(np.float32), x.shape)
        return (x.astype(jnp.float32) - center) / jnp.broadcast_to(half.astype(np.float32), x.shape)

    return jax.tree.map(leaf, space, x, is_leaf=_is_space)


def _is_space(x: Any) -> bool:
    return isinstance(x, spaces.Space)


def parametric(spec: EnvSpec) -> bool:
    """Return True if actions are described by feature vectors.

    That is the case for Discrete(n) if the observation is a dict whose "candidates" is a Box [n,
    d]. Each action is then scored by its features, with the same weights in every slot.
    """
    if not (isinstance(spec.action, spaces.Discrete) and isinstance(spec.observation, dict)):
        return False
    offered = spec.observation.get(CANDIDATES)
    return (isinstance(offered, spaces.Box) and len(offered.shape) == 2
            and offered.shape[0] == spec.action.n)


def candidate_features(config: TrunkConfig, spec: EnvSpec, inputs: Input
                       ) -> Float[Array, "T B n d"] | None:
    """Return the features of each action if the environment is `parametric`, else None."""
    if not parametric(spec):
        return None
    offered = inputs.obs[CANDIDATES].astype(jnp.float32)
    if not config.scale_observation:
        return offered
    return in_unit_range(spec.observation[CANDIDATES], offered)


def input_features(config: TrunkConfig, spec: EnvSpec) -> Callable[[Input], jax.Array]:
    """Return the function from an Input [T, B] to what the torso reads.

    That is features [T, B, F], or images [T, B, height, width, channels].
    """
    images = reads_images(config)
    offers = parametric(spec)

    def without_candidates(obs: Any) -> Any:
        return {name: x for name, x in obs.items() if name != CANDIDATES} if offers else obs

    space = without_candidates(spec.observation)

    def features(inputs: Input) -> jax.Array:
        ndim = inputs.first.ndim
        obs = without_candidates(inputs.obs)
        if config.scale_observation:
            obs = in_unit_range(space, obs)
        if images:
            return obs.astype(jnp.float32)
        parts = [encode(space, obs, ndim)]
        if config.previous:
            parts.append(encode(spec.action, inputs.prev_action, ndim))
            parts.append(inputs.prev_reward[..., None])
        return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]

    return features


def example(spec: EnvSpec, batch: tuple[int, ...] = (1, 1)) -> Input:
    """Return an Input of zeros, to initialize networks with."""
    agents = () if spec.agents is None else (spec.agents,)
    mask = None
    if spec.masked:
        mask = jnp.ones((*batch, *agents, action_head(spec.action).size), bool)
    return Input(
        obs=spaces.zeros(spec.observation, batch + agents),
        first=jnp.ones(batch, bool),
        mask=mask,
        prev_action=spaces.zeros(spec.action, batch + agents),
        prev_reward=jnp.zeros(batch + agents),
        state=None if spec.state is None else spaces.zeros(spec.state, batch),
        slot=jnp.zeros(batch, jnp.int32))


@dataclass(frozen=True, eq=False)
class ActorCritic:
    """A policy and a value as pure functions of parameters {"actor": ..., "critic": ...}.

    They have separate trunks, or one if shared or recurrent, which lives in "actor".
    """

    config: NetworkConfig
    spec: EnvSpec
    head: ActionHead
    features: Callable[[Input], jax.Array]
    trunk: Any                   # flax modules
    policy_head: Any
    value_head: Any

    @property
    def shared(self) -> bool:
        """True if the policy and the value have one trunk."""
        return self.config.shared or self.config.recurrent != "none"

    def init(self, key: PRNGKeyArray) -> Any:
        """Return fresh parameters."""
        keys = jax.random.split(key, 5)
        inputs = example(self.spec)
        actor = {"trunk": self._new_trunk(keys[0], inputs)}
        x, _, _ = self._run(actor, self.carry(1), inputs)
        actor["policy"] = self.policy_head.init(keys[1], x, self._candidates(inputs))
        critic = {} if self.shared else {"trunk": self._new_trunk(keys[2], inputs)}
        critic["value"] = self.value_head.init(keys[3], x)
        return orthogonalize(keys[4], {"actor": actor, "critic": critic})

    def reads(self, inputs: Input) -> Input:
        """Return the Input without the fields that the network does not read."""
        return without_unread(self.config, inputs)

    def carry(self, batch: int) -> Any:
        """Return the recurrent state of `batch` slots; () if there is none."""
        return empty_carry(self.config, batch)

    def policy(self, actor: Any, carry: Any, inputs: Input) -> tuple[Distribution, Any]:
        """Return (distribution, carry) of params["actor"] for Inputs, both [T, B]."""
        x, _, carry = self._run(actor, carry, inputs)
        return self._distribution(actor, x, inputs), carry

    def both(self, params: Any, carry: Any, inputs: Input
             ) -> tuple[Distribution, Float[Array, "T B"]]:
        """Return (distribution, value) for Inputs, both [T, B]."""
        x, _, _ = self._run(params["actor"], carry, inputs)
        y = x if self.shared else self._run(params["critic"], carry, inputs)[0]
        distribution = self._distribution(params["actor"], x, inputs)
        return distribution, self.value_head.apply(params["critic"]["value"], y)

    def values(self, params: Any, carry: Any, inputs: Input, final: Input
               ) -> tuple[Float[Array, "T B"], Float[Array, "T B"]]:
        """Return V of each input and V of the input that really followed each."""
        part = params["actor"] if self.shared else params["critic"]
        x, next_x, _ = self._run(part, carry, inputs, self.features(final))
        value = self.value_head.apply(params["critic"]["value"], x)
        return value, self.value_head.apply(params["critic"]["value"], next_x)

    def _candidates(self, inputs: Input) -> jax.Array | None:
        return candidate_features(self.config, self.spec, inputs)

    def _new_trunk(self, key: PRNGKeyArray, inputs: Input) -> Any:
        return self.trunk.init(key, self.carry(1), self.features(inputs), inputs.first, None)

    def _run(self, part: Any, carry: Any, inputs: Input, final_features: jax.Array | None = None
             ) -> tuple[jax.Array, jax.Array | None, Any]:
        """Return (the trunk's outputs, its outputs for what followed each step, carry)."""
        return self.trunk.apply(
            part["trunk"], carry, self.features(inputs), inputs.first, final_features)

    def _distribution(self, actor: Any, x: jax.Array, inputs: Input) -> Distribution:
        outputs, log_std = self.policy_head.apply(actor["policy"], x, self._candidates(inputs))
        return self.head.distribution(outputs, log_std, inputs.mask)


def actor_critic(config: NetworkConfig, spec: EnvSpec) -> ActorCritic:
    """Return the policy and the value of a config, for environments that match `spec`."""
    from jaxrl.blocks.networks import modules

    head = action_head(spec.action)
    return ActorCritic(
        config=config,
        spec=spec,
        head=head,
        features=input_features(config, spec),
        trunk=modules.Trunk(config, jnp.dtype(config.compute_dtype)),
        policy_head=modules.Policy(head.size, head.log_std_size, config.log_std),
        value_head=modules.Value())


def without_unread(config: TrunkConfig, inputs: Input) -> Input:
    """Return the Input without the fields that a network of this config does not read."""
    if not config.previous:
        inputs = inputs._replace(prev_action=None, prev_reward=None)
    return inputs._replace(state=None, slot=None, env_state=None)


def empty_carry(config: TrunkConfig, batch: int) -> Any:
    """Return the recurrent state of `batch` slots before their first step; () if there is none."""
    def zeros() -> jax.Array:
        return jnp.zeros((batch, config.recurrent_size), jnp.float32)

    if config.recurrent == "lstm":
        return (zeros(), zeros())
    return zeros() if config.recurrent == "gru" else ()
