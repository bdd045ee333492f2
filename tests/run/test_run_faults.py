"""Runs with full disks, missing folders and odd processes: each ends, or an error says why."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import jax
import pytest

from jaxrl import backend
from jaxrl.errors import RunError, UserError
from jaxrl.run import loop
from jaxrl.run.loop import resume, train
from jaxrl.storage import checkpoint, folder, metrics
from jaxrl.storage.metrics import METRICS
from tests.helpers import (
    UPDATE,
    Watcher,
    assert_same,
    ended,
    process,
    rows,
    status,
    tiny,
    words,
)

pytestmark = [pytest.mark.usefixtures("shared"), pytest.mark.fault]


def whole_rows(run: Path) -> int:
    """Return the number of rows, and fail if anything after them does not parse."""
    found = metrics.read(run)
    assert len((run / METRICS).read_bytes().splitlines()) == len(found)
    return len(found)


# ---------------------------------------------------------------- the disk


def divert(run: Path, name: str, target: str):
    """Return a function that redirects a file of the running run to `target`."""
    def act():
        session = sessions[-1]
        handle = getattr(session, name)
        fd = os.open(target, os.O_WRONLY)
        os.dup2(fd, handle._fd)
        os.close(fd)
    return act


sessions: list[loop.Session] = []


@pytest.fixture(autouse=True)
def watch_sessions(monkeypatch):
    sessions.clear()
    enter = loop.Session.__enter__
    monkeypatch.setattr(loop.Session, "__enter__",
                        lambda self: (sessions.append(self), enter(self))[1])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["metrics", "evals"])
def test_no_space_for_rows(tmp_path, name):
    run = tmp_path / "run"
    with pytest.raises(RunError) as error:
        train(tiny(12, num_seeds=3, out=run), Watcher(3, divert(run, name, "/dev/full")))
    assert error.value.exit_code == 1
    assert str(error.value).startswith(f"no space left writing {run}/{name}.jsonl (needs ")
    assert str(error.value).endswith("The last checkpoint, 128, is intact. "
                                     f"Free space, then: jaxrl resume {run}")
    assert status(run) == "failed" and folder.read_summary(run)["error"].startswith("no space left")
    assert whole_rows(run) == (3 if name == "metrics" else 4)
    resume(run)
    assert status(run) == "completed" and len(rows(run)) == 6


def test_no_space_for_a_checkpoint(tmp_path, monkeypatch):
    run = tmp_path / "run"
    write = checkpoint.write_new

    def full(path, chunks):
        if path.parent.name == f".tmp-{8 * UPDATE}":
            raise OSError(28, "No space left on device")
        write(path, chunks)

    monkeypatch.setattr(checkpoint, "write_new", full)
    with pytest.raises(RunError,
                       match=r"no space left writing .*/checkpoints/256 "
                             r"\(needs [\d.]+ KiB, .* free\)\. The last checkpoint, 128, is "
                             r"intact\. Free space, then: jaxrl resume "):
        train(tiny(12, num_seeds=3, out=run))
    assert status(run) == "failed" and checkpoint.steps(run) == [4 * UPDATE]
    monkeypatch.undo()


def test_no_space_for_the_config(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(folder, "write_atomic", full)
    with pytest.raises(RunError,
                       match=r"no space left writing .*config\.yaml \(needs .* "
                             r"There is no checkpoint yet\."):
        train(tiny(4, num_seeds=3, out=tmp_path / "run"))


@pytest.mark.parametrize("moment", [1, 3, 5])
def test_the_folder_goes_away(tmp_path, moment):
    run = tmp_path / "run"
    with pytest.raises(RunError,
                       match=r"cannot write .*(run|checkpoints).*\(No such file or directory\)\. "
                             r"There is no checkpoint yet\."):
        train(tiny(12, num_seeds=3, out=run), Watcher(moment, lambda: shutil.rmtree(run)))
    assert not run.exists()


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    run = train(tiny(4, num_seeds=3, out=tmp_path / "run"))
    before = run.stat().st_mtime_ns

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folder, "Lock", refuse)
    with pytest.raises(UserError, match=r"run cannot be written \(Permission denied\)\."):
        resume(run)
    assert run.stat().st_mtime_ns == before


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(UserError, match=r"out=.* cannot be used \(Permission denied\)"):
            train(tiny(4, num_seeds=3, out=tmp_path / "run"))
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"out=.*file/run cannot be used \(Not a directory\)"):
        train(tiny(4, num_seeds=3, out=tmp_path / "file" / "run"))


def test_a_report_that_cannot_be_drawn_fails_loudly(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxrl.report.page.write_atomic",
                        lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(RunError, match=r"no space left writing .*report\.html"):
        train(tiny(4, num_seeds=3, out=tmp_path / "run"))
    assert status(tmp_path / "run") == "completed"          # which it is: only the page is missing


# ---------------------------------------------------------------- clocks and homes


def test_the_clock_is_set_back(tmp_path, monkeypatch):
    plain = train(tiny(8, num_seeds=3, out=tmp_path / "plain"))
    now = [4e9]

    def back():
        now[0] -= 3600.0
        return now[0]

    monkeypatch.setattr(time, "time", back)
    run = train(tiny(4, num_seeds=3, schedule_steps=8 * UPDATE, out=tmp_path / "run"))
    resume(run, [f"total_steps={8 * UPDATE}"])
    assert_same(run, plain)
    seconds = [row["seconds"] for row in metrics.read(run)]
    assert seconds == sorted(seconds) and folder.read_summary(run)["seconds"] > 0


def test_seconds_continue_on_resume(tmp_path):
    run = train(tiny(4, num_seeds=3, out=tmp_path / "run"))
    before = folder.read_summary(run)["seconds"]
    resume(run, [f"total_steps={8 * UPDATE}"])
    seconds = [row["seconds"] for row in metrics.read(run)]
    assert seconds == sorted(seconds) and seconds[1] == before < seconds[2]


@pytest.fixture
def set_to(monkeypatch):
    """The updates of JAX's configuration, which has no compilation cache at first."""
    before = jax.config.jax_compilation_cache_dir
    update = jax.config.update
    found = {}
    update("jax_compilation_cache_dir", None)
    with monkeypatch.context() as patch:
        patch.setattr(jax.config, "update", found.__setitem__)
        yield found
    update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize("home", ["/dev/null", "file"])
