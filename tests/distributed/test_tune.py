"""A learner driven by Ray Tune: what it restores, and with which hyperparameters."""

from __future__ import annotations

import numpy as np
import pytest

import jaxrl
from jaxrl.errors import UserError
from jaxrl.run.trial import Trial

WORDS = ["algo=ppo", "env=cartpole", "preset=none", "algo.num_envs=2", "algo.rollout_length=16",
         "eval_every=128", "algo.network.hidden=[8]", "eval_episodes=4", "total_steps=512",
         "num_seeds=2", "num_devices=1"]


@pytest.fixture(scope="module")
def trial():
    return Trial(jaxrl.config.to_plain(jaxrl.compose(WORDS)), {})


@pytest.mark.slow
def test_a_trial_is_the_run(trial, tmp_path):
    """The same returns at the same steps as `jaxrl train`, and done at the end."""
    trial.reset({"algo.learning_rate": 1e-3})
    reports = [trial.train() for _ in range(4)]
    run = jaxrl.train(jaxrl.compose([*WORDS, "algo.learning_rate=1e-3", "block_size=2",
                                     f"out={tmp_path / 'run'}"]))
    steps = [128, 256, 384, 512]
    assert [report["env_steps"] for report in reports] == steps
    assert [row["step"] for row in run.evals()] == steps
    assert [report["done"] for report in reports] == [False] * 3 + [True]
    wanted = [jaxrl.evaluate.iqm(np.mean(row["returns"], axis=1)) for row in run.evals()]
    np.testing.assert_allclose([report["episode_return"] for report in reports], wanted)


@pytest.mark.slow
def test_what_is_restored_goes_on_with_its_own_values(trial, tmp_path):
    """Bit for bit with the old values; and the new ones are those that are used."""
    trial.reset({"algo.learning_rate": 1e-3})
    trial.train()
    trial.save(tmp_path)
    wanted = [trial.train(), trial.train()]
    trial.reset({"algo.learning_rate": 1e-3})
    trial.load(tmp_path)
    assert trial.step == 128 and [trial.train(), trial.train()] == wanted
    compiled = dict(trial.members._programs)
    trial.reset({"algo.learning_rate": 1.2e-3, "algo.clip": 0.1})
    trial.load(tmp_path)
    assert trial.hyper()["learning_rate"] == np.float32(1.2e-3)
    assert trial.hyper()["clip"] == np.float32(0.1)
    assert trial.train() != wanted[0] and trial.hyper()["clip"] == np.float32(0.1)
    assert trial.members._programs.keys() == compiled.keys()            # nothing is compiled again
    trial.reset({"algo.network.hidden": [4]})
    assert trial.members._programs.keys() != compiled.keys() and trial.train()["env_steps"] == 128


def test_bad_values_are_named(trial):
    with pytest.raises(UserError, match=r"algo\.clip=-1"):
        trial.reset({"algo.clip": -1})


@pytest.mark.parametrize("reuse", [pytest.param(False, marks=pytest.mark.slow),
                                   pytest.param(True, marks=pytest.mark.full)])
def test_tune_s_population_based_training(tmp_path, reuse):
    """After a restore the perturbed values are in use (ray-project/ray issue 62173)."""
    tune = pytest.importorskip("ray.tune")
    from ray.tune.schedulers import PopulationBasedTraining

    from jaxrl.distributed.cluster import connect

    base = jaxrl.tune_trainable(WORDS)

    class Watched(base):
        """Reports what is in use, beside what Tune thinks is."""

        def step(self):
            return {**super().step(), "used": self.trial.hyper()["learning_rate"]}

    rows: list[dict] = []

    class Reports(tune.Callback):
        """All reports. Tune's own files may lose lines of a trial that is restored.

        They are copied back from a store that is written to every now and then.
        """

        def on_trial_result(self, iteration, trials, trial, result, **info):
            rows.append(result)

    scheduler = PopulationBasedTraining(
        time_attr="training_iteration", perturbation_interval=1, quantile_fraction=0.5,
        resample_probability=0.0, synch=True,
        hyperparam_mutations={"algo.learning_rate": tune.loguniform(1e-5, 1e-1)})
    with connect(2):
        results = tune.Tuner(
            Watched, param_space={"algo.learning_rate": tune.grid_search([1e-5, 1e-2])},
            tune_config=tune.TuneConfig(metric="episode_return", mode="max", scheduler=scheduler,
                                        reuse_actors=reuse),
            run_config=tune.RunConfig(storage_path=str(tmp_path), name="pbt", verbose=0,
                                      callbacks=[Reports()])).fit()
    assert not results.errors and len(results) == 2
    assert {row["env_steps"] for row in rows} == {128, 256, 384, 512}
    rates = {row["config"]["algo.learning_rate"] for row in rows}
    assert len(rates) > 2                                                    # some were perturbed
    for row in rows:
        assert row["used"] == np.float32(row["config"]["algo.learning_rate"])
