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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from envs_jax import spaces
from jaxrl.blocks import normalize
from jaxrl.blocks.losses import approx_kl, clip_fraction, clipped_value, explained_variance, ppo_clip, standardize
from jaxrl.blocks.minibatch import sgd
from jaxrl.blocks.networks import NetworkConfig, actor_critic
from jaxrl.blocks.optim import adam, flat_norm
from jaxrl.blocks.returns import gae
from jaxrl.blocks.schedules import linear
from jaxrl.declare import Range, hyper, log_range, nested, static
from jaxrl.types import Agent, Algorithm, EnvSpec, Trajectory


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the 37 details for classic control."""

    num_envs: int = static(4, low=1, help="parallel environments B")
    rollout_length: int = static(128, low=1, help="steps T of each environment per update")
    epochs: int = static(4, low=1, help="passes K over a rollout")
    minibatches: int = static(4, low=1, help="minibatches M per epoch")
    learning_rate: float = hyper(2.5e-4, low=0.0, high=1.0, search=log_range(1e-5, 1e-2), help="Adam step size")
    learning_rate_end: float = hyper(0.0, low=0.0, high=1.0, help="fraction of it left at the end of the schedule")
    gamma: float = hyper(0.99, low=0.0, high=1.0, search=Range(0.9, 0.999), help="discount factor")
    lam: float = hyper(0.95, low=0.0, high=1.0, search=Range(0.8, 1.0), help="GAE trace")
    clip: float = hyper(0.2, low=0.0, high=10.0, search=Range(0.05, 0.4), help="clip range epsilon of the ratio")
    clip_end: float = hyper(1.0, low=0.0, high=1.0, help="fraction of it left at the end of the schedule")
    entropy_weight: float = hyper(0.01, low=0.0, high=10.0, search=log_range(1e-4, 0.1), help="entropy bonus c_e")
    value_weight: float = hyper(0.5, low=0.0, high=100.0, search=Range(0.1, 1.0), help="value loss weight c_v")
    max_grad_norm: float = hyper(0.5, low=0.0, high=1e9, search=log_range(0.1, 10.0), help="global gradient norm clip")
    clip_value: bool = static(True, help="clip the value loss around the value before the update, too")
    normalize_advantage: bool = static(True, help="per minibatch")
    normalize_observation: bool = static(False, help="by running mean and deviation, clipped at 10")
    normalize_reward: bool = static(False, help="by the running deviation of the discounted return, clipped at 10")
    network: NetworkConfig = nested(NetworkConfig)

    def problems(self, spec: EnvSpec) -> list[str]:
        """What does not fit together, in words."""
        items, what = self.num_envs * self.rollout_length, f"num_envs x rollout_length = {self.num_envs} x " \
                                                           f"{self.rollout_length}"
        if self.network.recurrent != "none":
            items, what = self.num_envs, "num_envs"
        found = []
        if spec.agents is not None:
            found.append(f"{{algo}} controls one agent, {{env}} has {spec.agents}")
        if items % self.minibatches:
            near = [m for m in range(1, items + 1) if items % m == 0]
            near = sorted(near, key=lambda m: abs(m - self.minibatches))[:2]
            found.append(f"{what} = {items:,} does not divide into {self.minibatches} minibatches. "
                         f"Nearest: {', '.join(map(str, sorted(near)))}")
        if self.normalize_observation and not _floats(spec.observation):
            found.append(f"algo.normalize_observation needs Box observations, the environment has {spec.observation}")
        if self.network.torso == "cnn" and len(getattr(spec.observation, "shape", ())) != 3:
            found.append(f"algo.network.torso=cnn needs [height, width, channels] observations, the environment has "
                         f"{spec.observation}. Try: algo.network.torso=mlp")
        return found


class State(NamedTuple):
    params: Any
    optimizer: Any
    observation: Any      # running moments, () when off
    reward: Any           # running scale of the discounted return, () when off


class Actor(NamedTuple):
    params: Any
    observation: Any


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """PPO for environments like `spec`: pure functions over what varies."""
    network = actor_critic(config.network, spec)

    def optimizer(hyper, progress=0.0):
        rate = linear(hyper.learning_rate, hyper.learning_rate_end, progress)
        return adam(rate, max_grad_norm=hyper.max_grad_norm, flat=True)

    def normalized(moments, inputs):
        inputs = network.reads(inputs)
        return inputs._replace(obs=normalize.normalize(moments, inputs.obs)) if config.normalize_observation else inputs

    def init(key, hyper):
        params = network.init(key)
        return State(
            params, optimizer(hyper).init(params),
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

    def loss(params, hyper, epsilon, carry0, inputs, action, log_prob, value, advantage, target):
        policy, new_value = network.both(params, carry0, inputs)
        if config.normalize_advantage:
            advantage = standardize(advantage)
        log_ratio = policy.log_prob(action) - log_prob
        value_loss = clipped_value(new_value, value, target, epsilon=epsilon) if config.clip_value \
            else 0.5 * jnp.square(new_value - target)
        terms = {
            "policy_loss": ppo_clip(log_ratio, advantage, epsilon=epsilon), "value_loss": value_loss,
            "entropy": policy.entropy(), "approx_kl": approx_kl(log_ratio),
            "clip_fraction": clip_fraction(log_ratio, epsilon=epsilon)}
        means = dict(zip(terms, jnp.stack([x.reshape(-1) for x in terms.values()]).mean(axis=1)))   # one reduction
        total = means["policy_loss"] + hyper.value_weight * means["value_loss"] \
            - hyper.entropy_weight * means["entropy"]
        return total, means | {"loss": total}

    def learn(state, hyper, batch: Trajectory, progress, key):
        reward, reward_scale = batch.reward, state.reward
        if config.normalize_reward:
            reward_scale = reward_scale.update(reward, batch.terminated | batch.truncated, hyper.gamma)
            reward = reward_scale.apply(reward)
        inputs = normalized(state.observation, batch.input)
        value, next_value = network.values(
            state.params, batch.carry0, inputs, normalized(state.observation, batch.final_input))
        advantage, target = gae(
            reward, value, next_value, batch.terminated, batch.truncated, gamma=hyper.gamma, lam=hyper.lam)

        data = (inputs, batch.action, batch.extras["log_prob"], value, advantage, target)
        epsilon = linear(hyper.clip, hyper.clip_end, progress)
        optimize = optimizer(hyper, progress)

        def minibatch(carry, memory, data):
            params, opt = carry
            gradient, metrics = jax.grad(loss, has_aux=True)(params, hyper, epsilon, memory, *data)
            update, opt = optimize.update(gradient, opt, params)
            return (optax.apply_updates(params, update), opt), metrics | {"grad_norm": flat_norm(gradient)}

        (params, opt), metrics = sgd(
            minibatch, (state.params, state.optimizer), batch.carry0, data, key, epochs=config.epochs,
            minibatches=config.minibatches, sequences=config.network.recurrent != "none")
        moments = state.observation
        if config.normalize_observation:      # only now: rollout and update have to see the same statistics
            moments = normalize.update(moments, batch.input.obs)
        metrics |= {"value": value.mean(), "explained_variance": explained_variance(value, target)}
        return State(params, opt, moments, reward_scale), metrics, ()

    return Agent(init, actor, network.carry, explore, greedy, learn)


def _floats(space: Any) -> bool:
    leaves = jax.tree.leaves(space, is_leaf=lambda s: isinstance(s, spaces.Space))
    return all(isinstance(s, spaces.Box) for s in leaves)


PPO = Algorithm(Config, make_agent, "on_policy")
