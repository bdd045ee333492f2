"""The host loop: its steps, its files, and that the best checkpoint is the one that was scored."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings

import jax
import numpy as np
import pytest
import yaml

import jaxrl
from jaxrl import config as configs
from jaxrl.config.settings import EnvConfig
from jaxrl.errors import RunError, UserError
from jaxrl.evaluate import bootstrap_ci, iqm
from jaxrl.run import facts, learners, loop
from jaxrl.run.launch import prepare
from jaxrl.run.loop import resume, train
from jaxrl.run.plan import Plan, plan, settle
from jaxrl.storage import checkpoint, folder, metrics
from tests.helpers import (
    EVERY,
    HUGE_REWARD,
    INF_REWARD,
    NAN_OBSERVATION,
    NAN_REWARD,
    NOTHING,
    UPDATE,
    Watcher,
    rows,
    status,
    tiny,
)

pytestmark = pytest.mark.usefixtures("shared")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a function that gives a completed run and its reporter, made once."""
    made = []

    def get():
        if not made:
            reporter = Watcher()
            config = tiny(12, total_steps=12 * UPDATE - 7, num_seeds=3, keep=9,
                          out=tmp_path_factory.mktemp("finished"))
            made.append((train(config, reporter), reporter))
        return made[0]
    return get


# ---------------------------------------------------------------- when


def test_intervals_are_chosen_once_and_kept():
    settled = settle(tiny(1000, log_every=None, eval_every=None, checkpoint_every=3 * UPDATE - 1),
                     UPDATE)
    s = settled.settings
    intervals = (s.log_every, s.eval_every, s.checkpoint_every)
    assert intervals == (10 * UPDATE, 100 * UPDATE, 3 * UPDATE)
    assert s.schedule_steps == 1000 * UPDATE and plan(settled, UPDATE) == Plan(1000, 10, 100, 3)
    assert plan(settle(settled, UPDATE), UPDATE) == plan(settled, UPDATE)
    longer = settle(settled.with_settings(total_steps=2000 * UPDATE), UPDATE)
    assert plan(longer, UPDATE) == Plan(2000, 10, 100, 3)
    assert longer.settings.schedule_steps == 1000 * UPDATE
    short = plan(settle(tiny(1, total_steps=1, log_every=None, eval_every=None,
                             checkpoint_every=None), UPDATE), UPDATE)
    assert short == Plan(1, 1, 1, 1)
    # a signal's longest wait
    assert settle(tiny(10**6, log_every=None), UPDATE).settings.log_every == 256 * UPDATE


def test_blocks_of_candidates_are_chosen_once_and_kept(monkeypatch):
    """The bits depend on them, so workers and later processes use those of the first process."""
    words = ["algo=es", "env=cartpole", "preset=none", "algo.population=4096", "env.time_limit=10"]
    asked = jaxrl.compose(words)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    settled = settle(asked, UPDATE)
    assert asked.agent.block_size is None and settled.agent.block_size == 1024
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert asked.agent.size == 128
    kept = configs.from_values(configs.to_plain(settled))
    assert jaxrl.make_runner(kept).size == settle(kept, UPDATE).agent.block_size == 1024
    assert settle(jaxrl.compose([*words, "algo.block_size=64"]), UPDATE).agent.block_size == 64


def test_chunks_end_where_something_is_due():
    p = Plan(total=23, log=5, evaluate=6, checkpoint=10)
    ends = []
    update = 0
    while update < p.total:
        ends.append(update := p.next(update))
    assert ends == [5, 6, 10, 12, 15, 18, 20, 23]
    assert [u for u in ends if p.due(p.evaluate, u)] == [6, 12, 18, 23]


def test_rows_and_checkpoints_at_their_steps(finished):
    run, reporter = finished()
    assert [row["step"] for row in rows(run)] == [UPDATE * u for u in (2, 4, 6, 8, 10, 12)]
    assert [row["step"] for row in rows(run)] == reporter.steps
    assert [row["step"] for row in rows(run, metrics.EVALS)] == [UPDATE * u for u in (4, 8, 12)]
    assert checkpoint.steps(run) == [UPDATE * u for u in (4, 8, 12)]
    assert reporter.notes == ["total_steps=377 is rounded up to 384: an update takes 32 steps"]
    seconds = [row["seconds"] for row in metrics.read(run)]
    assert seconds == sorted(seconds)
    assert all(row["steps_per_second"] > 0 for row in metrics.read(run))


