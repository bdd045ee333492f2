"""Population-based training: its decisions by hand, the toy of the paper, and what a run of it keeps."""

from __future__ import annotations

import json
import math
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
from jaxrl.population.members import Members, on_host
from jaxrl.population.pbt import Options, decide, initial
from jaxrl.population.remote import BlockHost, RemoteMembers
from jaxrl.report import page as report
from jaxrl.run import learners, loop, pbt
from jaxrl.run.plan import plan, settle
from jaxrl.storage import checkpoint, metrics
from jaxrl.storage.lineage import final_fitness, fittest, read_lineage
from jaxrl.types import Progress, TrainState

RANGES = {"rate": Range(1e-5, 1e-2, True), "gamma": Range(0.9, 0.99)}


def values(count, seed=0):
    return initial(RANGES, count, seed)


# -------------------------------------------------------------------- decisions


def test_first_values_are_in_their_ranges_and_log_uniform():
    drawn = values(4000)
    for name, (low, high, _) in RANGES.items():
        assert drawn[name].dtype == np.float32 and drawn[name].min() >= low and drawn[name].max() <= high * (1 + 1e-6)
    assert abs(np.median(np.log10(drawn["rate"])) + 3.5) < 0.1 and abs(np.median(drawn["gamma"]) - 0.945) < 0.005


