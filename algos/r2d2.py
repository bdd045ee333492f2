"""R2D2. Kapturowski et al. 2019, ICLR.

"Recurrent Experience Replay in Distributed Reinforcement Learning".

repeat: N environments step, epsilon-greedily, into a replay of sequences
  U times: a batch of sequences, each unrolled from its stored recurrent state, by the online and by
  the target network
    the first steps (burn-in) only update the recurrent states, without gradient; then at each step
    t
    y_t = h(R + gamma^m h^-1(Q-(s_t+m, a'))),  a' = argmax_a Q(s_t+m, a)      R = m rewards, m <= n
    theta <- Adam(mean[w (y - Q(s, a))^2] / 2)
  priority of a sequence = eta max |y - Q| + (1 - eta) mean |y - Q|

h is the rescaling of Pohlen et al. 2018, arXiv:1805.11593 (`rescale`). Q- is the target network's,
which also chooses a' if not `double`. w are importance weights, one per sequence. A return ends
with its episode or with its sequence, and bootstraps from what really followed. The recurrent state
is reset where an episode starts inside a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.blocks.exploration import EpsilonConfig, greedy, only_discrete
from jaxrl.blocks.losses.returns import n_step_returns
from jaxrl.blocks.losses.value import inverse_rescale, of_action, rescale
from jaxrl.blocks.networks.actor_critic import TrunkConfig
from jaxrl.blocks.networks.q_networks import EpsilonGreedy, q_network
from jaxrl.blocks.q_learning import Actor, State, gradient_step, start
from jaxrl.blocks.replay import Sequences
from jaxrl.blocks.replay.config import ReplayConfig
from jaxrl.declare import defaults, hyper, nested, static
from jaxrl.types import Agent, Algorithm, EnvSpec, Input, Metrics

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


@dataclass(frozen=True)
class Config(EpsilonConfig, defaults(ReplayConfig, num_envs=16, rollout_length=8, gradient_steps=1,
                                     batch_size=32, warmup=2000, n_step=5, prioritized=True,
                                     alpha=0.9, beta=0.6)):
    """Settings. All lengths are in steps of one environment; a batch is `batch_size` sequences."""

    sequence_length: int = static(
        16, low=1, high=10**6, help="steps of a sequence that are learned from")
    burn_in: int = static(
        8, low=0, high=10**6,
        help="steps before each sequence that only bring the recurrent state up to date")
    period: int = static(
        8, low=1, high=10**6, help="steps from the start of one sequence to that of the next")
    double: bool = static(
        True, help="double Q-learning: the online network chooses the action that the target "
                   "network values")
    dueling: bool = static(
        True, help="dueling network, with a state's value and the actions' advantages")
    rescale: bool = static(True, help="values on the scale h, for returns of any size")
    priority_max: float = hyper(
        0.9, low=0.0, high=1.0,
        help="weight eta of the largest error in a priority; the mean error has weight 1 - eta")
    target_every: int = static(
        200, low=1, high=10**9, help="gradient steps between moves of the target network")
    tau: float = hyper(
        1.0, low=0.0, high=1.0,
        help="Polyak step of the target network in a move; 1: copy")
    network: TrunkConfig = nested(TrunkConfig, activation="relu", recurrent="gru")

    def item(self) -> tuple[int, str]:
        """Return the number of consecutive steps that an item needs, and a description of it."""
        steps = self.burn_in + self.sequence_length
        return steps, f"sequences of {steps} steps"

    def problems(self, spec: EnvSpec) -> list[str]:
        """Return one message for each incompatible setting."""
        found = super().problems(spec)
        found += only_discrete(spec.action)
        if self.network.recurrent == "none":
            found.append("{algo} needs a recurrent network: algo.network.recurrent=gru")
        if self.period % self.rollout_length:
            found.append(f"algo.period={self.period} is not a multiple of algo.rollout_length="
                         f"{self.rollout_length}: recurrent states are kept as a rollout starts")
        return found


class Followed(NamedTuple):
    """The inputs that followed the rows of a sequence, [T, B], also if rows keep single frames."""

    final_input: Input
    truncated: jax.Array      # True where a return ends and bootstraps from V of what followed


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """Return R2D2 for environments that match `spec`."""
    network = q_network(config.network, spec, duel=config.dueling)
    acting = EpsilonGreedy(network, config)

    def init(key: PRNGKeyArray, hyper: Any) -> State:
        return start(network.init(key), hyper)

    def actor(state: State) -> Actor:
        return Actor(state.params)

    def scaled(value: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        return rescale(value) if config.rescale else value

    def unscaled(value: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        return inverse_rescale(value) if config.rescale else value

    def unroll(params: Any, batch: Sequences, final_input: Input
               ) -> tuple[Float[Array, "T B A"], Float[Array, "T B A"]]:
        """Return h(Q) of each input to learn from, and of what followed it."""
        carry = batch.carry0
        if config.burn_in:
            _, carry = network.values(params, carry, batch.burn_in.input)
        return network.both(params, jax.lax.stop_gradient(carry), batch.rows.input, final_input)

    def learn(state: State, hyper: Any, batch: Sequences, progress: Float[Array, ""],
              key: PRNGKeyArray) -> tuple[State, Metrics, Float[Array, " B"]]:
        rows = batch.rows
        final_input, truncated = followed(batch)
        _, next_q = unroll(state.target, batch, final_input)

        def loss(params: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            q, online_next_q = unroll(params, batch, final_input)
            chooser = jax.lax.stop_gradient(online_next_q) if config.double else next_q
            next_value = of_action(next_q, greedy(chooser, final_input.mask))
            target = scaled(n_step_returns(
                rows.reward, unscaled(next_value), rows.terminated, truncated, gamma=hyper.gamma,
                n=config.n_step))
            error = jax.lax.stop_gradient(target) - of_action(q, rows.action)
            error = jnp.where(batch.valid, error, 0.0)
            weight = jnp.broadcast_to(batch.weight, error.shape)
            return 0.5 * jnp.mean(weight * jnp.square(error)), (jnp.abs(error), q)

        state, aux, metrics = gradient_step(loss, state, hyper, progress, config.target_every)
        error, q = aux
        mean = error.sum(axis=0) / jnp.maximum(batch.valid.sum(axis=0), 1)
        priority = hyper.priority_max * error.max(axis=0) + (1.0 - hyper.priority_max) * mean
        value = unscaled(of_action(q, rows.action))
        return state, metrics | {"td_error": mean.mean(), "q": value.mean()}, priority

    return Agent(init=init, actor=actor, carry=network.carry, explore=acting.explore,
                 greedy=acting.greedy, learn=learn, reads=network.reads)


def followed(batch: Sequences) -> Followed:
    """Return what followed each row of a batch: stored, or else the input of the next row.

    In the latter case a return ends before a row that truncates (not valid: what followed is not
    kept).
    """
    if batch.rows.final_input is not None:
        return Followed(batch.rows.final_input, batch.rows.truncated)

    def shifted(x: jax.Array, last: jax.Array) -> jax.Array:
        return jnp.concatenate([x[1:], last[None]])

    final_input = jax.tree.map(shifted, batch.rows.input, batch.last_input)
    before_cut = jnp.concatenate([~batch.valid[1:], jnp.zeros_like(batch.valid[:1])])
    return Followed(final_input, before_cut | ~batch.valid)


R2D2 = Algorithm(Config, make_agent, "sequences")
