"""One greedy episode as an animation."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from envs_jax.vector import VectorEnv
from jaxrl.drivers.build import Learner
from jaxrl.errors import UserError
from jaxrl.population.members import on_host

MOST_STEPS = 1000    # of an episode that never ends
FRAMES_PER_SECOND = 25


def frames(learner: Learner, state: Any, seed: int) -> list[np.ndarray]:
    """Return images [H, W, 3] uint8 of an episode of one agent state, including its start.

    Raises UserError if the environment cannot be drawn.
    """
    env = learner.env
    if env.render is None:
        raise UserError(f"{env.name} has no pictures: its class defines no render(state, params)")
    start, states, ended = jax.jit(partial(_episode, learner))(state, jax.random.key(seed))
    steps = len(ended)
    if np.any(ended):
        steps = int(np.argmax(ended)) + 1
    states = jax.tree.map(lambda a, b: np.concatenate([a, b]), on_host(start), on_host(states))
    found = []
    for t in range(steps + 1):
        state_t = jax.tree.map(lambda x, t=t: x[t, 0], states)
        found.append(env.render(state_t, learner.params))
    return found


def write(learner: Learner, state: Any, seed: int, path: Path) -> None:
    """Write `frames` as a GIF."""
    from envs_jax.render import gif

    gif(path, frames(learner, state, seed), FRAMES_PER_SECOND)


def _episode(learner: Learner, state: Any, key: jax.Array) -> tuple[Any, Any, jax.Array]:
    """Play an episode of one agent state.

    Return (the first environment state [1, 1, ...], all later ones [steps, 1, ...], True where the
    episode ended [steps]).
    """
    reset_key, key = jax.random.split(key)
    agent = learner.agent
    vector = VectorEnv(learner.env, 1, pool_size=1, reset="never")
    first, _ = vector.init(reset_key, learner.params)
    actor = agent.actor(state)

    def step(loop_state: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], tuple]:
        env_state, carry = loop_state
        act_key, env_key = jax.random.split(key)
        action, carry = agent.greedy(actor, carry, vector.input(env_state), act_key)
        env_state, time_step = vector.step(env_key, env_state, action)
        return (env_state, carry), (env_state.env, time_step.input.first[0])

    keys = jax.random.split(key, min(learner.env.max_steps or MOST_STEPS, MOST_STEPS))
    _, (states, ended) = jax.lax.scan(step, (first, agent.carry(1)), keys)
    return jax.tree.map(lambda x: x[None], first.env), states, ended
