"""What methods that climb the policy gradient share: a policy and a value that act, read a rollout and take steps.

An algorithm adds what its paper is about: the advantage, the loss, and how often it passes over its rollout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl.blocks import normalize
from jaxrl.blocks.losses.policy import explained_variance
from jaxrl.blocks.networks.actor_critic import NetworkConfig, actor_critic
from jaxrl.blocks.optim import flat_norm, scheduled
from jaxrl.declare import Range, hyper, log_range, nested, static
from jaxrl.types import Agent, EnvSpec, Input, Metrics, Trajectory


@dataclass(frozen=True)
class PolicyGradientConfig:
    """Settings that all of them have; an algorithm gives defaults of its own (`declare.defaults`) and adds fields."""

    num_envs: int = static(4, low=1, high=10**7, help="parallel environments B")
    rollout_length: int = static(128, low=1, high=10**7, help="steps T of each environment per update")
    learning_rate: float = hyper(2.5e-4, low=0.0, high=1.0, search=log_range(1e-5, 1e-2), help="optimiser's step size")
    learning_rate_end: float = hyper(0.0, low=0.0, high=1.0, help="fraction of it left at the end of the schedule")
    gamma: float = hyper(0.99, low=0.0, high=1.0, search=Range(0.9, 0.999), help="discount factor")
    entropy_weight: float = hyper(0.01, low=0.0, high=10.0, search=log_range(1e-4, 0.1), help="entropy bonus c_e")
    value_weight: float = hyper(0.5, low=0.0, high=100.0, search=Range(0.1, 1.0), help="value loss weight c_v")
    max_grad_norm: float = hyper(0.5, low=0.0, high=1e9, search=log_range(0.1, 10.0), help="global gradient norm clip")
    normalize_observation: bool = static(False, help="by running mean and deviation, clipped at 10")
    normalize_reward: bool = static(False, help="by the running deviation of the discounted return, clipped at 10")
    network: NetworkConfig = nested(NetworkConfig)

    def problems(self, spec: EnvSpec) -> list[str]:
        """What does not fit together, in words."""
        found = self.network.problems(spec)
        if self.num_envs * self.rollout_length >= 2**31:
            found.append(f"num_envs x rollout_length = {self.num_envs} x {self.rollout_length} is more than an update "
                         "can hold")
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
    """A Trajectory as the learner reads it, [T, B]: under the statistics that it was collected with."""

    inputs: Input              # normalised
    reward: jax.Array          # scaled
    value: jax.Array           # V of each input
    next_value: jax.Array      # V of what really followed
    scale: Any                 # the reward's statistics, this rollout included


class PolicyGradient(NamedTuple):
    """The shared parts, bound to a config and an EnvSpec.

    network   ActorCritic
    read      (State, hyper, Trajectory) -> Rollout
    step      (loss, (params, optimizer), hyper, progress, *args) -> ((params, optimizer), metrics): one gradient step
              on loss(params, hyper, *args) -> (scalar, metrics)
    loss      (params, hyper, carry0, Input, action, advantage, target) -> (scalar, metrics): the vanilla one,
              mean[-A log pi(a|s)] + c_v (V - target)^2 / 2 - c_e H
    finish    (State, Trajectory, Rollout, (params, optimizer)) -> State, all statistics merged
    agent     (learn) -> Agent
    """

    network: Any
    read: Callable
    step: Callable
    loss: Callable
    finish: Callable
    agent: Callable


def policy_gradient(config: PolicyGradientConfig, spec: EnvSpec, optimizer: Callable) -> PolicyGradient:
    """`optimizer`: adam or rmsprop of optim.py."""
    network = actor_critic(config.network, spec)

    def normalized(moments, inputs):
        inputs = network.reads(inputs)
        return inputs._replace(obs=normalize.normalize(moments, inputs.obs)) if config.normalize_observation else inputs

    def init(key, hyper):
        params = network.init(key)
        return State(
            params, scheduled(optimizer, hyper, 0.0).init(params),
            normalize.init(spec.observation) if config.normalize_observation else (),
            normalize.RewardScale.init(config.num_envs) if config.normalize_reward else ())

    def actor(state):
        return Actor(state.params["actor"], state.observation)

    def act(actor, carry, inputs):
        time = lambda tree: jax.tree.map(lambda x: x[None], tree)
        policy, carry = network.policy(actor.params, carry, time(normalized(actor.observation, inputs)))
        return jax.tree.map(lambda x: x[0], policy), carry

    def explore(actor, hyper, carry, inputs, progress, key):
        policy, carry = act(actor, carry, inputs)
        action = policy.sample(key)
        return action, carry, {"log_prob": policy.log_prob(action)}

    def greedy(actor, carry, inputs, key):
        policy, carry = act(actor, carry, inputs)
        return policy.mode(), carry

    def read(state, hyper, batch: Trajectory):
        reward, scale = batch.reward, state.reward
        if config.normalize_reward:
            scale = scale.update(reward, batch.terminated | batch.truncated, hyper.gamma)
            reward = scale.apply(reward)
        inputs = normalized(state.observation, batch.input)
        value, next_value = network.values(
            state.params, batch.carry0, inputs, normalized(state.observation, batch.final_input))
        return Rollout(inputs, reward, value, next_value, scale)

    def step(loss, learned, hyper, progress, *args):
        params, opt = learned
        gradient, metrics = jax.grad(loss, has_aux=True)(params, hyper, *args)
        update, opt = scheduled(optimizer, hyper, progress).update(gradient, opt, params)
        return (optax.apply_updates(params, update), opt), metrics | {"grad_norm": flat_norm(gradient)}

    def loss(params, hyper, carry0, inputs, action, advantage, target):
        policy, value = network.both(params, carry0, inputs)
        return objective({
            "policy_loss": -policy.log_prob(action) * advantage, "value_loss": 0.5 * jnp.square(value - target),
            "entropy": policy.entropy()}, hyper)

    def finish(state, batch, seen, learned):
        moments = state.observation
        if config.normalize_observation:      # only now: rollout and update have to see the same statistics
            moments = normalize.update(moments, batch.input.obs)
        return State(*learned, moments, seen.scale)

    def agent(learn):
        return Agent(init, actor, network.carry, explore, greedy, learn)

    return PolicyGradient(network, read, step, loss, finish, agent)


def objective(terms: Metrics, hyper: Any) -> tuple[jax.Array, Metrics]:
    """The loss to descend and all means as metrics, of per-sample terms that hold policy_loss, value_loss, entropy."""
    stacked = jnp.stack(list(terms.values()))
    means = dict(zip(terms, stacked.mean(axis=tuple(range(1, stacked.ndim)))))             # one reduction
    total = means["policy_loss"] + hyper.value_weight * means["value_loss"] - hyper.entropy_weight * means["entropy"]
    return total, means | {"loss": total}


def value_metrics(value: jax.Array, target: jax.Array) -> Metrics:
    """How good the value was before the update."""
    return {"value": value.mean(), "explained_variance": explained_variance(value, target)}
