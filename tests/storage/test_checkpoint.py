"""Checkpoints: round trips bit for bit, the checkpoints that are kept, and errors."""

import hashlib
import json
import shutil
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jaxrl.errors import RunError, UserError
from jaxrl.storage import checkpoint, tensors

DATA = Path(__file__).parent / "data"
DTYPES = [*tensors.DTYPES.values()]
SHAPES = [(), (0,), (3, 0, 2), (1,), (7,), (2, 3, 5)]


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("runs/x").mkdir(parents=True)
    return Path("runs/x")


def small(value: float = 1.0) -> dict[str, np.ndarray]:
    return {"params/dense_0/kernel": np.full((3, 4), value, np.float32),
            "key": np.arange(2, dtype=np.uint32)}


def random_array(rng: np.random.Generator, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    raw = rng.integers(0, 256, size=int(np.prod(shape)) * dtype.itemsize).astype(np.uint8)
    return (raw % 2 if dtype.kind == "b" else raw).view(dtype).reshape(shape)


def test_round_trip_keeps_every_bit_of_every_dtype_and_shape(run):
    rng = np.random.default_rng(0)
    arrays = {f"{dtype}/{index}": random_array(rng, dtype, shape) for dtype in DTYPES
              for index, shape in enumerate(SHAPES)}
    checkpoint.save(run, 7, arrays, {"layout": {"devices": 1}})
    loaded, meta = checkpoint.load(run)
    assert meta == {"layout": {"devices": 1}, "step": 7, "score": None}
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape), name
        assert loaded[name].tobytes() == array.tobytes(), name
        assert loaded[name].flags.writeable


def test_strided_fortran_and_big_endian_arrays_are_saved_by_value(run):
    arrays = {"strided": np.arange(12).reshape(3, 4)[:, ::2],
              "fortran": np.asfortranarray(np.eye(3, 2)),
              "big": np.arange(4, dtype=">i4"), "scalar": np.float32(2.5)}
    checkpoint.save(run, 1, arrays, {})
    loaded, _ = checkpoint.load(run, 1)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)


def test_equal_states_give_equal_files(run):
    arrays = small()
    first = checkpoint.save(run, 1, arrays, {"b": 1, "a": 2})
    Path("runs/y").mkdir()
    second = checkpoint.save("runs/y", 1, dict(reversed(arrays.items())), {"a": 2, "b": 1})
    for name in ("state.safetensors", "manifest.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_the_safetensors_library_reads_ours_and_we_read_its(run):
    arrays = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3),
              "c": np.array([True, False, True]),
              "e": np.zeros((0, 2), np.int16), "s": np.array(-3, np.int64)}
    path = checkpoint.save(run, 1, arrays, {}) / "state.safetensors"
    for name, array in safetensors.numpy.load_file(path).items():
        np.testing.assert_array_equal(array, arrays[name])
    other = run / "other.safetensors"
    other.write_bytes(safetensors.numpy.save({**arrays, "h": np.ones(3, ml_dtypes.bfloat16)},
                                              {"made": "elsewhere"}))
    with open(other, "rb") as file:
        read, digests, total = tensors.read(file, other.stat().st_size, lambda name: True)
    assert total == hashlib.sha256(other.read_bytes()).hexdigest()
    assert read["h"].dtype == ml_dtypes.bfloat16
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert digests[name] == hashlib.sha256(array.tobytes()).hexdigest()


def test_manifest_holds_digests_and_nothing_of_the_moment(run):
    path = checkpoint.save(run, 5, small(), {"metric_rows": 3}, score=2.0)
    manifest = json.loads((path / "manifest.json").read_text())
    assert sorted(manifest) == ["arrays", "digest", "files", "format", "meta", "score", "step"]
    assert manifest["files"]["state.safetensors"]["sha256"] == hashlib.sha256(
        (path / "state.safetensors").read_bytes()).hexdigest()
    digest = hashlib.sha256(small()["key"].tobytes()).hexdigest()
    assert manifest["arrays"]["key"] == {"dtype": "uint32", "shape": [2], "sha256": digest}


