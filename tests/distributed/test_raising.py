"""An environment that raises costs its block: its members are named and the others continue."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxrl.errors import Interrupted, RunError, UserError, reason
from jaxrl.population.members import spared
from jaxrl.storage import checkpoint, folder, metrics
from jaxrl.storage import sweep as sweep_files
from tests.helpers import ended, process, rows

SMALL = ["algo=ppo", "env=fragile", "preset=none", "eval_episodes=2", "num_devices=1",
         "algo.num_envs=2", "algo.rollout_length=32", "algo.network.hidden=[8]"]
PBT = ["pbt", *SMALL, "seed=3", "population=6", "block_size=2", "total_steps=4096", "interval=512",
       "algo.learning_rate=range(1e-5,1e-2)"]


@pytest.fixture(scope="module")
def run_in(tmp_path_factory):
    """Function that runs a command where a package has the environment: (exit code, stderr)."""
    base = tmp_path_factory.mktemp("site")
    shutil.copy(Path(__file__).with_name("fragile.py"), base)
    info = base / "fragile-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fragile\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[jaxrl.environments]\nfragile = fragile:ENVIRONMENTS\n")
    env = {"PYTHONPATH": os.pathsep.join(filter(None, [str(base), os.environ.get("PYTHONPATH")]))}

    def run(*words: str) -> tuple[int, str]:
        code, _, err = ended(process(base / "cache", *words, env=env))
        return code, err

    return run


@pytest.fixture(scope="module")
def alone(run_in, tmp_path_factory):
    """PBT without workers: (run, stderr)."""
    run = tmp_path_factory.mktemp("alone") / "run"
    code, err = run_in(*PBT, f"out={run}")
    assert code == 0, err
    return run, err


@pytest.mark.slow
@pytest.mark.fault
def test_the_members_are_named_and_replaced(alone):
    """Copies of others replace them in the next round, in a fresh world."""
    run, err = alone
    warnings = [line for line in err.splitlines() if line.startswith("warning:")]
    assert warnings
    for warning in warnings:
        assert "ValueError: no such joint. Lost, with what was learned: member " in warning
        assert "(learning_rate=" in warning and warning.endswith("; the others continue")
    lineage = metrics.read(run, "lineage.jsonl")
    lost = [(row, i) for row in lineage[1:] for i, x in enumerate(row["fitness"]) if x is None]
    assert lost
    for row, i in lost:
        source = row["source"][i]
        assert source != i and row["fitness"][source] is not None
    assert any(loss is None for row in metrics.read(run) for loss in row["loss"])
    assert (folder.read_summary(run) or {})["status"] == "completed"


@pytest.mark.slow
@pytest.mark.fault
def test_workers_lose_the_same_members(alone, run_in, tmp_path):
    run, _ = alone
    code, err = run_in(*PBT, "workers=2", f"out={tmp_path / 'run'}")
    assert code == 0 and "advance of block 2 (members 5 to 6) failed on " in err, err
    for name in (metrics.METRICS, metrics.EVALS, "lineage.jsonl"):
        assert rows(tmp_path / "run", name) == rows(run, name)
    expected, _ = checkpoint.load(run)
    found, _ = checkpoint.load(tmp_path / "run")
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name], x, err_msg=name)


@pytest.mark.slow
@pytest.mark.fault
def test_trials_of_other_blocks_go_on(run_in, tmp_path):
    """Trials with small rates do not learn in time what keeps the simulator whole."""
    code, err = run_in("sweep", *SMALL, "algo.learning_rate=1e-6,1e-5,0.01,0.03", "block=2",
                       "total_steps=1024", "env.params.share=1.0", "env.params.at=300",
                       "env.params.least=190", "env.time_limit=400", f"out={tmp_path / 'sweep'}")
    assert code == 0, err
    trials = sweep_files.read_table(tmp_path / "sweep")
    assert [row["status"] for row in trials] == ["diverged", "diverged", "completed", "completed"]
    for row in trials:
        lost = row["status"] == "diverged"
        assert ("no such joint" in row["what"]) == lost
        assert (f"trial {row['trial']}, seed 1 of 1 (algo.learning_rate=" in err) == lost


@pytest.mark.slow
@pytest.mark.fault
def test_what_all_blocks_raise_ends_the_run(run_in, tmp_path):
    code, err = run_in("train", *SMALL, "env.params.share=1.0", "num_seeds=2", "block_size=1",
                       "total_steps=1024", f"out={tmp_path / 'run'}")
    assert code == 1 and "no such joint" in err.strip().splitlines()[-2], err
    assert (folder.read_summary(tmp_path / "run") or {})["status"] == "failed"


def test_results_of_blocks_that_raised():
    """Floats are not finite, integers zero; if all blocks raised, the first error is raised."""
    error = RuntimeError("joint")
    good = {"loss": np.float32([1.0, 2.0]), "nonfinite": np.int32([0, 3])}
    [first, second], raised = spared([error, good])
    assert raised == {0: error} and second is good
    assert all(map(math.isnan, first["loss"])) and first["nonfinite"].tolist() == [0, 0]
    assert spared([good]) == ([good], {})
    with pytest.raises(RuntimeError, match="joint"):
        spared([error, ValueError()])
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        spared([good, RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")])


@pytest.mark.parametrize("error, text", [
    (ValueError("no such\n joint"), "ValueError: no such joint"), (KeyError(), "KeyError"),
    (RunError("block 2 failed", "Try"), "block 2 failed"), (UserError("bad", "Try"), "bad Try"),
    (Interrupted(2), "Interrupted: stopped by signal 2"),
    (RuntimeError("INTERNAL: callback: Traceback (most recent call last):\n"
                  "  File \"x.py\", line 6, in simulate\n"
                  "ValueError: no such joint\n--------------------\nFor simplicity, ..."),
     "ValueError: no such joint"),
    (RuntimeError("Traceback (most recent call last):"),
     "RuntimeError: Traceback (most recent call last):")])
def test_what_was_raised_fits_on_a_line(error, text):
    assert reason(error) == text
