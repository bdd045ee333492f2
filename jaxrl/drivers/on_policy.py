"""The on-policy driver: roll out T steps in N compiled environments, learn from them, forget them."""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl.drivers.rollout import Compiled


class OnPolicy(Compiled):
    """Learns from each rollout once."""

    def learn(self, state, batch, progress, key):
        agent, metrics, _ = self.agent.learn(state.agent, state.hyper, batch, progress, key)
        return state._replace(agent=agent), metrics, jnp.ones(())