def test_the_last_the_best_and_keep_more_stay(run):
    for step, score in enumerate([1.0, 9.0, 3.0, 9.0, None, float("nan"), 2.0]):
        checkpoint.save(run, step, small(step), {}, keep=2, score=score)
        assert checkpoint.last(run) == step
    assert checkpoint.steps(run) == [1, 4, 5, 6]
    assert checkpoint.best(run) == (1, 9.0)          # the earliest of equals
    arrays, meta = checkpoint.load(run, "best")
    assert (meta["step"], meta["score"], arrays["params/dense_0/kernel"][0, 0]) == (1, 9.0, 1.0)


def test_saving_a_step_again_is_harmless(run):
    path = checkpoint.save(run, 3, small(1), {})
    inode = (path / "state.safetensors").stat().st_ino
    checkpoint.save(run, 3, small(1), {})
    assert (path / "state.safetensors").stat().st_ino == inode          # the same: left alone
    checkpoint.save(run, 3, small(2), {})
    assert checkpoint.load(run)[0]["params/dense_0/kernel"][0, 0] == 2  # another: replaced
    (path / "state.safetensors").write_bytes(b"")
    checkpoint.save(run, 3, small(2), {})
    assert checkpoint.damage(run, 3) is None                            # damaged: replaced
    assert [entry.name for entry in (run / "checkpoints").iterdir()] == ["3"]


def test_a_score_stays_with_its_arrays(run):
    checkpoint.save(run, 1, small(1), {"layout": 1}, score=5.0)
    # resumed elsewhere and stopped at once
    checkpoint.save(run, 1, small(1), {"layout": 2})
    assert checkpoint.best(run) == (1, 5.0)
    assert checkpoint.load(run)[1] == {"layout": 2, "step": 1, "score": 5.0}
    checkpoint.save(run, 1, small(2), {"layout": 2})
    assert checkpoint.best(run) is None


def test_a_checkpoint_removed_while_it_is_read_gives_way_to_the_next(run, monkeypatch):
    checkpoint.save(run, 1, small(1), {})
    real = checkpoint._load

    def overtaken(path, want):
        if path.name == "1":
            checkpoint.save(run, 2, small(2), {}, keep=0)
        return real(path, want)

    monkeypatch.setattr(checkpoint, "_load", overtaken)
    assert checkpoint.load(run)[1]["step"] == 2


def test_metadata_is_read_without_the_arrays(run):
    checkpoint.save(run, 1, small(1), {"layout": 3}, score=2.0)
    (run / "checkpoints" / "1" / "state.safetensors").unlink()
    assert checkpoint.read_meta(run) == {"layout": 3, "step": 1, "score": 2.0}
    with pytest.raises(UserError, match="has no checkpoint 7"):
        checkpoint.read_meta(run, 7)
    (run / "checkpoints" / "1" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"checkpoint 1 of .* is damaged \(digest of manifest"):
        checkpoint.read_meta(run)


def test_a_step_is_found_between_the_two_renames_that_replace_it(run):
    path = checkpoint.save(run, 3, small(1), {})
    path.rename(path.with_name("3.old"))
    (run / "checkpoints" / ".tmp-3").mkdir()
    assert checkpoint.steps(run) == [3]
    assert checkpoint.load(run)[0]["params/dense_0/kernel"][0, 0] == 1
    checkpoint.save(run, 4, small(2), {})
    assert sorted(entry.name for entry in (run / "checkpoints").iterdir()) == ["3", "4"]


def test_discard_after_removes_the_future(run):
    assert checkpoint.discard_after(run, 0) == []
    for step in (1, 2, 3):
        checkpoint.save(run, step, small(), {}, keep=5, score=float(step))
    assert checkpoint.discard_after(run, 1) == [2, 3]
    assert checkpoint.best(run) == (1, 1.0)


def test_only_part_is_returned_but_all_is_verified(run):
    path = checkpoint.save(run, 1, {"agent/w": np.ones(3), "replay/obs": np.zeros(100)}, {})
    assert list(checkpoint.load(run, only="agent/")[0]) == ["agent/w"]
    state = path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match="sha256 of replay/obs differs"):
        checkpoint.load(run, only="agent/")


