"""SIGTERM and SIGINT: the run is saved, names the command to resume it, and continues exactly."""

from __future__ import annotations

import os
import re
import signal
import threading
import time

import pytest

from jaxrl.errors import Interrupted
from jaxrl.run.loop import Session, resume, train
from jaxrl.run.signals import Signals
from jaxrl.storage import checkpoint, folder
from tests.helpers import (
    EVERY,
    UPDATE,
    Watcher,
    assert_same,
    ended,
    process,
    status,
    tiny,
    wait_for,
    words,
)

pytestmark = [pytest.mark.usefixtures("shared"), pytest.mark.fault]

STOPPING = "stopping: {} received, finishing the current step; press Ctrl-C again to stop at once"


def send(*signals: signal.Signals):
    """Return a function that sends signals to this process.

    Python calls the handlers before the next line.
    """
    def act():
        for one in signals:
            os.kill(os.getpid(), one)
            time.sleep(0.001)
    return act


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    made = []

    def get():
        if not made:
            made.append(train(tiny(12, num_seeds=3, out=tmp_path_factory.mktemp("whole"))))
        return made[0]
    return get


@pytest.mark.parametrize("signum, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("at, step", [("header", 0), (1, 2), (2, 4), (5, 10)])
def test_one_signal(whole, tmp_path, signum, code, at, step):
    """A signal before compilation, in a chunk or between chunks."""
    run = tmp_path / "run"
    reporter = Watcher(at, send(signum))
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted) as stop:
        train(tiny(12, num_seeds=3, out=run), reporter)
    assert stop.value.exit_code == code and signal.getsignal(signum) == before
    stopping, saved = reporter.notes
    assert stopping == STOPPING.format(signum.name)
    assert re.fullmatch(rf"saved step {step * UPDATE} in \d+\.\d s\. Continue: jaxrl resume {run}",
                        saved)
    summary = folder.read_summary(run)
    assert (summary["status"], summary["total_steps"]) == ("interrupted", step * UPDATE)
    assert (summary["eval_returns"] is not None) == (step >= 4)
    assert checkpoint.last(run) == step * UPDATE
    resume(run)
    assert_same(run, whole()) and status(run) == "completed"


def test_a_signal_in_the_last_chunk_changes_nothing(whole, tmp_path):
    run = tmp_path / "run"
    reporter = Watcher(6, send(signal.SIGTERM))
    train(tiny(12, num_seeds=3, out=run), reporter)
    assert status(run) == "completed" and reporter.notes == [STOPPING.format("SIGTERM")]
    assert_same(run, whole())


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGTERM, signal.SIGTERM),
                                     (signal.SIGINT, signal.SIGTERM, signal.SIGINT)])
def test_during_a_save(whole, tmp_path, monkeypatch, signals):
    """A save is never cut short, not even by a second signal."""
    run = tmp_path / "run"
    save = checkpoint._publish
    act = send(*signals)

    def slow(*args):
        act() if not status(run) and not (run / "checkpoints" / str(4 * UPDATE)).exists() else None
        return save(*args)

    monkeypatch.setattr(checkpoint, "_publish", slow)
    with pytest.raises(Interrupted) as stop:
        train(tiny(12, num_seeds=3, out=run))
    assert stop.value.signum == signals[0] and status(run) == "interrupted"
    assert checkpoint.last(run) == 4 * UPDATE and checkpoint.damage(run, 4 * UPDATE) is None
    resume(run)
    assert_same(run, whole())


def test_twice_stops_at_once(whole, tmp_path):
    run = tmp_path / "run"
    reporter = Watcher(3, send(signal.SIGINT, signal.SIGINT))
    with pytest.raises(Interrupted) as stop:
        train(tiny(12, num_seeds=3, out=run), reporter)
    assert stop.value.exit_code == 130 and status(run) == "interrupted"
    assert reporter.notes == [STOPPING.format("SIGINT")] and checkpoint.last(run) == 4 * UPDATE
    resume(run)
    assert_same(run, whole())


def test_twice_before_anything_is_there(tmp_path):
    """Two signals while the header is shown: the run still gets a summary."""
    run = tmp_path / "run"
    reporter = Watcher("header", send(signal.SIGTERM, signal.SIGTERM))
    with pytest.raises(Interrupted) as stop:
        train(tiny(12, num_seeds=3, out=run), reporter)
    assert stop.value.exit_code == 143
    assert status(run) == "interrupted"
    assert checkpoint.last(run) is None
    assert reporter.notes == [STOPPING.format("SIGTERM")]


def test_after_the_summary(tmp_path, monkeypatch):
    """A run that is complete stays so."""
    run = tmp_path / "run"
    act = send(signal.SIGTERM, signal.SIGTERM)
    finish = Session.finish
    monkeypatch.setattr(Session, "finish", lambda *args: (finish(*args), act()))
    with pytest.raises(Interrupted):
        train(tiny(4, num_seeds=3, out=run))
    assert status(run) == "completed"


def test_during_the_summary(tmp_path, monkeypatch):
    run = tmp_path / "run"
    act = send(*[signal.SIGTERM] * 3)
    write = folder.write_summary
    monkeypatch.setattr(folder, "write_summary", lambda *args: (act(), write(*args)))
    train(tiny(4, num_seeds=3, out=run))
    assert status(run) == "completed"


