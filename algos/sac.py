"""SAC. Haarnoja et al. 2018, arXiv:1812.05905; for discrete actions Christodoulou 2019, arXiv:1910.07207.

repeat: act by a ~ pi(.|s), into the replay
  U times: a batch (s, a, R, g, s'), R = n rewards, g = gamma^m, 0 after a death
    y = R + g V-(s'),   V(s) = E[min_i Q_i(s, a) - alpha log pi(a|s)],  a ~ pi;  V- the same with target critics Q-
    theta_i <- Adam(mean[w (Q_i(s, a) - y)^2] / 2)
    phi <- Adam(mean[-V(s)]);   log alpha <- Adam(mean[alpha (H(s) - H*)]),  H the policy's entropy
    Q- <- (1 - tau) Q- + tau Q

w are importance weights; the mean |error| of the critics becomes the priority. The action space chooses the policy:

  Box        a tanh-normal; V and H from one sample, whose gradient goes through it; H* = -entropy_scale dim(A)
  Discrete   a categorical over the legal actions; V and H are sums over these; H* = entropy_ratio log(their number)

Actions of a Box, and so its entropy, are in units of half its range. The paper's ratio for Discrete, 0.98, asks for
play so random that it earns little where a few wrong actions end an episode. n rewards do not count their entropy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.spaces import Box, Discrete
from jaxrl.blocks.exploration import ar1_noise
from jaxrl.blocks.losses.value import soft_value
from jaxrl.blocks.networks.critics import CriticsConfig, Optimizers, fit, policy_critics
from jaxrl.blocks.networks.distributions import action_head, squash, tanh_normal_head
from jaxrl.blocks.optim import soft_update
from jaxrl.declare import hyper
from jaxrl.types import Agent, Algorithm, EnvSpec


@dataclass(frozen=True)
class Config(CriticsConfig):
    """Settings."""

    temperature: float = hyper(1.0, low=1e-6, high=1e6, help="alpha at the start: what entropy is worth; learned")
    entropy_scale: float = hyper(1.0, low=-100.0, high=100.0, help="of a Box: the entropy to keep is minus this for "
                                                                   "each entry, in half action ranges")
    entropy_ratio: float = hyper(0.3, low=0.0, high=1.0, help="of Discrete: the entropy to keep, as a part of that of "
                                                              "random play")

    def problems(self, spec: EnvSpec) -> list[str]:
        """What does not fit together, in words."""
        found = super().problems(spec)
        if not isinstance(spec.action, Box | Discrete):
            found.append(f"{{algo}} needs a Box or a Discrete action space, {{env}} has {spec.action}. "
                         "Try: {others}")
        return found


class State(NamedTuple):
    params: Any               # {"policy", "critics", "log_alpha"}
    target: Any               # of the critics
    optimizer: Any            # as params
    observation: Any          # running moments, () when off


class Actor(NamedTuple):
    params: Any
    observation: Any


class Policy(NamedTuple):
    """What differs between kinds of actions, for a batch [B] of outputs of the policy network.

    carry  (batch) -> memory of the noise, or ()
    sample (outputs, hyper, carry, Input, key) -> (action of the space, carry)
    mode   (outputs, Input) -> action of the space
    soft   (outputs, Input, q, alpha, key) -> (soft value V [B], entropy H [B]); q: (u) -> [B], or (None) -> [B, n]
    goal   (hyper, Input) -> H*, a number or [B]
    """

    carry: Callable
    sample: Callable
    mode: Callable
    soft: Callable
    goal: Callable


def continuous(size: int, scaled: Callable) -> Policy:
    """A tanh-normal over vectors of `size` in [-1, 1]; scaled: (u) -> action of the space."""
    head = tanh_normal_head(Box(-1.0, 1.0, (size,))).distribution

    def sample(outputs, hyper, carry, inputs, key):
        normal = head(outputs)
        carry, noise = ar1_noise(carry, key, inputs.first, rho=hyper.noise_correlation, sigma=1.0)
        return scaled(squash(normal.mean + jnp.exp(normal.log_std) * noise, -1.0, 1.0)), carry

    def soft(outputs, inputs, q, alpha, key):
        u, log_prob = head(outputs).sample_and_log_prob(key)
        return q(u) - alpha * log_prob, -log_prob

    return Policy(lambda batch: jnp.zeros((batch, size)), sample, lambda outputs, inputs: scaled(head(outputs).mode()),
                  soft, lambda hyper, inputs: -hyper.entropy_scale * size)


def discrete(space: Discrete) -> Policy:
    """A categorical over the legal actions of `space`, and exact expectations."""
    head = action_head(space).distribution

    def sample(outputs, hyper, carry, inputs, key):
        return head(outputs, None, inputs.mask).sample(key), carry

    def soft(outputs, inputs, q, alpha, key):
        log_prob = jax.nn.log_softmax(head(outputs, None, inputs.mask).logits)
        return soft_value(q(None), log_prob, alpha), soft_value(jnp.zeros_like(log_prob), log_prob, 1.0)

    def goal(hyper, inputs):
        legal = space.n if inputs.mask is None else jnp.sum(inputs.mask, axis=-1)
        return hyper.entropy_ratio * jnp.log(jnp.float32(legal))

    return Policy(lambda batch: (), sample, lambda outputs, inputs: head(outputs, None, inputs.mask).mode(), soft, goal)


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """SAC for environments like `spec`: pure functions over what varies."""
    box, size = isinstance(spec.action, Box), math.prod(spec.action.shape)
    network = policy_critics(config, spec, 2 * size if box else spec.action.n)
    policy = continuous(size, network.action) if box else discrete(spec.action)

    def outputs(actor, inputs):
        return network.outputs(actor.params, network.observe(actor.observation, inputs))

    def init(key, hyper):
        params = network.init(key) | {"log_alpha": jnp.log(hyper.temperature)}
        return State(params, params["critics"], Optimizers(hyper, 0.0).init(params), network.moments())

    def explore(actor, hyper, carry, inputs, progress, key):
        return *policy.sample(outputs(actor, inputs), hyper, carry, inputs, key), {}

    def act(actor, carry, inputs, key):
        return policy.mode(outputs(actor, inputs), inputs), carry

    def learn(state, hyper, batch, progress, key):
        optimizers, (here, there) = Optimizers(hyper, progress), jax.random.split(key)
        inputs, following = (network.observe(state.observation, x) for x in (batch.start.input, batch.next_input))
        alpha = jnp.exp(state.params["log_alpha"])

        def soft(params, critics, inputs, key):
            q = lambda u: network.values(critics, inputs, u).min(axis=0)
            return policy.soft(network.outputs(params, inputs), inputs, q, alpha, key)

        later, _ = soft(state.params["policy"], state.target, following, there)
        critics, fitted, metrics, error = fit(network, optimizers, state.params["critics"], state.optimizer["critics"],
                                              inputs, batch, batch.reward + batch.discount * later)

        def loss(params):
            value, entropy = soft(params, critics, inputs, here)
            return -value.mean(), entropy

        params, climbed, norm, (total, entropy) = optimizers.step(loss, state.params["policy"],
                                                                  state.optimizer["policy"])
        excess = jnp.mean(entropy - policy.goal(hyper, inputs))
        log_alpha, warmed, _, _ = optimizers.step(lambda x: (jnp.exp(x) * excess, ()), state.params["log_alpha"],
                                                  state.optimizer["log_alpha"])
        metrics |= {"policy_loss": total, "policy_grad_norm": norm, "entropy": entropy.mean(), "temperature": alpha}
        state = State({"policy": params, "critics": critics, "log_alpha": log_alpha},
                      soft_update(state.target, critics, hyper.tau),
                      {"policy": climbed, "critics": fitted, "log_alpha": warmed},
                      network.merge(state.observation, batch.start.input))
        return state, metrics, error

    return Agent(init, lambda state: Actor(state.params["policy"], state.observation), policy.carry, explore, act,
                 learn, network.reads)


SAC = Algorithm(Config, make_agent, "replay")
