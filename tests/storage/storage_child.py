"""Child processes of the storage fault tests, without JAX: `storage_child.py SCENARIO FOLDER`.

Each prints one JSON value. Tests start one interpreter and let it fork, so that hundreds of killed
writers are cheap.
"""

import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

from jaxrl.errors import RunError, UserError
from jaxrl.storage import checkpoint, folder, metrics

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir"}


def state(fill: float) -> dict[str, np.ndarray]:
    return {"agent/kernel": np.full((4, 8), fill, np.float32),
            "count": np.array(int(fill), np.int32)}


def save(run: Path, step: int, fill: float, **more) -> None:
    checkpoint.save(run, step, state(fill), {"metric_rows": step}, **more)


def prepare(run: Path) -> None:
    """Steps 1 (the best), 2 and 3, as a run leaves them."""
    run.mkdir()
    for step in (1, 2, 3):
        save(run, step, step, keep=2, score=10.0 - step)


# name -> (what is done, the contents a step may then have)
ACTIONS = {
    "new": (lambda run: save(run, 4, 4, keep=0, score=1.0), {1: {1}, 2: {2}, 3: {3}, 4: {4}}),
    "again": (lambda run: save(run, 3, 3, keep=2, score=7.0), {1: {1}, 2: {2}, 3: {3}}),
    "other": (lambda run: save(run, 3, 30, keep=0, score=7.0), {1: {1}, 2: {2}, 3: {3, 30}}),
    "discard": (lambda run: checkpoint.discard_after(run, 1), {1: {1}, 2: {2}, 3: {3}}),
}


def die_at(event: int) -> None:
    """Send SIGKILL before file event number `event`, or in the middle of it if it is a write."""
    seen = 0

    def count() -> bool:
        nonlocal seen
        seen += 1
        return seen == event

    def hook(name: str, _) -> None:
        if name in EVENTS and count():
            os.kill(os.getpid(), signal.SIGKILL)

    write = os.write
    fsync = os.fsync

    def half_write(fd, data):
        if count():
            write(fd, bytes(data)[:len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(fd, data)

    def no_fsync(fd):
        if count():
            os.kill(os.getpid(), signal.SIGKILL)
        return fsync(fd)

    os.write = half_write
    os.fsync = no_fsync
    sys.addaudithook(hook)


def in_child(action) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def check(run: Path, allowed: dict[int, set[int]]) -> None:
    """Everything that is published is whole, and there is always a last and the best."""
    found = checkpoint.steps(run)
    assert found and found[0] == 1, found
    assert checkpoint.best(run) == (1, 9.0)
    for step in found:
        arrays, meta = checkpoint.load(run, step)
        assert int(arrays["count"]) in allowed[step], (step, arrays["count"])
        assert (arrays["agent/kernel"] == arrays["count"]).all() and meta["metric_rows"] == step


def kill(base: Path) -> dict[str, int]:
    """Kill every action at every event: the files stay whole, and the action can be repeated."""
    events = {}
    prepare(base / "ready")
    for name, (action, allowed) in ACTIONS.items():
        for event in range(1, 1000):
            run = base / f"{name}-{event}"
            shutil.copytree(base / "ready", run)

            def doomed(action=action, run=run, event=event):
                die_at(event)
                action(run)

            status = in_child(doomed)
            assert status in (0, -signal.SIGKILL), status
            check(run, allowed)
            assert name == "discard" or max(checkpoint.steps(run)) >= 3
            action(run)
            check(run, {**allowed, 3: {30}} if name == "other" else allowed)
            left = sorted(entry.name for entry in (run / "checkpoints").iterdir())
            assert left == list(map(str, checkpoint.steps(run))), left
            if status == 0:
                events[name] = event - 1
                break
    return events


def full_disk(base: Path) -> dict[str, object]:
    """A limit on file size stands in for a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    os.chdir(base)
    run = Path("runs/x")
    run.mkdir(parents=True)
    large = {"replay/obs": np.zeros(5_000_000, np.uint8)}
    said = {}
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    for key, step in (("first", 100), ("second", 250_000), ("third", 300_000)):
        try:
            checkpoint.save(run, step, state(1) if key == "second" else large, {})
        except RunError as error:
            said[key] = str(error)
    rows = metrics.Rows(run, metrics.METRICS)
    try:
        while True:
            rows.append({"step": rows.rows, "text": "x" * 100_000})
    except RunError as error:
        said["metrics"] = str(error)
    said["rows"] = [rows.rows, len(metrics.read(run)),
                    (run / metrics.METRICS).read_bytes().endswith(b"}\n")]
    (run / metrics.EVALS).symlink_to("/dev/full")
    try:
        with metrics.Rows(run, metrics.EVALS) as rows:
            rows.append({"step": 1})
    except RunError as error:
        said["dev_full"] = str(error)
    arrays, _ = checkpoint.load(run)
    said["loaded"] = [checkpoint.steps(run), arrays["count"].item(),
                      sorted(os.listdir(run / "checkpoints"))]
    return said


def crowd(base: Path) -> list[list[str]]:
    """Eight processes start a run of the same name at once, then eight that share one out=."""
    os.chdir(base)
    results = []
    for out in (None, "shared"):
        gate_read, gate_write = os.pipe()
        reply_read, reply_write = os.pipe()
        for _ in range(8):
            if os.fork() == 0:
                os.close(gate_write)
                os.read(gate_read, 1)
                try:
                    run, _lock = folder.create("cartpole", "ppo", out)
                    os.write(reply_write, f"{run}\n".encode())
                    time.sleep(1.0)
                except UserError as error:
                    os.write(reply_write, f"{error}\n".encode())
                os._exit(0)
        os.close(gate_write)
        for _ in range(8):
            os.wait()
        os.close(reply_write)
        with os.fdopen(reply_read) as file:
            results.append(file.read().splitlines())
    return results


def hold(base: Path) -> None:
    """Hold the lock of a run until killed, with a forked child that must not keep it."""
    lock = folder.Lock(base)
    # here, what was registered for after a fork is done
    if os.fork() == 0:
        print(json.dumps([os.getppid(), os.getpid()]), flush=True)
        time.sleep(30)
        os._exit(0)
    time.sleep(30)
    lock.release()


if __name__ == "__main__":
    scenario = {"kill": kill, "full_disk": full_disk, "crowd": crowd, "hold": hold}[sys.argv[1]]
    print(json.dumps(scenario(Path(sys.argv[2]))))
    assert "jax" not in sys.modules
