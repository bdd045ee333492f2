"""DQN: a step against a loop in NumPy, values known in closed form, and the promises of its driver."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from algos import dqn
from envs_jax.core import EnvSpec, spec
from envs_jax.spaces import Box, Discrete
from jaxrl.blocks.networks.actor_critic import TrunkConfig
from jaxrl.blocks.networks.q_networks import q_network
from jaxrl.blocks.replay import Transitions
from jaxrl.declare import hypers
from jaxrl.drivers.build import build
from jaxrl.errors import UserError
from jaxrl.types import Input, Trajectory
from tests.algos.helpers import dense, slopes, train, wide
from tests.algos.test_probes import Blind, Fatal

SMALL = TrunkConfig(hidden=(8,))


# -------------------------------------------------------------------- against a loop


def values_by_hand(params, obs, duel, mask):
    """Q [n, actions] of one tanh layer."""
    hidden = np.tanh(dense(params["trunk"]["params"]["torso"]["dense_0"], obs))
    q = dense(params["advantage"]["params"]["head"], hidden)
    if not duel:
        return q
    value = dense(params["value"]["params"]["head"], hidden)
    mean = np.array([row[legal].mean() for row, legal in zip(q, mask)])
    return value + q - mean[:, None]


def made_up(config, B=12, A=3):
    """An agent of `config`, its state with another target, and a batch of transitions."""
    rng = np.random.default_rng(0)
    agent = dqn.make_agent(config, EnvSpec(Box(-9.0, 9.0, (2,)), Discrete(A), masked=True))
    hyper = hypers(config)
    state = jax.jit(agent.init)(jax.random.key(0), hyper)
    state = state._replace(target=jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32),
                                               state.params))
    obs, following = rng.normal(size=(2, B, 2)).astype(np.float32)
    masks = rng.random((2, B, A)) < 0.6
    masks[..., 1] = True
    action = np.array([rng.choice(np.flatnonzero(m)) for m in masks[0]], np.int32)
    reward, weight = rng.normal(size=B).astype(np.float32), rng.uniform(0.2, 1.0, B).astype(np.float32)
    discount = (0.9 * (rng.random(B) < 0.7)).astype(np.float32)
    seen = lambda obs, mask: Input(obs, np.zeros(B, bool), mask)
    row = Trajectory(seen(obs, masks[0]), action, (), reward, discount == 0, discount < 0, None, ())
    return agent, hyper, state, Transitions(row, reward, discount, seen(following, masks[1]), weight, np.arange(B))


def check_step(agent, hyper, state, batch, loss, priorities):
    """`learn` descends loss(params, target) -> (total, per item), by Adam's first step, and gives the priorities."""
    target = wide(state.target)
    new, metrics, priority = jax.jit(agent.learn)(state, hyper, batch, 0.0, jax.random.key(1))
    want, items = loss(wide(state.params), target)
    np.testing.assert_allclose(metrics["loss"], want, rtol=2e-5)
    np.testing.assert_allclose(priority, priorities(items), rtol=2e-4, atol=1e-5)
    gradient = slopes(lambda params: loss(params, target)[0], state.params)
    np.testing.assert_allclose(metrics["grad_norm"], np.sqrt(sum((g**2).sum() for g in gradient)), rtol=1e-3)
    for g, before, after in zip(gradient, jax.tree.leaves(wide(state.params)), jax.tree.leaves(new.params)):
        np.testing.assert_allclose(after, before - 0.1 * g / (np.abs(g) + 1e-5), atol=2e-3)
    return new


@pytest.mark.parametrize("double, duel, huber", [(True, False, 1e9), (False, False, 0.5), (True, True, 1e9)])
def test_a_step_is_the_loop(double, duel, huber):
    config = dqn.Config(network=SMALL, double=double, dueling=duel, huber=huber, target_every=2, tau=0.25,
                        learning_rate=0.1)
    agent, hyper, state, batch = made_up(config)
    fixed, (here, there) = wide(state.params), (batch.start.input, batch.next_input)

    def loss(params, target):
        q, later, chooser = (values_by_hand(p, x.obs, duel, x.mask) for p, x in (
            (params, here), (target, there), (fixed, there)))
        total, errors, B = 0.0, [], len(q)
        for i in range(B):
            legal = np.flatnonzero(there.mask[i])
            best = legal[np.argmax((chooser if double else later)[i][legal])]
            error = batch.reward[i] + batch.discount[i] * later[i, best] - q[i, batch.start.action[i]]
            size = abs(error)
            total += batch.weight[i] * (0.5 * error**2 if size <= huber else huber * (size - 0.5 * huber)) / B
            errors.append(size)
        return total, np.array(errors)

    new = check_step(agent, hyper, state, batch, loss, lambda errors: errors)
    jax.tree.map(np.testing.assert_array_equal, new.target, state.target)          # it moves in every second step
    again, _, _ = jax.jit(agent.learn)(new, hyper, batch, 0.0, jax.random.key(1))
    moved = jax.tree.map(lambda old, now: 0.75 * old + 0.25 * now, new.target, again.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), again.target, moved)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("returns", ["categorical", "quantile", "implicit"])
