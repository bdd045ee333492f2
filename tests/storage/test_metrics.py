"""metrics.jsonl: valid to its last line, cut where a resume begins."""

import json
import math

import numpy as np
import pytest

from jaxrl.errors import RunError, UserError
from jaxrl.storage import metrics


def lines(path) -> list[str]:
    return path.read_text().splitlines()


def test_rows_are_json_whatever_is_in_them(tmp_path):
    with metrics.Rows(tmp_path, metrics.METRICS) as rows:
        rows.append({"step": np.int64(1), "loss": math.nan,
                     "return_mean": np.array([1.0, np.inf], np.float32),
                     "none": None, "text": "a\nb", "flag": np.bool_(True),
                     "nested": {"x": (1, -math.inf)}})
        assert rows.rows == 1
    assert metrics.read(tmp_path) == [{"step": 1, "loss": None, "return_mean": [1.0, None],
                                       "none": None,
                                       "text": "a\nb", "flag": True, "nested": {"x": [1, None]}}]
    assert len(lines(tmp_path / "metrics.jsonl")) == 1


def test_jax_scalars_and_bfloat16_are_numbers(tmp_path):
    import jax.numpy as jnp

    assert metrics.plain([jnp.float32(0.5), jnp.arange(2),
                          jnp.asarray(1.5, jnp.bfloat16)]) == [0.5, [0, 1], 1.5]
    with pytest.raises(TypeError):
        metrics.plain(object())


@pytest.mark.parametrize("torn",
                         [b'{"step": 3', b"{", b"garbage\n", b'{"step": 3}', b"\0\0\0\n", b"[3]\n"])
def test_a_torn_last_line_is_cut_when_writing_goes_on(tmp_path, torn):
    path = tmp_path / metrics.METRICS
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + torn)
    assert [row["step"] for row in metrics.read(tmp_path)] == [1, 2]
    with metrics.Rows(tmp_path, metrics.METRICS) as rows:
        assert rows.rows == 2
        rows.append({"step": 9})
    assert [json.loads(line)["step"] for line in lines(path)] == [1, 2, 9]


def test_a_foreign_line_is_an_error_if_asked(tmp_path):
    path = tmp_path / metrics.METRICS
    path.write_bytes(b'{"step": 1}\n{"step": 2')
    assert metrics.read(tmp_path, strict=True) == [{"step": 1}]
    path.write_bytes(b'{"step": 1}\n[2]\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged \(line 2 is not a row\)"):
        metrics.read(tmp_path, strict=True)


def test_resume_cuts_to_the_rows_of_the_checkpoint(tmp_path):
    with metrics.Rows(tmp_path, metrics.METRICS) as rows:
        for step in range(10):
            rows.append({"step": step, "text": "x" * step})
    with metrics.Rows(tmp_path, metrics.METRICS) as rows:
        assert rows.rows == 10
        rows.truncate_to(7)
        assert rows.rows == 7
        for step in range(7, 10):
            rows.append({"step": step})
    assert [row["step"] for row in metrics.read(tmp_path)] == list(range(10))
    with metrics.Rows(tmp_path, metrics.METRICS) as rows:
        rows.truncate_to(0)
    assert metrics.read(tmp_path) == []


def test_rows_lost_by_hand_are_warned_of(tmp_path):
    with metrics.Rows(tmp_path, metrics.EVALS) as rows:
        rows.append({"step": 1})
        with pytest.warns(UserWarning,
                          match="evals.jsonl has 1 rows, the checkpoint was written after 3: "
                                "2 are lost"):
            rows.truncate_to(3)
        assert rows.rows == 1


def test_missing_files_read_as_empty_and_missing_folders_are_errors(tmp_path):
    assert metrics.read(tmp_path) == []
    with pytest.raises(RunError, match="cannot write"):
        metrics.Rows(tmp_path / "gone", metrics.METRICS)
