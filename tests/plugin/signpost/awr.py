"""AWR: advantage-weighted regression. Peng et al. 2019, arXiv:1910.00177, on-policy.

repeat: roll out T steps in B environments; A, G <- GAE(gamma, lambda)
  theta <- Adam(mean[-min(exp(A / beta), w_max) log pi(a|s)] + c_v (V - G)^2 / 2 - c_e H)
"""

from dataclasses import dataclass

import jax.numpy as jnp

from jaxrl.blocks.losses.returns import gae
from jaxrl.blocks.optim import adam
from jaxrl.blocks.policy_gradient import PolicyGradientConfig, policy_gradient, value_metrics
from jaxrl.declare import Range, defaults, hyper, log_range
from jaxrl.types import Agent, Algorithm, EnvSpec


@dataclass(frozen=True)
class Config(defaults(PolicyGradientConfig, num_envs=16, rollout_length=16, learning_rate=3e-3,
                      entropy_weight=0.0)):
    """Settings beside those that all methods with a policy and a value share."""

    lam: float = hyper(0.95, low=0.0, high=1.0, search=Range(0.8, 1.0), help="GAE trace lambda")
    temperature: float = hyper(0.5, low=1e-3, high=1e3, search=log_range(0.05, 5.0),
                               help="temperature beta of the weights; less is greedier")
    max_weight: float = hyper(20.0, low=1.0, high=1e6, help="largest weight w_max")


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """AWR for environments like `spec`."""
    base = policy_gradient(config, spec, adam)

    def learn(state, hyper, batch, progress, key):
        seen = base.read(state, hyper, batch)
        advantage, target = gae(seen.reward, seen.value, seen.next_value, batch.terminated, batch.truncated,
                                gamma=hyper.gamma, lam=hyper.lam)
        weight = jnp.minimum(jnp.exp(advantage / hyper.temperature), hyper.max_weight)
        learned, metrics = base.step(base.loss, (state.params, state.optimizer), hyper, progress, batch.carry0,
                                     seen.inputs, batch.action, weight, target)
        return base.finish(state, batch, seen, learned), metrics | value_metrics(seen.value, target), ()

    return base.agent(learn)


AWR = Algorithm(Config, make_agent, "on_policy")
