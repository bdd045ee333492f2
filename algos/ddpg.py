"""DDPG and TD3. Lillicrap et al. 2016, arXiv:1509.02971; Fujimoto et al. 2018, arXiv:1802.09477.

repeat: act by mu(s) + noise, into the replay
  U times: a batch (s, a, R, g, s'), R = n rewards, g = gamma^m, 0 after termination
    a' = clip(mu-(s') + clip(e, -c, c)),  e ~ N(0, sigma);   y = R + g min_i Q-_i(s', a')
    theta_i <- Adam(mean[w (Q_i(s, a) - y)^2] / 2)
    every d-th time:  phi <- Adam(mean[-Q_1(s, mu(s))])
                      mu-, Q- <- (1 - tau) mu-, Q- + tau mu, Q

mu is the policy, Q- and mu- are target networks, w importance weights; the mean |error| of the
critics becomes the priority. DDPG is one critic, sigma = 0, d = 1. TD3 is the same with three
switches: `critics` 2, `target_noise` 0.2, `policy_delay` 2. Exploration noise is Gaussian as in
TD3; `noise_correlation` makes it an AR(1) process of equal width, which is what DDPG's
Ornstein-Uhlenbeck process is: theta = 0.15 corresponds to 0.85. All noise is in units of half the
action's range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.spaces import Box
from jaxrl.blocks.exploration import ar1_noise, perturb
from jaxrl.blocks.networks.critics import (
    CriticsConfig,
    Optimizers,
    PolicyCritics,
    fit,
    policy_critics,
)
from jaxrl.blocks.optim import soft_update
from jaxrl.blocks.replay import Transitions
from jaxrl.declare import defaults, hyper, static
from jaxrl.types import Agent, Algorithm, EnvSpec, Input, Metrics

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


@dataclass(frozen=True)
class Config(defaults(CriticsConfig, critics=1)):
    """Settings."""

    noise: float = hyper(
        0.1, low=0.0, high=10.0,
        help="standard deviation of the exploration noise, in units of half the action range")
    target_noise: float = hyper(
        0.0, low=0.0, high=10.0,
        help="standard deviation of the noise that smooths the target action, in units of half the "
             "action range")
    target_noise_clip: float = hyper(
        0.5, low=0.0, high=10.0,
        help="largest absolute noise added to the target action, in units of half the action range")
    policy_delay: int = static(
        1, low=1, high=10**6,
        help="gradient steps of the critics per step of the policy and the target networks")

    def problems(self, spec: EnvSpec) -> list[str]:
        """Return one message for each incompatible setting."""
        found = super().problems(spec)
        if not isinstance(spec.action, Box):
            found.append(f"{{algo}} needs a Box action space, {{env}} has {spec.action}. "
                         "Try: {others}")
        return found


@dataclass(frozen=True)
class TD3Config(defaults(Config, critics=2, target_noise=0.2, policy_delay=2)):
    """Twin critics, target policy smoothing, delayed updates.

    Fujimoto et al. 2018, arXiv:1802.09477.
    """


class State(NamedTuple):
    """The AgentState."""

    params: Any               # {"policy", "critics"}
    target: Any               # the same
    optimizer: Any            # the same
    observation: Any          # running moments, () when off
    updates: jax.Array        # int32 gradient steps done


class Actor(NamedTuple):
    """The part that acts."""

    params: Any
    observation: Any


class PolicyStep(NamedTuple):
    """The result of a step of the policy and the target networks."""

    policy: Any
    opt_state: Any
    target: Any
    loss: jax.Array
    grad_norm: jax.Array


@dataclass(frozen=True, eq=False)
class DeterministicPolicy:
    """The functions of DDPG and TD3, bound to a config and networks. Actions u are in [-1, 1]^d."""

    config: Config
    network: PolicyCritics
    size: int                 # d

    def init(self, key: PRNGKeyArray, hyper: Any) -> State:
        """Return the state of a fresh learner."""
        params = self.network.init(key)
        opt_state = Optimizers(hyper, 0.0).init(params)
        return State(params, target=params, optimizer=opt_state, observation=self.network.moments(),
                     updates=jnp.zeros((), jnp.int32))

    def actor(self, state: State) -> Actor:
        """Return the part that acts."""
        return Actor(state.params["policy"], state.observation)

    def carry(self, batch: int) -> Float[Array, "B d"]:
        """Return the state of the exploration noise before the first step."""
        return jnp.zeros((batch, self.size))

    def explore(self, actor: Actor, hyper: Any, carry: Float[Array, "B d"], inputs: Input,
                progress: Float[Array, ""], key: PRNGKeyArray
                ) -> tuple[jax.Array, Float[Array, "B d"], dict]:
        """Return (action, carry, extras) with a noisy action."""
        carry, noise = ar1_noise(
            carry, key, inputs.first, rho=hyper.noise_correlation, sigma=hyper.noise)
        u = self.policy(actor.params, self.network.observe(actor.observation, inputs))
        return self.network.action(perturb(u, noise, -1.0, 1.0)), carry, {}

    def greedy(self, actor: Actor, carry: Float[Array, "B d"], inputs: Input, key: PRNGKeyArray
               ) -> tuple[jax.Array, Float[Array, "B d"]]:
        """Return (action, carry) with the action of the policy."""
        inputs = self.network.observe(actor.observation, inputs)
        return self.network.action(self.policy(actor.params, inputs)), carry

    def learn(self, state: State, hyper: Any, batch: Transitions, progress: Float[Array, ""],
              key: PRNGKeyArray) -> tuple[State, Metrics, Float[Array, " B"]]:
        """Return (state, metrics, priorities) after one gradient step."""
        network = self.network
        optimizers = Optimizers(hyper, progress)
        updates = state.updates + 1
        inputs = network.observe(state.observation, batch.start.input)
        next_inputs = network.observe(state.observation, batch.next_input)

        u = self.target_action(state.target["policy"], hyper, next_inputs, key)
        next_value = network.values(state.target["critics"], next_inputs, u).min(axis=0)
        target = batch.reward + batch.discount * next_value
        fitted = fit(network, optimizers, state.params["critics"], state.optimizer["critics"],
                     inputs, batch, target)

        def loss(params: Any) -> tuple[Float[Array, ""], tuple]:
            first = jax.tree.map(lambda x: x[:1], fitted.critics)
            return -network.values(first, inputs, self.policy(params, inputs)).mean(), ()

        def move(params: Any, opt_state: Any, target: Any) -> PolicyStep:
            step = optimizers.step(loss, params, opt_state)
            online = {"policy": step.params, "critics": fitted.critics}
            # so that a mean over all steps is one over the policy's
            scale = self.config.policy_delay
            return PolicyStep(step.params, step.opt_state, soft_update(target, online, hyper.tau),
                              loss=scale * step.loss, grad_norm=scale * step.grad_norm)

        def stay(params: Any, opt_state: Any, target: Any) -> PolicyStep:
            zero = 0.0 * fitted.metrics["loss"]
            return PolicyStep(params, opt_state, target, loss=zero, grad_norm=zero)

        step = jax.lax.cond(
            updates % self.config.policy_delay == 0, move, stay,
            state.params["policy"], state.optimizer["policy"], state.target)
        metrics = fitted.metrics | {"policy_loss": step.loss, "policy_grad_norm": step.grad_norm}
        state = State(
            params={"policy": step.policy, "critics": fitted.critics},
            target=step.target,
            optimizer={"policy": step.opt_state, "critics": fitted.opt_state},
            observation=network.merge(state.observation, batch.start.input),
            updates=updates)
        return state, metrics, fitted.error

    def policy(self, params: Any, inputs: Input) -> Float[Array, "B d"]:
        """Return mu(s)."""
        return jnp.tanh(self.network.outputs(params, inputs))

    def target_action(self, params: Any, hyper: Any, inputs: Input, key: PRNGKeyArray
                      ) -> Float[Array, "B d"]:
        """Return the smoothed action of the target policy."""
        noise = hyper.target_noise * jax.random.normal(key, (*inputs.first.shape, self.size))
        noise = jnp.clip(noise, -hyper.target_noise_clip, hyper.target_noise_clip)
        return perturb(self.policy(params, inputs), noise, -1.0, 1.0)


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """Return DDPG or TD3 for environments that match `spec`."""
    size = math.prod(spec.action.shape)
    network = policy_critics(config, spec, size)
    ddpg = DeterministicPolicy(config, network, size)
    return Agent(init=ddpg.init, actor=ddpg.actor, carry=ddpg.carry, explore=ddpg.explore,
                 greedy=ddpg.greedy, learn=ddpg.learn, reads=network.reads)


DDPG = Algorithm(Config, make_agent, "replay")
TD3 = Algorithm(TD3Config, make_agent, "replay")