def test_a_step_on_distributions_is_the_loop(returns, n=4, A=3):
    """C51: algorithm 1 of arXiv:1707.06887; QR-DQN: of arXiv:1710.10044; IQN: of arXiv:1806.06923."""
    config = dqn.Config(network=SMALL, returns=returns, atoms=n, value_low=-1.5, value_high=1.0, kappa=0.7,
                        learning_rate=0.1)
    agent, hyper, state, batch = made_up(config)
    fixed, (here, there) = wide(state.params), (batch.start.input, batch.next_input)
    atoms = np.linspace(-1.5, 1.0, n)
    spec = EnvSpec(Box(-9.0, 9.0, (2,)), Discrete(A), masked=True)
    network = q_network(SMALL, spec, size=n, implicit=returns == "implicit")
    fractions = lambda inputs, key: np.asarray(network.outputs(
        state.params, (), jax.tree.map(lambda x: x[None], inputs), fractions=key)[0].tau, float)[0]
    middle = lambda n: np.broadcast_to((np.arange(n) + 0.5) / n, (12, n))
    keys = jax.random.split(jax.random.fold_in(jax.random.key(1), 1))
    drawn = [middle(n)] * 3 if returns != "implicit" else [*map(fractions, (here, there), keys), middle(32)]

    def outputs(params, obs, tau):
        x = np.tanh(dense(params["trunk"]["params"]["torso"]["dense_0"], obs))
        if returns != "implicit":
            return dense(params["advantage"]["params"]["head"], x).reshape(len(x), A, n)
        cosines = np.cos(np.pi * np.arange(64) * tau[..., None])
        gate = np.maximum(dense(params["fractions"]["params"]["dense"], cosines), 0.0)
        return dense(params["advantage"]["params"]["head"], x[:, None] * gate).swapaxes(1, 2)

    def loss(params, target):
        z, later, chooser = (outputs(p, x.obs, tau) for p, x, tau in zip(
            (params, target, fixed), (here, there, there), drawn))
        q = (softmax(chooser) * atoms).sum(-1) if returns == "categorical" else chooser.mean(-1)
        losses = np.zeros(len(z))
        for i in range(len(z)):
            legal = np.flatnonzero(there.mask[i])
            following, mine = later[i, legal[np.argmax(q[i][legal])]], z[i, batch.start.action[i]]
            if returns == "categorical":
                projected = np.zeros(n)
                for p, place in zip(softmax(following), atoms):
                    place = np.clip(batch.reward[i] + batch.discount[i] * place, -1.5, 1.0)
                    b = (place + 1.5) / (2.5 / (n - 1))
                    low, high = int(np.floor(b)), int(np.ceil(b))
                    projected[low] += p * (high - b + (low == high))
                    projected[high] += p * (b - low)
                losses[i] = -(projected * np.log(softmax(mine))).sum()
                continue
            for k in range(n):
                for j in range(n):
                    u = batch.reward[i] + batch.discount[i] * following[j] - mine[k]
                    smooth = 0.5 * u**2 if abs(u) <= 0.7 else 0.7 * (abs(u) - 0.35)
                    losses[i] += abs(drawn[0][i, k] - (u < 0)) * smooth / 0.7 / n
        return (batch.weight * losses).mean(), losses

    check_step(agent, hyper, state, batch, loss, lambda losses: losses)


