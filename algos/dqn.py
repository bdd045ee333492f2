"""DQN and its family up to Rainbow and IQN. Mnih et al. 2015, Nature 518; Hessel et al. 2018.

Hessel et al.: arXiv:1710.02298.

repeat: N environments step, epsilon-greedily or by noisy layers, into the replay
  U times: a batch (s, a, R, g, s'), R = n rewards, g = gamma^m, 0 after termination
    a' = argmax_a Q(s', a)          of the online network if double, else of the target network
    theta <- Adam(mean[w loss(Z(s, a), R + g Z-(s', a'))])

Z is the learned description of an action's return, Q its mean, Z- the target network's; w are
importance weights, and errors become priorities. The parts are switches:

  double        van Hasselt et al. 2016, arXiv:1509.06461
  dueling       Wang et al. 2016, arXiv:1511.06581
  n_step        Sutton 1988
  prioritized   Schaul et al. 2016, arXiv:1511.05952
  noisy         Fortunato et al. 2018, arXiv:1706.10295
  returns       mean: Z = Q, squared or Huber's loss; categorical: C51, Bellemare et al. 2017;
                quantile: QR-DQN, Dabney et al. 2018; implicit: IQN, Dabney et al. 2018

Noise is drawn anew for every pass. IQN draws fractions to learn, but chooses actions by the
midpoints of equal parts, where the paper draws 32: the same mean without the noise of a draw.
`c51`, `qrdqn`, `iqn` and `rainbow` are names for sets of switches. Actions may be described by
feature vectors (actor_critic.parametric).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl.blocks.exploration import (
    EpsilonConfig,
    epsilon,
    epsilon_greedy,
    greedy,
    only_discrete,
)
from jaxrl.blocks.losses import return_heads
from jaxrl.blocks.networks.actor_critic import TrunkConfig
from jaxrl.blocks.networks.q_networks import Outputs, QNetwork, q_network
from jaxrl.blocks.q_learning import Actor, State, gradient_step, start
from jaxrl.blocks.replay import Transitions
from jaxrl.blocks.replay.config import ReplayConfig
from jaxrl.declare import defaults, hyper, nested, static
from jaxrl.types import Agent, Algorithm, EnvSpec, Input, Metrics

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray


@dataclass(frozen=True)
class Config(ReplayConfig, EpsilonConfig):
    """Settings."""

    double: bool = static(
        True, help="double Q-learning: the online network chooses the action that the target "
                   "network values")
    dueling: bool = static(
        False, help="dueling network, with a state's value and the actions' advantages")
    noisy: bool = static(
        False, help="noise of a learned size in the layers after the trunk, for exploration")
    returns: str = static(
        "mean", choices=("mean", "categorical", "quantile", "implicit"),
        help="learned description of a return: its mean, or its distribution as in C51, QR-DQN or "
             "IQN")
    atoms: int = static(
        51, low=2, high=10**4,
        help="number of atoms, quantiles, or fractions drawn (not for returns=mean)")
    value_low: float = hyper(
        -100.0, low=-1e9, high=1e9, help="lowest atom, below which no return is (categorical)")
    value_high: float = hyper(
        100.0, low=-1e9, high=1e9, help="highest atom, above which no return is (categorical)")
    kappa: float = hyper(
        1.0, low=0.0, high=1e9, help="error from which on the loss is linear (quantile, implicit)")
    huber: float = hyper(
        1e9, low=1e-6, high=1e9, help="error from which on the loss is linear (mean); 1e9: squares")
    target_every: int = static(
        500, low=1, high=10**9, help="gradient steps between moves of the target network")
    tau: float = hyper(
        1.0, low=0.0, high=1.0,
        help="Polyak step of the target network in a move; 1: copy")
    network: TrunkConfig = nested(TrunkConfig, activation="relu")

    def problems(self, spec: EnvSpec) -> list[str]:
        """Return one message for each incompatible setting."""
        found = super().problems(spec)
        found += only_discrete(spec.action)
        if self.network.recurrent != "none":
            found.append("{algo} learns from single transitions; algo.network.recurrent has to be "
                         "none")
        if self.returns == "categorical" and self.value_low >= self.value_high:
            found.append(f"algo.value_low={self.value_low:g} is not below algo.value_high="
                         f"{self.value_high:g}")
        return found


@dataclass(frozen=True)
class C51Config(defaults(Config, returns="categorical")):
    """Distributions over fixed atoms. Bellemare et al. 2017, arXiv:1707.06887."""


@dataclass(frozen=True)
class QRConfig(defaults(Config, returns="quantile", atoms=16)):
    """Quantiles of fixed fractions. Dabney et al. 2018, arXiv:1710.10044."""


@dataclass(frozen=True)
class IQNConfig(defaults(Config, returns="implicit", atoms=8)):
    """Quantiles of any fraction. Dabney et al. 2018, arXiv:1806.06923."""


@dataclass(frozen=True)
class RainbowConfig(defaults(Config, double=True, dueling=True, noisy=True, prioritized=True,
                             n_step=3, alpha=0.5, returns="categorical", epsilon_start=0.0,
                             epsilon_end=0.0)):
    """All parts at once. Hessel et al. 2018, arXiv:1710.02298."""


@dataclass(frozen=True, eq=False)
class DeepQ:
    """The functions of DQN, bound to a config and a network."""

    config: Config
    network: QNetwork

    def init(self, key: PRNGKeyArray, hyper: Any) -> State:
        """Return the state of a fresh learner."""
        return start(self.network.init(key), hyper)

    def actor(self, state: State) -> Actor:
        """Return the part that acts."""
        return Actor(state.params)

    def explore(self, actor: Actor, hyper: Any, carry: Any, inputs: Input,
                progress: Float[Array, ""], key: PRNGKeyArray
                ) -> tuple[Int[Array, " B"], Any, dict]:
        """Return (action, carry, extras) with an epsilon-greedy action."""
        key, noise = jax.random.split(key)
        chance = epsilon(self.config, hyper, inputs, progress)
        q = self.values(actor.params, inputs, noise)
        return epsilon_greedy(key, q, chance, inputs.mask), carry, {}

    def greedy(self, actor: Actor, carry: Any, inputs: Input, key: PRNGKeyArray
               ) -> tuple[Int[Array, " B"], Any]:
        """Return (action, carry) with the action of the highest value."""
        return greedy(self.values(actor.params, inputs), inputs.mask), carry

    def learn(self, state: State, hyper: Any, batch: Transitions, progress: Float[Array, ""],
              key: PRNGKeyArray) -> tuple[State, Metrics, Float[Array, " B"]]:
        """Return (state, metrics, priorities) after one gradient step."""
        config = self.config
        head = return_head(config, low=hyper.value_low, high=hyper.value_high, kappa=hyper.kappa,
                           delta=hyper.huber)
        online_key, target_key, choice_key = jax.random.split(key, 3)
        online_fractions, target_fractions = jax.random.split(jax.random.fold_in(key, 1))

        def loss(params: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
            z, tau = self.outputs(params, batch.start.input, online_key, online_fractions)
            z = z_of_action(z, batch.start.action)
            next_z = self.outputs(state.target, batch.next_input, target_key, target_fractions).z
            chooser = params if config.double else state.target
            choice = head.mean(self.outputs(chooser, batch.next_input, choice_key).z)
            next_action = greedy(jax.lax.stop_gradient(choice), batch.next_input.mask)
            next_z = jax.lax.stop_gradient(z_of_action(next_z, next_action))
            losses = head.loss(z, tau, next_z, batch.reward, batch.discount)
            q = head.mean(z)
            error = jnp.abs(batch.reward + batch.discount * head.mean(next_z) - q)
            # Rainbow's priority is the loss itself
            priority = error if config.returns == "mean" else losses
            return jnp.mean(batch.weight * losses), (error, q, priority)

        state, aux, metrics = gradient_step(loss, state, hyper, progress, config.target_every)
        error, q, priority = aux
        metrics = metrics | {"td_error": error.mean(), "q": q.mean()}
        return state, metrics, jax.lax.stop_gradient(priority)

    def outputs(self, params: Any, inputs: Input, noise: PRNGKeyArray | None = None,
                fractions: PRNGKeyArray | None = None) -> Outputs:
        """Return the outputs of every action, [B, A, n], for inputs [B]."""
        inputs = jax.tree.map(lambda x: x[None], self.network.reads(inputs))
        out, _, _ = self.network.outputs(params, (), inputs, noise, fractions=fractions)
        return jax.tree.map(lambda x: x[0], out)

    def values(self, params: Any, inputs: Input, noise: PRNGKeyArray | None = None
               ) -> Float[Array, "B A"]:
        """Return Q up to a scale and an offset, which all actions share."""
        head = return_head(self.config, low=0.0, high=1.0, kappa=1.0, delta=1.0)
        return head.mean(self.outputs(params, inputs, noise).z)


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """Return DQN for environments that match `spec`."""
    network = q_network(
        config.network, spec, size=1 if config.returns == "mean" else config.atoms,
        duel=config.dueling, noisy=config.noisy, implicit=config.returns == "implicit")
    dqn = DeepQ(config, network)
    return Agent(init=dqn.init, actor=dqn.actor, carry=network.carry, explore=dqn.explore,
                 greedy=dqn.greedy, learn=dqn.learn, reads=network.reads)


def return_head(config: Config, *, low: ArrayLike, high: ArrayLike, kappa: ArrayLike,
                delta: ArrayLike) -> return_heads.ReturnHead:
    """Return the reading of the network's numbers for `config.returns`."""
    if config.returns == "mean":
        return return_heads.Expected(delta)
    if config.returns == "categorical":
        return return_heads.Categorical(low, high, config.atoms)
    return return_heads.Quantile(kappa)


def z_of_action(z: Float[Array, "B A n"], action: Int[Array, " B"]) -> Float[Array, "B n"]:
    """Return the numbers of the given actions."""
    return jnp.take_along_axis(z, action[:, None, None], axis=1)[:, 0]


DQN = Algorithm(Config, make_agent, "replay")
C51 = Algorithm(C51Config, make_agent, "replay")
QRDQN = Algorithm(QRConfig, make_agent, "replay")
IQN = Algorithm(IQNConfig, make_agent, "replay")
RAINBOW = Algorithm(RainbowConfig, make_agent, "replay")
