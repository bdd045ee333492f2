"""One greedy episode as a moving picture."""

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

LONGEST = 1000       # steps of an episode that never ends
FRAMES_PER_SECOND = 25


def frames(learner: Learner, state: Any, seed: int) -> list[np.ndarray]:
    """Pictures [H, W, 3] uint8 of an episode of one agent state, its start included. Raises UserError if there are none
    to be had."""
    env, params = learner.env, learner.params
    if env.render is None:
        raise UserError(f"{env.name} has no pictures: its class defines no render(state, params)")
    start, states, ended = jax.jit(partial(_episode, learner))(state, jax.random.key(seed))
    steps = int(np.argmax(ended)) + 1 if np.any(ended) else len(ended)
    states = jax.tree.map(lambda a, b: np.concatenate([a, b]), *map(on_host, (start, states)))
    return [env.render(jax.tree.map(lambda x, t=t: x[t, 0], states), params) for t in range(steps + 1)]


def write(learner: Learner, state: Any, seed: int, path: Path) -> None:
    """`frames` as a GIF."""
    from envs_jax.render import gif

    gif(path, frames(learner, state, seed), FRAMES_PER_SECOND)


def _episode(learner: Learner, state: Any, key: jax.Array) -> tuple[Any, Any, jax.Array]:
    """-> (the first environment state [1, 1, ...], all later ones [steps, 1, ...], whether the episode ended there)."""
    start_key, key = jax.random.split(key)
    agent, world = learner.agent, VectorEnv(learner.env, 1, pool_size=1, reset="never")
    first, _ = world.init(start_key, learner.params)
    actor = agent.actor(state)

    def step(carry, key):
        now, memory = carry
        act_key, env_key = jax.random.split(key)
        action, memory = agent.greedy(actor, memory, world.input(now), act_key)
        now, after = world.step(env_key, now, action)
        return (now, memory), (now.env, after.input.first[0])

    keys = jax.random.split(key, min(learner.env.max_steps or LONGEST, LONGEST))
    _, (states, ended) = jax.lax.scan(step, (first, agent.carry(1)), keys)
    return jax.tree.map(lambda x: x[None], first.env), states, ended
