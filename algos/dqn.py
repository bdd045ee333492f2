"""DQN, and its family up to Rainbow and IQN. Mnih et al. 2015, Nature 518; Hessel et al. 2018, arXiv:1710.02298.

repeat: N environments step, epsilon-greedily or by noisy layers, into the replay
  U times: a batch (s, a, R, g, s'), R = n rewards, g = gamma^m, 0 after a death
    a' = argmax_a Q(s', a)                        of the online network if double, else of the target network
    theta <- Adam(mean[w loss(Z(s, a), R + g Z-(s', a'))])

Z is what is learned of an action's return, Q its mean, Z- the target network's; w are importance weights, and errors
become priorities. The parts are switches:

  double        van Hasselt et al. 2016, arXiv:1509.06461         returns=mean         Z = Q, squared or Huber's loss
  dueling       Wang et al. 2016, arXiv:1511.06581                returns=categorical  C51, Bellemare et al. 2017
  n_step        Sutton 1988                                       returns=quantile     QR-DQN, Dabney et al. 2018
  prioritized   Schaul et al. 2016, arXiv:1511.05952              returns=implicit     IQN, Dabney et al. 2018
  noisy         Fortunato et al. 2018, arXiv:1706.10295

Noise is drawn anew for every pass; IQN's fractions are drawn to learn, and the midpoints of equal parts to choose by,
where the paper draws 32: the same mean without their noise.
`c51`, `qrdqn`, `iqn` and `rainbow` are names for sets of them. Actions may be told by features
(actor_critic.parametric).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrl.blocks.exploration import EpsilonConfig, epsilon, epsilon_greedy, greedy, only_discrete
from jaxrl.blocks.losses import return_heads
from jaxrl.blocks.networks.actor_critic import TrunkConfig
from jaxrl.blocks.networks.q_networks import q_network
from jaxrl.blocks.q_learning import Actor, gradient_step, start
from jaxrl.blocks.replay.config import ReplayConfig
from jaxrl.declare import defaults, hyper, nested, static
from jaxrl.types import Agent, Algorithm, EnvSpec


@dataclass(frozen=True)
class Config(ReplayConfig, EpsilonConfig):
    """Settings."""

    double: bool = static(True, help="the online network chooses the action that the target network values")
    dueling: bool = static(False, help="the network gives a state's value and the actions' advantages")
    noisy: bool = static(False, help="layers after the trunk have noise of a learned size, to explore by")
    returns: str = static("mean", choices=("mean", "categorical", "quantile", "implicit"),
                          help="what is learned of a return: its mean, or its distribution as C51, QR-DQN or IQN do")
    atoms: int = static(51, low=2, high=10**4, help="atoms, quantiles, or fractions drawn (not for returns=mean)")
    value_low: float = hyper(-100.0, low=-1e9, high=1e9, help="the lowest atom (categorical): no return is below")
    value_high: float = hyper(100.0, low=-1e9, high=1e9, help="the highest atom (categorical)")
    kappa: float = hyper(1.0, low=0.0, high=1e9, help="error from which on the loss is linear (quantile, implicit)")
    huber: float = hyper(1e9, low=1e-6, high=1e9, help="error from which on the loss is linear (mean); 1e9: squares")
    target_every: int = static(500, low=1, high=10**9, help="gradient steps between moves of the target network")
    tau: float = hyper(1.0, low=0.0, high=1.0, help="how far it moves then: 1 copies, less is Polyak averaging")
    network: TrunkConfig = nested(TrunkConfig, activation="relu")

    def problems(self, spec: EnvSpec) -> list[str]:
        """What does not fit together, in words."""
        found = super().problems(spec)
        found += only_discrete(spec.action)
        if self.network.recurrent != "none":
            found.append("{algo} learns from single transitions; algo.network.recurrent has to be none")
        if self.returns == "categorical" and self.value_low >= self.value_high:
            found.append(f"algo.value_low={self.value_low:g} is not below algo.value_high={self.value_high:g}")
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
class RainbowConfig(defaults(Config, double=True, dueling=True, noisy=True, prioritized=True, n_step=3, alpha=0.5,
                             returns="categorical", epsilon_start=0.0, epsilon_end=0.0)):
    """All parts at once. Hessel et al. 2018, arXiv:1710.02298."""


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """DQN for environments like `spec`: pure functions over what varies."""
    network = q_network(config.network, spec, size=1 if config.returns == "mean" else config.atoms,
                        duel=config.dueling, noisy=config.noisy, implicit=config.returns == "implicit")

    def outputs(params, inputs, noise=None, fractions=None):
        """Of every action, for inputs [B]: [B, A, n]."""
        inputs = jax.tree.map(lambda x: x[None], network.reads(inputs))
        return jax.tree.map(lambda x: x[0], network.outputs(params, (), inputs, noise, fractions=fractions)[0])

    def values(params, inputs, noise=None):
        """Q [B, A] up to a scale and an offset that all actions share: which one is best does not depend on them."""
        return _head(config, 0.0, 1.0, 1.0, 1.0).mean(outputs(params, inputs, noise).z)

    def explore(actor, hyper, carry, inputs, progress, key):
        key, noise = jax.random.split(key)
        chance = epsilon(config, hyper, inputs, progress)
        return epsilon_greedy(key, values(actor.params, inputs, noise), chance, inputs.mask), carry, {}

    def act(actor, carry, inputs, key):
        return greedy(values(actor.params, inputs), inputs.mask), carry

    def learn(state, hyper, batch, progress, key):
        head = _head(config, hyper.value_low, hyper.value_high, hyper.kappa, hyper.huber)
        (here, there, choice), (mine, theirs) = jax.random.split(key, 3), jax.random.split(jax.random.fold_in(key, 1))

        def loss(params):
            z, tau = outputs(params, batch.start.input, here, mine)
            z = _of(z, batch.start.action)
            following = outputs(state.target, batch.next_input, there, theirs).z
            chooser = outputs(params if config.double else state.target, batch.next_input, choice).z
            best = greedy(jax.lax.stop_gradient(head.mean(chooser)), batch.next_input.mask)
            following = jax.lax.stop_gradient(_of(following, best))
            losses = head.loss(z, tau, following, batch.reward, batch.discount)
            q = head.mean(z)
            error = jnp.abs(batch.reward + batch.discount * head.mean(following) - q)
            priority = error if config.returns == "mean" else losses        # Rainbow's: what is minimised
            return jnp.mean(batch.weight * losses), (error, q, priority)

        state, (error, q, priority), metrics = gradient_step(loss, state, hyper, progress, config.target_every)
        return state, metrics | {"td_error": error.mean(), "q": q.mean()}, jax.lax.stop_gradient(priority)

    return Agent(lambda key, hyper: start(network.init(key), hyper), lambda state: Actor(state.params), network.carry,
                 explore, act, learn, network.reads)


def _head(config: Config, low, high, kappa, delta) -> return_heads.ReturnHead:
    if config.returns == "mean":
        return return_heads.expected(delta)
    return return_heads.categorical(low, high, config.atoms) if config.returns == "categorical" else \
        return_heads.quantile(kappa)


def _of(x: jax.Array, action: jax.Array) -> jax.Array:
    """[B, A, n] of actions [B] -> [B, n]."""
    return jnp.take_along_axis(x, action[:, None, None], axis=1)[:, 0]


DQN = Algorithm(Config, make_agent, "replay")
C51 = Algorithm(C51Config, make_agent, "replay")
QRDQN = Algorithm(QRConfig, make_agent, "replay")
IQN = Algorithm(IQNConfig, make_agent, "replay")
RAINBOW = Algorithm(RainbowConfig, make_agent, "replay")
