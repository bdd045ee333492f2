"""Checkpoints: `checkpoints/<step>/state.safetensors` and `manifest.json`, published by one rename, verified when read.

What a reader finds under a step's name is whole, whenever the writer was killed:

    .tmp-<step>     being written: ignored, removed by the next save
    <step>          published
    <step>.old      stands in for <step> between the two renames that replace it (a step saved again with other bytes)
    .trash-<step>   being removed: ignored, removed by the next save

The best checkpoint is the one of highest `score`, which sits in its manifest, so no pointer can go stale. No pickle.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.errors import RunError, UserError
from jaxrl.storage import tensors
from jaxrl.storage.files import free_bytes, is_no_space, shown, size_text, sync_directory, write_new
from jaxrl.storage.trees import flatten, unflatten

__all__ = ["best", "damage", "discard_after", "flatten", "last", "load", "save", "steps", "storage_error", "unflatten"]

FORMATS = (1, 1)     # oldest and newest that are read; the newest is written
STATE, MANIFEST = "state.safetensors", "manifest.json"
_LONGEST_MANIFEST = 1 << 28


class Damaged(Exception):
    """Why a published checkpoint cannot be trusted."""


# --- writing


def save(run: Path | str, step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any], *, keep: int = 1,
         score: float | None = None) -> Path:
    """Publishes a checkpoint and removes old ones: the last, the best and `keep` more stay. Returns its folder.

    meta: JSON data that equal runs share (layout, metric_rows, eval_rows; no times). score: what `best` maximises,
    the first of equals wins; None when nothing was evaluated at this step. Saving the same step again is harmless.
    Raises RunError when the disk is full or gone; checkpoints written before stay as they are.
    """
    run = Path(run)
    arrays = tensors.order({name: tensors.contiguous(name, array) for name, array in arrays.items()})
    directory, step = run / "checkpoints", int(step)
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


def _write(temporary: Path, final: Path, arrays: dict[str, np.ndarray], meta: dict, score: float | None) -> bytes:
    """Both files of the checkpoint that will be `final`, fsynced; returns the manifest's bytes."""
    total, size, described = hashlib.sha256(), 0, {}

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
            described[name] = {"dtype": str(array.dtype), "shape": list(array.shape), "sha256": digest.hexdigest()}

    write_new(temporary / STATE, stream())
    if score is None:
        score = _score_of(final, described)
    manifest = _encode({
        "format": FORMATS[1], "step": int(final.name), "meta": meta,
        "score": float(score) if score is not None and math.isfinite(score) else None,
        "files": {STATE: {"bytes": size, "sha256": total.hexdigest()}}, "arrays": described,
    })
    write_new(temporary / MANIFEST, [manifest])
    sync_directory(temporary)
    return manifest


def _score_of(final: Path, described: dict[str, Any]) -> float | None:
    """The score that the same arrays got before: a run that is resumed and stopped at once saves them again."""
    with contextlib.suppress(Damaged, OSError, UserError):
        found = _manifest(final)
        if found["arrays"] == described:
            return found["score"]
    return None


def _encode(body: dict) -> bytes:
    """The manifest file: canonical JSON with its own digest, in every format to come, so that a flipped bit shows."""
    body = {name: value for name, value in body.items() if name != "digest"}
    text = json.dumps(body, sort_keys=True, allow_nan=False)
    return json.dumps({**body, "digest": hashlib.sha256(text.encode()).hexdigest()}, sort_keys=True, indent=1,
                      allow_nan=False).encode() + b"\n"


def _publish(temporary: Path, final: Path, manifest: bytes) -> None:
    """One rename for a new step. A step that exists stays if it is the same and whole, else it steps aside first."""
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
    """Removes what a killed writer left. The run's lock says that nobody else writes here."""
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
    """Unpublishes before deleting, durably: half of a checkpoint is never found under a step's name."""
    trash = checkpoint.with_name(f".trash-{checkpoint.name}")
    os.rename(checkpoint, trash)
    sync_directory(checkpoint.parent)
    shutil.rmtree(trash)


def _prune(run: Path, saved: int, keep: int) -> None:
    top = best(run)
    kept = {saved} if top is None else {saved, top[0]}
    others = [step for step in reversed(steps(run)) if step not in kept]
    for step in others[max(keep, 0):]:
        _remove(_published(run)[step])
    _clean(run / "checkpoints")


def discard_after(run: Path | str, step: int) -> list[int]:
    """Removes the checkpoints beyond `step`, of a future that a resume from there will write anew. Returns them."""
    run = Path(run)
    directory, gone = run / "checkpoints", []
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
    """What to tell a person whose disk is full or gone."""
    if is_no_space(error):
        what = f"no space left writing {shown(path)} (needs {size_text(needs)}, {size_text(free_bytes(run))} free)."
    else:
        what = f"cannot write {shown(path)} ({error.strerror or error})."
    found, quoted = last(run), shlex.quote(shown(run))
    if found is None:
        return RunError(f"{what} There is no checkpoint yet.",
                        f"Free space, then: jaxrl train config={quoted}/config.yaml" if is_no_space(error) else None)
    then = "Free space, then" if is_no_space(error) else "Continue from it"
    return RunError(f"{what} The last checkpoint, {found}, is intact.", f"{then}: jaxrl resume {quoted}")


# --- reading


def steps(run: Path | str) -> list[int]:
    """Published steps, ascending."""
    return sorted(_published(Path(run)))


