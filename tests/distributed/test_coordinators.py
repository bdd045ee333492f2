"""Commands with workers: the same bits as without, also if their process is killed.

Nothing of a killed process is left running.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import jaxrl
from jaxrl.errors import UserError
from jaxrl.run import sweep as sweeps
from jaxrl.storage import checkpoint, metrics
from jaxrl.storage import sweep as sweep_files
from tests.distributed.processes import agent, family, gone, workers
from tests.helpers import ended, process, rows, wait_for

SMALL = ["preset=none", "env=cartpole", "eval_episodes=2", "num_devices=1"]
PPO = ["algo=ppo", *SMALL, "algo.num_envs=2", "algo.rollout_length=32"]
COMMANDS = {
    "pbt": ["pbt", *PPO, "population=5", "block_size=2", "total_steps=32768", "interval=1024",
            "checkpoint_every=4096", "algo.network.hidden=[8]",
            "algo.learning_rate=range(1e-5,1e-2)"],
    "es": ["train", "algo=es", *SMALL, "algo.population=16", "algo.block_size=4",
           "env.time_limit=100", "algo.network.hidden=[8]", "num_seeds=2", "total_steps=96000",
           "eval_every=16000", "checkpoint_every=8000"],
    "sweep": ["sweep", *PPO, "search=asha", "trials=8", "eta=2", "grace=2048",
              "total_steps=4096", "num_seeds=2", "algo.network.hidden=[8],[4]",
              "algo.learning_rate=tag(log,interval(1e-4,1e-2))"],
}


class Outcome(NamedTuple):
    """Results that must not depend on workers, nor on the death of a process."""

    files: dict[str, list[dict]]
    arrays: dict[str, dict[str, np.ndarray]]


def outcome(path: Path) -> Outcome:
    """Return the outcome of a run, or of all runs of a sweep."""
    runs = {run.name: run for run in sorted(path.glob("*group*"))} or {"": path}
    names = (metrics.METRICS, metrics.EVALS, "lineage.jsonl")
    files = {f"{at}/{name}": rows(run, name) for at, run in runs.items() for name in names}
    if len(runs) > 1:
        table = sweep_files.read_table(path)
        files["trials"] = [{k: x for k, x in row.items() if k != "seconds"} for row in table]
    return Outcome(files, {at: checkpoint.load(run)[0] for at, run in runs.items()})


def same(a: Outcome, b: Outcome) -> None:
    assert a.files == b.files and a.arrays.keys() == b.arrays.keys()
    for run, arrays in a.arrays.items():
        for name, x in arrays.items():
            np.testing.assert_array_equal(x, b.arrays[run][name], err_msg=f"{run} {name}")


def started(tmp_path_factory, *words: str, **more):
    """Start a command in a process of its own; all of these tests share compiled programs."""
    cache = tmp_path_factory.getbasetemp() / "coordinators"
    return process(cache, *words, **more)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """name -> the outcome without workers."""
    made: dict[str, Outcome] = {}

    def get(name: str) -> Outcome:
        if name not in made:
            path = tmp_path_factory.mktemp(name) / "alone"
            child = started(tmp_path_factory, *COMMANDS[name], f"out={path}")
            _, err = child.communicate(timeout=240)
            assert child.returncode == 0, err
            made[name] = outcome(path)
        return made[name]

    return get


@pytest.mark.slow
@pytest.mark.fault
def test_a_sweep_over_workers_has_the_same_trials(expected, tmp_path, tmp_path_factory):
    """Two programs, each in two rungs, of which the second has fewer trials."""
    child = started(tmp_path_factory, *COMMANDS["sweep"], "workers=2", f"out={tmp_path / 'run'}")
    _, err = child.communicate(timeout=240)
    assert child.returncode == 0 and "2 workers" in err, err
    same(outcome(tmp_path / "run"), expected("sweep"))
    assert {row["status"] for row in expected("sweep").files["trials"]} == {"completed", "pruned"}
    assert len(expected("sweep").arrays) >= 3


def after_a_round(run):
    return len(metrics.read(run, "lineage.jsonl")) > 1 and checkpoint.last(run)


POINTS = {
    ("pbt", "after the first round"): after_a_round,
    ("pbt", "right after a later checkpoint"): lambda run: (checkpoint.last(run) or 0) >= 12_288,
    ("es", "right after a checkpoint"): checkpoint.last,
    ("es", "in a generation"): lambda run: checkpoint.last(run) and len(metrics.read(run)) > 15,
    ("sweep", "in the first rung"): lambda run: list(run.glob("*/metrics.jsonl")),
}


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("name, point", POINTS)
def test_a_killed_coordinator_costs_time_and_nothing_else(name, point, expected, tmp_path,
                                                          tmp_path_factory):
    """Its workers end with it, and the resumed run has the same bits, with workers or without."""
    run = tmp_path / "run"
    child = started(tmp_path_factory, *COMMANDS[name], "workers=2", f"out={run}")
    try:
        wait_for(lambda: POINTS[name, point](run), child)
        below = family(child.pid)
        late = {pid for pid in below if agent(pid)}      # two of Ray's, which end a minute later
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    assert len(below) >= 4 and len(late) <= 2 and gone(below - late)
    assert not (run / "report.html").exists()
    if name == "sweep":
        sweeps.resume(run, ["workers=0"])
    else:
        jaxrl.resume(run, workers=0)
    same(outcome(run), expected(name))


@pytest.mark.full
@pytest.mark.fault
def test_a_sweep_over_workers_is_interrupted_and_loses_one(expected, tmp_path, tmp_path_factory):
    """Ctrl-C in the first rung ends all processes; a terminal sends it to the whole group.

    `jaxrl resume` with other workers, one of which is killed, finds the same trials.
    """
    run = tmp_path / "run"
    child = started(tmp_path_factory, *COMMANDS["sweep"], "workers=1", f"out={run}",
                    start_new_session=True)
    try:
        wait_for(lambda: list(run.glob("*/metrics.jsonl")), child)
        below = family(child.pid)
        os.killpg(child.pid, signal.SIGINT)
    finally:
        code, _, err = ended(child)
    assert code == 130 and "resume" in err and "Traceback" not in err, err
    assert len(below) >= 4 and gone(below) and not (run / "report.html").exists()

    child = started(tmp_path_factory, "resume", str(run), "workers=2")
    try:
        rows_of_group = "*group2/metrics.jsonl"
        wait_for(lambda: len(workers(child.pid)) == 2 and list(run.glob(rows_of_group)), child)
        before = workers(child.pid)
        os.kill(min(before), signal.SIGKILL)
        wait_for(lambda: workers(child.pid) - before, child)
        # the worker was replaced for this group: the next rung has not begun
        assert len(list(run.glob("*group*"))) == 2
    finally:
        code, _, err = ended(child)
    assert code == 0, err
    same(outcome(run), expected("sweep"))


def test_an_address_needs_workers():
    with pytest.raises(UserError, match=r"address=10\.0\.0\.5:6379 needs workers"):
        jaxrl.compose(["algo=ppo", "env=cartpole", "address=10.0.0.5:6379"])
