"""Checkpoints, published by one rename and verified when read.

A checkpoint is a folder `checkpoints/<step>` with `state.safetensors` and `manifest.json`. A reader
finds a whole checkpoint under the name of a step, whenever the writer was killed:

    .tmp-<step>     being written: ignored, removed by the next save
    <step>          published
    <step>.old      stands in for <step> while a step is saved again with other bytes
    .trash-<step>   being removed: ignored, removed by the next save

The best checkpoint is the one with the highest `score` in its manifest, so there is no pointer that
could be stale. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.errors import RunError, UserError
from jaxrl.storage import tensors
from jaxrl.storage.files import (
    free_bytes,
    is_no_space,
    shown,
    size_text,
    sync_directory,
    write_new,
)
from jaxrl.storage.trees import flatten, unflatten

__all__ = ["best", "damage", "discard_after", "flatten", "last", "load", "read_meta", "save",
           "steps", "storage_error", "unflatten"]

FORMATS = (1, 1)     # oldest and newest that are read; the newest is written
STATE = "state.safetensors"
MANIFEST = "manifest.json"
_LONGEST_MANIFEST = 1 << 28


class Damaged(Exception):
    """The reason why a published checkpoint cannot be trusted."""


# --- writing


def save(run: Path | str, step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any], *,
         keep: int = 1, score: float | None = None) -> Path:
    """Publish a checkpoint and return its folder. The last, the best and `keep` more stay.

    meta: JSON data that equal runs share (layout, metric_rows, eval_rows; no times). score: the
    number that `best` maximizes, None if nothing was evaluated at this step. Saving the same step
    again is harmless. Raises RunError if the disk is full or gone; earlier checkpoints stay.
    """
    run = Path(run)
    step = int(step)
    arrays = {name: tensors.contiguous(name, array) for name, array in arrays.items()}
    arrays = tensors.order(arrays)
    directory = run / "checkpoints"
    temporary = directory / f".tmp-{step}"
    try:
        if not directory.is_dir():
            directory.mkdir()
            sync_directory(run)
        _clean(directory)
        temporary.mkdir()
        manifest = _write(temporary, directory / str(step), arrays, meta, score)
        _publish(temporary, directory / str(step), manifest)
        _prune(run, step, keep)
    except OSError as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)
        needs = sum(array.nbytes for array in arrays.values())
        raise storage_error(error, run, directory / str(step), needs) from error
    return directory / str(step)


def _write(temporary: Path, final: Path, arrays: dict[str, np.ndarray], meta: dict,
           score: float | None) -> bytes:
    """Write and fsync both files of the checkpoint that will be `final`; return the manifest."""
    total = hashlib.sha256()
    size = 0
    described: dict[str, Any] = {}

    def stream() -> Iterator[bytes | memoryview]:
        nonlocal size
        head = tensors.header(arrays)
        total.update(head)
        size += len(head)
        yield head
        for name, array in arrays.items():
            digest = hashlib.sha256()
            for piece in tensors.pieces(array):
                digest.update(piece)
                total.update(piece)
                size += len(piece)
                yield piece
            described[name] = {"dtype": str(array.dtype), "shape": list(array.shape),
                               "sha256": digest.hexdigest()}

    write_new(temporary / STATE, stream())
    if score is None:
        score = _score_of(final, described)
    elif not math.isfinite(score):
        score = None
    manifest = _encode({
        "format": FORMATS[1],
        "step": int(final.name),
        "meta": meta,
        "score": None if score is None else float(score),
        "files": {STATE: {"bytes": size, "sha256": total.hexdigest()}},
        "arrays": described,
    })
    write_new(temporary / MANIFEST, [manifest])
    sync_directory(temporary)
    return manifest


def _score_of(final: Path, described: dict[str, Any]) -> float | None:
    """Return the stored score of the same arrays, which a run saves again if it is resumed and
    stopped at once."""
    with contextlib.suppress(Damaged, OSError, UserError):
        found = _manifest(final)
        if found["arrays"] == described:
            return found["score"]
    return None


def _encode(body: dict) -> bytes:
    """Return the manifest file: canonical JSON with its own digest, so that a flipped bit shows."""
    body = {name: value for name, value in body.items() if name != "digest"}
    text = json.dumps(body, sort_keys=True, allow_nan=False)
    signed = {**body, "digest": hashlib.sha256(text.encode()).hexdigest()}
    return json.dumps(signed, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"


def _publish(temporary: Path, final: Path, manifest: bytes) -> None:
    """Rename a new step into place.

    A step that exists stays if it is the same and whole; otherwise it is renamed first.
    """
    if final.exists():
        with contextlib.suppress(Damaged, OSError):
            if (final / MANIFEST).read_bytes() == manifest:
                _read(final, lambda name: False)
                shutil.rmtree(temporary)
                return
        os.rename(final, final.with_name(f"{final.name}.old"))
    os.rename(temporary, final)
    sync_directory(final.parent)


def _clean(directory: Path) -> None:
    """Remove the files of a killed writer. The run's lock ensures that no other process writes."""
    for entry in list(directory.iterdir()):
        if entry.name.startswith((".tmp-", ".trash-")):
            shutil.rmtree(entry)
        elif entry.name.endswith(".old"):
            final = entry.with_name(entry.name.removesuffix(".old"))
            if final.exists():
                _remove(entry)
            else:
                os.rename(entry, final)
                sync_directory(directory)