def test_a_signal_is_noticed_while_a_chunk_runs(tmp_path):
    """Signals interrupt the wait for the device: a second one ends it at once."""
    run = tmp_path / "run"
    reporter = Watcher()
    long = tiny(20_000, num_seeds=3, **{key: 20_000 * UPDATE for key in EVERY}, out=run)

    def later():
        for _ in range(2):
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGTERM)
            sent.append(time.monotonic())

    sent = []
    note = reporter.note
    thread = threading.Thread(target=later)

    def noted(text):
        note(text)
        sent.append(text)

    def header(facts):
        thread.start()

    reporter.note = noted
    reporter.header = header
    with pytest.raises(Interrupted):
        train(long, reporter)
    thread.join()
    # noted before the second was sent
    assert isinstance(sent[0], str) or isinstance(sent[1], str), sent
    assert time.monotonic() - max(x for x in sent if not isinstance(x, str)) < 1.0
    assert status(run) == "interrupted" and folder.read_summary(run)["total_steps"] == 0


def test_in_another_thread_there_are_no_handlers(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    runs = []
    config = tiny(4, num_seeds=3, out=tmp_path / "run")
    thread = threading.Thread(target=lambda: runs.append(train(config)))
    thread.start()
    thread.join()
    assert status(runs[0]) == "completed" and signal.getsignal(signal.SIGTERM) == before


def test_a_note_that_fails_does_not_stop_the_run():
    """A stream that is just being written refuses another write from a signal handler."""
    def reentrant(text):
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")
    with Signals(reentrant) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.001)
        assert signals.received == signal.SIGTERM
        with signals.held():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.001)
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.001)


# ---------------------------------------------------------------- real processes

LONG = {"num_seeds": 3, "log_every": 20 * UPDATE, "eval_every": 10**9, "checkpoint_every": 10**9}


def test_a_process_in_training(tmp_path, cache):
    """It stays quick, at 4 s: the only quick test of a real signal to a real process."""
    run = tmp_path / "run"
    child = process(cache, "train", *words(10**6, **LONG), f"out={run}")
    wait_for(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size,
             child)
    child.send_signal(signal.SIGTERM)
    code, out, err = ended(child)
    assert code == 143, err
    step = checkpoint.last(run)
    lines = [line for line in err.splitlines() if line.startswith(("stopping", "saved"))]
    assert lines[0] == STOPPING.format("SIGTERM") and len(lines) == 2
    assert lines[1].startswith(f"saved step {step:,} in ")
    assert lines[1].endswith(f" Continue: jaxrl resume {run}")
    assert "Traceback" not in err
    assert out.startswith("  interrupted: ")
    assert f"jaxrl resume {run}" in out
    assert status(run) == "interrupted" and step > 0
    resume(run, [f"total_steps={step + 40 * UPDATE}"])
    assert status(run) == "completed"


@pytest.mark.slow
@pytest.mark.parametrize("signals, code",
                         [([signal.SIGINT], 130), ([signal.SIGTERM, signal.SIGTERM], 143)])
def test_a_process_that_compiles(tmp_path, signals, code):
    """Signals right after the header, with an empty compilation cache."""
    run = tmp_path / "run"
    child = process(tmp_path / "empty", "train", *words(1000, **LONG), f"out={run}")
    while (line := child.stderr.readline()).split()[:1] != ["run"]:
        assert line, "ended before its header was whole"
    assert line.split() == ["run", str(run)]
    child.send_signal(signals[0])
    # not before the first was heard: two that wait are one
    if len(signals) > 1:
        while not (line := child.stderr.readline()).startswith("stopping:"):
            assert line, "ended by one signal"
        child.send_signal(signals[1])
    code_seen, _, err = ended(child)
    assert code_seen == code and status(run) == "interrupted" and "Traceback" not in err, err
    assert ("saved step 0 in" in err) == (len(signals) == 1)
    if len(signals) == 1:
        resume(run, [f"total_steps={UPDATE}"])


@pytest.mark.slow
def test_processes_at_random_times(tmp_path, cache):
    """Three signals at random moments; the result is that of the unbroken run."""
    import random

    every = {"log_every": 10 * UPDATE, "eval_every": 150 * UPDATE, "checkpoint_every": 50 * UPDATE}
    command = words(1200, num_seeds=3, keep=1, **every)
    assert ended(process(cache, "train", *command, f"out={tmp_path / 'whole'}",
                         "quiet=true"))[0] == 0
    run = tmp_path / "run"
    draw = random.Random(3)
    arguments = ["train", *command, f"out={tmp_path / 'run'}"]
    for _ in range(3):
        child = process(cache, *arguments)
        known = checkpoint.last(run) or 0
        wait_for(lambda known=known: (checkpoint.last(run) or 0) > known, child)
        time.sleep(draw.uniform(0.0, 0.1))
        child.send_signal(draw.choice([signal.SIGTERM, signal.SIGINT]))
        code, _, err = ended(child)
        assert code in (130, 143), err
        arguments = ["resume", str(run)]
    assert ended(process(cache, *arguments))[0] == 0
    assert_same(run, tmp_path / "whole")


def test_a_second_signal_in_the_garbage_collectors_callback_is_not_lost():
    """An exception that is raised there is printed and forgotten, so it comes a little later."""
    def _xla_gc_callback():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.001)

    with Signals(lambda text: None) as signals, pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.001)
        assert signals.received == signal.SIGTERM
        _xla_gc_callback()                       # nothing is raised in here
        time.sleep(5)
