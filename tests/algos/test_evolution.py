"""ES and ARS: whole generations against loops in NumPy, and the promises of their driver."""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from algos import ars, es
from envs_jax.core import Environment, spec
from envs_jax.spaces import Box
from envs_jax.wrappers import TimeLimit
from jaxrl.blocks.networks.actor_critic import NetworkConfig
from jaxrl.declare import hypers
from jaxrl.drivers.build import DRIVERS
from jaxrl.errors import UserError

FITNESS = np.array([[3.0, 1.0], [10.0, -2.0], [4.0, 5.0]], np.float32)


class WalkState(NamedTuple):
    x: jax.Array


class WalkParams(NamedTuple):
    pull: float = 0.9


@dataclass(frozen=True)
class Walk(Environment):
    """x' = pull x + (u, -u^2 / 2), paid -|x - (1, 0)|, until x_0 > `edge`.

    `far`: how much a start differs.
    """

    far: float = 0.0
    edge: float = 1.2
    broken: float = np.inf                       # actions above it pay NaN
    default_params = WalkParams()

    def reset(self, key, params):
        x = jnp.array([-0.3, 5.0]) + self.far * jax.random.normal(key, (2,))
        return x, WalkState(x)

    def step(self, key, state, action, params):
        u = action[0]
        x = params.pull * state.x + jnp.stack([u, -0.5 * u * u])
        reward = -jnp.abs(x[0] - 1.0) - jnp.abs(x[1])
        return (
            x,
            WalkState(x),
            jnp.where(u > self.broken, jnp.nan, reward),
            x[0] > self.edge,
            jnp.bool_(False),
            {},
        )

    def observation_space(self, params):
        return Box(-np.inf, np.inf, (2,))

    def action_space(self, params):
        return Box(-np.inf, np.inf, (1,))


LIMIT = 6


def learner(algorithm, env=None, **settings):
    """-> (config, strategy, runner) in a Walk of LIMIT steps."""
    env = TimeLimit(env or Walk(), LIMIT)
    config = algorithm.config(**settings)
    strategy = algorithm.make_agent(config, spec(env))
    return config, strategy, DRIVERS["evolution"](strategy, env, env.default_params, config, {})


def begun(config, runner, **changes):
    hyper = hypers(config)._replace(**{name: jnp.float32(x) for name, x in changes.items()})
    return jax.jit(runner.init)(jax.random.key(1), hyper, 10)


# -------------------------------------------------------------------- against loops


def vector(params):
    """(weights [2, 1], bias) of a linear policy, in float64."""
    head = params["policy"]["params"]["head"]
    return np.asarray(head["kernel"], np.float64), np.asarray(head["bias"], np.float64)


def play(kernel, bias, normal):
    """Fitness, steps and observations of one candidate. normal: (mean, deviation) or None."""
    x = np.array([-0.3, 5.0])
    total = 0.0
    seen = []
    for _ in range(LIMIT):
        seen.append(x)
        y = x if normal is None else np.clip((x - normal[0]) / normal[1], -10.0, 10.0)
        u = float(y @ kernel[:, 0] + bias[0])
        x = 0.9 * x + np.array([u, -0.5 * u * u])
        total += -abs(x[0] - 1.0) - abs(x[1])
        if x[0] > 1.2:
            break
    return total, len(seen), seen


def candidates(strategy, state):
    """(kernels [n, 2, 1], biases [n, 1]) of a generation, and its noise in the same form."""
    ids = np.arange(8, dtype=np.int32)
    kernel, bias = vector(jax.jit(strategy.ask)(state.agent, state.hyper, ids).params)
    center = vector(state.agent.params)
    return (kernel, bias), tuple(
        (x - c) / float(state.hyper.sigma) for x, c in zip((kernel, bias), center)
    )


