"""PG: REINFORCE with a baseline. Williams 1992, Machine Learning 8; Sutton and Barto 2018, section 13.4.

repeat: roll out T steps in B environments; G_t <- sum_{k>=t} gamma^(k-t) r_k, to the end of the episode
  theta <- Adam(mean[-(G - b(s)) log pi(a|s)] + c_v (b(s) - G)^2 / 2 - c_e H), G - b(s) whitened

The factor gamma^t of the theorem is dropped, as everybody does. What the rollout or a time limit cuts off goes on with
b of what really followed: counting complete episodes only would favour the short ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxrl.blocks.losses.policy import standardize
from jaxrl.blocks.losses.returns import discounted_returns
from jaxrl.blocks.optim import adam
from jaxrl.blocks.policy_gradient import PolicyGradientConfig, policy_gradient, value_metrics
from jaxrl.declare import defaults, static
from jaxrl.types import Agent, Algorithm, EnvSpec, Trajectory


@dataclass(frozen=True)
class Config(defaults(PolicyGradientConfig, num_envs=8, rollout_length=128, learning_rate=3e-3, entropy_weight=0.0)):
    """Settings."""

    normalize_advantage: bool = static(True, help="whiten it over the rollout")


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """PG for environments like `spec`: pure functions over what varies."""
    base = policy_gradient(config, spec, adam)

    def learn(state, hyper, batch: Trajectory, progress, key):
        seen = base.read(state, hyper, batch)
        returns = discounted_returns(seen.reward, seen.next_value, batch.terminated, batch.truncated, gamma=hyper.gamma)
        advantage = returns - seen.value
        if config.normalize_advantage:
            advantage = standardize(advantage)
        learned, metrics = base.step(base.loss, (state.params, state.optimizer), hyper, progress, batch.carry0,
                                     seen.inputs, batch.action, advantage, returns)
        return base.finish(state, batch, seen, learned), metrics | value_metrics(seen.value, returns), ()

    return base.agent(learn)


PG = Algorithm(Config, make_agent, "on_policy")
