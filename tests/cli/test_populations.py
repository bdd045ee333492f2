"""`jaxrl pbt`, `sweep` and `train schedule=` as typed: output, files and typical mistakes."""

from __future__ import annotations

import csv

import pytest

from jaxrl.cli.main import main
from jaxrl.storage.lineage import read_lineage

TINY = [
    "algo=ppo", "env=probe-both", "preset=none", "eval_episodes=4", "num_devices=1",
    "algo.num_envs=4", "algo.rollout_length=16", "algo.minibatches=1", "algo.network.hidden=[8]",
]


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    path = tmp_path_factory.mktemp("pbt") / "a population"
    assert (
        main(
            [
                "pbt", *TINY, "population=4", "total_steps=640", "interval=128", "quiet=true",
                f"out={path}", "algo.learning_rate=range(1e-4,1e-2)",
            ]
        )
        == 0
    )
    return path


def test_pbt_says_what_it_explores_and_goes_on(population, capsys):
    lineage = read_lineage(population)
    assert lineage.members == 4 and lineage.steps == [0, 128, 256, 384, 512]
    assert "Population" in (population / "report.html").read_text()
    assert main(["resume", str(population), "total_steps=896", "quiet=false"]) == 0
    out, err = capsys.readouterr()
    assert (
        "4 members" in err
        and "exploit truncation: learning_rate 0.0001..0.01" in err
        and "next:" in out
    )
    assert read_lineage(population).steps[-1] == 768


def test_a_schedule_is_followed(population, tmp_path, capsys):
    run = tmp_path / "run"
    assert (
        main(
            ["train", f"schedule={population}", f"out={run}", "eval_episodes=4", "total_steps=640"]
        )
        == 0
    )
    assert "by a schedule: learning_rate" in capsys.readouterr().err
    config = (run / "config.yaml").read_text()
    assert "num_seeds: 1" in config and "  steps: [0" in config
    assert main(["show", str(run)]) == 0 and "schedule.learning_rate" in capsys.readouterr().out


def test_sweep_leaves_a_table_and_the_best(tmp_path, capsys):
    path = tmp_path / "sweep"
    assert (
        main(["sweep", *TINY, "total_steps=256", "algo.learning_rate=1e-4,1e-3", f"out={path}"])
        == 0
    )
    assert "2 x 1 seed x 256 steps" in capsys.readouterr().err
    assert len(list(csv.DictReader((path / "trials.csv").open()))) == 2
    assert main(["show", f"config={path / 'best.yaml'}"]) == 0
    assert main(["resume", str(path)]) == 2 and "is complete" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, text",
    [
        (["pbt", "env=cartpole"], "algo= is missing"),
        (["pbt", "algo=ppo", "env=cartpole", "populaton=4"], 'unknown key "populaton"'),
        (["pbt", "algo=ppo", "env=cartpole", "population=1"], "population=1 is out of range"),
        (["pbt", "algo=ppo", "env=cartpole", "num_seeds=8"], "num_seeds= has no effect in PBT"),
        (["pbt", "algo=ppo", "env=cartpole", "algo.num_envs=range(2,8)"], "shapes the program"),
        (["pbt", "algo=ppo", "env=cartpole", "interval=1e6"], "there would be no round"),
        (["sweep", "algo=ppo", "env=cartpole"], "nothing to sweep"),
        (
            ["sweep", "algo=ppo", "env=cartpole", "algo.gamma=0.9,1.5"],
            "algo.gamma=1.5 is out of range",
        ),
        (["sweep", "algo=ppo", "env=cartpole", "algo.gamma=0.9,0.99", "search=gird"], "search"),
        (["train", "schedule=nowhere"], "nowhere"),
        (["train", "algo=ppo", "env=cartpole", "address=10.0.0.5:6379"], "needs workers"),
        (
            ["train", "algo=ppo", "env=cartpole", "workers=4096"],
            "workers=4096 with 1 CPU each need 4096 CPUs",
        ),
        (
            ["sweep", "algo=ppo", "env=cartpole", "algo.gamma=0.9,0.99", "workers=4096"],
            "workers=4096 with 1 CPU each",
        ),
    ],
)
def test_a_mistake_costs_a_line(words, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert text in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())                      # nothing is left of what never began
