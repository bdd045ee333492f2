"""A resumed run equals an uninterrupted one, bit for bit, or an error says why it cannot."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from jaxrl.errors import UserError
from jaxrl.run.loop import resume, train
from jaxrl.storage import checkpoint, folder, metrics
from tests.helpers import (
    EVERY,
    UPDATE,
    Killed,
    Watcher,
    assert_same,
    ended,
    killer,
    process,
    rows,
    status,
    tiny,
    wait_for,
    words,
)

pytestmark = pytest.mark.usefixtures("shared")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, request):
    """Unbroken runs, by their settings."""
    made = {}

    def get(**settings):
        key = repr(settings)
        if key not in made:
            made[key] = train(tiny(12, **settings, out=tmp_path_factory.mktemp("whole")))
        return made[key]
    return get


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of a finished run, for tests that damage it."""
    return shutil.copytree(whole(num_seeds=3), tmp_path / "copy")


@pytest.mark.parametrize("seeds", [1, 3])
def test_two_halves_are_the_whole(whole, tmp_path, seeds):
    half = train(tiny(8, num_seeds=seeds, schedule_steps=12 * UPDATE, out=tmp_path / "half"))
    assert status(half) == "completed" and checkpoint.last(half) == 8 * UPDATE
    resume(half, [f"total_steps={12 * UPDATE}"])
    assert_same(half, whole(num_seeds=seeds))
    assert folder.read_summary(half)["total_steps"] == 12 * UPDATE


def test_schedules_stay_when_a_run_is_extended(whole, tmp_path):
    """Without schedule_steps the halves have other learning rates than the whole."""
    half = train(tiny(8, num_seeds=3, out=tmp_path / "half"))
    resume(half, [f"total_steps={12 * UPDATE}"])
    assert rows(half) != rows(whole(num_seeds=3))
    arrays, _ = checkpoint.load(half)
    assert (arrays["progress/schedule"] == 8).all() and (arrays["progress/update"] == 12).all()


@pytest.mark.parametrize("seeds, moments", [(1, [3, 1, 2]), (3, [1, 3, 4, 2, 1])])
def test_killed_again_and_again(whole, tmp_path, seeds, moments):
    """Rows after the last checkpoint are cut and written again, whenever a process is killed."""
    run = tmp_path / "run"
    with pytest.raises(Killed):
        train(tiny(12, num_seeds=seeds, out=run), killer(3))
    assert status(run) is None and len(rows(run)) == 3 and checkpoint.last(run) == 4 * UPDATE
    for moment in moments:
        try:
            resume(run, reporter=killer(moment))
        except Killed:
            continue
        break
    if status(run) is None:
        resume(run)
    assert_same(run, whole(num_seeds=seeds))


def test_killed_between_an_evaluation_and_its_checkpoint(whole, tmp_path, monkeypatch):
    run = tmp_path / "run"
    save = checkpoint.save

    def fatal(run, step, *args, **more):
        if step == 8 * UPDATE:
            raise Killed
        return save(run, step, *args, **more)

    monkeypatch.setattr(checkpoint, "save", fatal)
    with pytest.raises(Killed):
        train(tiny(12, num_seeds=3, out=run))
    assert [row["step"] for row in rows(run, metrics.EVALS)] == [4 * UPDATE, 8 * UPDATE]
    monkeypatch.undo()
    resume(run)
    assert_same(run, whole(num_seeds=3))


