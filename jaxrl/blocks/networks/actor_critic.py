"""Networks as values: pure functions of parameters, carry and time-major Inputs [T, B, ...].

Feed-forward and recurrent networks have one interface; the carry of a feed-forward one is (). flax stays behind the
builders of this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import spaces
from jaxrl import registry
from jaxrl.blocks.networks.distributions import action_head
from jaxrl.blocks.networks.initializers import orthogonalize
from jaxrl.declare import static
from jaxrl.types import EnvSpec, Input

CANDIDATES = "candidates"        # the part of an observation that tells the features of each action


@dataclass(frozen=True)
class TrunkConfig:
    """What any network is built from."""

    torso: str = static("mlp", choices=registry.networks, help="mlp: dense layers; cnn: 3x3 convolutions before them")
    hidden: tuple[int, ...] = static((64, 64), low=1, high=10**5, help="sizes of the dense layers")
    channels: tuple[int, ...] = static((16, 32), low=1, high=10**5, help="channels of the convolutions (cnn)")
    activation: str = static("tanh", choices=("tanh", "relu", "elu", "silu", "gelu"), help="after every hidden layer")
    layer_norm: bool = static(False, help="each dense layer's outputs to mean 0 and deviation 1, before the activation")
    recurrent: str = static("none", choices=("none", "gru", "lstm"), help="core after the torso, reset on first steps")
    recurrent_size: int = static(64, low=1, high=10**5, help="size of the recurrent core")
    previous: bool = static(False, help="also feed the previous action and reward")
    scale_observation: bool = static(False, help="entries of observations between finite bounds become -1 to 1")
    compute_dtype: str = static("float32", choices=("float32", "bfloat16"), help="of the hidden layers; "
                                                                                  "parameters stay float32")

    def problems(self, spec: EnvSpec) -> list[str]:
        """What does not fit the environment, in words. The usual torso is not loaded, and with it flax, to ask it."""
        if self.torso != "mlp" and reads_images(self) and len(getattr(spec.observation, "shape", ())) != 3:
            return [f"algo.network.torso={self.torso} needs [height, width, channels] observations, the environment "
                    f"has {spec.observation}. Try: algo.network.torso=mlp"]
        return []


@dataclass(frozen=True)
class NetworkConfig(TrunkConfig):
    """What an actor-critic is built from."""

    shared: bool = static(False, help="one torso for policy and value; recurrent networks always share theirs")
    log_std: float = static(0.0, low=-10.0, high=3.0, help="initial log standard deviation of continuous actions, "
                                                             "in units of half the action range")


def reads_images(config: TrunkConfig) -> bool:
    """Whether the torso sees observations as they are, [height, width, channels], instead of feature vectors."""
    return getattr(registry.network(config.torso), "images", False)


class ActorCritic(NamedTuple):
    """Pure functions. `params` is {"actor": ..., "critic": ...}; a shared trunk lives in "actor".

    init   (key) -> params
    reads  (Input) -> Input without the fields that the network does not read
    carry  (batch) -> recurrent state, or ()
    policy (params["actor"], carry, Input [T, B]) -> (distribution [T, B], carry)
    both   (params, carry, Input [T, B]) -> (distribution, value [T, B])
    values (params, carry, Input, final Input) -> (V of each input, V of what really followed each), both [T, B]
    """

    init: Callable
    reads: Callable
    carry: Callable
    policy: Callable
    both: Callable
    values: Callable


def encode(space: Any, x: Any, batch_ndim: int) -> jax.Array:
    """An observation or action as one float32 feature vector per element: numbers flattened, choices one-hot."""
    def leaf(space, x):
        if isinstance(space, spaces.Discrete):
            return jax.nn.one_hot(x, space.n)
        if isinstance(space, spaces.MultiDiscrete):
            return jnp.concatenate([jax.nn.one_hot(x[..., i], n) for i, n in enumerate(space.nvec)], axis=-1)
        return x.reshape(*x.shape[:batch_ndim], -1).astype(jnp.float32)
    leaves = jax.tree.leaves(jax.tree.map(leaf, space, x, is_leaf=lambda s: isinstance(s, spaces.Space)))
    return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves, axis=-1)


def in_unit_range(space: Any, x: Any) -> Any:
    """`x` with the entries of every Box that have finite bounds moved from these to [-1, 1], as float32."""
    def leaf(space, x):
        if not isinstance(space, spaces.Box):
            return x
        low, high = (np.broadcast_to(np.asarray(b, np.float32), space.shape) for b in (space.low, space.high))
        bounded = np.isfinite(low) & np.isfinite(high) & (low < high)
        centre, half = np.where(bounded, (low + high) / 2, 0.0), np.where(bounded, (high - low) / 2, 1.0)
        over = lambda y: jnp.broadcast_to(y.astype(np.float32), x.shape)
        return (x.astype(jnp.float32) - over(centre)) / over(half)
    return jax.tree.map(leaf, space, x, is_leaf=lambda s: isinstance(s, spaces.Space))


def parametric(spec: EnvSpec) -> bool:
    """Whether actions are told by their features: Discrete(n), and the observation is a dict whose "candidates" is a
    Box [n, d]. Each action is then scored by its features, with the same weights in every slot."""
    offered = spec.observation.get(CANDIDATES) if isinstance(spec.observation, dict) else None
    return (isinstance(spec.action, spaces.Discrete) and isinstance(offered, spaces.Box)
            and len(offered.shape) == 2 and offered.shape[0] == spec.action.n)


def candidate_features(config: TrunkConfig, spec: EnvSpec, inputs: Input) -> jax.Array | None:
    """[T, B, n, d] of an environment that is `parametric`, else None."""
    if not parametric(spec):
        return None
    offered = inputs.obs[CANDIDATES].astype(jnp.float32)
    return in_unit_range(spec.observation[CANDIDATES], offered) if config.scale_observation else offered


def input_features(config: TrunkConfig, spec: EnvSpec) -> Callable[[Input], jax.Array]:
    """Input [T, B, ...] -> what the torso reads: features [T, B, F], or images [T, B, H, W, C]."""
    images, offers = reads_images(config), parametric(spec)
    without = lambda obs: {name: x for name, x in obs.items() if name != CANDIDATES} if offers else obs
    space = without(spec.observation)

    def features(inputs: Input) -> jax.Array:
        ndim = inputs.first.ndim
        obs = in_unit_range(space, without(inputs.obs)) if config.scale_observation else without(inputs.obs)
        if images:
            return obs.astype(jnp.float32)
        parts = [encode(space, obs, ndim)]
        if config.previous:
            parts += [encode(spec.action, inputs.prev_action, ndim), inputs.prev_reward[..., None]]
        return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
    return features


def example(spec: EnvSpec, batch: tuple[int, ...] = (1, 1)) -> Input:
    """An Input of zeros, to initialise networks with."""
    agents = () if spec.agents is None else (spec.agents,)
    mask = None
    if spec.masked:
        mask = jnp.ones((*batch, *agents, action_head(spec.action).size), bool)
    return Input(spaces.zeros(spec.observation, batch + agents), jnp.ones(batch, bool), mask,
                 spaces.zeros(spec.action, batch + agents), jnp.zeros(batch + agents),
                 None if spec.state is None else spaces.zeros(spec.state, batch), jnp.zeros(batch, jnp.int32))


def actor_critic(config: NetworkConfig, spec: EnvSpec) -> ActorCritic:
    """A policy and a value, on separate trunks, or on one if shared or recurrent."""
    from jaxrl.blocks.networks import modules

    dtype = jnp.dtype(config.compute_dtype)
    recurrent = config.recurrent != "none"
    shared = config.shared or recurrent
    head = action_head(spec.action)
    features = input_features(config, spec)
    trunk = modules.Trunk(config, dtype)
    offers = partial(candidate_features, config, spec)
    policy_head = modules.Policy(head.size, head.log_std_size, config.log_std)
    value_head = modules.Value()

    def run(part: Any, carry: Any, inputs: Input, following: jax.Array | None = None) -> tuple:
        return trunk.apply(part["trunk"], carry, features(inputs), inputs.first, following)

    def distribution(actor: Any, x: jax.Array, inputs: Input) -> Any:
        return head.distribution(*policy_head.apply(actor["policy"], x, offers(inputs)), inputs.mask)

    def init(key: jax.Array) -> Any:
        keys = jax.random.split(key, 5)
        inputs = example(spec)
        def new_trunk(key):
            return trunk.init(key, carry(1), features(inputs), inputs.first, None)
        actor = {"trunk": new_trunk(keys[0])}
        x, _, _ = run(actor, carry(1), inputs)
        actor["policy"] = policy_head.init(keys[1], x, offers(inputs))
        critic = {} if shared else {"trunk": new_trunk(keys[2])}
        critic["value"] = value_head.init(keys[3], x)
        return orthogonalize(keys[4], {"actor": actor, "critic": critic})

    carry = partial(empty_carry, config)

    def policy(actor: Any, carry: Any, inputs: Input) -> tuple[Any, Any]:
        x, _, carry = run(actor, carry, inputs)
        return distribution(actor, x, inputs), carry

    def both(params: Any, carry: Any, inputs: Input) -> tuple[Any, jax.Array]:
        x, _, _ = run(params["actor"], carry, inputs)
        y = x if shared else run(params["critic"], carry, inputs)[0]
        return distribution(params["actor"], x, inputs), value_head.apply(params["critic"]["value"], y)

    def values(params: Any, carry: Any, inputs: Input, final: Input) -> tuple[jax.Array, jax.Array]:
        part = params["actor"] if shared else params["critic"]
        x, following, _ = run(part, carry, inputs, features(final))
        return tuple(value_head.apply(params["critic"]["value"], y) for y in (x, following))

    return ActorCritic(init, partial(without_unread, config), carry, policy, both, values)


def without_unread(config: TrunkConfig, inputs: Input) -> Input:
    """The Input without the fields that a network of this config does not read."""
    if not config.previous:
        inputs = inputs._replace(prev_action=None, prev_reward=None)
    return inputs._replace(state=None, slot=None, env_state=None)


def empty_carry(config: TrunkConfig, batch: int) -> Any:
    """The recurrent state of `batch` slots before their first step; () if there is none."""
    zeros = lambda: jnp.zeros((batch, config.recurrent_size), jnp.float32)
    return {"none": lambda: (), "gru": zeros, "lstm": lambda: (zeros(), zeros())}[config.recurrent]()
