"""Questions of sweeps: ranges that follow the declarations, and words that are refused."""

from __future__ import annotations

import pytest

from jaxrl.config.axes import Axis, question
from jaxrl.config.overrides import parse_sweep
from jaxrl.declare import Range
from jaxrl.errors import UserError


def test_ranges_follow_the_declaration():
    words = ["algo=ppo", "env=cartpole", "search=random", "algo.learning_rate=range(1e-5,1e-2)",
             "algo.gamma=range(0.9,0.99)", "algo.clip=tag(log,interval(0.1,0.4))",
             "algo.num_envs=4,8", "algo.network.hidden=[8],[16,16]"]
    axes = question(*parse_sweep(words)).axes
    assert axes == (Axis("algo.learning_rate", True, range=Range(1e-5, 1e-2, True)),
                    axes[1]._replace(range=axes[1].range._replace(low=0.9, high=0.99)),
                    Axis("algo.clip", True, range=Range(0.1, 0.4, True)),
                    Axis("algo.num_envs", False, choices=(4, 8)),
                    Axis("algo.network.hidden", False, choices=((8,), (16, 16))))
    everything = question(*parse_sweep(["algo=ppo", "env=cartpole", "search=random",
                                        "algo.gamma=0.9"])).axes
    assert {"algo.learning_rate"} < {axis.key for axis in everything}
    assert all(axis.range for axis in everything)
    assert "algo.gamma" not in {axis.key for axis in everything}


@pytest.mark.parametrize("words, text", [
    (["algo.learning_rte=1e-3,1e-2"],
     'unknown key "algo.learning_rte" for ppo. Did you mean: algo.learning_rate'),
    (["algo.gamma=0.9,1.3"], "algo.gamma=1.3 is out of range: 0 <= gamma <= 1"),
    (["algo.learning_rate=fast,slow"], 'algo.learning_rate="slow" is not a number'),
    (["search=random", "algo.gamma=range(0.9,0.9)"],
     "algo.gamma=range(0.9,0.9) is empty: the first end must be"),
    (["search=random", "algo.gamma=range(0.99,0.9)"], "algo.gamma=range(0.99,0.9) is empty"),
    (["search=random", "algo.gamma=range(0.9,1.9)"], "algo.gamma=1.9 is out of range"),
    (["search=random", "algo.num_envs=range(4,8)"],
     "algo.num_envs=range(4,8): algo.num_envs shapes the compiled "
     "program, so a sweep takes single values: algo.num_envs=A,B"),
    (["algo.gamma=range(0.9,0.99)"],
     "algo.gamma has a range, but a grid takes values: algo.gamma=A,B,C, or search=random"),
    (["algo.gamma=0.9,0.9"], "algo.gamma=0.9,0.9 names 0.9 twice"),
    ([], "nothing to sweep: no setting has several values. Such as: algo.learning_rate="),
    (["seed=1,2"],
     "seed=1,2: seed is the same for all trials of a sweep. Every trial has num_seeds= seeds"),
    (["total_steps=1e4,1e5"],
     "total_steps=1e4,1e5: total_steps is the same for all trials of a sweep"),
    (["search=grd", "algo.gamma=0.9,0.8"],
     'search="grd" is not one of: grid, random, asha, optuna. Did you mean: '),
    (["trials=0", "algo.gamma=0.9,0.8"], "trials=0 is out of range: 1 <= trials"),
    (["trials=1,2", "algo.gamma=0.9,0.8"], "trials=1,2 names several values, trials takes one"),
    (["search=asha", "grace=1e9"], "grace=1,000,000,000 is more than total_steps="),
    (["algo.gamma=0.9,0.8", "stop_return=3"],
     "stop_return=3 has no effect in a sweep: all trials have the same"),
    (["algo.gamma=0.9,0.8", "init_from=x"],
     "init_from=x has no effect in a sweep: all trials start afresh"),
    (["algo.gamma=glob(*)"], "algo.gamma=glob(*) "),
    (["algo.num_envs=4,8", "algo.rollout_length=8", "algo.minibatches=64"],
     "does not divide into 64 minibatches"),
    (["algo=ppo,pp0", "algo.gamma=0.9,0.8"], 'unknown algo "pp0". Did you mean: ppo?'),
])
def test_bad_input(words, text):
    with pytest.raises(UserError) as caught:
        question(*parse_sweep(["algo=ppo", "env=cartpole", *words]))
    assert text in str(caught.value)


def test_several_mistakes_are_reported_at_once():
    with pytest.raises(UserError) as caught:
        question(*parse_sweep(["algo=ppo", "env=cartpole", "algo.gamma=0.9,1.3", "algo.lambd=1,2",
                               "seed=1,2", "eta=1", "total_steps=x"]))
    assert len(caught.value.problems) == 5
