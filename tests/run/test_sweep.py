"""Sweeps: a trial is an ordinary run, groups share a program, and stopped sweeps are resumed."""

from __future__ import annotations

import signal

import pytest

import jaxrl
from jaxrl.declare import Range
from jaxrl.drivers.on_policy import OnPolicy
from jaxrl.errors import Interrupted, RunError, UserError
from jaxrl.evaluate import iqm
from jaxrl.run import learners, loop, questions, sweep
from jaxrl.storage import checkpoint
from jaxrl.storage import sweep as sweep_files
from tests import helpers
from tests.helpers import NAN_REWARD, TINY, UPDATE, Killed, Watcher, killer, static_part

SEED = 1                     # of two seeds' environments, only the second is doomed where few are
RATES = (1e-4, 3e-3, 1e-2, 0.1)


@pytest.fixture(scope="module")
def pools():
    return {"traced": 0}


@pytest.fixture
def shared(pools, monkeypatch):
    """Share programs between sweeps of equal static values, and count what is traced."""
    make = learners.make_members
    advance = OnPolicy.advance

    def shared(config, learner, *, episodes, layout):
        key = repr((static_part(config), config.env, episodes, layout))
        if key not in pools:
            pools[key] = make(config, learner, episodes=episodes, layout=layout)
        return pools[key].resized(config.settings.num_seeds)

    def counted(self, *args):
        pools["traced"] += 1
        return advance(self, *args)

    monkeypatch.setattr(sweep, "make_members", shared)
    monkeypatch.setattr(OnPolicy, "advance", counted)


def asked(updates: int = 4, /, **values):
    """Return a question with the tiny learner, two seeds and one device."""
    return questions.ask({**TINY, "total_steps": updates * UPDATE, "num_seeds": 2, "num_devices": 1,
                      "checkpoint_every": UPDATE, "log_every": UPDATE, **values})


def rates(*values):
    return {"algo.learning_rate": list(values or RATES)}


KINDS = {"grid": rates(),
         "asha": {"algo.learning_rate": Range(1e-4, 0.3, True), "search": "asha", "eta": 2,
                  "grace": UPDATE, "trials": 8},
         "optuna": {"algo.learning_rate": Range(1e-4, 1e-1, True), "search": "optuna", "trials": 5,
                    "batch": 2}}


@pytest.fixture
def whole(shared, pools, tmp_path_factory):
    """Return a function that gives an uninterrupted sweep of a kind, made once."""
    def get(kind):
        if ("whole", kind) not in pools:
            out = tmp_path_factory.mktemp(kind) / "s"
            pools["whole", kind] = sweep.sweep(asked(**KINDS[kind], out=out))
        return pools["whole", kind]
    return get


def table(path):
    """Return trials.csv without the times."""
    return [{key: x for key, x in row.items() if key != "seconds"}
            for row in sweep_files.read_table(path)]


def arrays_of(path, trial):
    """Return the last state of one trial, [seeds, ...]."""
    run = path / next(row["run"] for row in table(path) if row["trial"] == trial)
    at = sweep_files.read_trials(run).index(trial)
    return {name: x[2 * at: 2 * at + 2] for name, x in checkpoint.load(run)[0].items()}


def same(a, b):
    return a.keys() == b.keys() and all(x.tobytes() == b[name].tobytes() for name, x in a.items())


# ---------------------------------------------------------------- a trial is an ordinary run


@pytest.fixture
def finished(shared, tmp_path_factory, pools):
    """A grid of four learning rates, made once."""
    if "finished" not in pools:
        watcher = Watcher()
        path = sweep.sweep(asked(**rates(), out=tmp_path_factory.mktemp("sweep") / "s"), watcher)
        pools["finished"] = (path, watcher)
    return pools["finished"]


