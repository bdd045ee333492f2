"""PPO-clip. Schulman et al. 2017, arXiv:1707.06347, eq. 7.

repeat: roll out T steps in B environments; A, G <- GAE(gamma, lambda)
  for K epochs, M minibatches:
    theta <- Adam(mean[-min(rho A, clip(rho, 1-eps, 1+eps) A)] + c_v (V - G)^2 / 2 - c_e H)

Implementation details follow Huang et al. 2022, "The 37 implementation details of PPO". A
feed-forward network learns from shuffled single steps. A recurrent one learns from whole sequences
of shuffled environments, unrolled from the recurrent state they were collected with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp

from jaxrl.blocks.losses.policy import (
    approx_kl,
    clip_fraction,
    clipped_value,
    ppo_clip,
    standardize,
)
from jaxrl.blocks.losses.returns import gae
from jaxrl.blocks.minibatch import problems as minibatch_problems
from jaxrl.blocks.minibatch import sgd
from jaxrl.blocks.networks.distributions import Distribution
from jaxrl.blocks.optim import adam
from jaxrl.blocks.policy_gradient import (
    Learned,
    PolicyGradientConfig,
    State,
    objective,
    policy_gradient,
    value_metrics,
)
from jaxrl.blocks.schedules import linear
from jaxrl.declare import Range, hyper, static
from jaxrl.types import Agent, Algorithm, EnvSpec, Input, Metrics, Trajectory

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


@dataclass(frozen=True)
class Config(PolicyGradientConfig):
    """Settings. The defaults are those of the 37 details for classic control."""

    epochs: int = static(4, low=1, high=10**4, help="passes K over a rollout")
    minibatches: int = static(4, low=1, high=10**6, help="minibatches M per epoch")
    lam: float = hyper(
        0.95, low=0.0, high=1.0, search=Range(0.8, 1.0), help="trace decay lambda of GAE")
    clip: float = hyper(
        0.2, low=0.0, high=10.0, search=Range(0.05, 0.4), help="clip range epsilon of the ratio")
    clip_end: float = hyper(
        1.0, low=0.0, high=1.0, help="fraction of the clip range left at the end of the schedule")
    clip_value: bool = static(
        True, help="value loss clipped around the value before the update, like the ratio")
    normalize_advantage: bool = static(
        True, help="advantages with mean 0 and deviation 1 in each minibatch")

    def problems(self, spec: EnvSpec) -> list[str]:
        """Return one message for each incompatible setting."""
        return super().problems(spec) + minibatch_problems(self)


class Minibatch(NamedTuple):
    """Steps [T, b] to learn from; single steps of a feed-forward network are [1, b]."""

    inputs: Input
    action: Any
    log_prob: Float[Array, "T b"]      # of the action under the policy that acted
    value: Float[Array, "T b"]         # V of each input before the update
    advantage: Float[Array, "T b"]
    target: Float[Array, "T b"]        # value target


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """Return PPO for environments that match `spec`."""
    base = policy_gradient(config, spec, adam)

    def learn(state: State, hyper: Any, batch: Trajectory, progress: Float[Array, ""],
              key: PRNGKeyArray) -> tuple[State, Metrics, tuple]:
        rollout = base.read(state, hyper, batch)
        advantage, target = gae(
            rollout.reward, rollout.value, rollout.next_value, batch.terminated, batch.truncated,
            gamma=hyper.gamma, lam=hyper.lam)
        epsilon = linear(hyper.clip, hyper.clip_end, progress)
        data = Minibatch(
            inputs=rollout.inputs, action=batch.action, log_prob=batch.extras["log_prob"],
            value=rollout.value, advantage=advantage, target=target)

        def step(learned: Learned, carry0: Any, data: Minibatch) -> tuple[Learned, Metrics]:
            def loss(params: Any) -> tuple[Float[Array, ""], Metrics]:
                policy, value = base.network.both(params, carry0, data.inputs)
                return objective(loss_terms(config, policy, value, data, epsilon), hyper)

            return base.step(loss, learned, hyper, progress)

        learned, metrics = sgd(
            step, Learned(state.params, state.optimizer), batch.carry0, data, key,
            epochs=config.epochs, minibatches=config.minibatches,
            sequences=config.network.recurrent != "none")
        state = base.finish(state, batch, rollout, learned)
        return state, metrics | value_metrics(rollout.value, target), ()

    return base.agent(learn)


def loss_terms(config: Config, policy: Distribution, value: Float[Array, "T b"], data: Minibatch,
               epsilon: Float[Array, ""]) -> dict[str, Float[Array, "T b"]]:
    """Return the per-sample terms of the loss and of its diagnostics.

    policy, value: the distribution and the value that the current parameters give for
    `data.inputs`.
    """
    advantage = standardize(data.advantage) if config.normalize_advantage else data.advantage
    log_ratio = policy.log_prob(data.action) - data.log_prob
    if config.clip_value:
        value_loss = clipped_value(value, data.value, data.target, epsilon=epsilon)
    else:
        value_loss = 0.5 * jnp.square(value - data.target)
    return {
        "policy_loss": ppo_clip(log_ratio, advantage, epsilon=epsilon),
        "value_loss": value_loss,
        "entropy": policy.entropy(),
        "approx_kl": approx_kl(log_ratio),
        "clip_fraction": clip_fraction(log_ratio, epsilon=epsilon),
    }


PPO = Algorithm(Config, make_agent, "on_policy")