@pytest.mark.parametrize("count, quantile", [(8, 0.25), (10, 0.25), (5, 0.5), (3, 0.2)])
def test_truncation(count, quantile):
    """The worst copy from the best, everybody else goes on as it was; copies move inside of the ranges."""
    rng = np.random.default_rng(1)
    options, before = Options(quantile=quantile), values(count)
    few, copies = min(math.ceil(quantile * count), count // 2), 0
    for round in range(1, 40):
        fitness = rng.normal(size=count)
        ranks = np.argsort(-fitness)
        source, after = decide(options, RANGES, 7, round, fitness, before)
        for i in range(count):
            if i in ranks[count - few:]:
                assert source[i] in ranks[:few]
                copies += 1
            else:
                assert source[i] == i
            for name, (low, high, _) in RANGES.items():
                old, new = before[name][source[i]], after[name][i]
                assert np.float32(low) <= new <= np.float32(high)
                if source[i] == i:
                    assert new == old
    assert copies == 39 * few


def test_perturbed_or_drawn_anew():
    options, before = Options(quantile=0.5, resample=0.25), {"rate": np.full(2, 1e-3, np.float32)}
    found = np.array([decide(options, {"rate": RANGES["rate"]}, 3, r, np.array([1.0, 0.0]), before).values["rate"][1]
                      for r in range(1, 2001)])
    up, down = np.isclose(found, 1.2e-3, rtol=1e-5), np.isclose(found, 0.8e-3, rtol=1e-5)
    assert abs(up.mean() - 0.375) < 0.04 and abs(down.mean() - 0.375) < 0.04
    rest = np.log10(found[~up & ~down])
    assert abs(np.median(rest) + 3.5) < 0.2 and rest.min() < -4.7 and rest.max() > -2.3


def test_tournament():
    rng, options = np.random.default_rng(0), Options(exploit="tournament")
    moved = []
    for round in range(1, 300):
        fitness = rng.permutation(6).astype(float)
        source, _ = decide(options, RANGES, 0, round, fitness, values(6))
        assert (fitness[source] >= fitness).all()
        moved.append(source != np.arange(6))
    assert abs(np.mean(moved) - 15 / 36) < 0.05              # the rival is better in 15 of 36 pairs, itself included


@pytest.mark.parametrize("exploit", ["truncation", "tournament"])
def test_a_member_that_diverged_is_never_a_source_and_always_replaced(exploit):
    for round in range(1, 50):
        fitness = np.array([np.nan, 1.0, np.inf, 2.0, np.nan, np.nan])
        source, _ = decide(Options(exploit=exploit), RANGES, 0, round, fitness, values(6))
        assert set(source) <= {1, 3}
    nobody, after = decide(Options(exploit=exploit), RANGES, 0, 1, np.full(6, np.nan), values(6))
    np.testing.assert_array_equal(nobody, np.arange(6))
    np.testing.assert_array_equal(after["rate"], values(6)["rate"])


def test_without_exploit_nothing_changes():
    source, after = decide(Options(exploit="none"), RANGES, 0, 1, np.arange(6.0), values(6))
    np.testing.assert_array_equal(source, np.arange(6))
    np.testing.assert_array_equal(after["gamma"], values(6)["gamma"])


# -------------------------------------------------------------------- the toy of the paper


class Toy:
    """Figure 2 of Jaderberg et al. 2017: ascends 1.2 - (h0 t0^2 + h1 t1^2) where 1.2 - t0^2 - t1^2 is wanted."""

    steps_per_update, num_envs, groups = 1, 1, 1

    def init(self, key, hyper, schedule):
        progress = Progress(jnp.zeros((), jnp.int32), jnp.asarray(schedule, jnp.int32))
        return TrainState(jnp.full(2, 0.9), hyper, (), (), (), key, progress, jnp.ones((), bool))

    def advance(self, state, updates):
        h = jnp.stack([state.hyper["h0"], state.hyper["h1"]])
        theta = jax.lax.fori_loop(0, updates, lambda i, theta: theta - 0.01 * 2.0 * h * theta, state.agent)
        return state._replace(agent=theta), {"q": 1.2 - jnp.sum(theta**2)}


@pytest.mark.parametrize("exploit, low, high", [("truncation", 1.15, 1.2), ("none", 0.38, 0.40)])
def test_the_toy_of_the_paper(exploit, low, high):
    """Two members, of which each sees one of two parameters: together they reach the optimum, alone they cannot."""
    found = []
    for seed in range(5):
        ranges = {"h0": Range(0.0, 1.0), "h1": Range(0.0, 1.0)}
        members = Members(Toy(), 2, jax.local_devices()[:1])
        hyper = {"h0": np.float32([1, 0]), "h1": np.float32([0, 1])}
        population = members.init(jax.random.split(jax.random.key(seed), 2), hyper, 1)
        for round in range(1, 101):
            population, metrics = members.advance(population, 4)
            # the perturbation of the toy adds to a number that may be 0, which a factor would leave there: drawn anew
            source, hyper = decide(Options(2, exploit=exploit, quantile=0.5, resample=1.0), ranges, seed, round,
                                   metrics["q"], hyper)
            if exploit != "none":
                population = members.copy(population, source, hyper)
        found.append(metrics["q"].max())
    assert low <= np.mean(found) <= high


# -------------------------------------------------------------------- runs


SMALL = {"preset": "none", "total_steps": 1024, "population": 5, "interval": 256, "eval_episodes": 4,
         "algo.num_envs": 2, "algo.rollout_length": 32, "algo.network.hidden": (8,), "block_size": 2, "num_devices": 1,
         "checkpoint_every": 256, "algo.learning_rate": Range(1e-5, 1e-2, True), "algo.clip": Range(0.1, 0.3)}


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
        if used is not None:                                 # a checkpoint is of before the round at its step
            np.testing.assert_array_equal(used["hyper/learning_rate"], np.float32(row["learning_rate"]))
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
    half = jaxrl.pbt("ppo", "cartpole", out=str(tmp_path / "half"), **{**SMALL, "total_steps": 512,
                                                                       "schedule_steps": 1024})
    half = jaxrl.resume(half.folder, total_steps=1024)
    assert (half.folder / pbt.LINEAGE).read_bytes() == (run.folder / pbt.LINEAGE).read_bytes()
    a, b = state(run), state(half)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    again = jaxrl.resume(half.folder, step=768, total_steps=1024)                   # back, and the same again
    assert (again.folder / pbt.LINEAGE).read_bytes() == (run.folder / pbt.LINEAGE).read_bytes()
    np.testing.assert_array_equal(state(again)["agent/optimizer/1/mu"], a["agent/optimizer/1/mu"])


def test_a_copy_is_the_source_bit_for_bit_and_keeps_its_own_world():
    config = pbt.question(*parse_sweep(["algo=ppo", "env=cartpole", "preset=none", "population=5", "algo.num_envs=2",
                                        "algo.rollout_length=8", "algo.network.hidden=[8]"])).config
    members = learners.make_members(config.with_settings(num_devices=1, block_size=2), build(config), episodes=2)
    hyper = learners.spread(config)
    population = members.init(learners.member_keys(0, 5, 0), hyper, 10)
    population, _ = members.advance(population, 2)
    before = members.to_host(population)
    source = np.array([0, 4, 2, 2, 1])
    population = members.copy(population, source, hyper._replace(gamma=jnp.float32([.9, .91, .92, .93, .94])))
    after = members.to_host(population)
    same = np.testing.assert_array_equal
    jax.tree.map(lambda old, new: same(new, np.asarray(old)[source]), before.agent, after.agent)
    for kept in ("env", "carry", "progress", "key", "replay"):
        jax.tree.map(lambda old, new: same(_data(old), _data(new)), getattr(before, kept), getattr(after, kept))
    np.testing.assert_array_equal(after.hyper.gamma, np.float32([.9, .91, .92, .93, .94]))
    population, _ = members.advance(population, 1)
    assert sum(name == "advance" for name, _ in members._programs) == 1             # nothing is compiled again


@pytest.mark.slow
def test_who_died_takes_a_copy_into_a_fresh_world():
    """An environment or replay that is not finite would kill the copy again. Here and on a worker, the same bits."""
    config = jaxrl.config.from_values({
        "algo": "dqn", "env": "cartpole", "preset": "none", "num_seeds": 4, "num_devices": 1, "block_size": 2,
        "algo.warmup": 40, "algo.replay_capacity": 400, "algo.network.hidden": [8], "algo.prioritized": True})
    learner = build(config)
    hyper, found = jax.tree.map(np.asarray, learners.spread(config)), []

    def spoil(x):
        if _is_key(x) or (x := np.asarray(x)).dtype.kind != "f":
            return x
        return np.where(np.arange(4).reshape(-1, *[1] * (x.ndim - 1)) < 2, np.nan, x).astype(x.dtype)

    for members in (learners.make_members(config, learner, episodes=2), RemoteMembers(
            learner.runner, 4, InlinePool(BlockHost, (jaxrl.config.to_plain(config), 2, 2)), size=2)):
        population = members.init(learners.member_keys(0, 4, 0), hyper, 10)
        population, _ = members.advance(population, 20)
        state = on_host(members.to_host(population))
        dead = members.to_host(population)._replace(alive=np.array([False, False, True, True]))
        spoiled = dead._replace(env=jax.tree.map(spoil, dead.env), replay=jax.tree.map(spoil, dead.replay))
        population = members.from_host(spoiled)
        population = members.copy(population, np.array([3, 1, 3, 3]), hyper)       # 1 stays as it is
        after = on_host(members.to_host(population))
        assert after.alive.tolist() == [True, False, True, True]
        assert after.replay.ring.size.tolist() == [0, *state.replay.ring.size[1:]]
        finite = lambda tree, i: all(np.isfinite(x[i]).all() for x in jax.tree.leaves(tree) if x.dtype.kind == "f")
        assert finite((after.env, after.replay), 0) and not finite((after.env, after.replay), 1)
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
    (["algo.num_envs=range(2,8)"], "algo.num_envs shapes the program: it cannot differ between members"),
    (["algo.learning_rate=1e-4,1e-3"], r"members explore a range: algo.learning_rate=range\(0.0001,0.001\)"),
    (["num_seeds=4"], "num_seeds= has no effect in PBT: population= is the number of members"),
    (["population=1"], "population=1 is out of range"),
    (["algo.learning_rte=range(1,2)"], 'unknown key "algo.learning_rte"'),
    (["exploit=best"], "exploit"),
])
def test_bad_input(words, text):
    with pytest.raises(UserError, match=text):
        pbt.question(*parse_sweep(["algo=ppo", "env=cartpole", *words]))


