"""Sweeps: what is searched, that a trial is an ordinary run, one program for all, and going on after a stop."""

from __future__ import annotations

import json
import math
import signal

import numpy as np
import pytest

import jaxrl
from jaxrl.config.axes import Axis, Options, question
from jaxrl.config.overrides import parse_sweep
from jaxrl.declare import Range
from jaxrl.drivers.on_policy import OnPolicy
from jaxrl.errors import Interrupted, RunError, UserError
from jaxrl.evaluate import iqm
from jaxrl.population import trials as search
from jaxrl.report import sweep as sweep_report
from jaxrl.run import learners, loop, sweep
from jaxrl.storage import checkpoint
from tests import helpers
from tests.helpers import NAN_REWARD, TINY, UPDATE, Killed, Watcher, killer, static_part

SEED = 1                     # of two seeds' environments, only the second is doomed where few are
RATES = (1e-4, 3e-3, 1e-2, 0.1)


@pytest.fixture(scope="module")
def pools():
    return {"traced": 0}


@pytest.fixture
def shared(pools, monkeypatch):
    """Sweeps of equal static values share their programs, as the groups of one sweep do. Counts what is traced."""
    make, advance = learners.make_members, OnPolicy.advance

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
    """A sweep of the tiny learner on one device: two seeds."""
    return sweep.ask({**TINY, "total_steps": updates * UPDATE, "num_seeds": 2, "num_devices": 1,
                      "checkpoint_every": UPDATE, "log_every": UPDATE, **values})


def rates(*values):
    return {"algo.learning_rate": list(values or RATES)}


KINDS = {"grid": rates(), "asha": {"algo.learning_rate": Range(1e-4, 0.3, True), "search": "asha", "eta": 2,
                                   "grace": UPDATE, "trials": 8},
         "optuna": {"algo.learning_rate": Range(1e-4, 1e-1, True), "search": "optuna", "trials": 5, "batch": 2}}


@pytest.fixture
def whole(shared, pools, tmp_path_factory):
    """A sweep of a kind that nothing interrupted, made once."""
    def get(kind):
        if ("whole", kind) not in pools:
            pools["whole", kind] = sweep.sweep(asked(**KINDS[kind], out=tmp_path_factory.mktemp(kind) / "s"))
        return pools["whole", kind]
    return get


def table(path):
    """trials.csv but for what a clock decides."""
    return [{key: x for key, x in row.items() if key != "seconds"} for row in sweep_report.read_table(path)]


def arrays_of(path, trial):
    """The last state of one trial, [seeds, ...]."""
    run = path / next(row["run"] for row in table(path) if row["trial"] == trial)
    at = json.loads((run / sweep.TRIALS).read_text()).index(trial)
    return {name: x[2 * at: 2 * at + 2] for name, x in checkpoint.load(run)[0].items()}


def same(a, b):
    return a.keys() == b.keys() and all(x.tobytes() == b[name].tobytes() for name, x in a.items())


# ---------------------------------------------------------------- which trials


def test_a_grid_is_every_combination():
    axes = [Axis("a", True, choices=(1, 2)), Axis("b", True, choices=("x", "y", "z"))]
    assert [(t.number, t.values) for t in search.grid(axes)] == [
        (i, {"a": a, "b": b}) for i, (a, b) in enumerate((a, b) for a in (1, 2) for b in "xyz")]
    assert search.size(Options(), axes, 10) == (6, 60)


def test_random_trials_do_not_depend_on_their_number():
    axes = [Axis("r", True, range=Range(1e-5, 1e-1, True)), Axis("u", True, range=Range(2.0, 4.0)),
            Axis("c", False, choices=(4, 8))]
    many, few = search.draw(axes, 2000, 1), search.draw(axes, 7, 1)
    assert many[:7] == few and search.draw(axes, 7, 2) != few
    r, u, c = (np.array([t.values[key] for t in many]) for key in "ruc")
    assert ((r >= 1e-5) & (r <= 1e-1) & (u >= 2) & (u <= 4)).all() and set(c) == {4, 8}
    assert abs(np.log10(r).mean() + 3) < 0.1 and abs(np.log10(r).std() - 4 / math.sqrt(12)) < 0.05      # uniform in log
    assert abs(u.mean() - 3) < 0.05 and abs((c == 4).mean() - 0.5) < 0.05