def test_rows_hold_one_number_per_seed(finished):
    for row in rows(finished()[0]):
        assert all(len(x) == 3 for name, x in row.items() if name != "step")
        # 2 updates of 8 steps, 4 at once
        assert row["episodes"] == [4.0] * 3
        assert row["length_mean"] == [16.0] * 3


def test_without_an_episode_there_is_no_mean(tmp_path):
    reporter = Watcher()
    seen = []

    def progress(step, total, rate, returns, elapsed):
        seen.append(returns)

    reporter.progress = progress
    run = train(tiny(2, num_seeds=3, log_every=UPDATE, out=tmp_path / "run"), reporter)
    assert [row["return_mean"] == [None] * 3 for row in rows(run)] == [True, False]
    assert seen[0] is None and seen[1].shape == (3,)


def test_names_of_metrics_belong_to_their_numbers(finished):
    """Each metric stays within its range, which would show mixed-up names."""
    for row in rows(finished()[0]):
        assert all(0.5 < x <= np.log(4) for x in row["entropy"])
        assert all(x > 1e-3 for x in row["grad_norm"]) and all(x >= 0 for x in row["value_loss"])
        assert all(0 <= x <= 1 for x in row["clip_fraction"])
        assert all(x <= 1 for x in row["explained_variance"])
        value_loss = 0.5 * np.asarray(row["value_loss"])
        want = np.add(row["policy_loss"], value_loss) - 0.01 * np.asarray(row["entropy"])
        np.testing.assert_allclose(row["loss"], want, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------- what is left


def test_summary(finished):
    run, reporter = finished()
    summary = json.loads((run / "summary.json").read_text())
    assert tuple(summary) == folder.SUMMARY_KEYS and reporter.results == [summary]
    told = [summary[key] for key in ("status", "algo", "env", "num_seeds")]
    assert told == ["completed", "ppo", "masked-bandit", 3]
    assert summary["total_steps"] == 12 * UPDATE and summary["env_steps_all"] == 36 * UPDATE
    last = np.asarray(rows(run, metrics.EVALS)[-1]["returns"])
    assert last.shape == (3, 6) and summary["eval_returns"] == last.mean(axis=1).tolist()
    assert summary["eval_iqm"] == iqm(last.mean(axis=1))
    assert summary["eval_ci95"] == list(bootstrap_ci(last))
    returns = np.asarray([row["return_mean"] for row in rows(run)
                          if row["return_mean"][0] is not None])
    np.testing.assert_allclose(summary["train_returns"], returns.mean(axis=0))
    assert summary["best_step"] in (4 * UPDATE, 8 * UPDATE, 12 * UPDATE)
    assert summary["error"] is None
    np.testing.assert_allclose(summary["steps_per_second"],
                               summary["env_steps_all"] / summary["seconds"])


def test_files_of_a_run(finished):
    run, _ = finished()
    names = {"config.yaml", "metrics.jsonl", "evals.jsonl", "summary.json", "checkpoints", "tb",
             "report.html", "environment.json", ".lock"}
    assert {path.name for path in run.iterdir()} == names
    assert yaml.safe_load((run / "config.yaml").read_text())["total_steps"] == 12 * UPDATE - 7


def test_tensorboard_has_the_scalars(finished):
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run, _ = finished()
    events = loading.EventAccumulator(str(run / "tb")).Reload()
    assert {"train/loss", "train/return_mean", "eval/return",
            "final/eval_iqm"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("train/loss")] == [row["step"] for row in rows(run)]
    want = [np.mean(row["returns"]) for row in rows(run, metrics.EVALS)]
    np.testing.assert_allclose([e.value for e in events.Scalars("eval/return")], want, rtol=1e-6)


def test_recent_returns_are_of_the_last_hundred_episodes():
    history = [{"episodes": [100.0, 0.0, 1.0], "return_mean": [9.0, None, 2.0]},
               {"episodes": [60.0, 0.0, 0.0], "return_mean": [1.0, None, None]},
               {"episodes": [60.0, 0.0, 2.0], "return_mean": [3.0, None, 5.0]}]
    assert facts.recent_returns(history, 3) == [2.0, None, 4.0]


# ---------------------------------------------------------------- the best


def test_the_best_holds_what_was_scored(tmp_path, monkeypatch):
    """Its parameters, evaluated again with the same keys, give the row of its evaluation."""
    scores = iter([5.0, 3.0, 1.0])
    real = loop.Session.evaluate
    monkeypatch.setattr(loop.Session, "evaluate", lambda self: real(self) and next(scores))
    config = tiny(12, num_seeds=3, keep=0, out=tmp_path / "run")
    run = train(config)
    top, score = checkpoint.best(run)
    assert top == 4 * UPDATE and checkpoint.steps(run) == [top, 12 * UPDATE]
    arrays, meta = checkpoint.load(run, "best")
    row = next(row for row in rows(run, metrics.EVALS) if row["step"] == top)
    assert score == meta["score"] == 5.0
    learner = prepare(config).learner
    members = learners.make_members(config, learner, layout=meta["layout"], episodes=6)
    template = members.template(learners.member_keys(0, 3, learners.TRAIN), learners.spread(config))
    population = members.from_host(checkpoint.unflatten(template, arrays))
    keys = learners.member_keys(0, 3, learners.PERIODIC, meta["update"])
    assert members.evaluate(population, keys).tolist() == row["returns"]


def test_stop_return_stops(tmp_path):
    run = train(tiny(12, num_seeds=3, stop_return=0.0, out=tmp_path / "run"))
    summary = folder.read_summary(run)
    assert summary["status"] == "completed"
    assert summary["total_steps"] == 4 * UPDATE == checkpoint.last(run)
    assert len(rows(run, metrics.EVALS)) == 1 and summary["best_step"] == 4 * UPDATE
    with pytest.raises(UserError,
                       match=r"is complete: it reached stop_return=0 at step 128 of 384\. "
                             r"To continue: jaxrl resume .*run stop_return=null"):
        resume(run)
    resume(run, ["stop_return=null"])
    assert folder.read_summary(run)["total_steps"] == 12 * UPDATE


def test_stop_return_is_for_every_seed(tmp_path):
    run = train(tiny(4, num_seeds=3, eval_every=UPDATE, out=tmp_path / "run"))
    means = np.asarray([np.mean(row["returns"], axis=1) for row in rows(run, metrics.EVALS)])
    # some seed reaches it, never all
    goal = float((means.min(axis=1).max() + means.max()) / 2)
    other = train(tiny(4, num_seeds=3, eval_every=UPDATE, stop_return=goal, out=tmp_path / "other"))
    assert folder.read_summary(other)["total_steps"] == 4 * UPDATE


# ---------------------------------------------------------------- warm start, profile


def test_warm_start(tmp_path):
    parent = train(tiny(4, num_seeds=3, out=tmp_path / "parent"))
    one = train(tiny(4, out=tmp_path / "one"))
    want = checkpoint.load(parent, only="agent/")[0]
    other = checkpoint.load(one, only="agent/")[0]
    for source, expected in ((parent, want),
                             (one, {name: np.repeat(x, 3, axis=0) for name, x in other.items()})):
        seen = []
        config = tiny(4, num_seeds=3, seed=5, init_from=str(source),
                      out=tmp_path / f"child-{source.name}")
        real = loop.Session.start

        def start(self, agent, real=real, seen=seen):
            real(self, agent)
            seen.append(checkpoint.flatten(self.members.to_host(self.population)))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop.Session, "start", start)
            child = train(config)
        first = seen[0]
        assert {name for name in first if name.startswith("agent/")} == expected.keys()
        assert [name for name in expected
                if first[name].tobytes() != expected[name].tobytes()] == []
        assert (first["progress/update"] == 0).all()
        assert (first["key"] != checkpoint.load(parent)[0]["key"]).any()
        assert jaxrl.load(child).config.settings.init_from == str(source)
        resume(child, [f"total_steps={6 * UPDATE}"])       # which does not start warm again