def test_all_search_ranges_by_default_but_what_is_fixed():
    asked = pbt.question(*parse_sweep(["algo=ppo", "env=cartpole", "algo.gamma=0.98", "total_steps=1e5"]))
    assert {"learning_rate", "clip", "entropy_weight"} <= set(asked.ranges) and "gamma" not in asked.ranges
    assert asked.config.settings.eval_every == 5000 and asked.config.settings.num_seeds == 16


@pytest.mark.parametrize("words, text", [
    (["interval=100000", "total_steps=100000"], "interval=100,000 is not less than total_steps=100,000"),
    (["algo.learning_rate=range(0,1)"], "begins at 0, which has no logarithm, and algo.learning_rate is searched on a log scale"),
    (["schedule=runs/x"], "schedule= has no effect in PBT"),
])
def test_what_would_do_nothing_or_something_else(words, text):
    with pytest.raises(UserError, match=text):
        pbt.question(*parse_sweep(["algo=ppo", "env=cartpole", *words]))


def test_a_config_with_a_schedule_is_none_of_pbt(tmp_path):
    config = jaxrl.config.from_values({"algo": "ppo", "env": "cartpole", "schedule": {"steps": [0], "clip": [0.1]}})
    (tmp_path / "config.yaml").write_text(jaxrl.config.to_yaml(config))
    with pytest.raises(UserError, match="schedule= has no effect in PBT"):
        pbt.question(*parse_sweep([f"config={tmp_path / 'config.yaml'}"]))


