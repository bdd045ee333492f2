"""PG: REINFORCE with a baseline. Williams 1992; Sutton and Barto 2018, section 13.4.

Williams: Machine Learning 8.

repeat: roll out T steps in B environments
  G_t <- sum_{k>=t} gamma^(k-t) r_k, to the end of the episode
  theta <- Adam(mean[-(G - b(s)) log pi(a|s)] + c_v (b(s) - G)^2 / 2 - c_e H), G - b(s) whitened

The factor gamma^t of the theorem is dropped, as is usual. Where the rollout or a time limit cuts an
episode, the return continues with b of the observation that really followed: counting complete
episodes only would favor short ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxrl.blocks.losses.policy import standardize
from jaxrl.blocks.losses.returns import discounted_returns
from jaxrl.blocks.optim import adam
from jaxrl.blocks.policy_gradient import (
    Learned,
    PolicyGradientConfig,
    State,
    policy_gradient,
    value_metrics,
)
from jaxrl.declare import defaults, static
from jaxrl.types import Agent, Algorithm, EnvSpec, Metrics, Trajectory

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


@dataclass(frozen=True)
class Config(defaults(PolicyGradientConfig, num_envs=8, rollout_length=128, learning_rate=3e-3,
                      entropy_weight=0.0)):
    """Settings."""

    normalize_advantage: bool = static(
        True, help="advantages with mean 0 and deviation 1 in each rollout")


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """Return PG for environments that match `spec`."""
    base = policy_gradient(config, spec, adam)

    def learn(state: State, hyper: Any, batch: Trajectory, progress: Float[Array, ""],
              key: PRNGKeyArray) -> tuple[State, Metrics, tuple]:
        rollout = base.read(state, hyper, batch)
        returns = discounted_returns(
            rollout.reward, rollout.next_value, batch.terminated, batch.truncated,
            gamma=hyper.gamma)
        advantage = returns - rollout.value
        if config.normalize_advantage:
            advantage = standardize(advantage)

        def loss(params: Any) -> tuple[Float[Array, ""], Metrics]:
            return base.loss(params, hyper, batch.carry0, rollout.inputs, batch.action,
                             advantage=advantage, target=returns)

        learned = Learned(state.params, state.optimizer)
        learned, metrics = base.step(loss, learned, hyper, progress)
        state = base.finish(state, batch, rollout, learned)
        return state, metrics | value_metrics(rollout.value, returns), ()

    return base.agent(learn)


PG = Algorithm(Config, make_agent, "on_policy")
