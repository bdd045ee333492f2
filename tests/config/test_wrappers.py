"""Wrappers, randomized parameters and curricula in configs."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import pytest
from hydra.core.config_store import ConfigStore

import envs_jax
from envs_jax.classic.pendulum import Pendulum
from envs_jax.spaces import Box
from jaxrl import config, registry
from jaxrl.errors import UserError
from tests.config.helpers import BASE, problems, with_helps

ASKED = [
    "env.wrappers.frame_stack=4", "env.wrappers.clip_reward=[-1,1]",
    "env.wrappers.sticky_actions=0", "env.wrappers.flatten=true", "env.randomize.length=[0.4,1]",
    "env.curriculum.gravity=[15,9.8]", "env.params.masscart=2",
]


def test_wrappers_randomize_and_curriculum(tmp_path):
    run = config.compose([*BASE, *ASKED])
    assert run.env == config.EnvConfig(
        "cartpole", 500, {"masscart": 2.0},
        {"frame_stack": 4, "clip_reward": (-1.0, 1.0), "flatten": True}, {"length": (0.4, 1.0)},
        {"gravity": (15.0, 9.8)},
    )
    env, params = run.make_env()
    assert envs_jax.make("cartpole", masscart=2.0, wrappers=dict(run.env.wrappers),
                         randomize={"length": (0.4, 1)}) == (env, params)

    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(run))
    assert config.from_file(path) == run
    given = {
        "algo": "ppo",
        "preset": "none",
        "env": {
            "name": "cartpole", "params": {"masscart": 2},
            "curriculum": {"gravity": np.array([15, 9.8]).tolist()},
            "randomize": {"length": (np.float64(0.4), 1)},
            "wrappers": {"frame_stack": 4, "clip_reward": (-1, 1), "flatten": True},
        },
    }
    assert config.from_values(given) == run
    again = config.from_file(path, ["env.randomize.length=null", "env.curriculum.gravity=null",
                                    "env.wrappers.frame_stack=1", "env.wrappers.clip_reward=null"])
    assert again.env == config.EnvConfig("cartpole", 500, {"masscart": 2.0}, {"flatten": True}), (
        "taken back"
    )


def test_origins_of_wrappers(tmp_path):
    rows = {row.key: row for row in config.origins([*BASE, *ASKED])}
    stack = rows["env.wrappers.frame_stack"]
    assert stack[1:3] == (4, "override") and stack.help == registry.wrappers()["frame_stack"].help
    assert rows["env.randomize.length"][1:3] == ([0.4, 1.0], "override")
    assert rows["env.curriculum.gravity"].help == (
        "values [first,last] over the course of the training, instead of 9.8")
    assert "env.wrappers.sticky_actions" not in rows and "env.wrappers.one_hot" not in rows
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(config.compose([*BASE, *ASKED])))
    rows = {
        row.key: row.origin
        for row in config.origins_of_file(path, "jaxrl train env.wrappers.frame_stack=4")
    }
    assert (rows["env.wrappers.frame_stack"], rows["env.randomize.length"]) == (
        "override",
        "preset",
    )


def test_a_config_stored_before_there_were_wrappers(tmp_path):
    path = tmp_path / "config.yaml"
    run = config.compose(BASE)
    path.write_text(re.sub(r"  (wrappers|randomize|curriculum): \{\}\n", "", config.to_yaml(run)))
    assert "wrappers" not in path.read_text() and config.from_file(path) == run


def test_a_preset_may_ask_for_wrappers(preset):
    ConfigStore.instance().store(group="experiment", name=preset, package="_global_", node={
        "env": {"wrappers": {"frame_stack": 3, "scale_reward": 2}, "time_limit": 9}})
    words = ["algo=ppo", "env=probe-both"]
    assert config.compose(words).env == config.EnvConfig(
        "probe-both", 9, wrappers={"frame_stack": 3, "scale_reward": 2.0}
    )
    assert config.compose([*words, "env.wrappers.frame_stack=1"]).env.wrappers == {
        "scale_reward": 2.0
    }


@pytest.mark.parametrize(
    "words, text",
    [
        (
            ("env.wrappers.frame_stak=4",),
            'unknown key "env.wrappers.frame_stak" for cartpole. Did you mean: '
            "env.wrappers.frame_stack (default 1, <env.wrappers.frame_stack>)?",
        ),
        (
            ("env.wrappers.zzzz=4",),
            'unknown key "env.wrappers.zzzz" for cartpole. There are: rescale_action, '
            "sticky_actions, action_repeat, scale_reward, clip_reward, one_hot, flatten, "
            "frame_stack   (jaxrl list wrappers)",
        ),
        (
            ("frame_stack=4",),
            'unknown key "frame_stack". Did you mean: '
            "env.wrappers.frame_stack (default 1, <env.wrappers.frame_stack>)?",
        ),
        (
            ("env.wrappers=4",),
            "env.wrappers is a group of settings, not a setting. "
            "They are written env.wrappers.NAME=value   (jaxrl list cartpole)",
        ),
        (("env.wrappers.frame_stack=1.5",), "env.wrappers.frame_stack=1.5 is not a whole number"),
        (("env.wrappers.flatten=1",), "env.wrappers.flatten=1 is not true or false"),
        (
            ("env.wrappers.sticky_actions=2",),
            "env.wrappers.sticky_actions=2 is out of range: 0 <= sticky_actions <= 1 "
            "(<env.wrappers.sticky_actions>)",
        ),
        (
            ("env.wrappers.clip_reward=1",),
            "env.wrappers.clip_reward=1 is not two numbers, such as [0.4,0.6]",
        ),
        (
            ("env.wrappers.clip_reward=[1,-1]",),
            "env.wrappers.clip_reward=[1,-1] is reversed: write [low,high]",
        ),
        (
            ("env.wrappers.rescale_action=true",),
            "cartpole cannot be made with env.wrappers.rescale_action=true: "
            "RescaleAction needs a bounded Box of real actions; CartPole has Discrete(2)",
        ),
        (
            ("env.randomize.lenght=[1,2]",),
            'unknown key "env.randomize.lenght" for cartpole. Did you mean: '
            "env.randomize.length (default null, <env.randomize.length>)?",
        ),
        (
            ("env.randomize.length=[2,1]",),
            "env.randomize.length=[2,1] is reversed: write [low,high]",
        ),
        (
            ("env.randomize.length=[1]",),
            "env.randomize.length=[1] is not two numbers, such as [0.4,0.6]",
        ),
        (
            ("env.randomize.length=[a,b]",),
            "env.randomize.length=[a,b] is not two numbers, such as [0.4,0.6]",
        ),
        (
            ("env.curriculum.length=[0,1e400]",),
            "env.curriculum.length=[0,1e400] is not a finite number",
        ),
        (
            ("env.curriculum.length=3",),
            "env.curriculum.length=3 is not two numbers, such as [0.4,0.6]",
        ),
        (
            ("env.randomize.length=[1,2]", "env.curriculum.length=[1,2]"),
            "env.randomize.length and env.curriculum.length exclude each other: length is either "
            "drawn at every reset or follows the training. Leave one of them out",
        ),
        (
            ("env.params.length=1", "env.curriculum.length=[1,2]"),
            "env.params.length=1 has no effect beside env.curriculum.length. Leave one of them out",
        ),
        (
            ("algo=ppo", "env=pendulum", "preset=none", "env.randomize.max_torque=[1,2]"),
            "env.randomize.max_torque: max_torque cannot change while the program of pendulum "
            "runs. The parameters that can: g, m, l, dt",
        ),
        (
            ("algo=ppo", "env=probe-both", "preset=none", "env.curriculum.speed=[1,2]"),
            'unknown key "env.curriculum.speed" for probe-both. Its parameters: none',
        ),
    ],
)
def test_error_texts_of_wrappers(words, text):
    assert problems(*words) == [with_helps(text)]


def test_the_ends_of_a_wrapper_s_range_can_be_made():
    """The constructors of wrappers accept the ends of the declared ranges."""
    for name, option in registry.wrappers().items():
        for end in (option.low, option.high):
            if end is not None:
                run = config.compose([*BASE, f"env.wrappers.{name}={end}"])
                assert run.env.wrappers == ({} if end == option.default else {name: end})


def test_a_curriculum_leaves_the_actions_alone(monkeypatch):
    monkeypatch.setitem(registry.environments(), "strong", f"{__name__}:Strong")
    strong = {"algo": {"name": "ppo"}, "env": {"name": "strong"}}
    assert config.reading.read(strong | {"env.curriculum.push": (0, 1)}).env.curriculum == {
        "push": (0.0, 1.0)
    }
    with pytest.raises(
        UserError, match=r"env\.curriculum\.most changes the actions of strong, which must stay"
    ):
        config.reading.read(
            strong | {"env.curriculum.most": (1, 2), "env.wrappers.rescale_action": True}
        )


class Strength(NamedTuple):
    most: float = 2.0
    push: float = 1.0


class Strong(Pendulum):
    """A Pendulum whose bound of the actions is a parameter."""

    default_params = Strength()

    def action_space(self, params):
        return Box(-params.most, params.most, (1,))