@pytest.mark.parametrize("text", ["[1]\n", '{"step": 0}\n', "{torn", '{"step": "x", "fitness": 1, "source": 2}\n'])
def test_a_damaged_lineage_costs_a_line_and_never_the_report(text, run, tmp_path):
    damaged = tmp_path / "run"
    shutil.copytree(run.folder, damaged)
    (damaged / "lineage.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"schedule=|damaged"):
        jaxrl.compose([f"schedule={damaged}"])
    assert "Population" not in report.page(damaged)


@pytest.mark.parametrize("key", ["stop_return", "eval_every", "num_seeds", "schedule"])
def test_what_has_no_effect_has_none_at_resume(run, key):
    with pytest.raises(UserError, match=f"{key}= has no effect in PBT"):
        jaxrl.resume(run.folder, **{key: 100})


def test_a_member_s_draws_are_its_own():
    """What member 1 draws does not depend on how many there are beside it."""
    few, many = initial(RANGES, 2, 5), initial(RANGES, 7, 5)
    for name in RANGES:
        np.testing.assert_array_equal(few[name], many[name][:2])
    rng = np.random.default_rng(0)
    for round in range(1, 20):
        fitness = np.concatenate([[1.0, 0.0], np.full(5, 0.5)])
        own = decide(Options(quantile=0.1), RANGES, 3, round, fitness, many)
        noise = rng.permutation(7).astype(np.float32)
        other = decide(Options(quantile=0.1), RANGES, 3, round, fitness,
                       {name: np.where(np.arange(7) < 2, x, noise) for name, x in many.items()})
        assert own.values["rate"][1] == other.values["rate"][1]


# -------------------------------------------------------------------- the schedule that was found


def test_the_schedule_is_that_of_the_fittest_line(run):
    lineage = read_lineage(run.folder)
    _, fitness = final_fitness(run.folder, lineage)
    member = int(np.argmax(fitness))
    schedule = jaxrl.compose([f"schedule={run.folder}"]).schedule
    assert fittest(fitness) == member and schedule.steps[0] == 0 and set(schedule.steps) <= set(lineage.steps)
    for i in reversed(range(len(lineage.steps))):                # back along the line, round by round
        for name, values in schedule.at(lineage.steps[i]).items():
            assert values == lineage.values[name][i][member]
        member = lineage.source[i][member]


def crown_one_that_changed(folder):
    """Make a member whose hyperparameters changed on the way the fittest: which one is, rounding decides."""
    *rows, last = (folder / "evals.jsonl").read_text().splitlines()
    row = json.loads(last)
    for member in range(len(row["returns"])):
        row["returns"] = [[float(i == member)] * len(own) for i, own in enumerate(row["returns"])]
        (folder / "evals.jsonl").write_text("\n".join([*rows, json.dumps(row)]) + "\n")
        if len(jaxrl.compose([f"schedule={folder}"]).schedule.steps) > 1:
            return
    raise AssertionError("no member ever copied from another one")


def test_a_run_follows_the_schedule_and_logs_what_it_uses(run, tmp_path):
    """Each checkpoint holds the values of its step; a run that is stopped on the way goes on to the same bits, also
    when the run that found the schedule is gone."""
    source = tmp_path / "source"
    shutil.copytree(run.folder, source)
    crown_one_that_changed(source)
    own = {"eval_episodes": 2, "checkpoint_every": 64, "keep": 100, "num_seeds": 2, "num_devices": 1}
    whole = Run(loop.train(jaxrl.config.from_values({"schedule": str(source), **own, "out": str(tmp_path / "whole")})))
    schedule = whole.config.schedule
    assert whole.config.settings.total_steps == 1024 and len(schedule.steps) > 1
    for step in checkpoint.steps(whole.folder):
        used, said = state(whole, step), schedule.at(step - 1)    # a checkpoint is of before what changes at its step
        for name in ("learning_rate", "clip", "gamma"):
            value = said.get(name, getattr(whole.config.agent, name))
            np.testing.assert_array_equal(used[f"hyper/{name}"], np.full(2, value, np.float32))
    half = loop.train(jaxrl.config.from_values({"schedule": str(source), **own, "out": str(tmp_path / "half"),
                                                "total_steps": schedule.steps[1], "schedule_steps": 1024}))
    shutil.rmtree(source)
    half = jaxrl.resume(half, total_steps=1024)
    a, b = state(whole), state(half)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    again = jaxrl.config.from_file(whole.folder / "config.yaml")
    assert again.schedule == schedule


def test_steps_that_are_no_whole_updates_are_rounded_up():
    words = {"algo": "ppo", "env": "cartpole", "preset": "none", "algo.num_envs": 4, "algo.rollout_length": 16}
    asked = jaxrl.config.from_values({**words, "schedule": {"steps": [0, 65, 128, 129], "clip": [0.1, 0.2, 0.3, 0.4]}})
    assert plan(settle(asked, 64), 64).changes == (2, 3)
    assert [round(float(learners.spread(asked, step).clip[0]), 3) for step in (0, 64, 128, 192, 640)] == [
        0.1, 0.1, 0.3, 0.4, 0.4]


@pytest.mark.parametrize("schedule, text", [
    ({"steps": [0, 9], "clip": [0.1]}, "schedule.clip has to be a list of 2 values"),
    ({"steps": [0, 9], "clip": [0.1, -1]}, "schedule.clip=-1 is out of range"),
    ({"steps": [0, 9], "clop": [0.1, 0.2]}, 'unknown key "algo.clop"'),
    ({"steps": [0, 9], "num_envs": [1, 2]}, "schedule changes algo.num_envs, which shapes the program"),
    ({"steps": [1, 9], "clip": [0.1, 0.2]}, "schedule.steps has to ascend from 0"),
    ({"steps": [0, 9, 9], "clip": [0.1, 0.2, 0.3]}, "schedule.steps has to ascend from 0"),
    ({"steps": [0, 9]}, "schedule=.* is not understood"),
    ("nowhere", "schedule=nowhere is no run of population-based training"),
])
def test_schedules_that_cannot_be(schedule, text):
    with pytest.raises(UserError, match=text):
        jaxrl.config.from_values({"algo": "ppo", "env": "cartpole", "schedule": schedule})


def test_schedules_beside_what_they_change(run, tmp_path):
    with pytest.raises(UserError, match=r"algo\.clip= has no effect beside schedule="):
        jaxrl.compose([f"schedule={run.folder}", "algo.clip=0.2"])
    with pytest.raises(UserError, match=r'unknown key "algo\.clip"'):
        jaxrl.compose(["algo=dqn", "env=cartpole", f"schedule={run.folder}"])
    started = tmp_path / "started"
    started.mkdir()
    (started / "lineage.jsonl").write_text((run.folder / "lineage.jsonl").read_text().splitlines()[0] + "\n")
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
