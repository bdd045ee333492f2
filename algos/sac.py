"""SAC. Haarnoja et al. 2018, arXiv:1812.05905; for discrete actions Christodoulou 2019.

Christodoulou: arXiv:1910.07207.

repeat: act by a ~ pi(.|s), into the replay
  U times: a batch (s, a, R, g, s'), R = n rewards, g = gamma^m, 0 after termination
    y = R + g V-(s'),   V(s) = E[min_i Q_i(s, a) - alpha log pi(a|s)],  a ~ pi
    theta_i <- Adam(mean[w (Q_i(s, a) - y)^2] / 2)
    phi <- Adam(mean[-V(s)]);   log alpha <- Adam(mean[alpha (H(s) - H*)])
    Q- <- (1 - tau) Q- + tau Q

V- is V with the target critics Q-, H the entropy of the policy, w are importance weights; the mean
|error| of the critics becomes the priority. The action space chooses the policy:

  Box        a tanh-normal; V and H from one sample, whose gradient goes through it
             H* = -entropy_scale dim(A)
  Discrete   a categorical over the legal actions; V and H are sums over these
             H* = entropy_ratio log(number of legal actions)

Actions of a Box, and so their entropy, are in units of half its range. The paper's ratio for
Discrete, 0.98, demands play so random that it earns little where a few wrong actions end an
episode. The entropy of the steps inside an n-step window is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from envs_jax.spaces import Box, Discrete
from jaxrl.blocks.exploration import ar1_noise
from jaxrl.blocks.losses.value import soft_value
from jaxrl.blocks.networks.critics import (
    CriticsConfig,
    Optimizers,
    PolicyCritics,
    fit,
    policy_critics,
)
from jaxrl.blocks.networks.distributions import (
    Categorical,
    TanhNormal,
    action_head,
    squash,
    tanh_normal_head,
)
from jaxrl.blocks.optim import soft_update
from jaxrl.blocks.replay import Transitions
from jaxrl.declare import hyper
from jaxrl.types import Agent, Algorithm, EnvSpec, Input, Metrics

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray


@dataclass(frozen=True)
class Config(CriticsConfig):
    """Settings."""

    temperature: float = hyper(
        1.0, low=1e-6, high=1e6,
        help="initial temperature alpha, the weight of the entropy, which is then learned")
    entropy_scale: float = hyper(
        1.0, low=-100.0, high=100.0,
        help="target entropy of Box actions, negated, per entry of the action, in units of half "
             "the action range")
    entropy_ratio: float = hyper(
        0.3, low=0.0, high=1.0,
        help="target entropy of Discrete actions, as a fraction of the entropy of random play")

    def problems(self, spec: EnvSpec) -> list[str]:
        """Return one message for each incompatible setting."""
        found = super().problems(spec)
        if not isinstance(spec.action, Box | Discrete):
            found.append(f"{{algo}} needs a Box or a Discrete action space, {{env}} has "
                         f"{spec.action}. Try: {{others}}")
        return found


class State(NamedTuple):
    """The AgentState."""

    params: Any               # {"policy", "critics", "log_alpha"}
    target: Any               # of the critics
    optimizer: Any            # as params
    observation: Any          # running moments, () when off


class Actor(NamedTuple):
    """The part that acts."""

    params: Any
    observation: Any


class Policy(Protocol):
    """A kind of policy.

    All arguments are batches [B]; `outputs` are those of the policy network.
    """

    def carry(self, batch: int) -> Any:
        """Return the state of the exploration noise before the first step, or ()."""

    def sample(self, outputs: Float[Array, "B outputs"], hyper: Any, carry: Any, inputs: Input,
               key: PRNGKeyArray) -> tuple[jax.Array, Any]:
        """Return (action of the space, carry)."""

    def mode(self, outputs: Float[Array, "B outputs"], inputs: Input) -> jax.Array:
        """Return the most likely action of the space."""

    def soft(self, outputs: Float[Array, "B outputs"], inputs: Input, q: Callable, alpha: jax.Array,
             key: PRNGKeyArray) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        """Return (soft value V, entropy H). q: (u) -> Q [B], or (None) -> Q [B, n] of all actions.
        """

    def target_entropy(self, hyper: Any, inputs: Input) -> Any:
        """Return H*, a number or [B]."""


@dataclass(frozen=True, eq=False)
class TanhNormalPolicy:
    """A tanh-normal over vectors of `size` entries in [-1, 1]."""

    size: int
    scaled: Callable[[jax.Array], jax.Array]     # (u) -> action of the space

    def carry(self, batch: int) -> Float[Array, "B d"]:
        return jnp.zeros((batch, self.size))

    def sample(self, outputs: Float[Array, "B outputs"], hyper: Any, carry: Float[Array, "B d"],
               inputs: Input, key: PRNGKeyArray) -> tuple[jax.Array, Float[Array, "B d"]]:
        normal = self._distribution(outputs)
        carry, noise = ar1_noise(carry, key, inputs.first, rho=hyper.noise_correlation, sigma=1.0)
        return self.scaled(squash(normal.mean + jnp.exp(normal.log_std) * noise, -1.0, 1.0)), carry

    def mode(self, outputs: Float[Array, "B outputs"], inputs: Input) -> jax.Array:
        return self.scaled(self._distribution(outputs).mode())

    def soft(self, outputs: Float[Array, "B outputs"], inputs: Input, q: Callable,
             alpha: Float[Array, ""], key: PRNGKeyArray
             ) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        u, log_prob = self._distribution(outputs).sample_and_log_prob(key)
        return q(u) - alpha * log_prob, -log_prob

    def target_entropy(self, hyper: Any, inputs: Input) -> Float[Array, ""]:
        return -hyper.entropy_scale * self.size

    def _distribution(self, outputs: Float[Array, "B outputs"]) -> TanhNormal:
        return tanh_normal_head(Box(-1.0, 1.0, (self.size,))).distribution(outputs)


@dataclass(frozen=True, eq=False)
class CategoricalPolicy:
    """A categorical over the legal actions of `space`, with exact expectations."""

    space: Discrete

    def carry(self, batch: int) -> tuple:
        return ()

    def sample(self, outputs: Float[Array, "B outputs"], hyper: Any, carry: tuple, inputs: Input,
               key: PRNGKeyArray) -> tuple[Int[Array, " B"], tuple]:
        return self._distribution(outputs, inputs).sample(key), carry

    def mode(self, outputs: Float[Array, "B outputs"], inputs: Input) -> Int[Array, " B"]:
        return self._distribution(outputs, inputs).mode()

    def soft(self, outputs: Float[Array, "B outputs"], inputs: Input, q: Callable,
             alpha: Float[Array, ""], key: PRNGKeyArray
             ) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        log_prob = jax.nn.log_softmax(self._distribution(outputs, inputs).logits)
        value = soft_value(q(None), log_prob, alpha)
        return value, soft_value(jnp.zeros_like(log_prob), log_prob, 1.0)

    def target_entropy(self, hyper: Any, inputs: Input) -> Float[Array, "*batch"]:
        legal = self.space.n if inputs.mask is None else jnp.sum(inputs.mask, axis=-1)
        return hyper.entropy_ratio * jnp.log(jnp.float32(legal))

    def _distribution(self, outputs: Float[Array, "B outputs"], inputs: Input) -> Categorical:
        return action_head(self.space).distribution(outputs, None, inputs.mask)


@dataclass(frozen=True, eq=False)
class SoftActorCritic:
    """The functions of SAC, bound to networks and a kind of policy."""

    network: PolicyCritics
    policy: Policy

    def init(self, key: PRNGKeyArray, hyper: Any) -> State:
        """Return the state of a fresh learner."""
        params = self.network.init(key) | {"log_alpha": jnp.log(hyper.temperature)}
        opt_state = Optimizers(hyper, 0.0).init(params)
        return State(params, target=params["critics"], optimizer=opt_state,
                     observation=self.network.moments())

    def actor(self, state: State) -> Actor:
        """Return the part that acts."""
        return Actor(state.params["policy"], state.observation)

    def explore(self, actor: Actor, hyper: Any, carry: Any, inputs: Input,
                progress: Float[Array, ""], key: PRNGKeyArray) -> tuple[jax.Array, Any, dict]:
        """Return (action, carry, extras) with an action drawn from the policy."""
        outputs = self._outputs(actor, inputs)
        action, carry = self.policy.sample(outputs, hyper, carry, inputs, key)
        return action, carry, {}

    def greedy(self, actor: Actor, carry: Any, inputs: Input, key: PRNGKeyArray
               ) -> tuple[jax.Array, Any]:
        """Return (action, carry) with the mode of the policy."""
        return self.policy.mode(self._outputs(actor, inputs), inputs), carry

    def learn(self, state: State, hyper: Any, batch: Transitions, progress: Float[Array, ""],
              key: PRNGKeyArray) -> tuple[State, Metrics, Float[Array, " B"]]:
        """Return (state, metrics, priorities) after one gradient step."""
        network = self.network
        optimizers = Optimizers(hyper, progress)
        online_key, target_key = jax.random.split(key)
        inputs = network.observe(state.observation, batch.start.input)
        next_inputs = network.observe(state.observation, batch.next_input)
        alpha = jnp.exp(state.params["log_alpha"])

        next_value, _ = self.soft(
            state.params["policy"], state.target, next_inputs, alpha, target_key)
        target = batch.reward + batch.discount * next_value
        fitted = fit(network, optimizers, state.params["critics"], state.optimizer["critics"],
                     inputs, batch, target)

        def policy_loss(params: Any) -> tuple[Float[Array, ""], Float[Array, " B"]]:
            value, entropy = self.soft(params, fitted.critics, inputs, alpha, online_key)
            return -value.mean(), entropy

        step = optimizers.step(policy_loss, state.params["policy"], state.optimizer["policy"])
        entropy = step.aux
        excess = jnp.mean(entropy - self.policy.target_entropy(hyper, inputs))

        def alpha_loss(log_alpha: Float[Array, ""]) -> tuple[Float[Array, ""], tuple]:
            return jnp.exp(log_alpha) * excess, ()

        alpha_step = optimizers.step(
            alpha_loss, state.params["log_alpha"], state.optimizer["log_alpha"])
        metrics = fitted.metrics | {"policy_loss": step.loss, "policy_grad_norm": step.grad_norm,
                                    "entropy": entropy.mean(), "temperature": alpha}
        state = State(
            params={"policy": step.params, "critics": fitted.critics,
                    "log_alpha": alpha_step.params},
            target=soft_update(state.target, fitted.critics, hyper.tau),
            optimizer={"policy": step.opt_state, "critics": fitted.opt_state,
                       "log_alpha": alpha_step.opt_state},
            observation=network.merge(state.observation, batch.start.input))
        return state, metrics, fitted.error

    def soft(self, params: Any, critics: Any, inputs: Input, alpha: Float[Array, ""],
             key: PRNGKeyArray) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        """Return (soft value V, entropy H) of the policy with these parameters."""
        def q(u: jax.Array | None) -> jax.Array:
            return self.network.values(critics, inputs, u).min(axis=0)

        return self.policy.soft(self.network.outputs(params, inputs), inputs, q, alpha, key)

    def _outputs(self, actor: Actor, inputs: Input) -> Float[Array, "B outputs"]:
        inputs = self.network.observe(actor.observation, inputs)
        return self.network.outputs(actor.params, inputs)


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """Return SAC for environments that match `spec`."""
    if isinstance(spec.action, Box):
        size = math.prod(spec.action.shape)
        network = policy_critics(config, spec, 2 * size)
        policy: Policy = TanhNormalPolicy(size, network.action)
    else:
        network = policy_critics(config, spec, spec.action.n)
        policy = CategoricalPolicy(spec.action)
    sac = SoftActorCritic(network, policy)
    return Agent(init=sac.init, actor=sac.actor, carry=policy.carry, explore=sac.explore,
                 greedy=sac.greedy, learn=sac.learn, reads=network.reads)


SAC = Algorithm(Config, make_agent, "replay")