def last(run: Path | str) -> int | None:
    """The newest published step."""
    return max(_published(Path(run)), default=None)


def best(run: Path | str) -> tuple[int, float] | None:
    """(step, score) of the checkpoint of highest score, the earliest of equals; None when none has a score."""
    top = None
    for step, path in sorted(_published(Path(run)).items()):
        with contextlib.suppress(Damaged, OSError, UserError):
            score = _manifest(path)["score"]
            if score is not None and (top is None or score > top[1]):
                top = (step, score)
    return top


def load(run: Path | str, step: int | str | None = None, *, only: str = "",
         first: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, meta) of a step, "best", or the last (None). Every digest is verified before anything is returned.

    meta is what was saved, with "step" and "score". only: keep the arrays whose name starts so ("agent/"); all are
    verified. first: the step at which the first checkpoint is due, for the error of a run that has none.
    Raises UserError: no checkpoint, no such step, another format, damage (it names the last good step).
    """
    run, asked = Path(run), step
    published = _published(run)
    if not published:
        when = f" at step {first:,}" if first else ""
        raise UserError(f"{shown(run)} has no checkpoint yet (stopped before the first one{when}?).",
                        f"Start again: jaxrl train config={shlex.quote(shown(run))}/config.yaml")
    if step == "best":
        top = best(run)
        if top is None:
            raise UserError(f"{shown(run)} has no best checkpoint: none was evaluated.", f"Try: step={max(published)}")
        step = top[0]
    step = max(published) if step is None else int(step)
    if step not in published:
        raise UserError(f"{shown(run)} has no checkpoint {step}. There are: {', '.join(map(str, sorted(published)))}")
    try:
        return _load(run, published[step], lambda name: name.startswith(only))
    except (Damaged, OSError) as error:
        if step not in _published(run):          # a writer removed it meanwhile
            return load(run, asked, only=only, first=first)
        reason = error if isinstance(error, Damaged) else f"{error.strerror or error}"
        raise UserError(f"checkpoint {step} of {shown(run)} is damaged ({reason}).", _way_out(run, step)) from None


def damage(run: Path | str, step: int) -> str | None:
    """Why a published step cannot be loaded, or None when it is whole."""
    try:
        _load(Path(run), _published(Path(run))[step], lambda name: False)
    except (Damaged, OSError, UserError) as error:
        return str(error)
    return None


def _way_out(run: Path, bad: int) -> str:
    quoted = shlex.quote(shown(run))
    for step in reversed(steps(run)):
        if step != bad and damage(run, step) is None:
            return f"Last good one: {step} -> jaxrl resume {quoted} step={step}"
    return f"No good one is left. Start again: jaxrl train config={quoted}/config.yaml"


def _published(run: Path) -> dict[int, Path]:
    """Step -> folder. `<step>.old` counts while `<step>` is missing: its writer died between two renames."""
    found = {}
    with contextlib.suppress(OSError):
        for entry in sorted((run / "checkpoints").iterdir(), key=lambda path: path.name):     # "5" before "5.old"
            match = re.fullmatch(r"(0|[1-9][0-9]{0,18})(\.old)?", entry.name)
            if match and entry.is_dir():
                found.setdefault(int(match[1]), entry)
    return found


def _manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, its digest and format checked."""
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
        reads = f"format {FORMATS[0]}" if FORMATS[0] == FORMATS[1] else f"formats {FORMATS[0]}-{FORMATS[1]}"
        raise UserError(f"{shown(path.parent.parent)} was written by format {body.get('format')!r}; this jaxrl reads "
                        f"{reads}.", "Install a newer jaxrl.")
    if not (isinstance(body.get("meta"), dict) and type(body.get("step")) is int
            and isinstance(body.get("score", ""), (float, type(None)))):
        raise Damaged(f"{MANIFEST} is not one of jaxrl's")
    return body


def _load(run: Path, path: Path, want) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    manifest, arrays = _read(path, want)
    if str(manifest.get("step")) != path.name.removesuffix(".old"):
        raise Damaged(f"{MANIFEST} is of step {manifest.get('step')}")
    return arrays, {**manifest["meta"], "step": manifest["step"], "score": manifest["score"]}


def _read(path: Path, want) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(manifest, wanted arrays) of a checkpoint that is whole; else raises Damaged."""
    manifest = _manifest(path)
    try:
        expected, described = manifest["files"][STATE], manifest["arrays"]
        with _open(path / STATE) as file:
            size = os.fstat(file.fileno()).st_size
            if size != expected["bytes"]:
                raise Damaged(f"{STATE} has {size:,} bytes, {expected['bytes']:,} were written")
            arrays, digests, total = tensors.read(file, size, want)
        for name in sorted(described.keys() | digests.keys()):
            if digests.get(name) != described.get(name, {}).get("sha256"):
                raise Damaged(f"sha256 of {name} differs")
        if total != expected["sha256"]:
            raise Damaged(f"sha256 of {STATE} differs")
    except (KeyError, TypeError, AttributeError):
        raise Damaged(f"{MANIFEST} is not one of jaxrl's") from None
    except ValueError as error:
        raise Damaged(f"{STATE}: {error}") from None
    return manifest, arrays


def _open(path: Path, longest: int | None = None):
    """Opens a regular file of at most `longest` bytes: no link, no device, no pipe."""
    try:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            raise Damaged(f"{path.name} is not a regular file")
        if longest is not None and found.st_size > longest:
            raise Damaged(f"{path.name} is too long")
        return open(path, "rb")
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None
