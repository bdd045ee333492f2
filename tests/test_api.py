"""The Python API."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from omegaconf import OmegaConf

import jaxrl
from jaxrl.declare import hypers
from jaxrl.errors import RunError, UserError
from jaxrl.run import learners
from jaxrl.storage import folder
from tests.helpers import EVERY, TINY, UPDATE, Watcher, assert_same, rows, tiny

pytestmark = pytest.mark.usefixtures("shared")

SETTINGS = {**{key: value for key, value in TINY.items() if key not in ("algo", "env")}, **EVERY,
            "num_seeds": 3}
SHORT = {**SETTINGS, "total_steps": 4 * UPDATE}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    made = []

    def get():
        if not made:
            made.append(jaxrl.train("ppo", "masked-bandit", **SHORT,
                                    out=tmp_path_factory.mktemp("trained")))
        return made[0]
    return get


def test_a_run_returns_what_it_holds(trained):
    run = trained()
    assert run.folder.is_dir() and str(run.folder) in repr(run)
    assert run.returns.shape == (3, 6) and run.returns.dtype == np.float64
    assert run.returns.mean(axis=1).tolist() == run.summary["eval_returns"]
    assert [row["step"] for row in run.metrics()] == [2 * UPDATE, 4 * UPDATE]
    assert len(run.evals()) == 1
    assert run.config.algo == "ppo"
    assert run.config.agent.num_envs == 4
    assert run.config.env.name == "masked-bandit"
    assert run.config.settings.total_steps == 4 * UPDATE
    again = jaxrl.load(str(run.folder))
    assert again.summary == run.summary and again.config == run.config


def test_every_form_of_a_config_gives_the_same_run(trained, tmp_path):
    words = [f"{key}={str(value).replace(' ', '')}" for key, value in SHORT.items()]
    composed = jaxrl.compose(["algo=ppo", "env=masked-bandit", *words,
                              f"out={tmp_path / 'composed'}"])
    of_config = jaxrl.train(composed)
    nested = {"total_steps": 4e2 / 400 * 4 * UPDATE, "num_seeds": np.int64(3),
              "algo.network.hidden": (8,)}
    of_values = jaxrl.train("ppo", "masked-bandit", **{**SHORT, **nested}, out=tmp_path / "values")
    of_file = jaxrl.train(jaxrl.compose([f"config={trained().folder / 'config.yaml'}",
                                         f"out={tmp_path / 'file'}"]))
    for run in (of_config, of_values, of_file):
        assert_same(run.folder, trained().folder)


def test_a_dictconfig(trained, tmp_path):
    from jaxrl import config

    plain = config.to_plain(trained().config)
    run = jaxrl.train(OmegaConf.create({**plain, "out": str(tmp_path / "hydra")}))
    assert_same(run.folder, trained().folder)


def test_a_run_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = jaxrl.train("ppo", "masked-bandit", **SHORT)
    assert run.folder.parent.name == "runs" and run.folder.name.startswith("masked-bandit-ppo-")
    with pytest.raises(UserError, match=r"is not empty"):
        jaxrl.train("ppo", "masked-bandit", **SHORT, out=run.folder)


def test_resume(trained, tmp_path):
    first = {**SETTINGS, "total_steps": 4 * UPDATE, "schedule_steps": 8 * UPDATE}
    half = jaxrl.train("ppo", "masked-bandit", **first,
                       out=tmp_path / "half")
    whole = jaxrl.train("ppo", "masked-bandit", **SETTINGS, total_steps=8 * UPDATE,
                        out=tmp_path / "whole")
    reporter = Watcher()
    run = jaxrl.resume(half.folder, total_steps=float(8 * UPDATE), stop_return=None, quiet=True,
                       reporter=reporter)
    assert_same(run.folder, whole.folder) and reporter.results
    again = jaxrl.resume(half.folder, step=4 * UPDATE)
    assert_same(again.folder, whole.folder)
    with pytest.raises(UserError, match="seed=3 cannot change"):
        jaxrl.resume(half.folder, seed=3)


def test_evaluate(trained, tmp_path):
    run = trained()
    first = run.evaluate(episodes=6)
    assert first.shape == (3, 6) and (first == run.evaluate(6, step="best")).all() == (
        run.summary["best_step"] == 4 * UPDATE)
    assert (first != run.returns).any(), "starts of their own"
    assert (first == run.evaluate(6, step=4 * UPDATE)).all()
    with pytest.raises(UserError, match="has no checkpoint 3"):
        run.evaluate(6, step=3)


def test_a_run_of_a_larger_machine_is_evaluated(trained, tmp_path):
    import shutil

    other = shutil.copytree(trained().folder, tmp_path / "other")
    config = other / "config.yaml"
    config.write_text(config.read_text().replace("num_devices: null", "num_devices: 64"))
    assert (jaxrl.load(other).evaluate(6) == trained().evaluate(6)).all()
    with pytest.raises(UserError, match="num_devices=64 was asked for"):
        jaxrl.resume(other, total_steps=8 * UPDATE)
    jaxrl.resume(other, total_steps=8 * UPDATE, num_devices=1)


def test_a_run_that_was_never_evaluated(trained, tmp_path):
    import shutil

    other = shutil.copytree(trained().folder, tmp_path / "other")
    (other / "evals.jsonl").unlink()
    (other / "summary.json").unlink()
    run = jaxrl.load(other)
    assert run.summary is None and run.evals() == []
    with pytest.raises(UserError, match="has no evaluation yet"):
        run.returns  # noqa: B018


def test_errors():
    with pytest.raises(UserError, match="unknown algo"):
        jaxrl.train("pp0", "cartpole")
    with pytest.raises(UserError, match="unknown key"):
        jaxrl.train("ppo", "masked-bandit", sead=1)
    with pytest.raises(UserError, match="is not a run"):
        jaxrl.load("nowhere")
    assert issubclass(RunError, Exception)


def test_a_runner_for_other_loops(trained):
    """`init` and `advance`, jitted by the caller, give the learner of the run up to rounding."""
    made = [jaxrl.make_runner(x)
            for x in (tiny(4), TINY, [f"{k}={str(v).replace(' ', '')}" for k, v in TINY.items()])]
    assert [runner.steps_per_update for runner in made] == [UPDATE] * 3
    runner = made[0]
    config = tiny(4)
    key = learners.member_keys(0, 3, learners.TRAIN)[0]
    state = jax.jit(runner.init)(key, hypers(config.agent), 4)
    state, metrics = jax.jit(runner.advance)(state, 4)
    assert int(state.progress.update) == 4 and np.isfinite(metrics["return_mean"])
    assert rows(trained().folder)[-1]["step"] == 4 * UPDATE
    from jaxrl.storage import checkpoint

    stored = checkpoint.load(trained().folder)[0]
    params = checkpoint.flatten(state.agent.params)
    for name, x in params.items():
        np.testing.assert_allclose(x, stored[f"agent/params/{name}"][0], atol=1e-5)


def test_names_of_the_package():
    assert {"train", "load", "resume", "make_runner", "compose"} <= set(dir(jaxrl))
    assert folder.SUMMARY_KEYS[0] == "status"
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        jaxrl.trian  # noqa: B018
