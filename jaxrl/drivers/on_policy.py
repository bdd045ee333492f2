"""The on-policy driver: collect T steps in N environments, learn from them, discard them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.drivers.rollout import Compiled
from jaxrl.types import Metrics, TrainState, Trajectory


class OnPolicy(Compiled):
    """Driver of agents that learn once from each rollout."""

    def learn(self, state: TrainState, batch: Trajectory, progress: jax.Array,
              key: jax.Array) -> tuple[TrainState, Metrics, jax.Array]:
        agent, metrics, _ = self.agent.learn(state.agent, state.hyper, batch, progress, key)
        return state._replace(agent=agent), metrics, jnp.ones(())