def _remove(checkpoint: Path) -> None:
    """Unpublish a checkpoint durably, then delete it, so that half of it is never published."""
    trash = checkpoint.with_name(f".trash-{checkpoint.name}")
    os.rename(checkpoint, trash)
    sync_directory(checkpoint.parent)
    shutil.rmtree(trash)


def _prune(run: Path, saved: int, keep: int) -> None:
    """Remove all checkpoints but the one just saved, the best and the `keep` newest others."""
    kept = {saved}
    top = best(run)
    if top is not None:
        kept.add(top[0])
    others = [step for step in reversed(steps(run)) if step not in kept]
    for step in others[max(keep, 0):]:
        _remove(_published(run)[step])
    _clean(run / "checkpoints")


def discard_after(run: Path | str, step: int) -> list[int]:
    """Remove the checkpoints after `step`, which a resume from there replaces. Return the steps."""
    run = Path(run)
    directory = run / "checkpoints"
    gone: list[int] = []
    try:
        if directory.is_dir():
            _clean(directory)
            gone = [found for found in steps(run) if found > step]
            for found in reversed(gone):
                _remove(directory / str(found))
    except OSError as error:
        raise storage_error(error, run, directory, 0) from error
    return gone


def storage_error(error: OSError, run: Path, path: Path, needs: int) -> RunError:
    """Return the error of a run whose disk is full or gone. needs: bytes that had to be written."""
    full = is_no_space(error)
    what = f"cannot write {shown(path)} ({error.strerror or error})."
    if full:
        what = (f"no space left writing {shown(path)} (needs {size_text(needs)}, "
                f"{size_text(free_bytes(run))} free).")
    found = last(run)
    quoted = shlex.quote(shown(run))
    if found is None:
        hint = f"Free space, then: jaxrl train config={quoted}/config.yaml" if full else None
        return RunError(f"{what} There is no checkpoint yet.", hint)
    then = "Free space, then" if full else "Continue from it"
    return RunError(f"{what} The last checkpoint, {found}, is intact.",
                    f"{then}: jaxrl resume {quoted}")


# --- reading


def steps(run: Path | str) -> list[int]:
    """Return the published steps, ascending."""
    return sorted(_published(Path(run)))


def last(run: Path | str) -> int | None:
    """Return the newest published step; None without one."""
    return max(_published(Path(run)), default=None)


def best(run: Path | str) -> tuple[int, float] | None:
    """Return (step, score) of the checkpoint with the highest score, the earliest of equals.

    None if no checkpoint has a score.
    """
    top = None
    for step, path in sorted(_published(Path(run)).items()):
        with contextlib.suppress(Damaged, OSError, UserError):
            score = _manifest(path)["score"]
            if score is not None and (top is None or score > top[1]):
                top = (step, score)
    return top


