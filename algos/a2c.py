"""A2C, synchronous advantage actor-critic. Mnih et al. 2016, arXiv:1602.01783, algorithm S3, in lockstep.

repeat: roll out T steps in B environments; A, G <- GAE(gamma, lambda); lambda = 1 is the paper's n-step advantage
  theta <- RMSprop(mean[-A log pi(a|s)] + c_v (V - G)^2 / 2 - c_e H)

The epsilon of RMSprop sits inside the root as in the original (TensorFlow's form); outside it A2C is unstable.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxrl.blocks.losses.policy import standardize
from jaxrl.blocks.losses.returns import gae
from jaxrl.blocks.optim import rmsprop
from jaxrl.blocks.policy_gradient import PolicyGradientConfig, policy_gradient, value_metrics
from jaxrl.declare import Range, defaults, hyper, static
from jaxrl.types import Agent, Algorithm, EnvSpec, Trajectory


@dataclass(frozen=True)
class Config(defaults(PolicyGradientConfig, num_envs=16, rollout_length=5, learning_rate=7e-4, learning_rate_end=1.0,
                      entropy_weight=0.0)):
    """Settings; the defaults are those of Stable-Baselines3 for classic control, with 16 environments."""

    lam: float = hyper(1.0, low=0.0, high=1.0, search=Range(0.8, 1.0), help="GAE trace; 1: n-step advantages")
    normalize_advantage: bool = static(False, help="per rollout")


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """A2C for environments like `spec`: pure functions over what varies."""
    base = policy_gradient(config, spec, rmsprop)

    def learn(state, hyper, batch: Trajectory, progress, key):
        seen = base.read(state, hyper, batch)
        advantage, target = gae(seen.reward, seen.value, seen.next_value, batch.terminated, batch.truncated,
                                gamma=hyper.gamma, lam=hyper.lam)
        if config.normalize_advantage:
            advantage = standardize(advantage)
        learned, metrics = base.step(base.loss, (state.params, state.optimizer), hyper, progress, batch.carry0,
                                     seen.inputs, batch.action, advantage, target)
        return base.finish(state, batch, seen, learned), metrics | value_metrics(seen.value, target), ()

    return base.agent(learn)


A2C = Algorithm(Config, make_agent, "on_policy")