def test_texts_of_missing_checkpoints(run):
    with pytest.raises(UserError) as error:
        checkpoint.load(run, first=50_000)
    assert str(error.value) == ("runs/x has no checkpoint yet "
                                "(stopped before the first one at step 50,000?). "
                                "Start again: jaxrl train config=runs/x/config.yaml")
    checkpoint.save(run, 100, small(), {})
    checkpoint.save(run, 200, small(), {})
    with pytest.raises(UserError, match=r"runs/x has no checkpoint 150\. There are: 100, 200"):
        checkpoint.load(run, 150)
    with pytest.raises(UserError, match="no best checkpoint"):
        checkpoint.load(run, "best")


def test_text_of_damage_names_the_array_and_the_last_good_step(run):
    for step in (200_000, 300_000, 400_000):
        path = checkpoint.save(run, step, small(), {}, keep=5)
    state = path / "state.safetensors"
    raw = bytearray(state.read_bytes())
    raw[-1 - small()["key"].nbytes] ^= 1
    state.write_bytes(raw)
    with pytest.raises(UserError) as error:
        checkpoint.load(run)
    assert str(error.value) == ("checkpoint 400000 of runs/x is damaged "
                                "(sha256 of params/dense_0/kernel differs). "
                                "Last good one: 300000 -> jaxrl resume runs/x step=300000")
    assert checkpoint.load(run, 300_000)[1]["step"] == 300_000
    for step in (200_000, 300_000):
        (run / "checkpoints" / str(step) / "manifest.json").unlink()
    with pytest.raises(UserError, match="No good one is left"):
        checkpoint.load(run)


@pytest.mark.fault
@pytest.mark.parametrize("name", ["state.safetensors", "manifest.json"])
def test_cut_files_are_noticed(run, name):
    path = checkpoint.save(run, 1, small(), {"metric_rows": 4}) / name
    raw = path.read_bytes()
    for length in (0, 1, 7, 8, 9, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:length])
        with pytest.raises(UserError, match="damaged"):
            checkpoint.load(run)
    path.write_bytes(raw + b"\n")
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(run)
    path.unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        checkpoint.load(run)


@pytest.mark.fault
@pytest.mark.parametrize("name", ["state.safetensors", "manifest.json"])
def test_flipped_bits_are_noticed(run, name):
    path = checkpoint.save(run, 1, small(), {"metric_rows": 4}) / name
    raw = path.read_bytes()
    rng = np.random.default_rng(0)
    for offset in range(len(raw)):
        changed = bytearray(raw)
        changed[offset] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        assert checkpoint.damage(run, 1), offset
    path.write_bytes(raw)
    assert checkpoint.damage(run, 1) is None


def forge(run: Path, header: dict, data: bytes, **changes) -> None:
    """Publish a checkpoint with valid digests and invalid content."""
    path = run / "checkpoints" / "1"
    path.mkdir(parents=True)
    text = json.dumps(header).encode()
    state = len(text).to_bytes(8, "little") + text + data
    (path / "state.safetensors").write_bytes(state)
    body = {"format": 1, "step": 1, "score": None, "meta": {}, "arrays": {},
            "files": {"state.safetensors": {"bytes": len(state),
                                            "sha256": hashlib.sha256(state).hexdigest()}}}
    (path / "manifest.json").write_bytes(checkpoint._encode({**body, **changes}))


def entry(dtype="F32", shape=(1,), offsets=(0, 4)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.fault
@pytest.mark.parametrize("header, says", [
    ({"w": entry(shape=(10**12,), offsets=(0, 4 * 10**12))}, "header of w does not fit the file"),
    ({"w": entry(shape=(10**12,))}, "header of w does not fit the file"),
    ({"w": entry(shape=(0, 1 << 61), offsets=(0, 0)), "v": entry()}, "state.safetensors"),
    ({"w": entry(shape=[1] * 100_000)}, "header of w is not valid"),
    ({"w": entry(shape=(-1, -1))}, "header of w is not valid"),
    ({"w": entry(shape=(True,))}, "header of w is not valid"),
    ({"w": entry(shape=("1",))}, "header of w is not valid"),
    ({"w": entry(), "v": entry()}, "does not fit the file"),
    ({"w": entry(dtype="O")}, "unknown dtype 'O'"),
    ({"w": entry(dtype="U8", shape=(3,), offsets=(0, 3))}, "longer than its header says"),
    ({"../../w": entry()}, "is not an array name"),
    ({"a//w": entry()}, "is not an array name"),
    ({"\x1b[2Jw": entry()}, "is not an array name"),
    ({"w": {"dtype": "F32"}}, "header is not valid"),
    ([], "header is not valid"),
    ({"w": entry(dtype="BOOL", shape=(4,))}, "values that are no booleans"),
])
def test_malicious_headers_are_refused_with_little_memory(run, header, says):
    forge(run, header, b"\2\3\4\5")
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="damaged") as error:
            checkpoint.load(run)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert says in str(error.value)