def load(run: Path | str, step: int | str | None = None, *, only: str = "",
         first: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return (arrays, meta) of a step, "best", or the last (None), after verifying every digest.

    meta: the saved metadata with "step" and "score". only: return the arrays whose names begin with
    this prefix ("agent/"). first: the step at which the first checkpoint is due, for the error of a
    run without any. Raises UserError if there is no such checkpoint, if its format is another one,
    or if it is damaged (then the error names the last good step).
    """
    run = Path(run)
    published = _published(run)
    chosen = _chosen(run, step, published, first)
    try:
        return _load(published[chosen], lambda name: name.startswith(only))
    except (Damaged, OSError) as error:
        if chosen not in _published(run):        # a writer removed it in the meantime
            return load(run, step, only=only, first=first)
        raise _damaged(run, chosen, error) from None


def read_meta(run: Path | str, step: int | str | None = None, *,
              first: int | None = None) -> dict[str, Any]:
    """Return the metadata that `load` returns, without reading or verifying the arrays."""
    run = Path(run)
    published = _published(run)
    chosen = _chosen(run, step, published, first)
    try:
        return _meta_of(published[chosen], _manifest(published[chosen]))
    except (Damaged, OSError) as error:
        if chosen not in _published(run):
            return read_meta(run, step, first=first)
        raise _damaged(run, chosen, error) from None


def _chosen(run: Path, step: int | str | None, published: dict[int, Path],
            first: int | None) -> int:
    """Return the step that `load` is asked for. Raises UserError if it is not there."""
    if not published:
        when = f" at step {first:,}" if first else ""
        raise UserError(f"{shown(run)} has no checkpoint yet "
                        f"(stopped before the first one{when}?).",
                        f"Start again: jaxrl train config={shlex.quote(shown(run))}/config.yaml")
    if step is None:
        return max(published)
    if step == "best":
        top = best(run)
        if top is None:
            raise UserError(f"{shown(run)} has no best checkpoint: none was evaluated.",
                            f"Try: step={max(published)}")
        step = top[0]
    if int(step) not in published:
        raise UserError(f"{shown(run)} has no checkpoint {step}. "
                        f"There are: {', '.join(map(str, sorted(published)))}")
    return int(step)


def _damaged(run: Path, step: int, error: Damaged | OSError) -> UserError:
    reason = str(error)
    if isinstance(error, OSError):
        reason = error.strerror or reason
    return UserError(f"checkpoint {step} of {shown(run)} is damaged ({reason}).",
                     _way_out(run, step))


def damage(run: Path | str, step: int) -> str | None:
    """Return why a published step cannot be loaded; None if it is whole."""
    try:
        _load(_published(Path(run))[step], lambda name: False)
    except (Damaged, OSError, UserError) as error:
        return str(error)
    return None


def _way_out(run: Path, bad: int) -> str:
    """Return the hint to resume the last good checkpoint beside the step `bad`."""
    quoted = shlex.quote(shown(run))
    for step in reversed(steps(run)):
        if step != bad and damage(run, step) is None:
            return f"Last good one: {step} -> jaxrl resume {quoted} step={step}"
    return f"No good one is left. Start again: jaxrl train config={quoted}/config.yaml"


def _published(run: Path) -> dict[int, Path]:
    """Return step -> folder.

    `<step>.old` counts while `<step>` is missing, because its writer died between two renames.
    """
    found: dict[int, Path] = {}
    with contextlib.suppress(OSError):
        entries = sorted((run / "checkpoints").iterdir(), key=lambda path: path.name)
        for entry in entries:                    # "5" before "5.old"
            match = re.fullmatch(r"(0|[1-9][0-9]{0,18})(\.old)?", entry.name)
            if match and entry.is_dir():
                found.setdefault(int(match[1]), entry)
    return found


def _manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint after checking its digest and format."""
    with _open(path / MANIFEST, _LONGEST_MANIFEST) as file:
        text = file.read()
    try:
        body = json.loads(text)
        whole = isinstance(body, dict) and _encode(body) == text
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        raise Damaged(f"digest of {MANIFEST} differs")
    if type(body.get("format")) is not int or not FORMATS[0] <= body["format"] <= FORMATS[1]:
        oldest, newest = FORMATS
        reads = f"format {newest}" if oldest == newest else f"formats {oldest}-{newest}"
        raise UserError(f"{shown(path.parent.parent)} was written by format "
                        f"{body.get('format')!r}; this jaxrl reads {reads}.",
                        "Install a newer jaxrl.")
    complete = isinstance(body.get("meta"), dict) and type(body.get("step")) is int
    if not complete or not isinstance(body.get("score", ""), (float, type(None))):
        raise Damaged(f"{MANIFEST} was not written by jaxrl")
    return body


def _load(path: Path, want: Callable[[str], bool]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    manifest, arrays = _read(path, want)
    return arrays, _meta_of(path, manifest)


def _meta_of(path: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    if str(manifest.get("step")) != path.name.removesuffix(".old"):
        raise Damaged(f"{MANIFEST} is of step {manifest.get('step')}")
    return {**manifest["meta"], "step": manifest["step"], "score": manifest["score"]}


def _read(path: Path,
          want: Callable[[str], bool]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (manifest, wanted arrays) of a checkpoint. Raises Damaged if it is not whole."""
    manifest = _manifest(path)
    try:
        expected = manifest["files"][STATE]
        described = manifest["arrays"]
        with _open(path / STATE) as file:
            size = os.fstat(file.fileno()).st_size
            if size != expected["bytes"]:
                raise Damaged(f"{STATE} has {size:,} bytes, "
                              f"{expected['bytes']:,} were written")
            arrays, digests, total = tensors.read(file, size, want)
        for name in sorted(described.keys() | digests.keys()):
            if digests.get(name) != described.get(name, {}).get("sha256"):
                raise Damaged(f"sha256 of {name} differs")
        if total != expected["sha256"]:
            raise Damaged(f"sha256 of {STATE} differs")
    except (KeyError, TypeError, AttributeError):
        raise Damaged(f"{MANIFEST} was not written by jaxrl") from None
    except ValueError as error:
        raise Damaged(f"{STATE}: {error}") from None
    return manifest, arrays


def _open(path: Path, longest: int | None = None) -> BufferedReader:
    """Open a regular file of at most `longest` bytes: no link, no device, no pipe."""
    try:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            raise Damaged(f"{path.name} is not a regular file")
        if longest is not None and found.st_size > longest:
            raise Damaged(f"{path.name} is too long")
        return open(path, "rb")
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None