def es_step(theta, opt, fitness, noise, hyper):
    """Algorithm 2 with ranks, weight decay and Adam (b1 .9, b2 .999, eps 1e-8); no ties here."""
    ranks = np.argsort(np.argsort(fitness)) / (len(fitness) - 1) - 0.5
    m, v, t = opt or ([np.zeros_like(x) for x in theta], [np.zeros_like(x) for x in theta], 0)
    t = t + 1
    new = []
    for i, (x, e) in enumerate(zip(theta, noise)):
        g = -np.tensordot(ranks, e, 1) / len(fitness) + hyper["weight_decay"] * x
        m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g * g
        new.append(
            x
            - hyper["learning_rate"]
            * (m[i] / (1 - 0.9**t))
            / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
        )
    return new, (m, v, t)


def ars_step(theta, opt, fitness, noise, hyper, top=2):
    """Algorithm 2, lines 6 and 7."""
    r = fitness.reshape(-1, 2)
    kept = sorted(range(len(r)), key=lambda k: -max(r[k]))[:top]
    sigma = np.std([r[k] for k in kept])
    return [
        x
        + hyper["learning_rate"] / (top * sigma) * sum((r[k, 0] - r[k, 1]) * e[2 * k] for k in kept)
        for x, e in zip(theta, noise)
    ], None


LINEAR = NetworkConfig(hidden=())
CASES = {
    "es": (es.ES, {"network": LINEAR, "weight_decay": 0.1}, es_step),
    "ars": (ars.ARS, {"top": 2, "learning_rate": 0.05}, ars_step),
}


@cache
def case(name):
    algorithm, settings, step = CASES[name]
    config, strategy, runner = learner(
        algorithm, population=8, block_size=4, sigma=0.3, normalize_observation=True, **settings
    )
    return config, strategy, runner, jax.jit(runner.advance), step


@pytest.mark.parametrize("name", CASES)
def test_generations_are_the_loop(name):
    """Three of them.

    Statistics are frozen within a generation and hold all that was seen before it.
    """
    config, strategy, runner, advance, step = case(name)
    hyper = {key: getattr(config, key) for key in hypers(config)._fields}
    state = begun(config, runner)
    opt = None
    seen = []
    reals = []
    for _ in range(3):
        (kernels, biases), noise = candidates(strategy, state)
        normal = (np.mean(seen, 0), np.std(seen, 0)) if seen else (np.zeros(2), np.ones(2))
        played = [play(kernel, bias, normal) for kernel, bias in zip(kernels, biases)]
        fitness = np.array([total for total, _, _ in played])
        theta, opt = step(vector(state.agent.params), opt, fitness, noise, hyper)
        seen = seen + [x for _, _, candidate in played for x in candidate]
        reals.append(sum(steps for _, steps, _ in played))

        state, metrics = advance(state, 1)
        for got, want in zip(vector(state.agent.params), theta):
            np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(metrics["fitness_mean"], fitness.mean(), rtol=1e-4)
        np.testing.assert_allclose(metrics["fitness_max"], fitness.max(), rtol=1e-4)
        np.testing.assert_allclose(metrics["fitness_std"], fitness.std(), rtol=1e-4)
        assert metrics["steps_real"] == reals[-1] and metrics["episodes"] == 8
        assert state.agent.observation.count == len(seen)
        np.testing.assert_allclose(state.agent.observation.mean, np.mean(seen, 0), rtol=1e-4)
        np.testing.assert_allclose(state.agent.observation.variance, np.var(seen, 0), rtol=1e-3)
    assert min(reals) < 8 * LIMIT and runner.steps_per_update == 8 * LIMIT


def test_weights_of_the_worked_examples():
    noise = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(es.weights(FITNESS) @ noise, -0.316667, rtol=1e-5)
    np.testing.assert_allclose(0.02 * ars.weights(FITNESS, top=2) @ noise, -0.0574486, rtol=1e-5)
    np.testing.assert_allclose(
        ars.weights(FITNESS, top=2), np.array([0.0, 12.0, -1.0]) / (2 * 4.264681), rtol=1e-5
    )