@pytest.mark.slow
def test_rainbow_without_its_parts_is_dqn():
    """To the last bit, over 100 updates."""
    off = {"double": False, "dueling": False, "noisy": False, "prioritized": False, "n_step": 1, "returns": "mean"}
    on = ["algo.network.hidden=[8]", "algo.epsilon_start=1", "algo.epsilon_end=0.05", "algo.alpha=0.6",
          *(f"algo.{name}={str(value).lower()}" for name, value in off.items())]
    ends = []
    for algo in ("dqn", "rainbow"):
        config = jaxrl.compose([f"algo={algo}", "env=cartpole", "preset=none", *on])
        runner = build(config).runner
        state = jax.jit(runner.init)(jax.random.key(0), hypers(config.agent), 400)
        ends.append(jax.jit(runner.advance)(state, 350)[0].agent)
    assert ends[0].updates == 2 * 100
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_where_atoms_begin_and_end_does_not_matter_to_who_acts():
    config = dqn.Config(network=SMALL, returns="categorical", atoms=5)
    agent = dqn.make_agent(config, EnvSpec(Box(-9.0, 9.0, (2,)), Discrete(3)))
    state = jax.jit(agent.init)(jax.random.key(0), hypers(config))
    obs = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    action, _ = agent.greedy(agent.actor(state), (), Input(obs, np.zeros(50, bool)), jax.random.key(1))
    params = wide(state.params)
    z = dense(params["advantage"]["params"]["head"], np.tanh(dense(params["trunk"]["params"]["torso"]["dense_0"], obs)))
    want = (softmax(z.reshape(50, 3, 5)) * np.linspace(-100, 100, 5)).sum(-1).argmax(-1)
    np.testing.assert_array_equal(action, want)
    assert len(set(want)) > 1


# -------------------------------------------------------------------- probes

QUICK = {"num_envs": 8, "gradient_steps": 2, "warmup": 200, "replay_capacity": 4096, "learning_rate": 5e-3,
         "network": SMALL, "target_every": 50, "epsilon_end": 0.2}


def values(trained, observations, mask=None):
    """Q [n, A]."""
    config = trained.config
    network = q_network(config.network, spec(trained.env), size=1 if config.returns == "mean" else config.atoms,
                        duel=config.dueling, noisy=config.noisy, implicit=config.returns == "implicit")
    inputs = Input(jnp.asarray(observations)[None], jnp.zeros((1, len(observations)), bool), mask)
    z = np.asarray(network.outputs(trained.state.agent.params, (), inputs)[0].z[0])
    atoms = np.linspace(config.value_low, config.value_high, z.shape[-1])
    return (softmax(z) * atoms).sum(-1) if config.returns == "categorical" else z.mean(-1)


def trained(name, updates=1500, **settings):
    return train(dqn.DQN, name, updates, **{**QUICK, **settings})


@pytest.mark.parametrize("name", ["probe-observation", "probe-discount", "probe-both"])
def test_probe(name):
    learner = trained(name, gamma=0.5)
    probe = learner.env.unwrapped
    q = values(learner, probe.observations)
    np.testing.assert_allclose(q.max(axis=1), probe.values(0.5), atol=0.05)
    if probe.best_actions is not None:
        np.testing.assert_array_equal(q.argmax(axis=1), probe.best_actions)


@pytest.mark.parametrize("settings", [
    {}, *(pytest.param(settings, marks=pytest.mark.slow) for settings in (
        {"n_step": 3, "prioritized": True, "dueling": True},
        {"returns": "categorical", "atoms": 21, "value_low": 0.0, "value_high": 100.0},
        {"returns": "quantile", "atoms": 8}, {"returns": "implicit", "atoms": 4}))], ids=str)
def test_bootstraps_through_a_time_limit(settings):
    learner = trained("probe-truncation", 3000, gamma=0.98, learning_rate=0.02, learning_rate_end=0.05, target_every=20,
                      **settings)
    assert abs(values(learner, [[0.0]]).max() - 50.0) <= 2.5


def test_who_takes_a_time_limit_for_an_end_is_caught():
    learner = trained("probe-truncation", 1500, wrap=Blind, gamma=0.98, learning_rate=0.02, target_every=20)
    assert values(learner, [[0.0]]).max() < 20.0


@pytest.mark.slow
def test_no_illegal_action_ever():
    """`train` asserts that the learner is alive; an illegal action would have paid NaN."""
    learner = trained("masked-bandit", wrap=Fatal, gamma=0.5)
    assert learner.metrics["return_mean"] / learner.env.time_limit > 0.75 * learner.env.unwrapped.optimal_reward


