"""A2C, synchronous advantage actor-critic. Mnih et al. 2016, arXiv:1602.01783, algorithm S3.

This is the synchronous form: environments step in lockstep.

repeat: roll out T steps in B environments; A, G <- GAE(gamma, lambda)
  theta <- RMSprop(mean[-A log pi(a|s)] + c_v (V - G)^2 / 2 - c_e H)

lambda = 1 is the paper's n-step advantage. The epsilon of RMSprop is inside the root as in the
original (TensorFlow's form); outside the root A2C is unstable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxrl.blocks.losses.policy import standardize
from jaxrl.blocks.losses.returns import gae
from jaxrl.blocks.optim import rmsprop
from jaxrl.blocks.policy_gradient import (
    Learned,
    PolicyGradientConfig,
    State,
    policy_gradient,
    value_metrics,
)
from jaxrl.declare import Range, defaults, hyper, static
from jaxrl.types import Agent, Algorithm, EnvSpec, Metrics, Trajectory

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


@dataclass(frozen=True)
class Config(defaults(PolicyGradientConfig, num_envs=16, rollout_length=5, learning_rate=7e-4,
                      learning_rate_end=1.0, entropy_weight=0.0)):
    """Settings. The defaults are Stable-Baselines3's for classic control, with 16 environments."""

    lam: float = hyper(1.0, low=0.0, high=1.0, search=Range(0.8, 1.0),
                       help="trace decay lambda of GAE; 1: n-step advantages")
    normalize_advantage: bool = static(
        False, help="advantages with mean 0 and deviation 1 in each rollout")


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """Return A2C for environments that match `spec`."""
    base = policy_gradient(config, spec, rmsprop)

    def learn(state: State, hyper: Any, batch: Trajectory, progress: Float[Array, ""],
              key: PRNGKeyArray) -> tuple[State, Metrics, tuple]:
        rollout = base.read(state, hyper, batch)
        advantage, target = gae(
            rollout.reward, rollout.value, rollout.next_value, batch.terminated, batch.truncated,
            gamma=hyper.gamma, lam=hyper.lam)
        if config.normalize_advantage:
            advantage = standardize(advantage)

        def loss(params: Any) -> tuple[Float[Array, ""], Metrics]:
            return base.loss(params, hyper, batch.carry0, rollout.inputs, batch.action,
                             advantage=advantage, target=target)

        learned = Learned(state.params, state.optimizer)
        learned, metrics = base.step(loss, learned, hyper, progress)
        state = base.finish(state, batch, rollout, learned)
        return state, metrics | value_metrics(rollout.value, target), ()

    return base.agent(learn)


A2C = Algorithm(Config, make_agent, "on_policy")
