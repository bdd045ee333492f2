"""Crashes, full disks and many processes at once. The child processes never import JAX."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxrl.errors import UserError
from jaxrl.storage import checkpoint, folder, metrics

CHILD = Path(__file__).with_name("storage_child.py")
pytestmark = pytest.mark.fault


def child(scenario: str, base: Path):
    done = subprocess.run([sys.executable, str(CHILD), scenario, str(base)], capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_killed_at_any_file_event_leaves_whole_checkpoints(tmp_path):
    events = child("kill", tmp_path)
    assert all(count >= 12 for count in events.values()), events      # the kills did happen


def test_full_disk_says_so_and_the_old_checkpoint_loads(tmp_path):
    said = child("full_disk", tmp_path)
    ends = "GiB free|MiB free|KiB free"
    for key, start, end in (
        ("first", "no space left writing runs/x/checkpoints/100 (needs 4.",
         "There is no checkpoint yet. Free space, then: jaxrl train config=runs/x/config.yaml"),
        ("third", "no space left writing runs/x/checkpoints/300000 (needs 4.",
         "The last checkpoint, 250000, is intact. Free space, then: jaxrl resume runs/x"),
        ("metrics", "no space left writing runs/x/metrics.jsonl (needs ",
         "The last checkpoint, 250000, is intact. Free space, then: jaxrl resume runs/x"),
        ("dev_full", "no space left writing runs/x/evals.jsonl (needs ",
         "The last checkpoint, 250000, is intact. Free space, then: jaxrl resume runs/x"),
    ):
        assert said[key].startswith(start) and said[key].endswith(end), said[key]
        assert any(unit in said[key] for unit in ends.split("|"))
    rows, read, whole = said["rows"]
    assert rows == read > 0 and whole           # the torn row was taken back
    assert said["loaded"] == [[250_000], 1, ["250000"]]


def test_eight_processes_in_one_second_get_eight_folders_or_an_error(tmp_path):
    named, shared = child("crowd", tmp_path)
    assert len(set(named)) == 8 and all((tmp_path / name).is_dir() for name in named)
    assert sorted(text == "shared" for text in shared) == [False] * 7 + [True]
    for text in shared:
        assert text == "shared" or (text.startswith("shared is being written by process ")
                                    and text.endswith(". Use another out=, or stop it.")), text


def test_a_lock_is_free_after_kill_9_even_if_a_forked_child_lives(tmp_path):
    holder = subprocess.Popen([sys.executable, str(CHILD), "hold", str(tmp_path)],
                              stdout=subprocess.PIPE, text=True)
    pid, forked = json.loads(holder.stdout.readline())
    try:
        with pytest.raises(UserError,
                           match=rf"is being written by process {pid} on host [\w.-]+ since "
                                 r"\d\d:\d\d\. "
                                 r"Use another out=, or stop it\."):
            folder.Lock(tmp_path)
        holder.kill()
        holder.wait()
        folder.Lock(tmp_path).release()
    finally:
        os.kill(forked, signal.SIGKILL)
        holder.kill()
        holder.wait()
        holder.stdout.close()


@pytest.fixture
def events(monkeypatch):
    """A recording double of the calls that make data durable, in order, by path."""
    log = []
    names = {}
    real = {name: getattr(os, name)
            for name in ("open", "write", "fsync", "close", "rename", "replace")}

    def opened(path, flags, *rest, **more):
        fd = real["open"](path, flags, *rest, **more)
        names[fd] = Path(path).name
        return fd

    def record(kind):
        def call(fd, *rest):
            if fd in names:
                log.append((kind, names[fd]))
            return real[kind](fd, *rest)
        return call

    def renamed(kind):
        def call(source, target):
            log.append(("rename", Path(target).name))
            return real[kind](source, target)
        return call

    def closed(fd):
        names.pop(fd, None)
        return real["close"](fd)

    for name, double in {"open": opened, "write": record("write"), "fsync": record("fsync"),
                         "close": closed,
                         "rename": renamed("rename"), "replace": renamed("replace")}.items():
        monkeypatch.setattr(os, name, double)
    return log


def without_repeats(log):
    return [event for index, event in enumerate(log) if index == 0 or event != log[index - 1]]


def test_a_checkpoint_is_written_synced_renamed_and_its_parent_synced(tmp_path, events):
    arrays = {"w": np.ones(10), "b": np.zeros(3, np.float32)}
    checkpoint.save(tmp_path, 1, arrays, {}, keep=0)
    assert without_repeats(events) == [
        ("fsync", tmp_path.name),
        ("write", "state.safetensors"), ("fsync", "state.safetensors"), ("write", "manifest.json"),
        ("fsync", "manifest.json"), ("fsync", ".tmp-1"), ("rename", "1"), ("fsync", "checkpoints"),
    ]
    events.clear()
    checkpoint.save(tmp_path, 2, arrays, {}, keep=0)
    # the old one goes only after the new one is durable
    assert without_repeats(events)[-4:] == [
        ("rename", "2"), ("fsync", "checkpoints"), ("rename", ".trash-1"), ("fsync", "checkpoints")]


def test_summary_and_rows_are_durable(tmp_path, events):
    folder.write_atomic(tmp_path / "summary.json", b"{}")
    temporary = f".summary.json.{os.getpid()}.tmp"
    assert events == [("write", temporary), ("fsync", temporary), ("rename", "summary.json"),
                      ("fsync", tmp_path.name)]
    events.clear()
    with metrics.Rows(tmp_path, "metrics.jsonl") as rows:
        rows.append({"step": 1})
        rows.sync()
    assert events == [("fsync", tmp_path.name), ("write", "metrics.jsonl"),
                      ("fsync", "metrics.jsonl")]
