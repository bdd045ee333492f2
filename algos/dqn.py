"""DQN. Mnih et al. 2015, Nature 518; double: van Hasselt et al. 2016, arXiv:1509.06461.

repeat: N environments step, epsilon-greedily, into the replay
  U times: a batch (s, a, R, g, s'), R = n rewards, g = gamma^m, 0 after a death
    y = R + g Q-(s', argmax_a Q(s', a))           Q- the target network; without double its own argmax
    theta <- Adam(mean[w huber(y - Q(s, a))])     w importance weights; |y - Q| become priorities

Parts of Rainbow (Hessel et al. 2018, arXiv:1710.02298) that are switches: double, dueling (Wang et al. 2016,
arXiv:1511.06581), n-step returns, prioritised replay (Schaul et al. 2016, arXiv:1511.05952).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from envs_jax.spaces import Discrete
from jaxrl.blocks.exploration import epsilon_greedy, greedy
from jaxrl.blocks.networks import TrunkConfig, q_network
from jaxrl.blocks.off_policy import ReplayConfig
from jaxrl.blocks.optim import adam, flat_norm, scheduled
from jaxrl.blocks.value_losses import huber
from jaxrl.declare import hyper, nested, static
from jaxrl.types import Agent, Algorithm, EnvSpec


@dataclass(frozen=True)
class Config(ReplayConfig):
    """Settings."""

    double: bool = static(True, help="the online network chooses the action that the target network values")
    dueling: bool = static(False, help="the network gives a state's value and the actions' advantages")
    target_every: int = static(500, low=1, high=10**9, help="gradient steps between moves of the target network")
    tau: float = hyper(1.0, low=0.0, high=1.0, help="how far it moves then: 1 copies, less is Polyak averaging")
    huber: float = hyper(1e9, low=1e-6, high=1e9, help="error from which on the loss is linear; 1e9: squares")
    epsilon_start: float = hyper(1.0, low=0.0, high=1.0, help="chance of a random action at the start")
    epsilon_end: float = hyper(0.05, low=0.0, high=1.0, help="and when it has run down")
    epsilon_fraction: float = hyper(0.5, low=1e-6, high=1.0, help="part of the schedule over which it runs down")
    network: TrunkConfig = nested(TrunkConfig, activation="relu")

    def problems(self, spec: EnvSpec) -> list[str]:
        """What does not fit together, in words."""
        found = super().problems(spec)
        if not isinstance(spec.action, Discrete):
            found.append(f"{{algo}} needs a discrete action space, {{env}} has {spec.action}. Try: ppo, a2c, pg")
        if self.network.recurrent != "none":
            found.append("{algo} learns from single transitions; algo.network.recurrent has to be none")
        return found


class State(NamedTuple):
    params: Any
    target: Any
    optimizer: Any
    updates: jax.Array        # int32 gradient steps done


class Actor(NamedTuple):
    params: Any


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """DQN for environments like `spec`: pure functions over what varies."""
    network = q_network(config.network, spec, duel=config.dueling)

    def values(params, inputs):
        """Q [B, A] of inputs [B]."""
        return network.values(params, (), jax.tree.map(lambda x: x[None], network.reads(inputs)))[0][0]

    def init(key, hyper):
        params = network.init(key)
        return State(params, params, scheduled(adam, hyper, 0.0).init(params), jnp.zeros((), jnp.int32))

    def explore(actor, hyper, carry, inputs, progress, key):
        down = jnp.clip(progress / hyper.epsilon_fraction, 0.0, 1.0)
        epsilon = hyper.epsilon_start + down * (hyper.epsilon_end - hyper.epsilon_start)
        return epsilon_greedy(key, values(actor.params, inputs), epsilon, inputs.mask), carry, {}

    def act(actor, carry, inputs, key):
        return greedy(values(actor.params, inputs), inputs.mask), carry

    def learn(state, hyper, batch, progress, key):
        def loss(params):
            q = _of(values(params, batch.start.input), batch.start.action)
            following = values(state.target, batch.next_input)
            chooser = values(params, batch.next_input) if config.double else following
            best = greedy(jax.lax.stop_gradient(chooser), batch.next_input.mask)
            target = batch.reward + batch.discount * _of(following, best)
            error = jax.lax.stop_gradient(target) - q
            return jnp.mean(batch.weight * huber(error, hyper.huber)), (jnp.abs(error), q)

        (total, (error, q)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        update, opt = scheduled(adam, hyper, progress).update(gradient, state.optimizer, state.params)
        params, updates = optax.apply_updates(state.params, update), state.updates + 1
        step = jnp.where(updates % config.target_every == 0, hyper.tau, 0.0)
        target = jax.tree.map(lambda old, new: old + step * (new - old), state.target, params)
        metrics = {"loss": total, "grad_norm": flat_norm(gradient), "td_error": error.mean(), "q": q.mean()}
        return State(params, target, opt, updates), metrics, error

    return Agent(init, lambda state: Actor(state.params), network.carry, explore, act, learn, network.reads)


def _of(q: jax.Array, action: jax.Array) -> jax.Array:
    return jnp.take_along_axis(q, action[..., None], axis=-1)[..., 0]


DQN = Algorithm(Config, make_agent, "replay")
