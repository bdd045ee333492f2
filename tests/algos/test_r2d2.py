"""R2D2: a step against a loop in NumPy, values known in closed form.

And the promises of its driver.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from algos import r2d2
from envs_jax.core import EnvSpec, spec
from envs_jax.spaces import Box, Discrete
from jaxrl.blocks.losses.value import inverse_rescale
from jaxrl.blocks.networks.actor_critic import TrunkConfig
from jaxrl.blocks.networks.q_networks import q_network
from jaxrl.blocks.replay import Sequences
from jaxrl.declare import hypers
from jaxrl.drivers.build import build
from jaxrl.errors import UserError
from jaxrl.types import Input, Trajectory
from tests.algos.helpers import dense, slopes, train, wide
from tests.algos.test_probes import Fatal

SMALL = TrunkConfig(hidden=(4,), recurrent="gru", recurrent_size=3)


# -------------------------------------------------------------------- against a loop


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def gru(layer, h, x):
    """Cho et al. 2014, with the bias of the candidate inside of the reset gate."""
    r, z = (sigmoid(dense(layer[f"i{g}"], x) + h @ layer[f"h{g}"]["kernel"]) for g in "rz")
    return (1 - z) * np.tanh(dense(layer["in"], x) + r * dense(layer["hn"], h)) + z * h


def unroll(params, h, inputs, final=None):
    """Q [T, B, A] of inputs [T, B], of what followed each if `final` is given, and the last state.
    """
    trunk = params["trunk"]["params"]

    def encode(obs):
        return np.tanh(dense(trunk["torso"]["dense_0"], obs))

    def head(h, mask):
        q, value = (dense(params[part]["params"]["head"], h) for part in ("advantage", "value"))
        return value + q - np.array([row[legal].mean() for row, legal in zip(q, mask)])[:, None]

    now = []
    later = []
    for t, first in enumerate(inputs.first):
        h = gru(trunk["core"]["cell"], np.where(first[:, None], 0.0, h), encode(inputs.obs[t]))
        now.append(head(h, inputs.mask[t]))
        if final is not None:
            later.append(head(gru(trunk["core"]["cell"], h, encode(final.obs[t])), final.mask[t]))
    return np.array(now), np.array(later), h


def made_up(config, given, B=5, A=3):
    """An agent of `config`, its state with another target, and a batch of sequences; `given`.

    What followed is.
    """
    rng = np.random.default_rng(0)
    burn = config.burn_in
    T = config.burn_in + config.sequence_length
    agent = r2d2.make_agent(config, EnvSpec(Box(-9.0, 9.0, (2,)), Discrete(A), masked=True))
    hyper = hypers(config)
    state = jax.jit(agent.init)(jax.random.key(0), hyper)
    state = state._replace(
        target=jax.tree.map(
            lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32), state.params
        )
    )
    dead, late = rng.random((2, T, B)) < 0.2
    late &= ~dead
    first = np.concatenate([rng.random((1, B)) < 0.2, (dead | late)[:-1]])
    mask = rng.random((T + 1, B, A)) < 0.6
    mask[..., 1] = True
    obs = 2 * rng.normal(size=(T + 1, B, 2)).astype(np.float32)
    final = Input(
        np.where((dead | late)[..., None], -obs[1:], obs[1:]), np.zeros((T, B), bool), mask[1:]
    )
    action = np.array([[rng.choice(np.flatnonzero(m)) for m in row] for row in mask[:-1]], np.int32)
    rows = Trajectory(
        Input(obs[:-1], first, mask[:-1]),
        action,
        (),
        3 * rng.normal(size=(T, B)).astype(np.float32),
        dead,
        late,
        final if given else None,
        (),
    )
    before, rest = (
        jax.tree.map(lambda x, part=part: x[part], rows) for part in (slice(burn), slice(burn, T))
    )
    valid = np.ones_like(late[burn:]) if given else ~late[burn:]
    batch = Sequences(
        before,
        rest,
        Input(obs[-1], np.zeros(B, bool), mask[-1]),
        valid,
        rng.normal(size=(B, 3)).astype(np.float32),
        rng.uniform(0.2, 1.0, B).astype(np.float32),
        np.arange(B),
    )
    assert first[1:].any() and dead[burn:].any() and late[burn:].any()
    return agent, hyper, state, batch


def h(x):
    return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + 1e-3 * x


def h_inverse(x):
    return np.sign(x) * (((np.sqrt(1 + 4e-3 * (np.abs(x) + 1 + 1e-3)) - 1) / 2e-3) ** 2 - 1)


def next_rows(batch):
    """The input of the row after each one."""
    pairs = zip(batch.rows.input[:3], batch.last_input[:3])
    return Input(*(np.concatenate([x[1:], last[None]]) for x, last in pairs))


def sum_of_rewards(batch, t, b):
    """(discounted rewards of the window of at most 3 steps from t on, its last step)."""
    rows = batch.rows
    T = len(rows.reward)
    G = 0.0
    for s in range(t, t + 3):
        G += 0.99 ** (s - t) * rows.reward[s, b]
        unknown = s + 1 < T and not batch.valid[s + 1, b]
        if rows.terminated[s, b] or rows.truncated[s, b] or unknown or s == T - 1:
            break
    return G, s


@pytest.mark.parametrize("given", [True, False])
def test_a_step_is_the_loop(given):
    """Also where what followed a row is the next row, and what followed a time limit is not known.
    """
    config = r2d2.Config(network=SMALL, burn_in=2, sequence_length=5,
                         n_step=3, learning_rate=0.1, max_grad_norm=1e9, target_every=2, tau=0.25)
    agent, hyper, state, batch = made_up(config, given)
    fixed = wide(state.params)
    old = wide(state.target)
    rows = batch.rows
    T, B = 5, 5
    final_input = rows.final_input if given else next_rows(batch)

    def start(params):
        return unroll(params, batch.carry0, batch.burn_in.input)[2]

    def loss(params, carry):
        q, _, _ = unroll(params, carry, rows.input, final_input)
        chooser = unroll(fixed, start(fixed), rows.input, final_input)[1]
        next_q = unroll(old, start(old), rows.input, final_input)[1]
        total = 0.0
        errors = np.zeros((T, B))
        for t, b in np.ndindex(T, B):
            if not batch.valid[t, b]:
                continue
            G, s = sum_of_rewards(batch, t, b)
            k = s - t
            if not rows.terminated[s, b]:
                legal = np.flatnonzero(final_input.mask[s, b])
                best = legal[np.argmax(chooser[s, b][legal])]
                G += 0.99 ** (k + 1) * h_inverse(next_q[s, b, best])
            errors[t, b] = abs(h(G) - q[t, b, rows.action[t, b]])
            total += 0.5 * batch.weight[b] * errors[t, b] ** 2 / (T * B)
        return total, errors

    learn = jax.jit(agent.learn)
    new, metrics, priority = learn(state, hyper, batch, 0.0, jax.random.key(1))
    want, errors = loss(fixed, start(fixed))
    np.testing.assert_allclose(metrics["loss"], want, rtol=2e-5)
    means = errors.sum(axis=0) / batch.valid.sum(axis=0)
    np.testing.assert_allclose(priority, 0.9 * errors.max(axis=0) + 0.1 * means, rtol=2e-4)

    def norm(gradient):
        return np.sqrt(sum((g**2).sum() for g in gradient))

    # none through the burn-in
    gradient = slopes(lambda params: loss(params, start(fixed))[0], state.params)
    np.testing.assert_allclose(metrics["grad_norm"], norm(gradient), rtol=1e-3)
    if given:
        through = slopes(lambda params: loss(params, start(params))[0], state.params)
        assert abs(norm(through) / norm(gradient) - 1) > 0.005
    for g, before, after in zip(gradient, jax.tree.leaves(fixed), jax.tree.leaves(new.params)):
        np.testing.assert_allclose(after, before - 0.1 * g / (np.abs(g) + 1e-5), atol=2e-3)

    # it moves every second step
    jax.tree.map(np.testing.assert_array_equal, new.target, state.target)
    again, _, _ = learn(new, hyper, batch, 0.0, jax.random.key(1))
    moved = jax.tree.map(lambda old, now: 0.75 * old + 0.25 * now, new.target, again.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), again.target, moved
    )


# -------------------------------------------------------------------- probes

QUICK = {
    "num_envs": 8,
    "burn_in": 4,
    "sequence_length": 8,
    "period": 4,
    "rollout_length": 4,
    "warmup": 200,
    "replay_capacity": 4096,
    "target_every": 20,
    "epsilon_end": 0.2,
    "network": TrunkConfig(hidden=(8,), recurrent="gru", recurrent_size=8),
}


@pytest.mark.slow
def test_bootstraps_through_a_time_limit():
    """At each step of an episode. The recurrent state tells the step.

    So that V of what follows the last one is never learned, only extrapolated: with windows that
    all end there (n_step 5) any value would be nearly consistent.
    """
    learner = train(r2d2.R2D2, "probe-truncation", 1300, gamma=0.98, n_step=1,
                    **QUICK | {"learning_rate": 0.02, "learning_rate_end": 0.05, "target_every": 5})
    network = q_network(learner.config.network, spec(learner.env), duel=True)
    inputs = Input(jnp.zeros((8, 1, 1)), jnp.arange(8)[:, None] == 0)
    q, _ = network.values(learner.state.agent.params, network.carry(1), inputs)
    np.testing.assert_allclose(inverse_rescale(q.max(axis=-1)), 50.0, atol=2.5)


@pytest.mark.slow
def test_no_illegal_action_ever():
    """`train` asserts that the learner is alive; an illegal action would have paid NaN."""
    learner = train(
        r2d2.R2D2, "masked-bandit", 600, wrap=Fatal, gamma=0.5, learning_rate=5e-3, **QUICK
    )
    assert (
        learner.metrics["return_mean"] / learner.env.time_limit
        > 0.75 * learner.env.unwrapped.optimal_reward
    )


# -------------------------------------------------------------------- the driver

SETTINGS = {
    "algo.num_envs": 4,
    "algo.rollout_length": 4,
    "algo.burn_in": 4,
    "algo.sequence_length": 4,
    "algo.period": 4,
    "algo.batch_size": 8,
    "algo.warmup": 160,
    "algo.replay_capacity": 4000,
    "algo.network.hidden": [8],
    "algo.network.recurrent_size": 8,
    "algo.epsilon_ladder": True,
    "preset": "none",
}
WORDS = [
    "algo=r2d2",
    "env=memory-chain",
    *(f"{k}={v}".replace(" ", "") for k, v in SETTINGS.items()),
]


@pytest.fixture(scope="module")
def learner():
    config = jaxrl.compose(WORDS)
    runner = build(config).runner
    return SimpleNamespace(
        config=config,
        runner=runner,
        keys=jax.random.split(jax.random.key(0), 2),
        hyper=hypers(config.agent),
    )


@pytest.mark.slow
def test_a_vmapped_seed_is_the_single_one_up_to_rounding(learner):
    """10 updates after the warm-up."""
    def init(key):
        return learner.runner.init(key, learner.hyper, 100)

    both, metrics = jax.jit(jax.vmap(lambda key: learner.runner.advance(init(key), 20)))(
        learner.keys
    )
    np.testing.assert_array_equal(both.agent.updates, 10)
    np.testing.assert_allclose(metrics["replay_size"], np.mean([16 * n for n in range(11, 21)]))
    assert (metrics["priority"] > 0).all()
    alone, _ = jax.jit(lambda key: learner.runner.advance(init(key), 20))(learner.keys[1])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5),
        both.agent.params,
        alone.agent.params,
    )


@pytest.mark.slow
def test_resume_is_exact_with_the_replay_in_the_checkpoint(tmp_path):
    settings = {"eval_episodes": 2, "schedule_steps": 800, **SETTINGS}
    whole = jaxrl.train(
        "r2d2", "memory-chain", out=str(tmp_path / "whole"), total_steps=800, **settings
    )
    half = jaxrl.train(
        "r2d2", "memory-chain", out=str(tmp_path / "half"), total_steps=400, **settings
    )
    half = jaxrl.resume(half.folder, total_steps=800)
    ends = [run.folder / "checkpoints" / "800" / "state.safetensors" for run in (whole, half)]
    assert ends[0].read_bytes() == ends[1].read_bytes()


def test_each_environment_has_its_epsilon(learner):
    agent = build(learner.config).agent
    state = jax.jit(agent.init)(learner.keys[0], learner.hyper)
    inputs = Input(jnp.zeros((4, 3)), jnp.ones(4, bool), slot=jnp.arange(4))

    def explore(key):
        return agent.explore(agent.actor(state), learner.hyper, agent.carry(4), inputs, 0.0, key)[0]

    actions = np.asarray(jax.jit(jax.vmap(explore))(jax.random.split(learner.keys[1], 4000)))
    best = np.asarray(agent.greedy(agent.actor(state), agent.carry(4), inputs, learner.keys[0])[0])
    # half of the random actions are the greedy one
    want = 0.4 ** (1 + 7 * np.arange(4) / 3) / 2
    np.testing.assert_allclose((actions != best).mean(axis=0), want, atol=4 * np.sqrt(0.16 / 4000))
    assert want[0] > 0.15 and want[3] < 1e-3


@pytest.mark.parametrize(
    "words, text",
    [
        (["env=pendulum"], "r2d2 needs a discrete action space, pendulum has"),
        (
            ["algo.network.recurrent=none"],
            "r2d2 needs a recurrent network: algo.network.recurrent=gru",
        ),
        (["algo.rollout_length=3"], "algo.period=8 is not a multiple of algo.rollout_length=3"),
        (
            ["algo.sequence_length=100", "algo.replay_capacity=1000"],
            "algo.replay_capacity=1,000 is too short: 16 "
            "environments and sequences of 108 steps need 1,856",
        ),
    ],
)
def test_bad_input(words, text):
    with pytest.raises(UserError, match=text):
        jaxrl.compose(["algo=r2d2", "env=cartpole", *words])