def test_a_trial_does_what_train_does(finished, tmp_path):
    path, _ = finished
    best = sweep_files.read_table(path)
    config = jaxrl.config.from_file(path / "best.yaml")
    config = config.with_settings(out=str(tmp_path / "run"), num_devices=1)
    run = loop.train(config)
    trial = RATES.index(config.agent.learning_rate)
    assert same(arrays_of(path, trial), checkpoint.load(run)[0])
    assert jaxrl.load(run).returns.mean(axis=1).tolist() == best[trial]["returns"]
    assert best[trial]["iqm"] == max(row["iqm"] for row in best)


def test_the_table(finished):
    path, watcher = finished
    rows = table(path)
    assert [row["algo.learning_rate"] for row in rows] == ["0.0001", "0.003", "0.01", "0.1"]
    assert [row["trial"] for row in rows] == [0, 1, 2, 3]
    assert [(row["status"], row["steps"]) for row in rows] == [("completed", 128)] * 4
    assert all(row["iqm"] == iqm(row["returns"]) and len(row["returns"]) == 2 for row in rows)
    ends = [arrays_of(path, trial) for trial in range(4)]
    assert not any(same(ends[0], other) for other in ends[1:])
    assert watcher.headers[0]["trials"] == "4 x 2 seeds x 128 steps"
    # of all members
    assert watcher.steps == [8 * UPDATE * n for n in (1, 2, 3, 4)]
    assert not watcher.results


def test_a_trial_does_not_depend_on_the_others(finished, shared, tmp_path):
    alone = sweep.sweep(asked(**rates(3e-3, 0.02), out=tmp_path / "s"))
    assert same(arrays_of(finished[0], 1), arrays_of(alone, 0))


