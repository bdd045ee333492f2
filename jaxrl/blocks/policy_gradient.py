"""The shared parts of policy-gradient methods: acting, reading a rollout, taking gradient steps.

An algorithm adds what its paper is about: the advantage, the loss, and the number of passes over a
rollout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.blocks import normalize
from jaxrl.blocks.losses.policy import explained_variance
from jaxrl.blocks.networks.actor_critic import ActorCritic, NetworkConfig, actor_critic
from jaxrl.blocks.networks.distributions import Distribution
from jaxrl.blocks.optim import descend, scheduled
from jaxrl.declare import Range, hyper, log_range, nested, static
from jaxrl.types import Agent, EnvSpec, Input, Learn, Metrics, Trajectory

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


@dataclass(frozen=True)
class PolicyGradientConfig:
    """Settings of all policy-gradient methods.

    An algorithm gives defaults of its own (`declare.defaults`) and adds fields.
    """

    num_envs: int = static(4, low=1, high=10**7, help="parallel environments B")
    rollout_length: int = static(
        128, low=1, high=10**7, help="environment steps T of each environment per update")
    learning_rate: float = hyper(
        2.5e-4, low=0.0, high=1.0, search=log_range(1e-5, 1e-2), help="step size of the optimizer")
    learning_rate_end: float = hyper(
        0.0, low=0.0, high=1.0,
        help="fraction of the learning rate left at the end of the schedule")
    gamma: float = hyper(
        0.99, low=0.0, high=1.0, search=Range(0.9, 0.999), help="discount factor")
    entropy_weight: float = hyper(
        0.01, low=0.0, high=10.0, search=log_range(1e-4, 0.1),
        help="weight c_e of the entropy bonus")
    value_weight: float = hyper(
        0.5, low=0.0, high=100.0, search=Range(0.1, 1.0), help="weight c_v of the value loss")
    max_grad_norm: float = hyper(
        0.5, low=0.0, high=1e9, search=log_range(0.1, 10.0),
        help="global norm above which gradients are scaled down")
    normalize_observation: bool = static(
        False, help="observations minus their running mean, over their running deviation, clipped "
                    "at 10")
    normalize_reward: bool = static(
        False, help="rewards over the running deviation of the discounted return, clipped at 10")
    network: NetworkConfig = nested(NetworkConfig)

    def problems(self, spec: EnvSpec) -> list[str]:
        """Return one message for each incompatible setting."""
        found = self.network.problems(spec)
        if self.num_envs * self.rollout_length >= 2**31:
            found.append(f"num_envs x rollout_length = {self.num_envs} x {self.rollout_length} is "
                         "more than an update can hold")
        if spec.agents is not None:
            found.append(f"{{algo}} controls one agent, {{env}} has {spec.agents}")
        if self.normalize_observation:
            found += normalize.problems(spec.observation)
        return found


class State(NamedTuple):
    """The AgentState."""

    params: Any
    optimizer: Any
    observation: Any      # running moments, () when off
    reward: Any           # running scale of the discounted return, () when off


class Actor(NamedTuple):
    """The part that acts."""

    params: Any
    observation: Any


class Rollout(NamedTuple):
    """A Trajectory as the learner reads it, [T, B]: under the statistics that acted."""

    inputs: Input              # normalized
    reward: jax.Array          # scaled
    value: jax.Array           # V of each input
    next_value: jax.Array      # V of what really followed
    scale: Any                 # the reward's statistics, this rollout included


class Learned(NamedTuple):
    """The arrays that gradient steps change."""

    params: Any
    opt_state: Any


@dataclass(frozen=True, eq=False)
class PolicyGradient:
    """The shared parts, bound to a config and an EnvSpec: pure functions."""

    config: PolicyGradientConfig
    spec: EnvSpec
    network: ActorCritic
    optimizer: Callable        # adam or rmsprop of optim.py

    def init(self, key: PRNGKeyArray, hyper: Any) -> State:
        """Return the state of a fresh learner."""
        config = self.config
        params = self.network.init(key)
        opt_state = scheduled(self.optimizer, hyper, 0.0).init(params)
        moments = normalize.init(self.spec.observation) if config.normalize_observation else ()
        scale = normalize.RewardScale.init(config.num_envs) if config.normalize_reward else ()
        return State(params, opt_state, moments, scale)

    def actor(self, state: State) -> Actor:
        """Return the part that acts."""
        return Actor(state.params["actor"], state.observation)

    def explore(self, actor: Actor, hyper: Any, carry: Any, inputs: Input, progress: jax.Array,
                key: PRNGKeyArray) -> tuple[Any, Any, dict[str, jax.Array]]:
        """Return (action, carry, extras) with an action drawn from the policy.

        extras["log_prob"] is its log-probability [B].
        """
        policy, carry = self._policy(actor, carry, inputs)
        action = policy.sample(key)
        return action, carry, {"log_prob": policy.log_prob(action)}

    def greedy(self, actor: Actor, carry: Any, inputs: Input, key: PRNGKeyArray) -> tuple[Any, Any]:
        """Return (action, carry) with the mode of the policy."""
        policy, carry = self._policy(actor, carry, inputs)
        return policy.mode(), carry

    def read(self, state: State, hyper: Any, batch: Trajectory) -> Rollout:
        """Return the trajectory with normalized inputs, scaled rewards and values."""
        reward = batch.reward
        scale = state.reward
        if self.config.normalize_reward:
            scale = scale.update(reward, batch.terminated | batch.truncated, hyper.gamma)
            reward = scale.apply(reward)
        inputs = self._normalized(state.observation, batch.input)
        final_inputs = self._normalized(state.observation, batch.final_input)
        value, next_value = self.network.values(state.params, batch.carry0, inputs, final_inputs)
        return Rollout(inputs, reward, value, next_value, scale)

    def loss(self, params: Any, hyper: Any, carry0: Any, inputs: Input, action: Any, *,
             advantage: Float[Array, "T B"], target: Float[Array, "T B"]
             ) -> tuple[Float[Array, ""], Metrics]:
        """Return (loss, metrics) with mean[-A log pi(a|s)] + c_v (V - target)^2 / 2 - c_e H.

        It backs `loss(params)` of A2C and PG; `carry0` is the recurrent state before the first
        step.
        """
        policy, value = self.network.both(params, carry0, inputs)
        return objective({
            "policy_loss": -policy.log_prob(action) * advantage,
            "value_loss": 0.5 * jnp.square(value - target),
            "entropy": policy.entropy()}, hyper)

    def step(self, loss: Callable[[Any], tuple[jax.Array, Metrics]], learned: Learned, hyper: Any,
             progress: jax.Array) -> tuple[Learned, Metrics]:
        """Take one gradient step down loss(params) -> (scalar, metrics)."""
        optimizer = scheduled(self.optimizer, hyper, progress)
        step = descend(loss, learned.params, learned.opt_state, optimizer)
        return Learned(step.params, step.opt_state), step.aux | {"grad_norm": step.grad_norm}

    def finish(self, state: State, batch: Trajectory, rollout: Rollout, learned: Learned) -> State:
        """Return the new state, with the statistics of the rollout merged into the running ones."""
        moments = state.observation
        if self.config.normalize_observation:   # only now: rollout and update need equal statistics
            moments = normalize.update(moments, batch.input.obs)
        return State(learned.params, learned.opt_state, moments, rollout.scale)

    def agent(self, learn: Learn) -> Agent:
        """Return an Agent that acts by the policy and learns by `learn`."""
        return Agent(init=self.init, actor=self.actor, carry=self.network.carry,
                     explore=self.explore, greedy=self.greedy, learn=learn)

    def _normalized(self, moments: Any, inputs: Input) -> Input:
        inputs = self.network.reads(inputs)
        if not self.config.normalize_observation:
            return inputs
        return inputs._replace(obs=normalize.normalize(moments, inputs.obs))

    def _policy(self, actor: Actor, carry: Any, inputs: Input) -> tuple[Distribution, Any]:
        """Return (distribution [B], carry) for Inputs [B]."""
        inputs = jax.tree.map(lambda x: x[None], self._normalized(actor.observation, inputs))
        policy, carry = self.network.policy(actor.params, carry, inputs)
        return jax.tree.map(lambda x: x[0], policy), carry


def policy_gradient(config: PolicyGradientConfig, spec: EnvSpec, optimizer: Callable
                    ) -> PolicyGradient:
    """Return the shared parts for a config and an EnvSpec.

    `optimizer`: adam or rmsprop of optim.py.
    """
    return PolicyGradient(config, spec, actor_critic(config.network, spec), optimizer)


def objective(terms: dict[str, Float[Array, "*batch"]], hyper: Any
              ) -> tuple[Float[Array, ""], Metrics]:
    """Return the loss to descend, and the means of all terms as metrics.

    terms: per-sample policy_loss, value_loss, entropy and whatever else is to be reported.
    """
    stacked = jnp.stack(list(terms.values()))
    means = dict(zip(terms, stacked.mean(axis=tuple(range(1, stacked.ndim)))))     # one reduction
    total = (means["policy_loss"] + hyper.value_weight * means["value_loss"]
             - hyper.entropy_weight * means["entropy"])
    return total, means | {"loss": total}


def value_metrics(value: Float[Array, "T B"], target: Float[Array, "T B"]) -> Metrics:
    """Return metrics of the value before the update."""
    return {"value": value.mean(), "explained_variance": explained_variance(value, target)}