def test_ars_takes_no_step_where_all_returns_are_equal():
    np.testing.assert_array_equal(ars.weights(np.full((3, 2), 7.0, np.float32), top=3), np.zeros(3))


def test_ars_starts_from_a_linear_policy_of_zeros():
    config, strategy, runner = learner(ars.ARS)
    params = jax.jit(strategy.init)(jax.random.key(0), hypers(config)).params
    assert all((leaf == 0).all() for leaf in vector(params))
    deep = ars.make_strategy(
        ars.Config(network=NetworkConfig(hidden=(4,), log_std=-1.0)), spec(runner.env.env)
    )
    params = jax.jit(deep.init)(jax.random.key(0), hypers(config)).params
    assert (
        all((leaf == 0).all() for leaf in vector(params))
        and params["policy"]["params"]["log_std"] == -1.0
    )
    assert np.any(params["trunk"]["params"]["torso"]["dense_0"]["kernel"] != 0)


# -------------------------------------------------------------------- candidates


def test_candidates_of_a_pair_are_mirrored_and_do_not_depend_on_their_block():
    config, strategy, runner, _, _ = case("es")
    state = begun(config, runner).agent._replace(generation=jnp.int32(7))
    ask = jax.jit(strategy.ask)
    hyper = hypers(config)
    ids = np.arange(12, dtype=np.int32)
    whole = ask(state, hyper, ids)
    center = vector(state.params)
    for x, c in zip(vector(whole.params), center):
        np.testing.assert_allclose(
            x[::2] + x[1::2], np.broadcast_to(2 * c, x[::2].shape), atol=1e-6
        )
    for block in (2, 6):
        parts = [ask(state, hyper, ids[i:i + block]).params for i in range(0, 12, block)]
        jax.tree.map(
            lambda x, *y: np.testing.assert_array_equal(x, np.concatenate(y)), whole.params, *parts
        )
    other = ask(state._replace(generation=jnp.int32(8)), hyper, ids)
    assert all(
        np.any(a != b) for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(other.params))
    )


def test_a_pair_plays_from_its_own_starts_however_blocks_are_cut():
    env = Walk(far=0.5)
    found = {}
    for size in (2, 8):
        config, _, runner = learner(es.ES, env, population=8, block_size=size, episodes=3)
        state = begun(config, runner, sigma=0.0)
        play = jax.jit(runner.evaluate)
        blocks = [play(state, jnp.int32(block)).fitness for block in range(runner.blocks)]
        found[size] = np.concatenate(blocks)
    np.testing.assert_allclose(found[2], found[8], rtol=1e-5)
    np.testing.assert_array_equal(found[8][::2], found[8][1::2])
    assert len(set(found[8].tolist())) == 4
    later = state._replace(progress=state.progress._replace(update=jnp.int32(1)))
    assert not np.any(play(later, jnp.int32(0)).fitness == found[8])


def test_a_candidate_that_diverges_is_the_worst():
    config, _, runner = learner(es.ES, Walk(broken=0.05), population=8, sigma=0.3)
    state, metrics = jax.jit(runner.advance)(begun(config, runner), 5)
    assert 0 < metrics["diverged"] < 1 and metrics["nonfinite"] == 0 and state.alive
    assert (
        all(np.isfinite(x).all() for x in jax.tree.leaves(state.agent.params))
        and state.progress.update == 5
    )


def test_a_strategy_all_of_whose_candidates_diverge_stays_as_it_is():
    config, _, runner = learner(ars.ARS, Walk(broken=-np.inf), population=4)
    state = begun(config, runner)
    after, metrics = jax.jit(runner.advance)(state, 3)
    assert metrics["nonfinite"] == 1 and not after.alive and after.progress.update == 0
    jax.tree.map(np.testing.assert_array_equal, after.agent.params, state.agent.params)


