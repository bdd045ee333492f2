"""Composition of a RunConfig: precedence, conversion, origins."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hydra.core.config_store import ConfigStore

import jaxrl
from envs_jax.spaces import Box, Discrete, MultiDiscrete
from jaxrl import config, registry, schemas
from jaxrl.config.reading import _fitting, declared
from jaxrl.errors import UserError
from jaxrl.types import EnvSpec
from tests.config.helpers import BASE


def test_defaults_are_the_declared_ones():
    run = config.compose(BASE)
    assert run.settings == config.Settings(preset="none")
    assert run.agent == registry.algorithm("ppo").config()
    assert (run.algo, run.env.name, run.env.time_limit, run.env.params) == (
        "ppo", "cartpole", 500, {},
    )


def test_values_are_converted_by_the_declaration():
    run = config.compose(
        [
            *BASE, "total_steps=5e5", "algo.learning_rate=1", "algo.network.hidden=[32,16]",
            "out=007", "stop_return=9", "algo.clip_value=False", "eval_every=null", "init_from=a/b",
            "env.params.length=1",
        ]
    )
    assert run.settings.total_steps == 500_000 and isinstance(run.settings.total_steps, int)
    assert isinstance(run.agent.learning_rate, float) and run.agent.network.hidden == (32, 16)
    assert (
        run.settings.out == "007"
        and run.settings.init_from == "a/b"
        and run.settings.stop_return == 9.0
    )
    assert run.agent.clip_value is False and run.settings.eval_every is None
    assert run.env.params == {"length": 1.0}
    env, params = run.make_env()
    assert params.length == 1.0 and env.time_limit == 500


def test_python_values_are_the_same_as_words():
    words = config.compose(
        [*BASE, "total_steps=5e5", "algo.gamma=0.5", "algo.network.hidden=[4,4]", "seed=3"]
    )
    values = {"algo": "ppo", "env": "cartpole", "preset": "none", "total_steps": 5e5,
              "algo.gamma": np.float32(0.5), "seed": np.int64(3),
              "algo.network": {"hidden": (4, 4)}}
    assert config.from_values(values) == words
    with pytest.raises(UserError, match=r"algo\.gamma=.* is not a number, text or a list"):
        config.from_values({**values, "algo.gamma": object()})


@pytest.mark.parametrize(
    "words, limit", [((), 500), (("env.time_limit=null",), None), (("env.time_limit=20",), 20)]
)
def test_time_limit(words, limit):
    run = config.compose([*BASE, *words])
    assert run.env.time_limit == limit and (run.make_env()[0].max_steps == limit)


def test_preset_precedence(preset):
    words = ["algo=ppo", "env=probe-both"]
    run = config.compose(words)
    assert (run.settings.preset, run.settings.total_steps, run.agent.gamma) == (preset, 7000, 0.5)
    assert run.agent.network.hidden == (8,)
    won = config.compose([*words, "algo.gamma=0.25", "total_steps=9000"])
    assert (won.settings.total_steps, won.agent.gamma, won.agent.network.hidden) == (
        9000, 0.25, (8,),
    )
    none = config.compose([*words, "preset=none"])
    assert (
        none.settings == config.Settings(preset="none")
        and none.agent == registry.algorithm("ppo").config()
    )
    elsewhere = config.compose(["algo=ppo", "env=cartpole", f"preset={preset}"])
    assert (elsewhere.settings.preset, elsewhere.agent.gamma, elsewhere.env.name) == (
        preset, 0.5, "cartpole",
    )


@pytest.mark.parametrize("node, text", [({"algo": {"gama": 0.5}}, "gama"), ({"sead": 3}, "sead"),
                                        ({"algo": {"gamma": 7}}, "algo.gamma=7 is out of range")])
def test_a_preset_with_a_mistake(preset, node, text):
    ConfigStore.instance().store(group="experiment", name=preset, package="_global_", node=node)
    with pytest.raises(UserError, match=text):
        config.compose(["algo=ppo", "env=probe-both"])


def test_origins(preset):
    rows = {
        row.key: row
        for row in config.origins(["algo=ppo", "env=probe-both", "algo.gamma=0.25", "seed=0"])
    }
    assert rows["algo.gamma"][1:3] == (0.25, "override") and rows["seed"].origin == "override"
    assert (
        rows["total_steps"][1:3] == (7000, "preset")
        and rows["algo.network.hidden"].origin == "preset"
    )
    assert rows["algo.lam"].origin == "default" and rows["env.time_limit"].origin == "default"
    assert (
        set(rows) == {"algo", "env", "schedule"} | set(declared("ppo"))
        and "discount" in rows["algo.gamma"].help
    )


@pytest.mark.parametrize("name", schemas.presets())
def test_every_preset_composes(name):
    algo, env = next((a, e) for a in registry.algorithms() for e in registry.environments()
                     if schemas.preset_name(a, e) == name)
    assert config.compose([f"algo={algo}", f"env={env}"]).settings.preset == name


def test_preset_names_are_file_names():
    assert schemas.preset_name("ppo", "gymnax/CartPole-v1") == "ppo_gymnax-cartpole-v1"
    assert schemas.preset_name("ppo", "gymnasium/module:Id") == "ppo_gymnasium-module-id"


def test_peek_gives_the_settings_and_forgives_the_rest(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("device: cpu\nnum_devices: 2\n")
    assert config.peek(["algo=nonsense", "device=cpu", "seed=x"]) == config.Settings(device="cpu")
    assert config.peek([f"config={path}", "num_devices=1"]) == config.Settings(
        device="cpu", num_devices=1
    )
    assert config.peek(["config=nowhere", "foo"]) == config.Settings()


def test_dictconfig_of_a_script(preset):
    import hydra

    with hydra.initialize_config_module("jaxrl_configs", version_base=None):
        made = hydra.compose(
            "config", ["algo=ppo", "env=probe-both", "total_steps=8e3", "algo.lam=0.5"]
        )
        assert config.from_dictconfig(made).agent.gamma == 0.5
        run = config.from_dictconfig(made)
        assert run.settings.total_steps == 8000 and run.agent.lam == 0.5
        with pytest.raises(UserError, match=r"algo\.lam=7 is out of range"):
            config.from_dictconfig(
                hydra.compose("config", ["algo=ppo", "env=cartpole", "algo.lam=7"])
            )
        assert jaxrl.compose(BASE).algo == "ppo", "composing inside a Hydra script"
        made = hydra.compose(
            "config",
            [
                *BASE, "env.params.length=1", "env.wrappers.frame_stack=2",
                "env.randomize.gravity=[9,10]", "env.curriculum.tau=[0.01,0.02]",
            ],
        )
        assert config.from_dictconfig(made).env == config.EnvConfig(
            "cartpole", 500, {"length": 1.0}, {"frame_stack": 2}, {"gravity": (9.0, 10.0)},
            {"tau": (0.01, 0.02)},
        )


def test_config_is_frozen_and_replaced():
    run = config.compose(BASE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.algo = "dqn"
    assert run.with_settings(seed=3).settings.seed == 3


@pytest.mark.parametrize("action, names", [
    (Discrete(3), "sac, dqn, ppo, a2c"), (Box(-1.0, 1.0, (2,)), "sac, td3, ddpg, ppo"),
    (Box(-np.inf, np.inf, (2,)), "ppo, a2c, pg"), (MultiDiscrete((3, 2)), "ppo, a2c, pg")])
def test_algorithms_that_are_named_instead_fit(action, names):
    spec = EnvSpec(
        observation=Box(-1.0, 1.0, (4,)), action=action, masked=False, state=None, agents=None,
        max_steps=100,
    )
    assert _fitting("qrdqn", spec) == names
    first = names.split(", ")[0]
    assert first not in _fitting(first, spec)
