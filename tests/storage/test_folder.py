"""Run folders: names, claims, locks, and the JSON files that scripts read."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxrl.errors import Interrupted, Problem, RunError, UserError
from jaxrl.storage import folder

SUMMARY = {**dict.fromkeys(folder.SUMMARY_KEYS), "status": "completed", "algo": "ppo",
           "env": "cartpole"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name, safe", [
    ("cartpole", "cartpole"), ("CartPole-v1", "cartpole-v1"),
    ("gymnax/CartPole-v1", "gymnax-cartpole-v1"),
    ("gymnasium/my_module:Env-v0", "gymnasium-my_module-env-v0"),
    ("../../etc/passwd", "etc-passwd"), ("..", "x"),
    ("", "x"), (".hidden", "hidden"), ("a b\n\0\x1b", "a-b---"), ("x" * 500, "x" * 80),
])
def test_names_become_file_names_that_stay_in_their_folder(name, safe):
    assert folder.safe_name(name) == safe


@pytest.mark.parametrize("env", ["cartpole", "../../outside", "/absolute", "gymnax/CartPole-v1"])
def test_a_run_lies_directly_in_runs_under_its_pattern(here, env):
    run, lock = folder.create(env, "PPO")
    assert run.parent == Path("runs") and run.resolve().parent == here / "runs"
    assert re.fullmatch(rf"{folder.safe_name(env)}-ppo-\d{{8}}-\d{{6}}-[a-z]{{4}}", run.name)
    lock.release()


def test_a_name_that_is_taken_is_drawn_again(monkeypatch):
    letters = iter("aaaaaaaabbbb")
    monkeypatch.setattr(folder.secrets, "choice", lambda _: next(letters))
    monkeypatch.setattr(folder.time, "sleep", lambda _: None)

    class Clock(folder.datetime.datetime):
        @classmethod
        def now(cls, zone=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=zone)

    monkeypatch.setattr(folder.datetime, "datetime", Clock)
    first, _one = folder.create("cartpole", "ppo")
    second, _two = folder.create("cartpole", "ppo")
    assert [first.name, second.name] == [f"cartpole-ppo-20260102-030405-{end}"
                                         for end in ("aaaa", "bbbb")]


def test_out_must_be_new_or_empty():
    run, lock = folder.create("cartpole", "ppo", "deep/new")
    assert run == Path("deep/new") and run.is_dir()
    with pytest.raises(UserError, match="deep/new is being written by process"):
        folder.create("cartpole", "ppo", "deep/new")
    lock.release()
    # its owner died before it wrote anything
    folder.create("cartpole", "ppo", run)[1].release()
    (run / "config.yaml").touch()
    with pytest.raises(UserError, match=r"out=deep/new is not empty\. .* jaxrl resume deep/new"):
        folder.create("cartpole", "ppo", run)
    Path("full").mkdir()
    Path("full/thesis.tex").touch()
    with pytest.raises(UserError, match=r"out=full is not empty\. Use another out="):
        folder.create("cartpole", "ppo", "full")
    assert [entry.name for entry in Path("full").iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="cannot be used"):
        folder.create("cartpole", "ppo", "full/thesis.tex")


def test_a_held_lock_is_an_error_that_names_its_owner():
    Path("x").mkdir()
    with folder.Lock("x"):
        Path("x/config.yaml").touch()
        with pytest.raises(UserError) as error:
            folder.create("cartpole", "ppo", "x")
    assert re.fullmatch(r"x is being written by process \d+ on host [\w.-]+ since \d\d:\d\d\. "
                        r"Use another out=, or stop it\.", str(error.value))
    folder.Lock("x").release()


def test_a_strange_lock_text_is_no_obstacle(monkeypatch):
    monkeypatch.setattr(folder.time, "sleep", lambda _: None)
    Path("x").mkdir()
    for text in ("", "[" * 9999, '{"pid": "rm", "host": "a", "since": "now"}', "null"):
        with folder.Lock("x"):
            Path("x/.lock").write_text(text)
            with pytest.raises(UserError, match="x is being written by another process"):
                folder.Lock("x")


def test_open_run_takes_runs_and_offers_those_there_are():
    with pytest.raises(UserError) as error:
        folder.open_run("runs/x")
    assert str(error.value).startswith(
        "runs/x is not a run (no config.yaml). There are no runs here")
    run, _lock = folder.create("cartpole", "ppo")
    (run / "config.yaml").touch()
    assert folder.open_run(run) == folder.open_run(str(run)) == run
    for path in ("runs/x", "runs", "elsewhere", f"{run}/nothing"):
        with pytest.raises(UserError) as error:
            folder.open_run(path)
        assert str(error.value) == f"{path} is not a run (no config.yaml). Runs here: {run}"


def test_summary_has_exactly_its_keys_and_is_valid_json(here):
    folder.write_summary(here, {**SUMMARY, "eval_returns": np.array([1.0, np.nan], np.float32),
                                "seconds": math.inf})
    text = (here / "summary.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert tuple(found) == folder.SUMMARY_KEYS
    assert (found["eval_returns"], found["seconds"]) == ([1.0, None], None)
    assert folder.read_summary(here) == found
    for wrong in ({**SUMMARY, "extra": 1}, {"status": "completed"}, {**SUMMARY, "status": "fine"}):
        with pytest.raises(ValueError):
            folder.write_summary(here, wrong)
    assert (here / "summary.json").read_text() == text
    assert not list(here.glob(".*.tmp"))


def test_summary_of_a_run_that_never_ended_is_none(here):
    assert folder.read_summary(here) is None
    (here / "summary.json").write_text("{")
    assert folder.read_summary(here) is None


def test_environment_records_the_launch_and_later_ones_below_it(here):
    folder.write_environment(here, ["/usr/bin/jaxrl", "train", "env=a b"],
                             device={"kind": "cpu", "count": 1})
    found = json.loads((here / "environment.json").read_text())
    assert found["command"] == "jaxrl train 'env=a b'"
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"jax", "jaxlib", "flax", "optax", "numpy"} <= found["versions"].keys()
    assert found["device"] == {"kind": "cpu", "count": 1} and "git" in found
    folder.write_environment(here, ["jaxrl", "resume", "x"], device="gpu")
    again = json.loads((here / "environment.json").read_text())
    assert again["command"] == found["command"]
    assert again["resumed"][0]["command"] == "jaxrl resume x"


def test_a_folder_that_cannot_be_written_is_an_error(here):
    with pytest.raises(RunError,
                       match=r"cannot write gone/summary\.json \(No such file or directory\)"):
        folder.write_summary("gone", SUMMARY)
    (here / "runs").touch()
    with pytest.raises(UserError, match="cannot create a run in runs"):
        folder.create("cartpole", "ppo")


def test_errors_carry_problems_and_exit_codes():
    error = UserError([Problem("one", "do this"), "two"])
    assert error.exit_code == 2
    assert error.problems == [("one", "do this"), ("two", None)]
    assert str(error) == "one do this\ntwo"
    assert RunError("it failed", "try").exit_code == 1
    assert Interrupted(15).exit_code == 143