@pytest.mark.parametrize("count, total, eta, grace, want", [
    (64, 6400, 4, None, [(64, 100), (16, 400), (4, 1600), (1, 6400)]),
    (16, 1000, 4, None, [(16, 63), (4, 252), (1, 1000)]),      # two levels are all that 16 trials can pay for
    (3, 1000, 4, None, [(3, 1000)]),
    (8, 1000, 2, 300, [(8, 300), (4, 600), (2, 1000)]),
    (5, 100, 3, 100, [(5, 100)])])
def test_rungs(count, total, eta, grace, want):
    assert search.rungs(count, total, eta, grace) == want
    options = Options(search="asha", trials=count, eta=eta, grace=grace)
    spent = sum(n * (end - before) for (n, end), (_, before) in zip(want, [(0, 0), *want]))
    assert search.size(options, [], total) == (count, spent)


def test_halving_keeps_the_best_and_never_what_diverged(rng):
    trials = search.grid([Axis("a", True, choices=tuple(range(16)))])
    halving = search.halving(trials, search.rungs(16, 160, 4, None))
    scores, seen, round = rng.permutation(16).astype(float), [], next(halving)
    scores[[2, 5]] = np.nan
    try:
        while True:
            seen.append(round)
            round = halving.send({t.number: scores[t.number] for t in round.trials})
    except StopIteration:
        pass
    order = sorted((n for n in range(16) if n not in (2, 5)), key=lambda n: -scores[n])
    assert [sorted(t.number for t in one.trials) for one in seen] == [list(range(16)), sorted(order[:4]), order[:1]]
    assert set(seen[1].pruned) == set(order[4:]) and seen[1].pruned[order[4]] == "rank 5 of 16 after 10 steps, 4 go on"
    assert seen[2].pruned[order[1]] == "rank 2 of 4 after 40 steps, 1 goes on"


def test_where_all_diverge_halving_ends():
    halving = search.halving(search.draw([], 16, 0), search.rungs(16, 160, 4, None))
    first = next(halving)
    with pytest.raises(StopIteration):
        halving.send(dict.fromkeys((t.number for t in first.trials), math.nan))


def test_tpe_finds_the_top_and_is_the_same_again():
    pytest.importorskip("optuna")
    axes = [Axis("x", True, range=Range(1e-4, 1.0, True)), Axis("h", False, choices=((8,), (16, 16)))]

    def play(count, batch):
        rounds, found = search.tpe(axes, count, batch, 10, seed=3), {}
        round, scores = next(rounds), None
        while round is not None:
            scores = {t.number: -abs(math.log10(t.values["x"]) + 2) - (t.values["h"] == (8,)) for t in round.trials}
            scores[1] = math.nan if 1 in scores else 0.0              # a trial that diverged
            found |= {t.number: t.values for t in round.trials}
            round = sweep._next(rounds, scores)
        return found

    found = play(60, 5)
    assert found == play(60, 5) and sorted(found) == list(range(60))
    late = [found[n] for n in range(40, 60)]
    assert np.mean([v["h"] == (16, 16) for v in late]) > 0.7
    assert np.mean([abs(math.log10(v["x"]) + 2) for v in late]) < 0.6       # 1.0 is what chance gives


# ---------------------------------------------------------------- what is asked


