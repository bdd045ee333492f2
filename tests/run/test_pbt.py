"""Runs of population-based training, and the schedules that they find."""

from __future__ import annotations

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.api import Run
from jaxrl.config.overrides import parse_sweep
from jaxrl.declare import Range
from jaxrl.distributed.pool import InlinePool
from jaxrl.drivers.build import build
from jaxrl.errors import UserError
from jaxrl.population.members import on_host
from jaxrl.population.remote import BlockHost, RemoteMembers
from jaxrl.report import page as report
from jaxrl.run import learners, loop, pbt
from jaxrl.run.plan import plan, settle
from jaxrl.storage import checkpoint, metrics
from jaxrl.storage.lineage import final_fitness, fittest, read_lineage

# -------------------------------------------------------------------- runs


SMALL = {"preset": "none", "total_steps": 1024, "population": 5, "interval": 256,
         "eval_episodes": 4, "algo.num_envs": 2, "algo.rollout_length": 32,
         "algo.network.hidden": (8,), "block_size": 2, "num_devices": 1, "checkpoint_every": 256,
         "algo.learning_rate": Range(1e-5, 1e-2, True), "algo.clip": Range(0.1, 0.3)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return jaxrl.pbt("ppo", "cartpole", out=str(tmp_path_factory.mktemp("pbt") / "run"), **SMALL)


def state(run, step=None):
    return checkpoint.load(run.folder, step)[0]


def test_the_values_used_are_the_values_logged(run):
    lineage = metrics.read(run.folder, pbt.LINEAGE)
    assert [row["step"] for row in lineage] == [0, 256, 512, 768]
    for row, step in zip(lineage, (256, 512, 768, 1024)):
        used = state(run, step) if step in checkpoint.steps(run.folder) else None
        # a checkpoint is of before the round at its step
        if used is not None:
            np.testing.assert_array_equal(used["hyper/learning_rate"],
                                          np.float32(row["learning_rate"]))
            np.testing.assert_array_equal(used["hyper/clip"], np.float32(row["clip"]))
    assert len(checkpoint.steps(run.folder)) >= 3
    assert any(row["source"] != list(range(5)) for row in lineage[1:])
    evals = {row["step"]: np.mean(row["returns"], axis=1) for row in run.evals()}
    for row in lineage[1:]:
        np.testing.assert_allclose(row["fitness"], evals[row["step"]])
        worst = int(np.argmin(row["fitness"]))
        assert row["source"][worst] != worst
    assert set(lineage[0]) == {"step", "fitness", "source", "learning_rate", "clip"}


@pytest.mark.slow
def test_resume_is_exact(run, tmp_path):
    first = {**SMALL, "total_steps": 512, "schedule_steps": 1024}
    half = jaxrl.pbt("ppo", "cartpole", out=str(tmp_path / "half"), **first)
    half = jaxrl.resume(half.folder, total_steps=1024)
    assert (half.folder / pbt.LINEAGE).read_bytes() == (run.folder / pbt.LINEAGE).read_bytes()
    a = state(run)
    b = state(half)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    # back, and the same again
    again = jaxrl.resume(half.folder, step=768, total_steps=1024)
    assert (again.folder / pbt.LINEAGE).read_bytes() == (run.folder / pbt.LINEAGE).read_bytes()
    np.testing.assert_array_equal(state(again)["agent/optimizer/1/mu"], a["agent/optimizer/1/mu"])


def test_a_copy_has_the_bits_of_its_source_and_keeps_its_environment():
    config = pbt.question(*parse_sweep(["algo=ppo", "env=cartpole", "preset=none", "population=5",
                                        "algo.num_envs=2",
                                        "algo.rollout_length=8", "algo.network.hidden=[8]"])).config
    members = learners.make_members(config.with_settings(num_devices=1, block_size=2),
                                    build(config), episodes=2)
    hyper = learners.spread(config)
    population = members.init(learners.member_keys(0, 5, 0), hyper, 10)
    population, _ = members.advance(population, 2)
    before = members.to_host(population)
    source = np.array([0, 4, 2, 2, 1])
    population = members.copy(population, source,
                              hyper._replace(gamma=jnp.float32([.9, .91, .92, .93, .94])))
    after = members.to_host(population)
    same = np.testing.assert_array_equal
    jax.tree.map(lambda old, new: same(new, np.asarray(old)[source]), before.agent, after.agent)
    for kept in ("env", "carry", "progress", "key", "replay"):
        jax.tree.map(lambda old, new: same(_data(old), _data(new)), getattr(before, kept),
                     getattr(after, kept))
    np.testing.assert_array_equal(after.hyper.gamma, np.float32([.9, .91, .92, .93, .94]))
    population, _ = members.advance(population, 1)
    # nothing is compiled again
    assert sum(name == "advance" for name, _ in members._programs) == 1


@pytest.mark.slow
def test_a_dead_member_copies_into_a_fresh_environment():
    """Otherwise the state of the environment would kill the copy. Workers give the same bits."""
    config = jaxrl.config.from_values({
        "algo": "dqn", "env": "cartpole", "preset": "none", "num_seeds": 4, "num_devices": 1,
        "block_size": 2, "algo.warmup": 40, "algo.replay_capacity": 400,
        "algo.network.hidden": [8], "algo.prioritized": True})
    learner = build(config)
    hyper = jax.tree.map(np.asarray, learners.spread(config))
    found = []

    def spoil(x):
        if _is_key(x) or (x := np.asarray(x)).dtype.kind != "f":
            return x
        return np.where(np.arange(4).reshape(-1, *[1] * (x.ndim - 1)) < 2, np.nan,
                        x).astype(x.dtype)

    for members in (learners.make_members(config, learner, episodes=2), RemoteMembers(
            learner.runner, 4, InlinePool(BlockHost, (jaxrl.config.to_plain(config), 2, 2)),
            size=2)):
        population = members.init(learners.member_keys(0, 4, 0), hyper, 10)
        population, _ = members.advance(population, 20)
        state = on_host(members.to_host(population))
        dead = members.to_host(population)._replace(alive=np.array([False, False, True, True]))
        spoiled = dead._replace(env=jax.tree.map(spoil, dead.env),
                                replay=jax.tree.map(spoil, dead.replay))
        population = members.from_host(spoiled)
        # 1 stays as it is
        population = members.copy(population, np.array([3, 1, 3, 3]), hyper)
        after = on_host(members.to_host(population))
        assert after.alive.tolist() == [True, False, True, True]
        assert after.replay.ring.size.tolist() == [0, *state.replay.ring.size[1:]]
        floats = [x for x in jax.tree.leaves((after.env, after.replay)) if x.dtype.kind == "f"]
        assert all(np.isfinite(x[0]).all() for x in floats)
        assert not all(np.isfinite(x[1]).all() for x in floats)
        for kept in ("env", "replay"):
            jax.tree.map(lambda old, new: np.testing.assert_array_equal(old[2:], new[2:]),
                         getattr(state, kept), getattr(after, kept))
        population, metrics = members.advance(population, 20)
        assert metrics["nonfinite"][[0, 2, 3]].tolist() == [0, 0, 0]
        found.append(on_host(members.to_host(population)))
    jax.tree.map(np.testing.assert_array_equal, *found)


def _is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _data(x):
    return jax.random.key_data(x) if _is_key(x) else x


@pytest.mark.parametrize("words, text", [
    (["algo.num_envs=range(2,8)"],
     "algo.num_envs shapes the program: it cannot differ between members"),
    (["algo.learning_rate=1e-4,1e-3"],
     r"members explore a range: algo.learning_rate=range\(0.0001,0.001\)"),
    (["num_seeds=4"], "num_seeds= has no effect in PBT: population= is the number of members"),
    (["population=1"], "population=1 is out of range"),
    (["algo.learning_rte=range(1,2)"], 'unknown key "algo.learning_rte"'),
    (["exploit=best"], "exploit"),
])
def test_bad_input(words, text):
    with pytest.raises(UserError, match=text):
        pbt.question(*parse_sweep(["algo=ppo", "env=cartpole", *words]))


def test_all_search_ranges_by_default_but_what_is_fixed():
    asked = pbt.question(*parse_sweep(["algo=ppo", "env=cartpole", "algo.gamma=0.98",
                                       "total_steps=1e5"]))
    assert {"learning_rate", "clip", "entropy_weight"} <= set(asked.ranges)
    assert "gamma" not in asked.ranges
    assert asked.config.settings.eval_every == 5000 and asked.config.settings.num_seeds == 16


@pytest.mark.parametrize("words, text", [
    (["interval=100000", "total_steps=100000"],
     "interval=100,000 is not less than total_steps=100,000"),
    (["algo.learning_rate=range(0,1)"],
     "begins at 0, which has no logarithm, and algo.learning_rate is searched on a log scale"),
    (["schedule=runs/x"], "schedule= has no effect in PBT"),
])
def test_settings_without_effect_are_refused(words, text):
    with pytest.raises(UserError, match=text):
        pbt.question(*parse_sweep(["algo=ppo", "env=cartpole", *words]))


def test_a_config_with_a_schedule_is_refused(tmp_path):
    config = jaxrl.config.from_values({"algo": "ppo", "env": "cartpole",
                                       "schedule": {"steps": [0], "clip": [0.1]}})
    (tmp_path / "config.yaml").write_text(jaxrl.config.to_yaml(config))
    with pytest.raises(UserError, match="schedule= has no effect in PBT"):
        pbt.question(*parse_sweep([f"config={tmp_path / 'config.yaml'}"]))


@pytest.mark.parametrize("text", ["[1]\n", '{"step": 0}\n', "{torn",
                                  '{"step": "x", "fitness": 1, "source": 2}\n'])
def test_a_damaged_lineage_is_an_error_and_the_report_omits_it(text, run, tmp_path):
    damaged = tmp_path / "run"
    shutil.copytree(run.folder, damaged)
    (damaged / "lineage.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"schedule=|damaged"):
        jaxrl.compose([f"schedule={damaged}"])
    assert "Population" not in report.page(damaged)


@pytest.mark.parametrize("key", ["stop_return", "eval_every", "num_seeds", "schedule"])
def test_settings_without_effect_are_refused_on_resume(run, key):
    with pytest.raises(UserError, match=f"{key}= has no effect in PBT"):
        jaxrl.resume(run.folder, **{key: 100})


# -------------------------------------------------------------------- the schedule that was found


def test_the_schedule_is_that_of_the_fittest_line(run):
    lineage = read_lineage(run.folder)
    _, fitness = final_fitness(run.folder, lineage)
    member = int(np.argmax(fitness))
    schedule = jaxrl.compose([f"schedule={run.folder}"]).schedule
    assert fittest(fitness) == member
    assert schedule.steps[0] == 0
    assert set(schedule.steps) <= set(lineage.steps)
    # back along the line, round by round
    for i in reversed(range(len(lineage.steps))):
        for name, values in schedule.at(lineage.steps[i]).items():
            assert values == lineage.values[name][i][member]
        member = lineage.source[i][member]


def crown_one_that_changed(folder):
    """Make a member whose hyperparameters changed the fittest one, which otherwise varies."""
    *rows, last = (folder / "evals.jsonl").read_text().splitlines()
    row = json.loads(last)
    for member in range(len(row["returns"])):
        row["returns"] = [[float(i == member)] * len(own) for i, own in enumerate(row["returns"])]
        (folder / "evals.jsonl").write_text("\n".join([*rows, json.dumps(row)]) + "\n")
        if len(jaxrl.compose([f"schedule={folder}"]).schedule.steps) > 1:
            return
    raise AssertionError("no member ever copied from another one")


@pytest.mark.slow
def test_a_run_follows_the_schedule_and_logs_what_it_uses(run, tmp_path):
    """Each checkpoint holds the values of its step.

    A run that was stopped resumes to the same bits, also if the source of the schedule is gone.
    """
    source = tmp_path / "source"
    shutil.copytree(run.folder, source)
    crown_one_that_changed(source)
    own = {"eval_episodes": 2, "checkpoint_every": 64, "keep": 100, "num_seeds": 2,
           "num_devices": 1}
    own["schedule"] = str(source)
    config = jaxrl.config.from_values({**own, "out": str(tmp_path / "whole")})
    whole = Run(loop.train(config))
    schedule = whole.config.schedule
    assert whole.config.settings.total_steps == 1024 and len(schedule.steps) > 1
    for step in checkpoint.steps(whole.folder):
        used = state(whole, step)
        said = schedule.at(step - 1)      # a checkpoint is of before what changes at its step
        for name in ("learning_rate", "clip", "gamma"):
            value = said.get(name, getattr(whole.config.agent, name))
            np.testing.assert_array_equal(used[f"hyper/{name}"], np.full(2, value, np.float32))
    half = loop.train(jaxrl.config.from_values({
        **own, "out": str(tmp_path / "half"), "total_steps": schedule.steps[1],
        "schedule_steps": 1024}))
    shutil.rmtree(source)
    half = jaxrl.resume(half, total_steps=1024)
    a = state(whole)
    b = state(half)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    again = jaxrl.config.from_file(whole.folder / "config.yaml")
    assert again.schedule == schedule


def test_steps_of_a_schedule_are_rounded_up_to_whole_updates():
    words = {"algo": "ppo", "env": "cartpole", "preset": "none", "algo.num_envs": 4,
             "algo.rollout_length": 16}
    schedule = {"steps": [0, 65, 128, 129], "clip": [0.1, 0.2, 0.3, 0.4]}
    asked = jaxrl.config.from_values({**words, "schedule": schedule})
    assert plan(settle(asked, 64), 64).changes == (2, 3)
    assert [round(float(learners.spread(asked, step).clip[0]), 3)
            for step in (0, 64, 128, 192, 640)] == [
        0.1, 0.1, 0.3, 0.4, 0.4]


@pytest.mark.parametrize("schedule, text", [
    ({"steps": [0, 9], "clip": [0.1]}, "schedule.clip has to be a list of 2 values"),
    ({"steps": [0, 9], "clip": [0.1, -1]}, "schedule.clip=-1 is out of range"),
    ({"steps": [0, 9], "clop": [0.1, 0.2]}, 'unknown key "algo.clop"'),
    ({"steps": [0, 9], "num_envs": [1, 2]},
     "schedule changes algo.num_envs, which shapes the program"),
    ({"steps": [1, 9], "clip": [0.1, 0.2]}, "schedule.steps has to ascend from 0"),
    ({"steps": [0, 9, 9], "clip": [0.1, 0.2, 0.3]}, "schedule.steps has to ascend from 0"),
    ({"steps": [0, 9]}, "schedule=.* is not understood"),
    ("nowhere", "schedule=nowhere is no run of population-based training"),
])
def test_schedules_that_are_refused(schedule, text):
    with pytest.raises(UserError, match=text):
        jaxrl.config.from_values({"algo": "ppo", "env": "cartpole", "schedule": schedule})


def test_schedules_beside_what_they_change(run, tmp_path):
    with pytest.raises(UserError, match=r"algo\.clip= has no effect beside schedule="):
        jaxrl.compose([f"schedule={run.folder}", "algo.clip=0.2"])
    with pytest.raises(UserError, match=r'unknown key "algo\.clip"'):
        jaxrl.compose(["algo=dqn", "env=cartpole", f"schedule={run.folder}"])
    started = tmp_path / "started"
    started.mkdir()
    first, *_ = (run.folder / "lineage.jsonl").read_text().splitlines()
    (started / "lineage.jsonl").write_text(first + "\n")
    with pytest.raises(UserError, match="has no round yet"):
        jaxrl.compose(["algo=ppo", "env=cartpole", f"schedule={started}"])


def test_the_report_draws_lines_and_values(run):
    page = (run.folder / "report.html").read_text()
    charts = re.findall(r'<svg [^>]*aria-label="([^"]*)"(.*?)</svg>', page, re.S)
    drawn = {title: body for title, body in charts}
    assert {"Fitness (dashed: copies)", "clip"} <= set(drawn) and "Population" in page
    lineage = read_lineage(run.folder)
    copies = sum(source != i for row in lineage.source for i, source in enumerate(row))
    assert drawn["Fitness (dashed: copies)"].count('class="copy"') == copies > 0
    assert drawn["clip"].count('class="seed"') == 5 and drawn["clip"].count('class="best"') == 1
