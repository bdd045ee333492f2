"""DDPG and TD3. Lillicrap et al. 2016, arXiv:1509.02971; Fujimoto et al. 2018, arXiv:1802.09477.

repeat: act by mu(s) + noise, into the replay
  U times: a batch (s, a, R, g, s'), R = n rewards, g = gamma^m, 0 after a death
    a' = clip(mu-(s') + clip(e, -c, c)),  e ~ N(0, sigma);   y = R + g min_i Q-_i(s', a')
    theta_i <- Adam(mean[w (Q_i(s, a) - y)^2] / 2)
    every d-th time:  phi <- Adam(mean[-Q_1(s, mu(s))]);   mu-, Q- <- (1 - tau) mu-, Q- + tau mu, Q

mu is the policy, Q-, mu- target networks, w importance weights; the mean |error| of the critics becomes the priority.
DDPG is one critic, sigma = 0, d = 1. TD3 is the same with three switches turned: `critics` 2, `target_noise` 0.2,
`policy_delay` 2. Exploration noise is Gaussian as TD3's; `noise_correlation` makes it an AR(1) process of equal width,
which is what DDPG's Ornstein-Uhlenbeck process is: theta = 0.15 corresponds to 0.85. All noise is in units of half the
action's range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.spaces import Box
from jaxrl.blocks.exploration import ar1_noise, perturb
from jaxrl.blocks.networks.critics import CriticsConfig, Optimizers, fit, policy_critics
from jaxrl.blocks.optim import soft_update
from jaxrl.declare import defaults, hyper, static
from jaxrl.types import Agent, Algorithm, EnvSpec


@dataclass(frozen=True)
class Config(defaults(CriticsConfig, critics=1)):
    """Settings."""

    noise: float = hyper(0.1, low=0.0, high=10.0, help="standard deviation of exploration, in half action ranges")
    target_noise: float = hyper(0.0, low=0.0, high=10.0, help="standard deviation that smooths the target's action")
    target_noise_clip: float = hyper(0.5, low=0.0, high=10.0, help="the most it may be off")
    policy_delay: int = static(1, low=1, high=10**6, help="gradient steps of the critics for one of policy and targets")

    def problems(self, spec: EnvSpec) -> list[str]:
        """What does not fit together, in words."""
        found = super().problems(spec)
        if not isinstance(spec.action, Box):
            found.append(f"{{algo}} needs a Box action space, {{env}} has {spec.action}. Try: {{others}}")
        return found


@dataclass(frozen=True)
class TD3Config(defaults(Config, critics=2, target_noise=0.2, policy_delay=2)):
    """Twin critics, target policy smoothing, delayed updates. Fujimoto et al. 2018, arXiv:1802.09477."""


class State(NamedTuple):
    params: Any               # {"policy", "critics"}
    target: Any               # the same
    optimizer: Any            # the same
    observation: Any          # running moments, () when off
    updates: jax.Array        # int32 gradient steps done


class Actor(NamedTuple):
    params: Any
    observation: Any


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """DDPG or TD3 for environments like `spec`: pure functions over what varies."""
    size = math.prod(spec.action.shape)
    network = policy_critics(config, spec, size)

    def policy(params, inputs):
        return jnp.tanh(network.outputs(params, inputs))

    def init(key, hyper):
        params = network.init(key)
        optimizer = Optimizers(hyper, 0.0).init(params)
        return State(params, params, optimizer, network.moments(), jnp.zeros((), jnp.int32))

    def explore(actor, hyper, carry, inputs, progress, key):
        carry, noise = ar1_noise(carry, key, inputs.first, rho=hyper.noise_correlation, sigma=hyper.noise)
        u = policy(actor.params, network.observe(actor.observation, inputs))
        return network.action(perturb(u, noise, -1.0, 1.0)), carry, {}

    def act(actor, carry, inputs, key):
        return network.action(policy(actor.params, network.observe(actor.observation, inputs))), carry

    def learn(state, hyper, batch, progress, key):
        optimizers, updates = Optimizers(hyper, progress), state.updates + 1
        inputs, following = (network.observe(state.observation, x) for x in (batch.start.input, batch.next_input))

        noise = hyper.target_noise * jax.random.normal(key, (*batch.reward.shape, size))
        noise = jnp.clip(noise, -hyper.target_noise_clip, hyper.target_noise_clip)
        u = perturb(policy(state.target["policy"], following), noise, -1.0, 1.0)
        later = network.values(state.target["critics"], following, u).min(axis=0)
        critics, fitted, metrics, error = fit(network, optimizers, state.params["critics"], state.optimizer["critics"],
                                              inputs, batch, batch.reward + batch.discount * later)

        def move(policy_params, optimizer, target):
            first = jax.tree.map(lambda x: x[:1], critics)
            loss = lambda params: (-network.values(first, inputs, policy(params, inputs)).mean(), ())
            policy_params, optimizer, norm, (total, _) = optimizers.step(loss, policy_params, optimizer)
            target = soft_update(target, {"policy": policy_params, "critics": critics}, hyper.tau)
            scale = config.policy_delay          # so that the mean over all steps is the mean over the policy's
            return policy_params, optimizer, target, scale * total, scale * norm

        def stay(policy_params, optimizer, target):
            return policy_params, optimizer, target, 0.0 * metrics["loss"], 0.0 * metrics["loss"]

        policy_params, climbed, target, total, norm = jax.lax.cond(
            updates % config.policy_delay == 0, move, stay, state.params["policy"], state.optimizer["policy"],
            state.target)
        metrics |= {"policy_loss": total, "policy_grad_norm": norm}
        state = State({"policy": policy_params, "critics": critics}, target,
                      {"policy": climbed, "critics": fitted},
                      network.merge(state.observation, batch.start.input), updates)
        return state, metrics, error

    return Agent(init, lambda state: Actor(state.params["policy"], state.observation),
                 lambda batch: jnp.zeros((batch, size)), explore, act, learn, network.reads)


DDPG = Algorithm(Config, make_agent, "replay")
TD3 = Algorithm(TD3Config, make_agent, "replay")
