"""R2D2. Kapturowski et al. 2019, "Recurrent Experience Replay in Distributed Reinforcement Learning", ICLR.

repeat: N environments step, epsilon-greedily, into a replay of sequences with the recurrent state at their start
  U times: a batch of sequences, each unrolled from its stored state by the online and by the target network
    the first steps (burn-in) only bring the states up to date, without gradient; then at each step t
    y_t = h(R + gamma^m h^-1(Q-(s_t+m, a'))),  a' = argmax_a Q(s_t+m, a)      R = m rewards, m <= n
    theta <- Adam(mean[w (y - Q(s, a))^2] / 2)
  priority of a sequence = eta max |y - Q| + (1 - eta) mean |y - Q|

h is the rescaling of Pohlen et al. 2018, arXiv:1805.11593 (`rescale`); Q- is the target network's, which also chooses
a' if not `double`; w are importance weights, one per sequence. A return ends with its episode, or with its sequence,
and bootstraps from what really followed. A state is reset where an episode starts inside of a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.blocks.exploration import EpsilonConfig, greedy, only_discrete
from jaxrl.blocks.losses.returns import n_step_returns
from jaxrl.blocks.losses.value import inverse_rescale, of_action, rescale
from jaxrl.blocks.networks.actor_critic import TrunkConfig
from jaxrl.blocks.networks.q_networks import acting, q_network
from jaxrl.blocks.q_learning import Actor, gradient_step, start
from jaxrl.blocks.replay import Sequences
from jaxrl.blocks.replay.config import ReplayConfig
from jaxrl.declare import defaults, hyper, nested, static
from jaxrl.types import Agent, Algorithm, EnvSpec, Input


@dataclass(frozen=True)
class Config(EpsilonConfig, defaults(ReplayConfig, num_envs=16, rollout_length=8, gradient_steps=1, batch_size=32,
                                     warmup=2000, n_step=5, prioritized=True, alpha=0.9, beta=0.6)):
    """Settings. All lengths are in steps of one environment; a batch is `batch_size` sequences."""

    sequence_length: int = static(16, low=1, high=10**6, help="steps of a sequence that are learned from")
    burn_in: int = static(8, low=0, high=10**6, help="steps before them, to bring the recurrent state up to date")
    period: int = static(8, low=1, high=10**6, help="steps from the start of one sequence to that of the next")
    double: bool = static(True, help="the online network chooses the action that the target network values")
    dueling: bool = static(True, help="the network gives a state's value and the actions' advantages")
    rescale: bool = static(True, help="learn values on the scale h, for returns of any size")
    priority_max: float = hyper(0.9, low=0.0, high=1.0, help="share eta of the greatest error in a priority; the mean "
                                                             "one has the rest")
    target_every: int = static(200, low=1, high=10**9, help="gradient steps between moves of the target network")
    tau: float = hyper(1.0, low=0.0, high=1.0, help="how far it moves then: 1 copies, less is Polyak averaging")
    network: TrunkConfig = nested(TrunkConfig, activation="relu", recurrent="gru")

    def item(self) -> tuple[int, str]:
        """How many consecutive steps of an environment an item needs, and what it is."""
        steps = self.burn_in + self.sequence_length
        return steps, f"sequences of {steps} steps"

    def problems(self, spec: EnvSpec) -> list[str]:
        """What does not fit together, in words."""
        found = super().problems(spec)
        found += only_discrete(spec.action)
        if self.network.recurrent == "none":
            found.append("{algo} needs a recurrent network: algo.network.recurrent=gru")
        if self.period % self.rollout_length:
            found.append(f"algo.period={self.period} is not a multiple of algo.rollout_length={self.rollout_length}: "
                         "recurrent states are kept as a rollout starts")
        return found


class Followed(NamedTuple):
    """The rows of a sequence, [T, B], with what followed each, also where rows keep single frames."""

    final_input: Input
    truncated: jax.Array      # here a return ends, with V of what followed to bootstrap from


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """R2D2 for environments like `spec`: pure functions over what varies."""
    network = q_network(config.network, spec, duel=config.dueling)
    squash, stretch = (rescale, inverse_rescale) if config.rescale else (lambda x: x, lambda x: x)

    def unrolled(params, batch, final_input):
        """h(Q) of each input that is learned from, and of what followed it, [T, B, A]."""
        carry = batch.carry0
        if config.burn_in:
            _, carry = network.values(params, carry, batch.burn_in.input)
        return network.both(params, jax.lax.stop_gradient(carry), batch.rows.input, final_input)

    def learn(state, hyper, batch: Sequences, progress, key):
        rows, (final_input, truncated) = batch.rows, followed(batch)
        _, later = unrolled(state.target, batch, final_input)

        def loss(params):
            q, chooser = unrolled(params, batch, final_input)
            action = greedy(jax.lax.stop_gradient(chooser) if config.double else later, final_input.mask)
            target = squash(n_step_returns(rows.reward, stretch(of_action(later, action)), rows.terminated, truncated,
                                           gamma=hyper.gamma, n=config.n_step))
            error = jnp.where(batch.valid, jax.lax.stop_gradient(target) - of_action(q, rows.action), 0.0)
            weight = jnp.broadcast_to(batch.weight, error.shape)
            return 0.5 * jnp.mean(weight * jnp.square(error)), (jnp.abs(error), q)

        state, (error, q), metrics = gradient_step(loss, state, hyper, progress, config.target_every)
        mean = error.sum(axis=0) / jnp.maximum(batch.valid.sum(axis=0), 1)
        priority = hyper.priority_max * error.max(axis=0) + (1.0 - hyper.priority_max) * mean
        return state, metrics | {"td_error": mean.mean(), "q": stretch(of_action(q, rows.action)).mean()}, priority

    return Agent(lambda key, hyper: start(network.init(key), hyper), lambda state: Actor(state.params), network.carry,
                 *acting(network, config), learn, network.reads)


def followed(batch: Sequences) -> Followed:
    """What followed each row of a batch: given, or else the input of the next row.

    There no return goes over a row that truncates (not valid: what followed it is not kept): it ends before it.
    """
    if batch.rows.final_input is not None:
        return Followed(batch.rows.final_input, batch.rows.truncated)
    following = jax.tree.map(lambda x, last: jnp.concatenate([x[1:], last[None]]), batch.rows.input, batch.last_input)
    before_a_cut = jnp.concatenate([~batch.valid[1:], jnp.zeros_like(batch.valid[:1])])
    return Followed(following, before_a_cut | ~batch.valid)


R2D2 = Algorithm(Config, make_agent, "sequences")
