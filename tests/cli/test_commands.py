"""The commands on a real run, small enough to train in seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import jaxrl
from jaxrl import backend, config
from jaxrl.cli.main import main

TINY = [
    "algo=ppo", "env=probe-both", "preset=none", "total_steps=1000", "eval_episodes=8",
    "num_seeds=2", "num_devices=1", "algo.num_envs=4", "algo.rollout_length=16",
    "algo.minibatches=1", "algo.network.hidden=[8]",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that `jaxrl train` has made."""
    folder = tmp_path_factory.mktemp("run") / "a run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["jaxrl", "train", *TINY])
        assert main(["train", *TINY, f"out={folder}", "quiet=true"]) == 0
    return folder


def test_train_says_what_it_did(run, capsys, tmp_path):
    assert (
        main(["train", f"config={run / 'config.yaml'}", f"out={tmp_path / 'again'}", "quiet=false"])
        == 0
    )
    out, err = capsys.readouterr()
    assert f"jaxrl eval {tmp_path / 'again'}" in out and "(2 seeds x 8 episodes)" in out
    assert "probe-both" in err and "total_steps=1,000 is rounded up to 1,024" in err
    first, second = (
        json.loads((folder / "summary.json").read_text()) for folder in (run, tmp_path / "again")
    )
    assert first["eval_returns"] == second["eval_returns"], "a stored config repeats the run"
    assert main(["train", *TINY, f"out={run}"]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_eval(run, capsys):
    assert main(["eval", str(run), "episodes=4"]) == 0
    assert "(2 seeds x 4 episodes, checkpoint 1,024)" in capsys.readouterr().out
    assert main(["eval", str(run), "step=best", "episodes=4", "json=true"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"step", "episodes", "eval_iqm", "eval_ci95", "eval_returns", "returns"}
    assert len(result["returns"]) == 2 and len(result["returns"][0]) == 4
    assert main(["eval", str(run), "step=77"]) == 2
    assert "has no checkpoint 77" in capsys.readouterr().err


def test_resume(run, capsys):
    assert main(["resume", str(run)]) == 2
    assert "is complete" in capsys.readouterr().err
    assert main(["resume", str(run), "seed=3", "algo.gamma=0.5"]) == 2
    assert "seed=3 cannot change on resume" in capsys.readouterr().err
    assert main(["resume", str(run), "totl_steps=3", "step=x"]) == 2
    err = capsys.readouterr().err
    assert "Did you mean: total_steps" in err and 'step="x" is not a whole number' in err
    assert main(["resume", str(run), "total_steps=1500", "quiet=true"]) == 0
    stored = config.from_file(run / "config.yaml")
    assert stored.settings.total_steps >= 1500 and stored.settings.schedule_steps == 1024


def test_show_run(run, capsys):
    assert main(["show", str(run)]) == 0
    text = capsys.readouterr().out
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "override" in lines["algo.num_envs"] and "default" in lines["algo.gamma"]
    assert (
        "completed" in lines["status"]
        and "jaxrl train" in lines["command"]
        and "jax " in lines["versions"]
    )
    assert main(["show", str(run), "seed=3"]) == 2


def test_json_is_the_summary(tmp_path, capsys):
    assert main(["train", *TINY, f"out={tmp_path / 'x'}", "json=true"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(
        (tmp_path / "x" / "summary.json").read_text()
    )


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "self-test passed" in out and all(
        word in out for word in ("jaxlib", "devices", "memory", "ray", "cores")
    )


def test_doctor_reports_a_learner_that_does_not_learn(monkeypatch, capsys):
    run = SimpleNamespace(summary={"steps_per_second": 1.0}, returns=np.zeros((1, 4)),
                          metrics=lambda: [{"value": [0.0]}])
    monkeypatch.setattr("jaxrl.api.train", lambda *args, **settings: run)
    assert main(["doctor"]) == 1
    assert "self-test failed" in capsys.readouterr().err


def test_memory_is_what_the_control_group_leaves(tmp_path, monkeypatch):
    limit, free = backend.memory()
    assert 0 < free <= limit
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    monkeypatch.setattr(backend, "_cgroups", lambda: [tmp_path])
    assert backend.memory() == (1_000_000, 600_000)
    (tmp_path / "memory.max").write_text("max\n")
    assert backend.memory()[0] == limit


@pytest.mark.slow
def test_a_hydra_script_of_ones_own(tmp_path):
    script = Path(__file__).parents[2] / "examples" / "hydra_main.py"
    out = tmp_path / "run"
    done = subprocess.run(
        [
            sys.executable, str(script), *(w for w in TINY if w != "preset=none"), "~experiment",
            f"out={out}",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert config.from_file(out / "config.yaml").agent.network.hidden == (8,)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"], (
        "Hydra leaves nothing of its own behind"
    )


def test_python_does_what_the_command_line_does(tmp_path):
    run = jaxrl.train(jaxrl.compose([*TINY, f"out={tmp_path / 'x'}"]))
    assert run.returns.shape == (2, 8) and jaxrl.load(tmp_path / "x").config.algo == "ppo"
    assert {"train", "load", "resume", "make_runner", "compose"} <= set(dir(jaxrl))