def test_the_page_and_the_boards(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path, _ = finished
    page = (path / "report.html").read_text()
    assert page.count("<circle") == 4 and "<script" not in page
    assert page.count('class="top"') == 1 and "trial 2: algo.learning_rate=0.01" in page
    boards = sorted((path / "tensorboard").iterdir())
    assert [board.name for board in boards] == [f"trial{i}" for i in range(4)]
    read = EventAccumulator(str(boards[3] / "tb"))
    read.Reload()
    assert read.Scalars("final/eval_iqm")[0].value == pytest.approx(table(path)[3]["iqm"])
    start = read.summary_metadata["_hparams_/session_start_info"]
    assert b"algo.learning_rate" in start.plugin_data.content


def test_a_finished_sweep_says_so(finished):
    path, _ = finished
    with pytest.raises(UserError, match="is complete"):
        sweep.resume(path)
    with pytest.raises(UserError, match="seed=3 cannot change when a sweep is resumed"):
        sweep.resume(path, ["seed=3"])
    with pytest.raises(UserError, match="is a part of a sweep"):
        jaxrl.resume(path / "group1")
    with pytest.raises(UserError, match="is not a sweep"):
        jaxrl.resume_sweep(path / "group1")


@pytest.mark.slow
def test_one_program_for_64_members(finished, shared, pools, tmp_path):
    values = {"search": "random", "trials": 32, "out": tmp_path / "s",
              "algo.learning_rate": Range(1e-4, 1e-2, True)}
    before = pools["traced"]
    path = sweep.sweep(asked(1, **values, **{"algo.network.hidden": (7,)}))
    assert len(table(path)) == 32 == len({row["algo.learning_rate"] for row in table(path)})
    assert pools["traced"] == before + 1


# ---------------------------------------------------------------- groups, pruning, deaths


def test_pruning_frees_members_and_changes_nothing_else(whole, shared, tmp_path):
    path = whole("asha")
    rows = table(path)
    assert sorted(row["steps"] for row in rows) == [32] * 4 + [64] * 2 + [128] * 2
    assert [len(sweep_files.read_trials(path / f"rung{n}-group1")) for n in (1, 2, 3)] == [8, 4, 2]
    pruned = [row for row in rows if row["status"] == "pruned"]
    assert len(pruned) == 6
    assert all("after 32 steps, 4 go on" in row["what"] or "after 64 steps, 2 go on" in row["what"]
               for row in pruned)
    done = [row for row in rows if row["status"] == "completed"]
    through = sweep.sweep(asked(**rates(*(float(row["algo.learning_rate"]) for row in done)),
                                out=tmp_path / "s"))
    for at, row in enumerate(done):                  # trained in three parts, as if in one
        assert same(arrays_of(path, row["trial"]), arrays_of(through, at))


@pytest.fixture
def poisoned(monkeypatch):
    from jaxrl import registry
    monkeypatch.setitem(registry.environments(), "poisoned", "tests.helpers:Poisoned")


POISON = {"env": "poisoned", "env.params.poison": NAN_REWARD, "eval_episodes": 4}


@pytest.mark.slow
def test_what_diverges_does_not_stop_the_rest(shared, poisoned, tmp_path):
    """All seeds of the first group diverge, one of two in the second, none in the third."""
    watcher = Watcher()
    path = sweep.sweep(asked(6, **POISON, **{"env.params.share": [1.0, 0.05, 0.0]}, seed=SEED,
                             out=tmp_path / "s", **rates(1e-3, 1e-2)), watcher)
    rows = table(path)
    assert [row["run"] for row in rows] == ["group1"] * 2 + ["group2"] * 2 + ["group3"] * 2
    for one, other, whole in zip(rows[:2], rows[2:4], rows[4:]):
        assert one["status"] == other["status"] == "diverged"
        assert (one["steps"], other["steps"]) == (128, 192)
        assert "is not finite at step 128 (seed 1 of 2)" in one["what"]
        assert "(seed 2 of 2)" in one["what"]
        assert "is not finite at step 128 (seed 2 of 2)" in other["what"]
        assert "(seed 1 of 2)" not in other["what"]
        assert whole["status"] == "completed" and not whole["what"]
    assert any("trial 2, seed 2 of 2" in note for note in watcher.notes)


def test_what_raises_does_not_stop_the_rest(shared, monkeypatch, tmp_path):
    """One group's environment raises while it is traced. The note names its setting."""
    whole = sweep.build
    texture = ["missing"]

    def build(config):
        if config.agent.network.hidden == (4,) and texture:
            raise ValueError("no such texture:\n  wall")
        return whole(config)

    monkeypatch.setattr(sweep, "build", build)
    watcher = Watcher()
    words = {"algo.network.hidden": [(8,), (4,)], **rates(1e-3, 1e-2)}
    path = sweep.sweep(asked(6, **words, out=tmp_path / "s"), watcher)
    rows = table(path)
    assert [row["status"] for row in rows] == ["completed"] * 2 + ["failed"] * 2
    assert {row["what"] for row in rows[2:]} == {"ValueError: no such texture: wall"}
    text = ("warning: trials 2, 3 (algo.network.hidden=[4]) failed: ValueError: no such texture: "
            "wall. The others continue")
    assert [note for note in watcher.notes if note.startswith(text)], watcher.notes
    texture.clear()
    sweep.resume(path)
    assert [row["status"] for row in table(path)] == ["completed"] * 4
    texture.append("missing")
    with pytest.raises(RunError, match="every trial failed: ValueError: no such texture"):
        sweep.sweep(asked(6, **{"algo.network.hidden": [(4,)], **rates(1e-3, 1e-2)},
                          out=tmp_path / "t"))
    with pytest.raises(ValueError, match="no such texture"):
        sweep.sweep(asked(6, **words, debug=True, out=tmp_path / "u"))


def test_where_every_trial_diverges(shared, poisoned, tmp_path):
    with pytest.raises(RunError, match=r"every trial diverged: .* is not finite at step 128"):
        sweep.sweep(asked(6, **POISON, **{"env.params.share": 1.0}, **rates(), out=tmp_path / "s"))
    assert {row["status"] for row in table(tmp_path / "s")} == {"diverged"}
    assert not (tmp_path / "s" / "best.yaml").exists()


def test_a_signal_while_every_trial_of_a_run_diverges_is_not_lost(shared, poisoned, tmp_path):
    watcher = Watcher(4, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted):
        sweep.sweep(asked(6, **POISON, **{"env.params.share": 1.0, "algo.epochs": [1, 2]},
                          **rates(), out=tmp_path / "s"), watcher)
    statuses = [row["status"] for row in table(tmp_path / "s")]
    # the first of two runs
    assert statuses.count("diverged") == len(RATES)
    assert len(statuses) == 2 * len(RATES)
    assert len(list((tmp_path / "s").glob("*group*"))) == 1


# ---------------------------------------------------------------- resume


@pytest.mark.parametrize("kind, at",
                         [("grid", 1), ("grid", 3), ("asha", 2), ("asha", 3), ("optuna", 6)])
def test_a_killed_sweep_goes_on_where_it_was(kind, at, shared, whole, tmp_path):
    whole = whole(kind)
    with pytest.raises(Killed):
        sweep.sweep(asked(**KINDS[kind], out=tmp_path / "s"), killer(at))
    path = jaxrl.resume_sweep(tmp_path / "s").folder
    assert table(path) == table(whole)
    assert (path / "best.yaml").read_bytes() == (whole / "best.yaml").read_bytes()
    for row in table(path):
        assert same(arrays_of(path, row["trial"]), arrays_of(whole, row["trial"]))


def test_a_signal_saves_and_says_how_to_go_on(shared, finished, tmp_path):
    watcher = Watcher(2, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted):
        sweep.sweep(asked(**rates(), out=tmp_path / "s"), watcher)
    assert watcher.notes[-1].endswith(f"Continue: jaxrl resume {tmp_path / 's'}")
    assert {row["status"] for row in table(tmp_path / "s")} == {"going on"}
    assert table(sweep.resume(tmp_path / "s")) == table(finished[0])


@pytest.mark.slow
def test_a_signal_in_the_last_chunk_of_a_run_says_how_to_go_on(shared, whole, tmp_path):
    """The run ends as if nothing had happened, and the sweep stops before the next."""
    watcher = Watcher(1, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted):
        sweep.sweep(asked(**KINDS["asha"], out=tmp_path / "s"), watcher)
    assert watcher.notes[-1] == f"Continue: jaxrl resume {tmp_path / 's'}"
    assert len(list((tmp_path / "s").glob("*group1"))) == 1
    assert table(sweep.resume(tmp_path / "s")) == table(whole("asha"))


def test_python(shared, tmp_path):
    values = {key: value for key, value in TINY.items() if key not in ("algo", "env")}
    found = jaxrl.sweep("ppo", "masked-bandit", **values, total_steps=UPDATE, num_seeds=2,
                        num_devices=1, out=tmp_path / "s", **rates(1e-3, 1e-2))
    assert [row["status"] for row in found.trials] == ["completed"] * 2
    assert found.best.agent.learning_rate in (1e-3, 1e-2) and found.best.settings.num_seeds == 2


# ---------------------------------------------------------------- real processes


@pytest.mark.slow
@pytest.mark.fault
def test_kill_9(tmp_path, tmp_path_factory):
    cache = tmp_path_factory.mktemp("compiled")
    words = helpers.words(40, num_seeds=2, checkpoint_every=UPDATE, log_every=UPDATE,
                          search="asha", trials=8, eta=2)
    whole = tmp_path / "whole"
    broken = tmp_path / "broken"
    assert helpers.ended(helpers.process(cache, "sweep", *words, f"out={whole}"))[0] == 0
    for n, rung in enumerate(("rung1", "rung2", "rung4")):
        command = ("resume", str(broken)) if n else ("sweep", *words, f"out={broken}")
        child = helpers.process(cache, *command)
        helpers.wait_for(lambda rung=rung: checkpoint.steps(broken / f"{rung}-group1"), child)
        child.send_signal(signal.SIGKILL)
        child.wait()
    code, out, err = helpers.ended(helpers.process(cache, "resume", str(broken)))
    assert code == 0, err
    assert table(broken) == table(whole) and "next:  jaxrl train config=" in out
    for row in table(whole):
        assert same(arrays_of(broken, row["trial"]), arrays_of(whole, row["trial"]))