def test_no_home_no_cache(tmp_path, monkeypatch, set_to, home):
    """Without a place for the compilation cache everything is compiled each time, and no more."""
    (tmp_path / "file").touch()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", home if home.startswith("/") else str(tmp_path / home))
    backend.use_cache()
    assert set_to == {}


def test_the_cache_is_the_users_own(tmp_path, monkeypatch, set_to):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    backend.use_cache()
    path = Path(set_to["jax_compilation_cache_dir"])
    assert path.is_dir() and path.parent == tmp_path / "cache" / "jaxrl"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    set_to.clear()
    # a folder that somebody else made first
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    backend.use_cache()
    assert set_to == {}


def test_device_gpu_without_one():
    if jax.default_backend() == "gpu":
        pytest.skip("there is one")
    with pytest.raises(UserError,
                       match=r"device=gpu was asked for, JAX sees only: cpu\. "
                             r"This is a CPU build of jaxlib "
                             r'\(README, "GPU"\), or use device=cpu'):
        backend.prepare("gpu")


# ---------------------------------------------------------------- real processes, odd terminals

ODD = {
    "closed": {"through": ["bash", "-c", 'exec "$@" >&- 2>&-', "-"]},
    "no home": {"env": {"HOME": None, "XDG_CACHE_HOME": None}},
    "dumb": {"env": {"TERM": "dumb", "LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": None,
                     "PYTHONUTF8": "0"}},
    "full": {"stdout": "/dev/full", "stderr": "/dev/full"},
}


def odd(tmp_path, cache, how):
    setting = dict(ODD[how])
    files = {}
    for key in ("stdout", "stderr"):
        if key in setting:
            files[key] = open(setting.pop(key), "w")  # noqa: SIM115
    run = tmp_path / "a run"
    child = process(cache, "train", *words(8, num_seeds=3), f"out={run}", **setting, **files)
    code, out, err = ended(child)
    for file in files.values():
        file.close()
    assert status(run) == "completed" and whole_rows(run) == 4
    assert code == 0, err
    return run, out, err


@pytest.mark.slow
def test_a_dumb_terminal(tmp_path, cache):
    run, out, err = odd(tmp_path, cache, "dumb")
    assert "\x1b" not in out + err and (out + err).isascii()
    assert f"jaxrl resume '{run}'" in out
    plain = train(tiny(8, num_seeds=3, out=tmp_path / "plain"))
    # a process of its own computes what this one does
    assert_same(run, plain)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["closed", "no home", "full"])
def test_odd_processes(tmp_path, cache, how):
    odd(tmp_path, cache, how)


@pytest.mark.slow
def test_a_process_killed_before_its_first_checkpoint(tmp_path, cache):
    run = tmp_path / "run"
    child = process(cache, "train",
                    *words(10**6, num_seeds=3, checkpoint_every=10**9, eval_every=10**9),
                    f"out={run}")
    while not (run / METRICS).exists() or not (run / METRICS).stat().st_size:
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    ended(child)
    code, _, err = ended(process(cache, "resume", str(run)))
    assert code == 2
    assert err == (f"error: {run} has no checkpoint yet (stopped before the first one at step "
                   f"1,000,000,000?).\n       Start again: jaxrl train config={run}/config.yaml\n")