# -------------------------------------------------------------------- the driver


WORDS = ["algo=dqn", "env=cartpole", "preset=none", "algo.prioritized=true", "algo.n_step=3", "algo.warmup=160",
         "algo.replay_capacity=4000", "algo.network.hidden=[8]"]


@pytest.fixture(scope="module")
def learner():
    config = jaxrl.compose(WORDS)
    runner = build(config).runner
    keys = jax.random.split(jax.random.key(0), 2)
    return SimpleNamespace(config=config, runner=runner, keys=keys, hyper=hypers(config.agent),
                           one=jax.jit(runner.advance))


def test_the_warm_up_only_stores(learner):
    state = jax.jit(learner.runner.init)(learner.keys[0], learner.hyper, 100)
    after, metrics = learner.one(state, 40)
    jax.tree.map(np.testing.assert_array_equal, after.agent, state.agent)
    assert after.replay.ring.size == 40 and np.isnan(metrics["loss"]) and after.alive
    actions = np.asarray(after.replay.ring.rows.action[:40])
    assert 0.3 < actions.mean() < 0.7
    learned, metrics = learner.one(after, 3)
    assert learned.agent.updates == 6 and np.isfinite(metrics["loss"])


@pytest.mark.slow
def test_a_vmapped_seed_is_the_single_one_up_to_rounding(learner):
    """10 updates after the warm-up."""
    init = lambda key: learner.runner.init(key, learner.hyper, 100)
    both, _ = jax.jit(jax.vmap(lambda key: learner.runner.advance(init(key), 50)))(learner.keys)
    for i, key in enumerate(learner.keys):
        alone, _ = learner.one(jax.jit(init)(key), 50)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5),
                     both.agent.params, alone.agent.params)


@pytest.mark.slow
@pytest.mark.parametrize("members", [1, 2])
def test_the_replay_is_not_copied(learner, members, optimized):
    """Peak memory of a chunk of updates is that of the state: a copy of the priorities alone would add a tenth."""
    config = dataclasses.replace(learner.config.agent, replay_capacity=400_000)
    runner = build(dataclasses.replace(learner.config, agent=config)).runner
    state = jax.eval_shape(jax.vmap(lambda key: runner.init(key, learner.hyper, 100)), learner.keys[:members])
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.replay))
    advance = jax.jit(jax.vmap(runner.advance, in_axes=(0, None)), donate_argnums=0)
    memory = advance.lower(state, jnp.int32(3)).compile().memory_analysis()
    assert size > 1e7 and memory.alias_size_in_bytes > size
    assert memory.argument_size_in_bytes + memory.temp_size_in_bytes < 1.05 * size


@pytest.mark.slow
def test_resume_is_exact_with_the_replay_in_the_checkpoint(tmp_path):
    words = {word.partition("=")[0]: word.partition("=")[2] for word in WORDS}
    settings = {"algo.prioritized": True, "algo.n_step": 3, "algo.warmup": 160, "algo.replay_capacity": 4000,
                "algo.network.hidden": [8], "preset": "none", "eval_episodes": 2, "num_seeds": 2}
    whole = jaxrl.train(words["algo"], words["env"], out=str(tmp_path / "whole"), total_steps=800, schedule_steps=800,
                        **settings)
    half = jaxrl.train(words["algo"], words["env"], out=str(tmp_path / "half"), total_steps=400, schedule_steps=800,
                       **settings)
    half = jaxrl.resume(half.folder, total_steps=800)
    ends = [run.folder / "checkpoints" / "800" / "state.safetensors" for run in (whole, half)]
    assert ends[0].read_bytes() == ends[1].read_bytes()


@pytest.mark.parametrize("words, text", [
    (["env=pendulum"], r"dqn needs a discrete action space, pendulum has Box\(-2, 2, \(1,\)\). Try: sac, td3"),
    (["algo.batch_size=200", "algo.replay_capacity=100"], "algo.batch_size=200 is more than algo.replay_capacity=100"),
    (["algo.warmup=3"], "algo.warmup=3 is too short to have anything to draw"),
    (["algo.network.recurrent=gru"], "dqn learns from single transitions"),
])
def test_bad_input(words, text):
    with pytest.raises(UserError, match=text):
        jaxrl.compose(["algo=dqn", "env=cartpole", *words])
