"""Checkpoints with and without the replay, and memory that is checked before it is allocated."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import backend
from jaxrl import config as configs
from jaxrl.declare import hypers
from jaxrl.drivers.build import build
from jaxrl.errors import UserError
from jaxrl.population import budget
from jaxrl.run.launch import prepare
from jaxrl.run.loop import Session
from jaxrl.run.reporter import Reporter
from jaxrl.storage import checkpoint

SMALL = {"preset": "none", "total_steps": 400, "schedule_steps": 1200, "eval_episodes": 2,
         "num_seeds": 2,
         "algo.warmup": 160, "algo.replay_capacity": 4000, "algo.network.hidden": [8]}


class Notes(Reporter):
    def __init__(self):
        self.notes = []
        self.head = {}

    def note(self, text):
        self.notes.append(text)

    def header(self, rows):
        self.head = rows


def manifest(run):
    step = checkpoint.last(run.folder)
    return json.loads((run.folder / "checkpoints" / str(step) / "manifest.json").read_text())


@pytest.mark.slow
def test_a_checkpoint_without_the_replay(tmp_path):
    notes = Notes()
    run = jaxrl.train("dqn", "cartpole", out=str(tmp_path / "run"), checkpoint_replay=False,
                      reporter=notes, **SMALL)
    assert "a member" in notes.head["memory"] and len(notes.head) == 6
    found = manifest(run)
    assert found["meta"]["replay"] is False
    assert not any(name.startswith("replay/") for name in found["arrays"])
    assert found["files"]["state.safetensors"]["bytes"] < 100_000
    assert run.evaluate(2).shape == (2, 2)

    before = {name: array for name,
              array in checkpoint.load(run.folder)[0].items() if name.startswith("agent/")}
    # less than the warm-up: nothing is learned
    short = jaxrl.resume(run.folder, total_steps=480, reporter=notes)
    assert any("the replay is not in the checkpoint" in note and "160 steps" in note
               for note in notes.notes)
    after = checkpoint.load(short.folder)[0]
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    jaxrl.resume(run.folder, total_steps=1200, checkpoint_replay=True)
    found = manifest(run)
    assert "replay" not in found["meta"]
    assert any(name.startswith("replay/") for name in found["arrays"])
    updates = checkpoint.load(run.folder)[0]["agent/updates"]
    # 2 for every 4 steps: from the 160th to the 400th, and again from 160 after the 480th on
    assert (updates == 2 * (400 - 160) // 4 + 2 * (1200 - 480 - 160) // 4).all()


def test_a_missing_replay_is_an_error_where_it_was_kept(tmp_path):
    run = jaxrl.train("dqn", "cartpole", out=str(tmp_path / "run"), **SMALL)
    arrays, meta = checkpoint.load(run.folder)
    kept = {name: array for name, array in arrays.items() if not name.startswith("replay/")}
    meta = {name: meta[name] for name in ("layout", "update", "metric_rows", "eval_rows")}
    checkpoint.save(run.folder, 400, kept, meta)
    with pytest.raises(UserError, match=r"replay/.* is missing"):
        jaxrl.resume(run.folder, total_steps=800)


def test_missing_memory_is_reported_before_there_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "memory", lambda device=None: (2**30, 2**28))
    words = {**SMALL, "total_steps": 10**6, "num_seeds": 4, "algo.replay_capacity": 10**7}
    text = (r"4 times: replay of 10,000,000 x 16-byte observations needs .* GiB, "
            r"6\d\.\d MiB are free. Try: algo.repl")
    with pytest.raises(UserError, match=text) as error:
        jaxrl.train("dqn", "cartpole", out=str(tmp_path / "run"), **words)
    assert not (tmp_path / "run").exists()
    fits = int(str(error.value).rpartition("=")[2])
    config = jaxrl.compose(["algo=dqn", "env=cartpole", f"algo.replay_capacity={fits}",
                            "algo.network.hidden=[8]"])
    learner = build(config)
    state = budget.member(learner.runner, hypers(config.agent))
    need = budget.check(learner.runner, state, 4, jax.local_devices())
    assert 0.9 * 2**28 < need.each * 4 <= 2**28
    elsewhere = configs.from_values({"algo": "dqn", "env": "cartpole", **words, "workers": 2,
                                     "address": "ray:6379"})
    asked = prepare(elsewhere).need                         # by machines that are not this one
    assert (asked.members, asked.free) == (4, 0) and asked.each > 2**28
    with pytest.raises(UserError, match=r"1000000 members of .* each need .* 256.0 MiB are free"):
        budget.check(build(jaxrl.compose(["algo=ppo", "env=cartpole"])).runner,
                     state._replace(replay=()), 10**6, jax.local_devices())


def test_the_estimate_is_what_a_state_takes():
    config = jaxrl.compose(["algo=dqn", "env=cartpole", "algo.network.hidden=[8]",
                            "algo.replay_capacity=2000"])
    learner = build(config)
    hyper = hypers(config.agent)
    made = jax.jit(learner.runner.init)(jax.random.key(0), hyper, jnp.int32(1))
    data = jax.tree.map(lambda x: jax.random.key_data(x)
                        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, made)
    got = budget.nbytes(budget.member(learner.runner, hyper))
    want = sum(x.nbytes for x in jax.tree.leaves(data))
    assert abs(got - want) <= 64                     # a key counts as it is declared


def test_a_large_copy_of_the_replay_is_noted(tmp_path, monkeypatch):
    """Two blocks are joined in one array, a copy of the state, which is small without a replay."""
    monkeypatch.setattr(backend, "memory", lambda device=None: (2**30, 600_000))
    words = {**SMALL, "total_steps": 200, "block_size": 1}
    for keeps in (True, False):
        notes = Notes()
        jaxrl.train("dqn", "cartpole", out=str(tmp_path / str(keeps)), checkpoint_replay=keeps,
                    reporter=notes, **words)
        assert any("writing them takes" in note for note in notes.notes) == keeps


def test_copies_that_fill_up_a_block_count():
    """Five members on four devices are three blocks of two."""
    config = jaxrl.compose(["algo=ppo", "env=cartpole"])
    learner = build(config)
    state = budget.member(learner.runner, hypers(config.agent))
    cpus = jax.local_devices()[:1] * 4
    assert budget.check(learner.runner, state, 5, cpus).members == 6
    assert budget.check(learner.runner, state, 5, cpus, 4).members == 8


@pytest.mark.parametrize("members, size, memories, most", [
    (5, 2, 1, 6), (8, 1, 2, 4), (8, 3, 2, 6), (9, 8, 2, 8), (1, 1, 4, 1), (7, 2, 3, 4)])
def test_members_that_one_memory_holds(members, size, memories, most):
    assert budget.together(members, size, memories) == most


def test_a_resumed_run_is_measured_before_its_state_is_loaded(tmp_path, monkeypatch):
    """More than half of the free memory is the run's: it fits once, not twice."""
    run = jaxrl.train("dqn", "cartpole", out=str(tmp_path / "run"), **SMALL)
    need = sum(array.nbytes for array in checkpoint.load(run.folder)[0].values())
    held = [0]
    put = Session.restore

    def restore(self, *args, **more):
        put(self, *args, **more)
        held[0] = need

    monkeypatch.setattr(Session, "restore", restore)
    monkeypatch.setattr(backend, "memory", lambda device=None: (4 * need, need * 3 // 2 - held[0]))
    notes = Notes()
    jaxrl.resume(run.folder, total_steps=440, reporter=notes)
    assert held[0] and notes.head["memory"].endswith(" free")

    monkeypatch.setattr(backend, "memory", lambda device=None: (4 * need, need // 2))
    with pytest.raises(UserError, match="2 times: replay of 4,000 x 16-byte observations needs"):
        jaxrl.resume(run.folder, total_steps=480)


@pytest.mark.parametrize("words, text", [
    (["algo=dqn", "total_steps=500", "algo.warmup=1000"],
     "algo.warmup=1,000 is not less than total_steps=500: nothing would be learned"),
    (["algo=sac", "env=pendulum", "total_steps=1000"],
     "algo.warmup=1,000 is not less than total_steps=1,000"),
    # 143 updates of 7 steps, both
    (["algo=dqn", "total_steps=1001", "algo.warmup=1000", "algo.num_envs=7"],
     "total_steps=1,001 in whole updates of 7 steps: nothing would be learned. "
     "Try: total_steps=10000"),
])
def test_a_warm_up_longer_than_the_run(words, text):
    with pytest.raises(UserError, match=text):
        jaxrl.compose(["env=cartpole", *words])
