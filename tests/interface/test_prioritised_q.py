"""A prioritized Q-learner, with priorities as feedback, on the paper's own example.

Schaul et al. 2016, arXiv:1511.05952. The agent sees Inputs and Trajectories only; whose priorities
they are, the driver knows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.core import Environment, spec
from envs_jax.probe.values import EndlessReward
from envs_jax.spaces import Box, Discrete
from envs_jax.vector import VectorEnv
from envs_jax.wrappers import TimeLimit
from jaxrl.types import Agent, Input, Progress, TrainState, Trajectory

ENVS = 4
CAPACITY = 64
BATCH = 8


class Hyper(NamedTuple):
    learning_rate: jax.Array
    gamma: jax.Array
    alpha: jax.Array         # of the priorities; like beta it is read by the driver
    beta: jax.Array          # of the importance weights, 1 at the end of the schedule


class BlindCliffwalk(Environment):
    """Section 3.1: `n` states in a row, one right action in each, the other falls to the end.

    1 for walking it all.

    Q*(s, right) = gamma^(n - 1 - s) and Q*(s, wrong) = 0. The right action alternates.
    """

    n = 4
    max_steps = n

    def reset(self, key, params):
        return jax.nn.one_hot(0, self.n), jnp.int32(0)

    def step(self, key, state, action, params):
        right = action == state % 2
        last = state == self.n - 1
        after = jnp.minimum(state + 1, self.n - 1)
        return (
            jax.nn.one_hot(after, self.n),
            after,
            jnp.float32(right & last),
            ~right | last,
            jnp.bool_(False),
            {},
        )

    def observation_space(self, params):
        return Box(0.0, 1.0, (self.n,))

    def action_space(self, params):
        return Discrete(2)

    def q(self, gamma):
        right = gamma ** np.arange(self.n - 1, -1, -1)
        return np.stack(
            [np.where(np.arange(self.n) % 2 == a, right, 0.0) for a in range(2)], axis=1
        )


def make_agent(spec, num_envs):
    """Linear Q(o, .) = o W + b and semi-gradient steps."""

    def q(params, inputs):
        return inputs.obs @ params["w"] + jnp.broadcast_to(
            params["b"], (*inputs.first.shape, spec.action.n)
        )

    def init(key, hyper):
        return {
            "w": jnp.zeros((*spec.observation.shape, spec.action.n)),
            "b": jnp.zeros(spec.action.n),
        }

    def epsilon(slot, progress):
        """Ape-X's ladder (arXiv:1803.00933, section 4.1) from 0.8.

        Which the schedule takes down to 0.1 of it.
        """
        return 0.8 ** (1.0 + 7.0 * slot / (num_envs - 1)) * (1.0 - 0.9 * progress)

    def explore(actor, hyper, carry, inputs, progress, key):
        dare_key, action_key = jax.random.split(key)
        random = jax.random.randint(action_key, inputs.first.shape, 0, spec.action.n, jnp.int32)
        dare = jax.random.uniform(dare_key, inputs.first.shape) < epsilon(inputs.slot, progress)
        return jnp.where(dare, random, greedy(actor, carry, inputs, key)[0]), carry, {}

    def greedy(actor, carry, inputs, key):
        return jnp.argmax(q(actor, inputs), axis=-1).astype(jnp.int32), carry

    def learn(state, hyper, batch, progress, key):
        bootstrap = jnp.where(batch.terminated, 0.0, q(state, batch.final_input).max(axis=-1))
        target = batch.reward + hyper.gamma * bootstrap

        def loss(params):
            chosen = jnp.take_along_axis(q(params, batch.input), batch.action[..., None], axis=-1)[
                ..., 0
            ]
            td = target - chosen
            return 0.5 * jnp.mean(batch.weight * jnp.square(td)), td

        gradient, td = jax.grad(loss, has_aux=True)(state)
        params = jax.tree.map(lambda p, g: p - hyper.learning_rate * g, state, gradient)
        return params, {"loss": jnp.mean(jnp.square(td))}, jnp.abs(td)

    return Agent(init, lambda state: state, lambda batch: (), explore, greedy, learn)


class Replay(NamedTuple):
    items: Trajectory        # [capacity, ...]
    priority: jax.Array      # [capacity], 0: nothing there yet
    head: jax.Array


def add(replay, items):
    """Newcomers take the highest priority, so that each is seen."""
    at = (replay.head + jnp.arange(ENVS)) % CAPACITY
    stored = jax.tree.map(lambda ring, x: ring.at[at].set(x), replay.items, items)
    highest = jnp.maximum(replay.priority.max(), 1e-6)
    return Replay(stored, replay.priority.at[at].set(highest), replay.head + ENVS)


def sample(replay, alpha, beta, key):
    """-> (places [n], Trajectory [1, n] with its importance weights)."""
    size = jnp.minimum(replay.head, CAPACITY)
    scaled = jnp.where(replay.priority > 0, replay.priority**alpha, 0.0)
    at = jax.random.choice(key, CAPACITY, (BATCH,), p=scaled / scaled.sum())
    weight = (size * scaled[at] / scaled.sum()) ** -beta
    batch = jax.tree.map(lambda x: x[at][None], replay.items)
    return at, batch._replace(weight=(weight / weight.max())[None])


class Learner:
    """A toy off-policy driver with the functions of a Runner.

    Step, store, sample, learn, write the priorities back.
    """

    def __init__(self, env, params=()):
        self.env = VectorEnv(env, ENVS)
        self.params = params
        self.agent = make_agent(spec(env, params), ENVS)

    def init(self, key, hyper, schedule):
        key, agent_key, env_key = jax.random.split(key, 3)
        world, _ = self.env.init(env_key, self.params)
        shapes = jax.eval_shape(
            self._step, self.agent.init(agent_key, hyper), hyper, world, jnp.zeros(()), key
        )[1]
        items = jax.tree.map(lambda x: jnp.zeros((CAPACITY, *x.shape[1:]), x.dtype), shapes)
        replay = Replay(items, jnp.zeros(CAPACITY), jnp.zeros((), jnp.int32))
        progress = Progress(jnp.zeros((), jnp.int32), jnp.asarray(schedule, jnp.int32))
        return TrainState(
            self.agent.init(agent_key, hyper),
            hyper,
            world,
            self.agent.carry(ENVS),
            replay,
            key,
            progress,
            jnp.ones((), bool),
        )

    def _step(self, agent, hyper, world, progress, key):
        act_key, env_key = jax.random.split(key)
        inputs = self.env.input(world)
        action, _, extras = self.agent.explore(
            self.agent.actor(agent), hyper, (), inputs, progress, act_key
        )
        world, after = self.env.step(env_key, world, action)
        return world, Trajectory(
            inputs,
            action,
            extras,
            after.reward,
            after.terminated,
            after.truncated,
            after.final_input,
            carry0=(),
        )

    def advance(self, state, updates):
        def update(_, state):
            key, step_key, sample_key, learn_key = jax.random.split(state.key, 4)
            progress = state.progress.update / state.progress.schedule
            world, items = self._step(state.agent, state.hyper, state.env, progress, step_key)
            replay = add(state.replay, items)
            beta = state.hyper.beta + (1.0 - state.hyper.beta) * progress
            at, batch = sample(replay, state.hyper.alpha, beta, sample_key)
            agent, _, feedback = self.agent.learn(
                state.agent, state.hyper, batch, progress, learn_key
            )
            replay = replay._replace(priority=replay.priority.at[at].set(feedback[0] + 1e-6))
            done = state.progress._replace(update=state.progress.update + 1)
            return state._replace(agent=agent, env=world, replay=replay, key=key, progress=done)

        return jax.lax.fori_loop(0, updates, update, state)


def start(env, schedule, learning_rate, gamma):
    """-> (the compiled advance, fresh learners [2, ...]).

    Two seeds, each with its own learning rate.
    """
    learner = Learner(env)

    def both(x):
        return jnp.broadcast_to(jnp.float32(x), 2)

    hyper = Hyper(both(learning_rate), both(gamma), alpha=both(0.6), beta=both(0.4))
    init = jax.jit(jax.vmap(learner.init, (0, 0, None)))
    return jax.jit(jax.vmap(learner.advance, (0, None))), init(
        jax.random.split(jax.random.key(0), 2), hyper, schedule
    )


@pytest.fixture(scope="module")
def cliffwalk():
    """Learners [2] after 300 updates and after 3000, the compiled advance."""
    advance, state = start(BlindCliffwalk(), 3000, learning_rate=[0.2, 0.5], gamma=0.9)
    young = advance(state, 300)
    return young, advance(young, 2700), advance


def test_finds_the_values_of_the_cliffwalk_at_any_learning_rate(cliffwalk):
    _, state, _ = cliffwalk
    q = np.asarray(state.agent["w"] + state.agent["b"][:, None])
    np.testing.assert_allclose(q, np.stack([BlindCliffwalk().q(0.9)] * 2), atol=0.02)
    assert np.any(q[0] != q[1])


def test_priorities_come_back(cliffwalk):
    young, old = (np.asarray(state.replay.priority) for state in cliffwalk[:2])
    assert np.all(young > 0) and all(len(np.unique(p)) > 8 for p in young)
    # what is known surprises nobody
    assert np.all(np.median(old, axis=1) < 0.3 * np.median(young, axis=1))


def test_hyperparameters_are_data(cliffwalk):
    young, _, advance = cliffwalk
    advance(young._replace(hyper=jax.tree.map(lambda x: 0.5 * x, young.hyper)), 1)
    assert advance._cache_size() == 1


def test_bootstraps_through_a_time_limit():
    advance, state = start(TimeLimit(EndlessReward(), 8), 1000, learning_rate=[0.5, 1.0], gamma=0.9)
    np.testing.assert_allclose(advance(state, 1000).agent["b"], 10.0, rtol=0.01)


def test_explores_by_slot_and_progress():
    env = BlindCliffwalk()
    agent = make_agent(spec(env), ENVS)
    draws = 4000
    actor = {"w": jnp.zeros((env.n, 2)), "b": jnp.array([1.0, 0.0])}
    slot = jnp.tile(jnp.arange(ENVS), draws)
    inputs = Input(jnp.zeros((ENVS * draws, env.n)), jnp.zeros(ENVS * draws, bool), slot=slot)
    for progress, rest in ((0.0, 1.0), (1.0, 0.1)):
        action, _, _ = agent.explore(actor, None, (), inputs, progress, jax.random.key(1))
        # half of the random actions are greedy
        random = 2 * np.asarray(action).reshape(draws, ENVS).mean(axis=0)
        np.testing.assert_allclose(random, rest * 0.8 ** (1 + 7 * np.arange(ENVS) / 3), atol=0.04)