def test_ranges_follow_the_declaration():
    words = ["algo=ppo", "env=cartpole", "search=random", "algo.learning_rate=range(1e-5,1e-2)",
             "algo.gamma=range(0.9,0.99)", "algo.clip=tag(log,interval(0.1,0.4))", "algo.num_envs=4,8",
             "algo.network.hidden=[8],[16,16]"]
    axes = question(*parse_sweep(words)).axes
    assert axes == (Axis("algo.learning_rate", True, range=Range(1e-5, 1e-2, True)),
                    axes[1]._replace(range=axes[1].range._replace(low=0.9, high=0.99)),
                    Axis("algo.clip", True, range=Range(0.1, 0.4, True)),
                    Axis("algo.num_envs", False, choices=(4, 8)),
                    Axis("algo.network.hidden", False, choices=((8,), (16, 16))))
    everything = question(*parse_sweep(["algo=ppo", "env=cartpole", "search=random", "algo.gamma=0.9"])).axes
    assert {"algo.learning_rate"} < {axis.key for axis in everything} and all(axis.range for axis in everything)
    assert "algo.gamma" not in {axis.key for axis in everything}


@pytest.mark.parametrize("words, text", [
    (["algo.learning_rte=1e-3,1e-2"], 'unknown key "algo.learning_rte" for ppo. Did you mean: algo.learning_rate'),
    (["algo.gamma=0.9,1.3"], "algo.gamma=1.3 is out of range: 0 <= gamma <= 1"),
    (["algo.learning_rate=fast,slow"], 'algo.learning_rate="slow" is not a number'),
    (["search=random", "algo.gamma=range(0.9,0.9)"], "algo.gamma=range(0.9,0.9) is empty: the first end must be"),
    (["search=random", "algo.gamma=range(0.99,0.9)"], "algo.gamma=range(0.99,0.9) is empty"),
    (["search=random", "algo.gamma=range(0.9,1.9)"], "algo.gamma=1.9 is out of range"),
    (["search=random", "algo.num_envs=range(4,8)"], "algo.num_envs=range(4,8): algo.num_envs shapes the compiled "
                                                    "program, so a sweep takes single values: algo.num_envs=A,B"),
    (["algo.gamma=range(0.9,0.99)"], "algo.gamma has a range, but a grid takes values: algo.gamma=A,B,C, or search=random"),
    (["algo.gamma=0.9,0.9"], "algo.gamma=0.9,0.9 names 0.9 twice"),
    ([], "nothing to sweep: no setting has several values. Such as: algo.learning_rate="),
    (["seed=1,2"], "seed=1,2: seed is the same for all trials of a sweep. Every trial has num_seeds= seeds"),
    (["total_steps=1e4,1e5"], "total_steps=1e4,1e5: total_steps is the same for all trials of a sweep"),
    (["search=grd", "algo.gamma=0.9,0.8"], 'search="grd" is not one of: grid, random, asha, optuna. Did you mean: '),
    (["trials=0", "algo.gamma=0.9,0.8"], "trials=0 is out of range: 1 <= trials"),
    (["trials=1,2", "algo.gamma=0.9,0.8"], "trials=1,2 names several values, trials takes one"),
    (["search=asha", "grace=1e9"], "grace=1,000,000,000 is more than total_steps="),
    (["algo.gamma=0.9,0.8", "stop_return=3"], "stop_return=3 has no effect in a sweep: all trials have the same"),
    (["algo.gamma=0.9,0.8", "init_from=x"], "init_from=x has no effect in a sweep: all trials start afresh"),
    (["algo.gamma=glob(*)"], "algo.gamma=glob(*) "),
    (["algo.num_envs=4,8", "algo.rollout_length=8", "algo.minibatches=64"], "does not divide into 64 minibatches"),
    (["algo=ppo,pp0", "algo.gamma=0.9,0.8"], 'unknown algo "pp0". Did you mean: ppo?'),
])
def test_bad_input(words, text):
    with pytest.raises(UserError) as caught:
        question(*parse_sweep(["algo=ppo", "env=cartpole", *words]))
    assert text in str(caught.value)


def test_several_mistakes_are_said_at_once():
    with pytest.raises(UserError) as caught:
        question(*parse_sweep(["algo=ppo", "env=cartpole", "algo.gamma=0.9,1.3", "algo.lambd=1,2", "seed=1,2",
                               "eta=1", "total_steps=x"]))
    assert len(caught.value.problems) == 5


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
    best = sweep_report.read_table(path)
    config = jaxrl.config.from_file(path / "best.yaml").with_settings(out=str(tmp_path / "run"), num_devices=1)
    run = loop.train(config)
    trial = RATES.index(config.agent.learning_rate)
    assert same(arrays_of(path, trial), checkpoint.load(run)[0])
    assert jaxrl.load(run).returns.mean(axis=1).tolist() == best[trial]["returns"]
    assert best[trial]["iqm"] == max(row["iqm"] for row in best)


