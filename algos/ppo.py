"""PPO-clip. Schulman et al. 2017, arXiv:1707.06347, eq. 7.

repeat: roll out T steps in B environments; A, G <- GAE(gamma, lambda)
  for K epochs, M minibatches:
    theta <- Adam(mean[-min(rho A, clip(rho, 1-eps, 1+eps) A)] + c_v (V - G)^2 / 2 - c_e H)

Implementation details after Huang et al. 2022, "The 37 implementation details of PPO". A feed-forward network learns
from shuffled single steps, a recurrent one from whole sequences of shuffled environments, unrolled from the carry they
were collected with.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from jaxrl.blocks.losses.policy import approx_kl, clip_fraction, clipped_value, ppo_clip, standardize
from jaxrl.blocks.losses.returns import gae
from jaxrl.blocks.minibatch import problems as minibatch_problems
from jaxrl.blocks.minibatch import sgd
from jaxrl.blocks.optim import adam
from jaxrl.blocks.policy_gradient import PolicyGradientConfig, objective, policy_gradient, value_metrics
from jaxrl.blocks.schedules import linear
from jaxrl.declare import Range, hyper, static
from jaxrl.types import Agent, Algorithm, EnvSpec, Trajectory


@dataclass(frozen=True)
class Config(PolicyGradientConfig):
    """Settings; the defaults are those of the 37 details for classic control."""

    epochs: int = static(4, low=1, high=10**4, help="passes K over a rollout")
    minibatches: int = static(4, low=1, high=10**6, help="minibatches M per epoch")
    lam: float = hyper(0.95, low=0.0, high=1.0, search=Range(0.8, 1.0), help="GAE trace")
    clip: float = hyper(0.2, low=0.0, high=10.0, search=Range(0.05, 0.4), help="clip range epsilon of the ratio")
    clip_end: float = hyper(1.0, low=0.0, high=1.0, help="fraction of it left at the end of the schedule")
    clip_value: bool = static(True, help="clip the value loss around the value before the update, too")
    normalize_advantage: bool = static(True, help="per minibatch")

    def problems(self, spec: EnvSpec) -> list[str]:
        """What does not fit together, in words."""
        return super().problems(spec) + minibatch_problems(self)


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """PPO for environments like `spec`: pure functions over what varies."""
    base = policy_gradient(config, spec, adam)

    def loss(params, hyper, epsilon, carry0, inputs, action, log_prob, value, advantage, target):
        policy, new_value = base.network.both(params, carry0, inputs)
        if config.normalize_advantage:
            advantage = standardize(advantage)
        log_ratio = policy.log_prob(action) - log_prob
        value_loss = clipped_value(new_value, value, target, epsilon=epsilon) if config.clip_value \
            else 0.5 * jnp.square(new_value - target)
        return objective({
            "policy_loss": ppo_clip(log_ratio, advantage, epsilon=epsilon), "value_loss": value_loss,
            "entropy": policy.entropy(), "approx_kl": approx_kl(log_ratio),
            "clip_fraction": clip_fraction(log_ratio, epsilon=epsilon)}, hyper)

    def learn(state, hyper, batch: Trajectory, progress, key):
        seen = base.read(state, hyper, batch)
        advantage, target = gae(seen.reward, seen.value, seen.next_value, batch.terminated, batch.truncated,
                                gamma=hyper.gamma, lam=hyper.lam)
        data = (seen.inputs, batch.action, batch.extras["log_prob"], seen.value, advantage, target)
        epsilon = linear(hyper.clip, hyper.clip_end, progress)

        def minibatch(learned, carry0, data):
            return base.step(loss, learned, hyper, progress, epsilon, carry0, *data)

        learned, metrics = sgd(
            minibatch, (state.params, state.optimizer), batch.carry0, data, key, epochs=config.epochs,
            minibatches=config.minibatches, sequences=config.network.recurrent != "none")
        return base.finish(state, batch, seen, learned), metrics | value_metrics(seen.value, target), ()

    return base.agent(learn)


PPO = Algorithm(Config, make_agent, "on_policy")