def test_a_wrong_parent_is_reported_before_there_is_a_folder(tmp_path):
    parent = train(tiny(2, num_seeds=3, out=tmp_path / "parent"))
    for settings, text in (({"num_seeds": 2}, "has 3 seeds, this run has 2. Use num_seeds=3"),
                           ({"num_seeds": 3, "algo.network.hidden": [9]},
                            "checkpoint does not fit: params/actor/"),
                           ({"num_seeds": 3, "init_from": str(tmp_path)}, "is not a run"),
                           ({"num_devices": 999}, "num_devices=999 was asked for, but JAX sees ")):
        with pytest.raises(UserError) as error:
            train(tiny(2, **{"init_from": str(parent), **settings}, out=tmp_path / "child"))
        assert text in str(error.value) and not (tmp_path / "child").exists()


def test_profile(tmp_path):
    run = train(tiny(4, num_seeds=3, profile=True, out=tmp_path / "run"))
    assert [path for path in (run / "profile").rglob("*") if path.is_file()]
    plain = train(tiny(4, num_seeds=3, out=tmp_path / "plain"))
    assert not (plain / "profile").exists()
    resume(plain, [f"total_steps={8 * UPDATE}", "profile=true"])
    assert (plain / "profile").is_dir()


# ---------------------------------------------------------------- what goes wrong inside