def test_the_table(finished):
    path, watcher = finished
    rows = table(path)
    assert [row["algo.learning_rate"] for row in rows] == ["0.0001", "0.003", "0.01", "0.1"]
    assert [(row["trial"], row["status"], row["steps"]) for row in rows] == [(i, "completed", 128) for i in range(4)]
    assert all(row["iqm"] == iqm(row["returns"]) and len(row["returns"]) == 2 for row in rows)
    ends = [arrays_of(path, trial) for trial in range(4)]
    assert not any(same(ends[0], other) for other in ends[1:])
    assert watcher.headers[0]["trials"] == "4 x 2 seeds x 128 steps"
    assert watcher.steps == [8 * UPDATE * n for n in (1, 2, 3, 4)] and not watcher.results      # of all members


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
    assert b"algo.learning_rate" in read.summary_metadata["_hparams_/session_start_info"].plugin_data.content


def test_a_finished_sweep_says_so(finished):
    path, _ = finished
    with pytest.raises(UserError, match="is complete"):
        sweep.resume(path)
    with pytest.raises(UserError, match="seed=3 cannot change when a sweep goes on"):
        sweep.resume(path, ["seed=3"])
    with pytest.raises(UserError, match="is a part of a sweep"):
        jaxrl.resume(path / "group1")
    with pytest.raises(UserError, match="is not a sweep"):
        jaxrl.resume_sweep(path / "group1")


@pytest.mark.slow
def test_one_program_for_64_members(finished, shared, pools, tmp_path):
    values = {"search": "random", "trials": 32, "out": tmp_path / "s", "algo.learning_rate": Range(1e-4, 1e-2, True)}
    before = pools["traced"]
    path = sweep.sweep(asked(1, **values, **{"algo.network.hidden": (7,)}))
    assert len(table(path)) == 32 == len({row["algo.learning_rate"] for row in table(path)})
    assert pools["traced"] == before + 1


# ---------------------------------------------------------------- groups, pruning, deaths


def test_pruning_frees_members_and_changes_nothing_else(whole, shared, tmp_path):
    path = whole("asha")
    rows = table(path)
    assert sorted(row["steps"] for row in rows) == [32] * 4 + [64] * 2 + [128] * 2
    assert [len(json.loads((path / f"rung{n}-group1" / sweep.TRIALS).read_text())) for n in (1, 2, 3)] == [8, 4, 2]
    pruned = [row for row in rows if row["status"] == "pruned"]
    assert len(pruned) == 6 and all("after 32 steps, 4 go on" in row["what"] or "after 64 steps, 2 go on" in row["what"]
                                    for row in pruned)
    done = [row for row in rows if row["status"] == "completed"]
    through = sweep.sweep(asked(**rates(*(float(row["algo.learning_rate"]) for row in done)), out=tmp_path / "s"))
    for at, row in enumerate(done):                  # trained in three parts, as if in one
        assert same(arrays_of(path, row["trial"]), arrays_of(through, at))


@pytest.fixture
def poisoned(monkeypatch):
    from jaxrl import registry
    monkeypatch.setitem(registry.environments(), "poisoned", "tests.helpers:Poisoned")


POISON = {"env": "poisoned", "env.params.poison": NAN_REWARD, "eval_episodes": 4}