def test_killed_between_the_last_checkpoint_and_the_summary(whole, tmp_path, monkeypatch):
    """The run has all its steps but no summary, which resume writes."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        def die(*_):
            raise Killed
        patch.setattr(folder, "write_summary", die)
        train(tiny(12, num_seeds=3, out=run))
    assert status(run) is None and checkpoint.last(run) == 12 * UPDATE
    resume(run)
    assert_same(run, whole(num_seeds=3))
    summary = folder.read_summary(run)
    unbroken = folder.read_summary(whole(num_seeds=3))
    clocks = ("seconds", "compile_seconds", "steps_per_second")
    for key in folder.SUMMARY_KEYS:
        assert summary[key] == unbroken[key] or key in clocks, key


def test_another_number_of_devices_gives_the_same_bits(whole, tmp_path):
    if len(jax.devices()) < 2:
        pytest.skip("one device")
    reporter = Watcher()
    run = train(tiny(8, num_seeds=3, num_devices=2, schedule_steps=12 * UPDATE,
                     out=tmp_path / "run"), reporter)
    assert checkpoint.load(run)[1]["layout"]["block_size"] == 2
    assert reporter.headers[0]["device"].startswith("2 x cpu")
    reporter = Watcher()
    resume(run, [f"total_steps={12 * UPDATE}", "num_devices=1"], reporter)
    assert reporter.headers[0]["device"].startswith("1 x cpu, 2 x 2") and not reporter.notes
    assert_same(run, whole(num_seeds=3))


def test_another_layout_says_so(finished):
    manifest = finished / "checkpoints" / str(12 * UPDATE) / "manifest.json"
    arrays, meta = checkpoint.load(finished)
    meta = {**meta, "layout": {**meta["layout"], "versions": {"jax": "0.1", "jaxlib": "0.1"}}}
    shutil.rmtree(manifest.parent)
    checkpoint.save(finished, meta.pop("step"), arrays, meta, keep=9, score=meta.pop("score"))
    reporter = Watcher()
    resume(finished, [f"total_steps={14 * UPDATE}"], reporter)
    assert [note for note in reporter.notes if "not bit for bit" in note]


def test_from_an_earlier_checkpoint(finished, whole):
    """step= goes back: later files are removed, and training repeats exactly."""
    seen = []

    def look():
        seen.append((checkpoint.steps(finished), [row["step"] for row in rows(finished)][-1]))

    resume(finished, reporter=Watcher("header", look), step=4 * UPDATE)
    assert seen == [([4 * UPDATE], 4 * UPDATE)]
    assert_same(finished, whole(num_seeds=3))


def test_a_complete_run_is_not_resumed(finished):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()
              and path.name != ".lock"}
    with pytest.raises(UserError,
                       match=r"copy is complete: 384 of 384 steps\. To extend it: jaxrl resume "
                             ".*copy total_steps=768"):
        resume(finished)
    with pytest.raises(UserError, match=r"copy has done 384 steps, more than total_steps=320\."):
        resume(finished, ["total_steps=300"])
    for overrides in (["seed=1"], ["algo.gamma=0.5"], ["checkpoint_every=32"]):
        with pytest.raises(UserError, match=f"{overrides[0]} cannot change on resume"):
            resume(finished, overrides)
    with pytest.raises(UserError, match="has no checkpoint 77"):
        resume(finished, step=77)
    assert {path: path.read_bytes() for path in before} == before


def test_rounded_total_steps_are_complete(tmp_path):
    run = train(tiny(2, total_steps=2 * UPDATE - 5, num_seeds=3, out=tmp_path / "x"))
    with pytest.raises(UserError, match=r"is complete: 64 of 64 steps"):
        resume(run)


def test_before_the_first_checkpoint(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(Killed):
        train(tiny(12, num_seeds=3, out=run), killer(1))
    with pytest.raises(UserError) as error:
        resume(run)
    assert str(error.value) == (f"{run} has no checkpoint yet "
                                "(stopped before the first one at step 128?). "
                                f"Start again: jaxrl train config={run}/config.yaml")


def test_a_damaged_checkpoint_offers_the_last_good_one(finished, whole):
    state = finished / "checkpoints" / str(12 * UPDATE) / "state.safetensors"
    data = bytearray(state.read_bytes())
    data[-5] ^= 1
    state.write_bytes(data)
    with pytest.raises(UserError,
                       match=rf"checkpoint 384 of .*copy is damaged \(sha256 of .* differs\)\. "
                             rf"Last good one: 256 -> jaxrl resume {finished} step=256"):
        resume(finished)
    resume(finished, step=256)
    assert checkpoint.last(finished) == 12 * UPDATE
    assert_same(finished, whole(num_seeds=3))


def test_a_config_that_does_not_fit(finished):
    config = finished / "config.yaml"
    config.write_text(config.read_text().replace("hidden: [8]", "hidden: [9]"))
    with pytest.raises(UserError,
                       match=r"checkpoint does not fit: agent/.* is \(3, .*8.*\), "
                             r"the config says \(3, .*9"):
        resume(finished)
    config.write_text("algo: ppo\nenv: [")
    with pytest.raises(UserError, match=r"config\.yaml is not a config"):
        resume(finished)


def test_rows_lost_by_hand_are_noted(finished):
    file = finished / "metrics.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:2]))
    reporter = Watcher()
    resume(finished, [f"total_steps={14 * UPDATE}"], reporter)
    assert [note for note in reporter.notes if note.startswith("warning: ")
            and "4 are lost" in note], reporter.notes


def test_settings_that_may_change_on_resume(finished):
    resume(finished, [f"total_steps={14 * UPDATE}", "eval_episodes=3", "keep=0"])
    assert [np.shape(row["returns"])
            for row in rows(finished, metrics.EVALS)] == [(3, 6)] * 3 + [(3, 3)]
    assert len(checkpoint.steps(finished)) <= 2
    launches = json.loads((finished / "environment.json").read_text())["resumed"]
    assert len(launches) == 1


# ---------------------------------------------------------------- real processes


@pytest.mark.fault
@pytest.mark.slow
def test_processes_killed_at_random_times(tmp_path, cache):
    """kill -9, three times, at any moment between the header and the end."""
    length = 1500
    settings = {**EVERY, "log_every": 10 * UPDATE, "eval_every": 150 * UPDATE,
                "checkpoint_every": 50 * UPDATE, "num_seeds": 3, "keep": 1}
    command = words(length, **settings)
    assert ended(process(cache, "train", *command, f"out={tmp_path / 'whole'}",
                         "quiet=true"))[0] == 0
    whole = tmp_path / "whole"
    run = tmp_path / "run"
    draw = random.Random(7)
    kills = 0
    arguments = ["train", *command, f"out={run}"]
    while kills < 3:
        child = process(cache, *arguments)
        known = checkpoint.last(run) or 0
        wait_for(lambda known=known: (checkpoint.last(run) or 0) > known, child)
        time.sleep(draw.uniform(0.0, 0.15))
        child.send_signal(signal.SIGKILL)
        code, _, err = ended(child)
        assert code == -signal.SIGKILL, (code, err)
        kills += 1
        arguments = ["resume", str(run)]
    code, _, err = ended(process(cache, *arguments))
    assert code == 0, err
    assert_same(whole, run)
