"""PQN: parallelised Q network. Gallici et al. 2024, "Simplifying Deep Temporal Difference Learning", arXiv:2407.04811.

repeat: roll out T steps in B environments, epsilon-greedily; no replay, no target network
  G_t = r_t + gamma ((1 - lambda) max_a Q(s_t+1, a) + lambda G_t+1)        Q of the network before the update
  for K epochs, M minibatches:  theta <- Adam(mean[(Q(s, a) - G)^2] / 2)

What keeps it stable is the network's layer normalisation (`network.layer_norm`, before every activation). G is Peng's
Q(lambda) as in the paper (Daley and Amato 2019, arXiv:1810.09967): the trace runs on over actions that were not greedy,
and is cut only where an episode or the rollout ends, with Q of what really followed after a time limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl.blocks.exploration import EpsilonConfig, greedy, only_discrete
from jaxrl.blocks.losses.returns import lambda_returns
from jaxrl.blocks.losses.value import of_action
from jaxrl.blocks.minibatch import problems as minibatch_problems
from jaxrl.blocks.minibatch import sgd
from jaxrl.blocks.networks.actor_critic import TrunkConfig
from jaxrl.blocks.networks.q_networks import acting, q_network
from jaxrl.blocks.optim import adam, flat_norm, scheduled
from jaxrl.declare import Range, hyper, log_range, nested, static
from jaxrl.types import Agent, Algorithm, EnvSpec, Trajectory


@dataclass(frozen=True)
class Config(EpsilonConfig):
    """Settings."""

    num_envs: int = static(16, low=1, high=10**7, help="parallel environments B")
    rollout_length: int = static(128, low=1, high=10**7, help="steps T of each environment per update")
    epochs: int = static(5, low=1, high=10**4, help="passes K over a rollout")
    minibatches: int = static(16, low=1, high=10**6, help="minibatches M per epoch")
    learning_rate: float = hyper(3e-4, low=0.0, high=1.0, search=log_range(1e-5, 1e-2), help="optimiser's step size")
    learning_rate_end: float = hyper(1.0, low=0.0, high=1.0, help="fraction of it left at the end of the schedule")
    gamma: float = hyper(0.99, low=0.0, high=1.0, search=Range(0.9, 0.999), help="discount factor")
    lam: float = hyper(0.9, low=0.0, high=1.0, search=Range(0.0, 0.98), help="trace lambda of the targets")
    max_grad_norm: float = hyper(10.0, low=0.0, high=1e9, search=log_range(0.1, 100.0), help="gradient norm clip")
    dueling: bool = static(False, help="the network gives a state's value and the actions' advantages")
    network: TrunkConfig = nested(TrunkConfig, activation="relu", layer_norm=True)

    def problems(self, spec: EnvSpec) -> list[str]:
        """What does not fit together, in words."""
        found = self.network.problems(spec) + minibatch_problems(self)
        if spec.agents is not None:
            found.append(f"{{algo}} controls one agent, {{env}} has {spec.agents}")
        found += only_discrete(spec.action)
        return found


class State(NamedTuple):
    params: Any
    optimizer: Any


class Actor(NamedTuple):
    params: Any


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """PQN for environments like `spec`: pure functions over what varies."""
    network = q_network(config.network, spec, duel=config.dueling)

    def init(key, hyper):
        params = network.init(key)
        return State(params, scheduled(adam, hyper, 0.0).init(params))

    def loss(params, carry0, inputs, action, target):
        q = of_action(network.values(params, carry0, inputs)[0], action)
        return 0.5 * jnp.mean(jnp.square(q - target)), (jnp.mean(jnp.abs(q - target)), jnp.mean(q))

    def learn(state, hyper, batch: Trajectory, progress, key):
        inputs, following = network.reads(batch.input), network.reads(batch.final_input)
        _, later = network.both(state.params, batch.carry0, inputs, following)
        best = of_action(later, greedy(later, following.mask))
        target = lambda_returns(batch.reward, best, batch.terminated, batch.truncated, gamma=hyper.gamma,
                                lam=hyper.lam)

        def minibatch(learned, carry0, data):
            params, opt = learned
            (total, (error, q)), gradient = jax.value_and_grad(loss, has_aux=True)(params, carry0, *data)
            update, opt = scheduled(adam, hyper, progress).update(gradient, opt, params)
            metrics = {"loss": total, "td_error": error, "q": q, "grad_norm": flat_norm(gradient)}
            return (optax.apply_updates(params, update), opt), metrics

        learned, metrics = sgd(
            minibatch, (state.params, state.optimizer), batch.carry0, (inputs, batch.action, target), key,
            epochs=config.epochs, minibatches=config.minibatches, sequences=config.network.recurrent != "none")
        return State(*learned), metrics, ()

    return Agent(init, lambda state: Actor(state.params), network.carry, *acting(network, config), learn,
                 network.reads)


PQN = Algorithm(Config, make_agent, "on_policy")