@pytest.mark.slow
def test_what_diverges_does_not_stop_the_rest(shared, poisoned, tmp_path):
    """Three groups of static values: in the first every seed dies, in the second one of two, in the third none."""
    watcher = Watcher()
    path = sweep.sweep(asked(6, **POISON, **{"env.params.share": [1.0, 0.05, 0.0]}, seed=SEED, out=tmp_path / "s",
                             **rates(1e-3, 1e-2)), watcher)
    rows = table(path)
    assert [row["run"] for row in rows] == ["group1"] * 2 + ["group2"] * 2 + ["group3"] * 2
    for one, other, whole in zip(rows[:2], rows[2:4], rows[4:]):
        assert one["status"] == other["status"] == "diverged" and (one["steps"], other["steps"]) == (128, 192)
        assert "is not finite at step 128 (seed 1 of 2)" in one["what"] and "(seed 2 of 2)" in one["what"]
        assert "is not finite at step 128 (seed 2 of 2)" in other["what"] and "(seed 1 of 2)" not in other["what"]
        assert whole["status"] == "completed" and not whole["what"]
    assert any("trial 2, seed 2 of 2" in note for note in watcher.notes)


def test_what_raises_does_not_stop_the_rest(shared, monkeypatch, tmp_path):
    """An environment of one group raises as it is traced: named with its setting; a resume tries it again."""
    whole, texture = sweep.build, ["missing"]

    def build(config):
        if config.agent.network.hidden == (4,) and texture:
            raise ValueError("no such texture:\n  wall")
        return whole(config)

    monkeypatch.setattr(sweep, "build", build)
    watcher, words = Watcher(), {"algo.network.hidden": [(8,), (4,)], **rates(1e-3, 1e-2)}
    path = sweep.sweep(asked(6, **words, out=tmp_path / "s"), watcher)
    rows = table(path)
    assert [row["status"] for row in rows] == ["completed"] * 2 + ["failed"] * 2
    assert {row["what"] for row in rows[2:]} == {"ValueError: no such texture: wall"}
    text = "warning: trials 2, 3 (algo.network.hidden=[4]) failed: ValueError: no such texture: wall. The others go on"
    assert [note for note in watcher.notes if note.startswith(text)], watcher.notes
    texture.clear()
    sweep.resume(path)
    assert [row["status"] for row in table(path)] == ["completed"] * 4
    texture.append("missing")
    with pytest.raises(RunError, match="every trial failed: ValueError: no such texture"):
        sweep.sweep(asked(6, **{"algo.network.hidden": [(4,)], **rates(1e-3, 1e-2)}, out=tmp_path / "t"))
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
        sweep.sweep(asked(6, **POISON, **{"env.params.share": 1.0, "algo.epochs": [1, 2]}, **rates(),
                          out=tmp_path / "s"), watcher)
    statuses = [row["status"] for row in table(tmp_path / "s")]
    assert statuses.count("diverged") == len(RATES) and len(statuses) == 2 * len(RATES)       # the first of two runs
    assert len(list((tmp_path / "s").glob("*group*"))) == 1


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("kind, at", [("grid", 1), ("grid", 3), ("asha", 2), ("asha", 3), ("optuna", 6)])
def test_a_killed_sweep_goes_on_where_it_was(kind, at, shared, whole, tmp_path):
    if kind == "optuna":
        pytest.importorskip("optuna")
    whole = whole(kind)
    with pytest.raises(Killed):
        sweep.sweep(asked(**KINDS[kind], out=tmp_path / "s"), killer(at))
    path = jaxrl.resume_sweep(tmp_path / "s").folder
    assert table(path) == table(whole) and (path / "best.yaml").read_bytes() == (whole / "best.yaml").read_bytes()
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
    found = jaxrl.sweep("ppo", "masked-bandit", **values, total_steps=UPDATE, num_seeds=2, num_devices=1,
                        out=tmp_path / "s", **rates(1e-3, 1e-2))
    assert [row["status"] for row in found.trials] == ["completed"] * 2
    assert found.best.agent.learning_rate in (1e-3, 1e-2) and found.best.settings.num_seeds == 2


# ---------------------------------------------------------------- real processes


@pytest.mark.slow
@pytest.mark.fault
def test_kill_9(tmp_path, tmp_path_factory):
    cache = tmp_path_factory.mktemp("compiled")
    words = [word for word in helpers.words(40, num_seeds=2, checkpoint_every=UPDATE, log_every=UPDATE,
                                            search="asha", trials=8, eta=2)]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
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
