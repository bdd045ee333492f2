"""TensorBoard files, read by TensorBoard's own reader."""

import os
import warnings

import pytest

from jaxrl.report.tensorboard import TensorBoard
from jaxrl.storage.folder import SUMMARY_KEYS

SUMMARY = dict.fromkeys(SUMMARY_KEYS) | {"status": "completed", "total_steps": 300, "eval_iqm": 9.5,
                                         "eval_returns": [9.0, 10.0], "train_returns": [None, 8.0]}


def read(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return found


def points(found, tag):
    return [(event.step, event.value) for event in found.Scalars(tag)]


def test_scalars_are_means_over_seeds_and_single_seeds_on_request(tmp_path):
    board = TensorBoard(tmp_path, per_seed=True)
    board.metrics({"step": 100, "seconds": 1.0, "return_mean": [1.0, 3.0], "loss": 0.5,
                   "none": None, "nan": [None]})
    board.metrics({"step": 200, "return_mean": [float("nan"), 4.0], "loss": 0.25})
    board.evaluation({"step": 200, "returns": [[1.0, 2.0], [3.0, 4.0]]})
    board.close()
    board.metrics({"step": 300})              # after the end: nothing
    found = read(tmp_path / "tb")
    assert points(found, "train/return_mean") == [(100, 2.0), (200, 4.0)]
    assert points(found, "train/return_mean/seed_1") == [(100, 3.0), (200, 4.0)]
    assert points(found, "train/loss") == [(100, 0.5), (200, 0.25)]
    assert points(found, "eval/return") == [(200, 2.5)]
    assert not {"train/seconds", "train/none", "train/nan",
                "train/step"} & set(found.Tags()["scalars"])


def test_hparams_hold_settings_and_results(tmp_path):
    from tensorboard.plugins.hparams import plugin_data_pb2

    board = TensorBoard(tmp_path)
    board.finish({"algo.learning_rate": 0.5, "env": "cartpole", "algo.clip": True,
                  "algo.hidden": [64, 64], "preset": None, "num_envs": 8}, SUMMARY)
    board.close()
    found = read(tmp_path / "tb")
    content = found.PluginTagToContent("hparams")
    parse = plugin_data_pb2.HParamsPluginData.FromString
    start = parse(content["_hparams_/session_start_info"]).session_start_info.hparams
    assert start["algo.learning_rate"].number_value == 0.5 and start["num_envs"].number_value == 8
    assert start["env"].string_value == "cartpole" and start["algo.clip"].bool_value is True
    assert start["algo.hidden"].string_value == "[64, 64]"
    experiment = parse(content["_hparams_/experiment"]).experiment
    tags = {info.name.tag for info in experiment.metric_infos}
    assert tags == {"final/eval_iqm", "final/eval_returns", "final/train_returns"}
    assert "_hparams_/session_end_info" in content
    assert points(found, "final/eval_iqm") == [(300, 9.5)]
    assert points(found, "final/train_returns") == [(300, 8.0)]


def test_resume_doubles_no_point_even_within_one_second(tmp_path):
    for resumed_at, steps in ((None, (100, 200, 300)), (100, (200, 300)), (300, (400,))):
        board = TensorBoard(tmp_path, resumed_at=resumed_at)
        for step in steps:
            board.metrics({"step": step, "loss": float(resumed_at or 0)})
        board.close()
    assert len(os.listdir(tmp_path / "tb")) == 3
    losses = points(read(tmp_path / "tb"), "train/loss")
    assert losses == [(100, 0.0), (200, 100.0), (300, 100.0), (400, 300.0)]


def test_failure_is_one_warning(tmp_path):
    with pytest.warns(UserWarning, match="TensorBoard files in .* stop here"):
        board = TensorBoard(tmp_path / "gone")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        board.metrics({"step": 1, "loss": 1.0})
        board.finish({}, SUMMARY)
        board.close()
    board = TensorBoard(tmp_path)
    with pytest.warns(UserWarning, match="The run continues"):
        board.metrics({"no step": 1})
    assert board.failed