@pytest.mark.fault
def test_malicious_length_nesting_links_and_manifests_are_refused(run, tmp_path):
    path = checkpoint.save(run, 1, small(), {})
    raw = (path / "state.safetensors").read_bytes()
    for length in (10**12, 1 << 63, len(raw)):
        shutil.rmtree(run / "checkpoints")
        forge(run, {}, b"")
        state = length.to_bytes(8, "little") + raw[8:]
        (path / "state.safetensors").write_bytes(state)
        files = {"state.safetensors": {"bytes": len(state),
                                       "sha256": hashlib.sha256(state).hexdigest()}}
        (path / "manifest.json").write_bytes(checkpoint._encode(
            {"format": 1, "step": 1, "score": None, "meta": {}, "arrays": {}, "files": files}))
        assert "header is longer than the file" in checkpoint.damage(run, 1)
    for changes in ({"meta": []}, {"step": "1"}, {"score": "x"}, {"files": []}, {"files": {}},
                    {"arrays": 3}, {"arrays": {"w": 3}}, {"step": 2}):
        shutil.rmtree(run / "checkpoints")
        forge(run, {"w": entry()}, b"1234", **changes)
        assert checkpoint.damage(run, 1), changes
    (path / "manifest.json").write_bytes(b"[" * 200_000)
    assert "manifest.json differs" in checkpoint.damage(run, 1)
    (path / "manifest.json").unlink()
    (path / "manifest.json").symlink_to("/dev/zero")
    assert "not a regular file" in checkpoint.damage(run, 1)


@pytest.mark.fault
@pytest.mark.parametrize("name, array", [("w", np.array([object()])), ("w", np.array(["text"])),
                                         ("w", np.zeros(2, "f4,i4")), ("w", np.zeros(2, "M8[s]"))])
def test_arrays_that_are_no_numbers_are_refused_before_a_file_is_touched(run, name, array):
    with pytest.raises(TypeError, match="has dtype"):
        checkpoint.save(run, 1, {name: array}, {})
    assert list(run.iterdir()) == []


@pytest.mark.fault
@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/../b", "a/", "", "__metadata__", "a\nb"])
def test_names_that_mislead_are_refused(run, name):
    with pytest.raises(ValueError, match="not an array name"):
        checkpoint.save(run, 1, {name: np.zeros(1)}, {})
    assert list(run.iterdir()) == []


@pytest.mark.fault
def test_newer_formats_say_so_and_every_released_one_is_read(run):
    forge(run, {}, b"", format=3)
    with pytest.raises(UserError) as error:
        checkpoint.load(run)
    assert str(error.value) == ("runs/x was written by format 3; this jaxrl reads format 1. "
                                "Install a newer jaxrl.")
    for stored in sorted(DATA.glob("format*")):
        arrays, meta = checkpoint.load(stored, 1000)
        assert meta == {"step": 1000, "score": 12.5, "layout": {"devices": 1}, "metric_rows": 3,
                        "eval_rows": 1}
        np.testing.assert_array_equal(arrays["agent/params/kernel"],
                                      np.arange(6, dtype=np.float32).reshape(2, 3))
        assert arrays["agent/params/half"].dtype == ml_dtypes.bfloat16
        assert arrays["key"].tolist() == [0, 42]
    assert sorted(DATA.glob("format*"))


def test_a_folder_that_went_away_is_an_error(run):
    checkpoint.save(run, 1, small(), {})
    shutil.rmtree(run)
    with pytest.raises(RunError,
                       match=r"cannot write runs/x/checkpoints/2 \(No such file or directory\)"):
        checkpoint.save(run, 2, small(), {})
    assert not run.exists()