@pytest.mark.slow
def test_a_fitness_is_the_mean_of_its_episodes():
    """Episodes that end at different steps each count to their own end."""
    config, strategy, runner = learner(
        es.ES, Walk(far=1.0, edge=0.5), population=4, block_size=4, episodes=5
    )
    state = begun(config, runner, sigma=0.0)
    result = jax.jit(runner.evaluate)(state, jnp.int32(0))
    kernel, bias = (
        x[0] for x in vector(jax.jit(strategy.ask)(state.agent, state.hyper, jnp.arange(4)).params)
    )
    assert len(set(np.asarray(result.steps).tolist())) == 2 and result.steps.max() < 5 * LIMIT
    key = jax.random.fold_in(jax.random.fold_in(state.key, 0), 1)                  # of pair 1
    world, first = runner.env.init(jax.random.split(key)[0], runner.params)
    assert kernel.shape == (32, 1) and bias.shape == (1,)
    returns = np.zeros(5)
    steps = np.zeros(5)
    obs = first
    carry = ()
    done = np.zeros(5, bool)
    actor = strategy.actor(state.agent)
    for _ in range(LIMIT):
        action, carry = strategy.greedy(actor, carry, obs, jax.random.key(0))
        world, after = runner.env.step(jax.random.key(0), world, action)
        returns += np.where(done, 0.0, after.reward)
        steps += ~done
        done = done | np.asarray(after.terminated)
        obs = after.input
    np.testing.assert_allclose(result.fitness[2:], returns.mean(), rtol=1e-4)
    np.testing.assert_array_equal(result.steps[2:], steps.sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    "env, words",
    [
        ("cartpole", ["algo.network.recurrent=gru", "algo.network.recurrent_size=8"]),
        (
            "pendulum",
            ["algo.sample_actions=true", "algo.normalize_observation=true", "env.time_limit=20"],
        ),
        ("probe-multidiscrete", []),
        ("masked-bandit", []),
    ],
    ids=["gru", "sampled", "multidiscrete", "masked"],
)
def test_any_policy_evolves(env, words):
    config = jaxrl.compose(
        [
            "algo=es",
            f"env={env}",
            "preset=none",
            "algo.population=4",
            "algo.network.hidden=[4]",
            *words,
        ]
    )
    runner = jaxrl.make_runner(config)
    state = jax.jit(runner.init)(jax.random.key(0), hypers(config.agent), 3)
    after, metrics = jax.jit(runner.advance)(state, 2)
    assert all(np.isfinite(x).all() for x in metrics.values()) and after.progress.update == 2
    assert 0 < metrics["steps_real"] <= 2 * runner.steps_per_update


def test_an_episode_without_a_limit_needs_one():
    words = ["algo=es", "env=cartpole", "preset=none", "env.time_limit=null", "algo.population=4"]
    with pytest.raises(UserError, match=r"no time limit.*algo.episode_steps=1000"):
        jaxrl.compose(words)
    runner = jaxrl.make_runner(jaxrl.compose([*words, "algo.episode_steps=30"]))
    assert runner.steps_per_update == 4 * 30 and runner.limit == 30


@pytest.mark.parametrize("words, text", [
    (["algo=es", "algo.population=7"], "population=7 is odd"),
    (["algo=es", "algo.population=12", "algo.block_size=8"], "block_size=8 is not an even divisor"),
    (["algo=es", "algo.population=12", "algo.block_size=3"], "block_size=3 is not an even divisor"),
    (["algo=ars", "algo.top=9"], "top=9 directions cannot be kept of algo.population / 2 = 8"),
    (["algo=es", "env=frozenlake", "algo.normalize_observation=true"], "needs Box observations"),
    (["algo=ars", "env=two-step"], "controls one agent")])
def test_what_does_not_fit_is_said(words, text):
    with pytest.raises(UserError, match=text):
        jaxrl.compose(["env=cartpole", *words] if not any("env=" in w for w in words) else words)
