"""PQN: parallelized Q network. Gallici et al. 2024, arXiv:2407.04811.

"Simplifying Deep Temporal Difference Learning".

repeat: roll out T steps in B environments, epsilon-greedily; no replay, no target network
  G_t = r_t + gamma ((1 - lambda) max_a Q(s_t+1, a) + lambda G_t+1)    Q before the update
  for K epochs, M minibatches:  theta <- Adam(mean[(Q(s, a) - G)^2] / 2)

Layer normalization of the network, before every activation, keeps learning stable
(`network.layer_norm`). G is Peng's Q(lambda) as in the paper (Daley and Amato 2019,
arXiv:1810.09967). Its trace continues over actions that were not greedy. It ends only where an
episode or the rollout ends, with Q of what really followed after a time limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp

from jaxrl.blocks.exploration import EpsilonConfig, greedy, only_discrete
from jaxrl.blocks.losses.returns import lambda_returns
from jaxrl.blocks.losses.value import of_action
from jaxrl.blocks.minibatch import problems as minibatch_problems
from jaxrl.blocks.minibatch import sgd
from jaxrl.blocks.networks.actor_critic import TrunkConfig
from jaxrl.blocks.networks.q_networks import EpsilonGreedy, q_network
from jaxrl.blocks.optim import adam, descend, scheduled
from jaxrl.declare import Range, hyper, log_range, nested, static
from jaxrl.types import Agent, Algorithm, EnvSpec, Input, Metrics, Trajectory

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray


@dataclass(frozen=True)
class Config(EpsilonConfig):
    """Settings."""

    num_envs: int = static(16, low=1, high=10**7, help="parallel environments B")
    rollout_length: int = static(
        128, low=1, high=10**7, help="environment steps T of each environment per update")
    epochs: int = static(5, low=1, high=10**4, help="passes K over a rollout")
    minibatches: int = static(16, low=1, high=10**6, help="minibatches M per epoch")
    learning_rate: float = hyper(
        3e-4, low=0.0, high=1.0, search=log_range(1e-5, 1e-2), help="step size of the optimizer")
    learning_rate_end: float = hyper(
        1.0, low=0.0, high=1.0,
        help="fraction of the learning rate left at the end of the schedule")
    gamma: float = hyper(
        0.99, low=0.0, high=1.0, search=Range(0.9, 0.999), help="discount factor")
    lam: float = hyper(
        0.9, low=0.0, high=1.0, search=Range(0.0, 0.98), help="trace decay lambda of the targets")
    max_grad_norm: float = hyper(
        10.0, low=0.0, high=1e9, search=log_range(0.1, 100.0),
        help="global norm above which gradients are scaled down")
    dueling: bool = static(
        False, help="dueling network, with a state's value and the actions' advantages")
    network: TrunkConfig = nested(TrunkConfig, activation="relu", layer_norm=True)

    def problems(self, spec: EnvSpec) -> list[str]:
        """Return one message for each incompatible setting."""
        found = self.network.problems(spec) + minibatch_problems(self)
        if spec.agents is not None:
            found.append(f"{{algo}} controls one agent, {{env}} has {spec.agents}")
        found += only_discrete(spec.action)
        return found


class State(NamedTuple):
    """The AgentState."""

    params: Any
    optimizer: Any


class Actor(NamedTuple):
    """The part that acts."""

    params: Any


class Minibatch(NamedTuple):
    """Steps [T, b] to learn from; single steps of a feed-forward network are [1, b]."""

    inputs: Input
    action: Int[Array, "T b"]
    target: Float[Array, "T b"]


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """Return PQN for environments that match `spec`."""
    network = q_network(config.network, spec, duel=config.dueling)
    acting = EpsilonGreedy(network, config)

    def init(key: PRNGKeyArray, hyper: Any) -> State:
        params = network.init(key)
        return State(params, scheduled(adam, hyper, 0.0).init(params))

    def actor(state: State) -> Actor:
        return Actor(state.params)

    def learn(state: State, hyper: Any, batch: Trajectory, progress: Float[Array, ""],
              key: PRNGKeyArray) -> tuple[State, Metrics, tuple]:
        inputs = network.reads(batch.input)
        next_inputs = network.reads(batch.final_input)
        _, next_q = network.both(state.params, batch.carry0, inputs, next_inputs)
        next_value = of_action(next_q, greedy(next_q, next_inputs.mask))
        target = lambda_returns(batch.reward, next_value, batch.terminated, batch.truncated,
                                gamma=hyper.gamma, lam=hyper.lam)

        def step(learned: State, carry0: Any, data: Minibatch) -> tuple[State, Metrics]:
            def loss(params: Any) -> tuple[Float[Array, ""], Metrics]:
                q = of_action(network.values(params, carry0, data.inputs)[0], data.action)
                error = q - data.target
                metrics = {"td_error": jnp.mean(jnp.abs(error)), "q": jnp.mean(q)}
                return 0.5 * jnp.mean(jnp.square(error)), metrics

            optimizer = scheduled(adam, hyper, progress)
            step = descend(loss, learned.params, learned.optimizer, optimizer)
            metrics = {"loss": step.loss, **step.aux, "grad_norm": step.grad_norm}
            return State(step.params, step.opt_state), metrics

        learned, metrics = sgd(
            step, state, batch.carry0, Minibatch(inputs, batch.action, target), key,
            epochs=config.epochs, minibatches=config.minibatches,
            sequences=config.network.recurrent != "none")
        return learned, metrics, ()

    return Agent(init=init, actor=actor, carry=network.carry, explore=acting.explore,
                 greedy=acting.greedy, learn=learn, reads=network.reads)


PQN = Algorithm(Config, make_agent, "on_policy")