def test_a_failure_leaves_a_summary(tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("odd")
    monkeypatch.setattr(loop.Session, "evaluate", fail)
    reporter = Watcher()
    with pytest.raises(ValueError, match="odd"):
        train(tiny(12, num_seeds=3, out=tmp_path / "run"), reporter)
    summary = folder.read_summary(tmp_path / "run")
    assert (summary["status"], summary["error"]) == ("failed", "ValueError: odd")
    assert summary["eval_returns"] is None and reporter.results == [summary]


def test_our_warnings_are_notes(tmp_path, monkeypatch):
    """TensorBoard without a place to write gives one note. Other warnings stay warnings."""
    def mkdir(self, *args, **more):
        if self.name == "tb":
            raise OSError(28, "No space left")
        if not self.exists():
            os.mkdir(self)

    monkeypatch.setattr("pathlib.Path.mkdir", mkdir)
    reporter = Watcher("header", lambda: warnings.warn("somebody else's", stacklevel=1))
    with pytest.warns(UserWarning, match="somebody else's") as caught:
        run = train(tiny(4, num_seeds=3, out=tmp_path / "run"), reporter)
    assert status(run) == "completed" and len(caught) == 1
    assert len(reporter.notes) == 1
    assert reporter.notes[0].startswith("warning: TensorBoard files in ")


# ---------------------------------------------------------------- divergence


def poisoned_config(kind: int, updates: int = 12, share: float = 1.0, **settings):
    env = EnvConfig("poisoned", 64, {"poison": kind, "share": share})
    return dataclasses.replace(tiny(updates, **{"eval_episodes": 2, **settings}), env=env)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("kind, what", [
    (NAN_REWARD, "reward"), (NAN_OBSERVATION, "observation"),
    *(pytest.param(*case, marks=pytest.mark.slow)
      for case in ((INF_REWARD, "reward"), (HUGE_REWARD, "loss")))])
def test_divergence_of_the_only_seed(tmp_path, kind, what):
    """The reward of step 25 of each of 4 environments falls in update 4, which is dropped."""
    reporter = Watcher()
    with pytest.raises(RunError) as error:
        train(poisoned_config(kind, log_every=UPDATE, out=tmp_path / "run"), reporter)
    run = tmp_path / "run"
    assert error.value.exit_code == 1
    text = (f"training diverged: {what} is not finite at step 128 (seed 1 of 1). "
            "The state before that step is saved.")
    assert str(error.value) == f"{text} Try: algo.max_grad_norm, algo.learning_rate"
    summary = folder.read_summary(run)
    assert (summary["status"], summary["error"]) == ("diverged", text) and reporter.notes == []
    arrays, _ = checkpoint.load(run)
    assert all(np.isfinite(x).all() for name, x in arrays.items() if name.startswith("agent/"))
    assert arrays["alive"].tolist() == [False] and arrays["progress/update"].tolist() == [3]
    with pytest.raises(UserError,
                       match=r"run diverged: no seed is left at step 128\. To start a new run "
                             r"from its parameters: jaxrl train \.\.\. init_from=.*run "
                             r"algo\.max_grad_norm, algo\.learning_rate"):
        resume(run)


@pytest.mark.usefixtures("poisoned")
def test_divergence_of_one_seed_leaves_the_others_bits(tmp_path):
    """The seeds that survive have the bits of a run without poison.

    It stays quick, at 4 s: every change of a driver may break it.
    """
    runs = {}
    for kind in (NOTHING, NAN_REWARD):
        reporter = Watcher()
        config = poisoned_config(kind, share=0.1, seed=4, num_seeds=3, num_devices=1,
                                 log_every=UPDATE, out=tmp_path / str(kind))
        runs[kind] = (train(config, reporter), reporter)
    healthy, _ = runs[NOTHING]
    ill, reporter = runs[NAN_REWARD]
    good = checkpoint.load(healthy)[0]
    bad = checkpoint.load(ill)[0]
    alive = bad["alive"]
    assert 0 < (~alive).sum() < 3, "choose another seed"
    dead = int(np.flatnonzero(~alive)[0])
    names = [name for name in good if not name.startswith("env/params")]
    assert [name for name in names
            if good[name][alive].tobytes() != bad[name][alive].tobytes()] == []
    for row, want in zip(rows(ill), rows(healthy)):
        for name in row.keys() - {"step"}:
            pairs = zip(row[name], want[name], alive)
            assert all(x == y for x, y, lives in pairs if lives)
    summary = folder.read_summary(ill)
    assert summary["status"] == "completed"
    assert f"(seed {dead + 1} of 3; the others continue)" in summary["error"]
    assert [note for note in reporter.notes if f"seed {dead + 1} of 3; the others continue" in note]
    assert all(np.isfinite(x).all() for name, x in bad.items() if name.startswith("agent/"))
    resume(ill, [f"total_steps={14 * UPDATE}"])
    assert f"seed {dead + 1} of 3 diverged before this resume" in folder.read_summary(ill)["error"]


@pytest.mark.slow
def test_divergence_by_an_absurd_learning_rate(tmp_path):
    """Adam's steps of 1 raise the deviation of a Gaussian policy until its actions overflow."""
    config = tiny(400, env="probe-action",
                  **{"env.params.continuous": True, "algo.learning_rate": 1.0,
                     "algo.learning_rate_end": 1.0, "algo.entropy_weight": 10.0,
                     "algo.max_grad_norm": 1e9, "eval_every": 400 * UPDATE,
                     "checkpoint_every": 400 * UPDATE}, out=tmp_path / "run")
    with pytest.raises(RunError,
                       match=r"training diverged: \w+ is not finite at step [\d,]+ \(seed 1 of "):
        train(config)
    arrays, _ = checkpoint.load(tmp_path / "run")
    assert all(np.isfinite(x).all() for name, x in arrays.items() if name.startswith("agent/"))


# ---------------------------------------------------------------- memory


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_memory_is_flat(tmp_path):
    """Over 200 chunks and 50 evaluations, after as many to warm up."""
    seen = []
    reporter = Watcher()
    progress = reporter.progress

    def measured(*args):
        progress(*args)
        seen.append(resident())

    reporter.progress = measured
    every = {**EVERY, "log_every": UPDATE, "checkpoint_every": 100 * UPDATE}
    train(tiny(400, num_seeds=3, **every, out=tmp_path / "run"), reporter)
    assert len(seen) == 400
    grown = np.median(seen[-20:]) - np.median(seen[190:210])
    assert grown < 4e6, [int(x / 1e6) for x in seen[::40]]
