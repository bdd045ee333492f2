"""From words to a RunConfig: precedence, conversion, every mistake named, and YAML that reads back the same."""

from __future__ import annotations

import dataclasses
import re
from typing import NamedTuple

import numpy as np
import pytest
from hydra.core.config_store import ConfigStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import envs_jax
import jaxrl
from envs_jax.classic.pendulum import Pendulum
from envs_jax.spaces import Box, Discrete, MultiDiscrete
from jaxrl import config, registry, schemas
from jaxrl.config.check import short, strip_optional
from jaxrl.config.reading import _fitting, declared
from jaxrl.errors import UserError
from jaxrl.types import EnvSpec

BASE = ["algo=ppo", "env=cartpole", "preset=none"]


def problems(*words: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        config.compose([*BASE, *words] if not any(w.startswith(("algo=", "env=", "config=")) for w in words) else words)
    return [problem.message for problem in caught.value.problems]


@pytest.fixture
def preset():
    """A tuned preset that is not in the package: found and applied as the files in configs/experiment are."""
    store = ConfigStore.instance()
    store.store(group="experiment", name="ppo_probe-both", package="_global_",
                node={"total_steps": 7000, "algo": {"gamma": 0.5, "network": {"hidden": [8]}}})
    schemas._composed.cache_clear()
    yield "ppo_probe-both"
    schemas._composed.cache_clear()
    del store.repo["experiment"]["ppo_probe-both.yaml"]


# --- what is composed


def test_defaults_are_the_declared_ones():
    run = config.compose(BASE)
    assert run.settings == config.Settings(preset="none")
    assert run.agent == registry.algorithm("ppo").config()
    assert (run.algo, run.env.name, run.env.time_limit, run.env.params) == ("ppo", "cartpole", 500, {})


def test_values_are_converted_by_the_declaration():
    run = config.compose([*BASE, "total_steps=5e5", "algo.learning_rate=1", "algo.network.hidden=[32,16]", "out=007",
                          "stop_return=9", "algo.clip_value=False", "eval_every=null", "init_from=a/b",
                          "env.params.length=1"])
    assert run.settings.total_steps == 500_000 and isinstance(run.settings.total_steps, int)
    assert isinstance(run.agent.learning_rate, float) and run.agent.network.hidden == (32, 16)
    assert run.settings.out == "007" and run.settings.init_from == "a/b" and run.settings.stop_return == 9.0
    assert run.agent.clip_value is False and run.settings.eval_every is None
    assert run.env.params == {"length": 1.0}
    env, params = run.make_env()
    assert params.length == 1.0 and env.time_limit == 500


def test_python_values_are_the_same_as_words():
    words = config.compose([*BASE, "total_steps=5e5", "algo.gamma=0.5", "algo.network.hidden=[4,4]", "seed=3"])
    values = {"algo": "ppo", "env": "cartpole", "preset": "none", "total_steps": 5e5,
              "algo.gamma": np.float32(0.5), "seed": np.int64(3),
              "algo.network": {"hidden": (4, 4)}}
    assert config.from_values(values) == words
    with pytest.raises(UserError, match=r"algo\.gamma=.* is not a number, text or a list"):
        config.from_values({**values, "algo.gamma": object()})


@pytest.mark.parametrize("words, limit", [((), 500), (("env.time_limit=null",), None), (("env.time_limit=20",), 20)])
def test_time_limit(words, limit):
    run = config.compose([*BASE, *words])
    assert run.env.time_limit == limit and (run.make_env()[0].max_steps == limit)


def test_preset_precedence(preset):
    words = ["algo=ppo", "env=probe-both"]
    run = config.compose(words)
    assert (run.settings.preset, run.settings.total_steps, run.agent.gamma) == (preset, 7000, 0.5)
    assert run.agent.network.hidden == (8,)
    won = config.compose([*words, "algo.gamma=0.25", "total_steps=9000"])
    assert (won.settings.total_steps, won.agent.gamma, won.agent.network.hidden) == (9000, 0.25, (8,))
    none = config.compose([*words, "preset=none"])
    assert none.settings == config.Settings(preset="none") and none.agent == registry.algorithm("ppo").config()
    elsewhere = config.compose(["algo=ppo", "env=cartpole", f"preset={preset}"])
    assert (elsewhere.settings.preset, elsewhere.agent.gamma, elsewhere.env.name) == (preset, 0.5, "cartpole")


@pytest.mark.parametrize("node, text", [({"algo": {"gama": 0.5}}, "gama"), ({"sead": 3}, "sead"),
                                        ({"algo": {"gamma": 7}}, "algo.gamma=7 is out of range")])
def test_a_preset_with_a_mistake(preset, node, text):
    ConfigStore.instance().store(group="experiment", name=preset, package="_global_", node=node)
    with pytest.raises(UserError, match=text):
        config.compose(["algo=ppo", "env=probe-both"])


def test_origins(preset):
    rows = {row.key: row for row in config.origins(["algo=ppo", "env=probe-both", "algo.gamma=0.25", "seed=0"])}
    assert rows["algo.gamma"][1:3] == (0.25, "override") and rows["seed"].origin == "override"
    assert rows["total_steps"][1:3] == (7000, "preset") and rows["algo.network.hidden"].origin == "preset"
    assert rows["algo.lam"].origin == "default" and rows["env.time_limit"].origin == "default"
    assert set(rows) == {"algo", "env", "schedule"} | set(declared("ppo")) and "discount" in rows["algo.gamma"].help


@pytest.mark.parametrize("name", schemas.presets())
def test_every_preset_composes(name):
    algo, env = next((a, e) for a in registry.algorithms() for e in registry.environments()
                     if schemas.preset_name(a, e) == name)
    assert config.compose([f"algo={algo}", f"env={env}"]).settings.preset == name


def test_preset_names_are_file_names():
    assert schemas.preset_name("ppo", "gymnax/CartPole-v1") == "ppo_gymnax-cartpole-v1"
    assert schemas.preset_name("ppo", "gymnasium/module:Id") == "ppo_gymnasium-module-id"


# --- wrappers, randomisation, curricula

ASKED = ["env.wrappers.frame_stack=4", "env.wrappers.clip_reward=[-1,1]", "env.wrappers.sticky_actions=0",
         "env.wrappers.flatten=true", "env.randomize.length=[0.4,1]", "env.curriculum.gravity=[15,9.8]",
         "env.params.masscart=2"]


def test_wrappers_randomize_and_curriculum(tmp_path):
    run = config.compose([*BASE, *ASKED])
    assert run.env == config.EnvConfig(
        "cartpole", 500, {"masscart": 2.0}, {"frame_stack": 4, "clip_reward": (-1.0, 1.0), "flatten": True},
        {"length": (0.4, 1.0)}, {"gravity": (15.0, 9.8)})
    env, params = run.make_env()
    assert envs_jax.make("cartpole", masscart=2.0, wrappers=dict(run.env.wrappers),
                         randomize={"length": (0.4, 1)}) == (env, params)

    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(run))
    assert config.from_file(path) == run
    given = {"algo": "ppo", "preset": "none", "env": {
        "name": "cartpole", "params": {"masscart": 2}, "curriculum": {"gravity": np.array([15, 9.8]).tolist()},
        "randomize": {"length": (np.float64(0.4), 1)},
        "wrappers": {"frame_stack": 4, "clip_reward": (-1, 1), "flatten": True}}}
    assert config.from_values(given) == run
    again = config.from_file(path, ["env.randomize.length=null", "env.curriculum.gravity=null",
                                    "env.wrappers.frame_stack=1", "env.wrappers.clip_reward=null"])
    assert again.env == config.EnvConfig("cartpole", 500, {"masscart": 2.0}, {"flatten": True}), "taken back"


def test_origins_of_wrappers(tmp_path):
    rows = {row.key: row for row in config.origins([*BASE, *ASKED])}
    stack = rows["env.wrappers.frame_stack"]
    assert stack[1:3] == (4, "override") and "newest" in stack.help
    assert rows["env.randomize.length"][1:3] == ([0.4, 1.0], "override")
    assert rows["env.curriculum.gravity"].help == "[first,last] of the training, in place of 9.8"
    assert "env.wrappers.sticky_actions" not in rows and "env.wrappers.one_hot" not in rows
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(config.compose([*BASE, *ASKED])))
    rows = {row.key: row.origin for row in config.origins_of_file(path, "jaxrl train env.wrappers.frame_stack=4")}
    assert (rows["env.wrappers.frame_stack"], rows["env.randomize.length"]) == ("override", "preset")


def test_a_config_stored_before_there_were_wrappers(tmp_path):
    path, run = tmp_path / "config.yaml", config.compose(BASE)
    path.write_text(re.sub(r"  (wrappers|randomize|curriculum): \{\}\n", "", config.to_yaml(run)))
    assert "wrappers" not in path.read_text() and config.from_file(path) == run


def test_a_preset_may_ask_for_wrappers(preset):
    ConfigStore.instance().store(group="experiment", name=preset, package="_global_", node={
        "env": {"wrappers": {"frame_stack": 3, "scale_reward": 2}, "time_limit": 9}})
    words = ["algo=ppo", "env=probe-both"]
    assert config.compose(words).env == config.EnvConfig("probe-both", 9, wrappers={"frame_stack": 3,
                                                                                   "scale_reward": 2.0})
    assert config.compose([*words, "env.wrappers.frame_stack=1"]).env.wrappers == {"scale_reward": 2.0}


@pytest.mark.parametrize("words, text", [
    (("env.wrappers.frame_stak=4",), 'unknown key "env.wrappers.frame_stak" for cartpole. Did you mean: '
     "env.wrappers.frame_stack (default 1, number of observations stacked along the last axis, the newest last)?"),
    (("env.wrappers.zzzz=4",), 'unknown key "env.wrappers.zzzz" for cartpole. There are: rescale_action, '
     "sticky_actions, action_repeat, scale_reward, clip_reward, one_hot, flatten, frame_stack   (jaxrl list wrappers)"),
    (("frame_stack=4",), 'unknown key "frame_stack". Did you mean: '
     "env.wrappers.frame_stack (default 1, number of observations stacked along the last axis, the newest last)?"),
    (("env.wrappers=4",), "env.wrappers holds settings, it is none itself. They are written env.wrappers.NAME=value   "
                          "(jaxrl list cartpole)"),
    (("env.wrappers.frame_stack=1.5",), "env.wrappers.frame_stack=1.5 is not a whole number"),
    (("env.wrappers.flatten=1",), "env.wrappers.flatten=1 is not true or false"),
    (("env.wrappers.sticky_actions=2",), "env.wrappers.sticky_actions=2 is out of range: 0 <= sticky_actions <= 1 "
                                         "(probability that the last action is executed again)"),
    (("env.wrappers.clip_reward=1",), "env.wrappers.clip_reward=1 is not two numbers, such as [0.4,0.6]"),
    (("env.wrappers.clip_reward=[1,-1]",), "env.wrappers.clip_reward=[1,-1] is the wrong way round: [low,high]"),
    (("env.wrappers.rescale_action=true",), "cartpole cannot be made with env.wrappers.rescale_action=true: "
     "RescaleAction needs a bounded Box of real actions; CartPole has Discrete(2)"),
    (("env.randomize.lenght=[1,2]",), 'unknown key "env.randomize.lenght" for cartpole. Did you mean: '
     "env.randomize.length (default null, [low,high] to draw from at every reset, in place of 0.5)?"),
    (("env.randomize.length=[2,1]",), "env.randomize.length=[2,1] is the wrong way round: [low,high]"),
    (("env.randomize.length=[1]",), "env.randomize.length=[1] is not two numbers, such as [0.4,0.6]"),
    (("env.randomize.length=[a,b]",), "env.randomize.length=[a,b] is not two numbers, such as [0.4,0.6]"),
    (("env.curriculum.length=[0,1e400]",), "env.curriculum.length=[0,1e400] is not a finite number"),
    (("env.curriculum.length=3",), "env.curriculum.length=3 is not two numbers, such as [0.4,0.6]"),
    (("env.randomize.length=[1,2]", "env.curriculum.length=[1,2]"),
     "env.randomize.length and env.curriculum.length exclude each other: length is drawn at every reset, or follows "
     "the training. Leave one of them out"),
    (("env.params.length=1", "env.curriculum.length=[1,2]"),
     "env.params.length=1 has no effect beside env.curriculum.length. Leave one of them out"),
    (("algo=ppo", "env=pendulum", "preset=none", "env.randomize.max_torque=[1,2]"), "env.randomize.max_torque: "
     "max_torque is not a number that may change while the program of pendulum runs. These are: g, m, l, dt"),
    (("algo=ppo", "env=probe-both", "preset=none", "env.curriculum.speed=[1,2]"),
     'unknown key "env.curriculum.speed" for probe-both. It has: no parameters'),
])
def test_error_texts_of_wrappers(words, text):
    assert problems(*words) == [text]


def test_the_ends_of_a_wrapper_s_range_can_be_made():
    """What the table of wrappers declares is what their constructors take."""
    for name, option in registry.wrappers().items():
        for end in (option.low, option.high):
            if end is not None:
                run = config.compose([*BASE, f"env.wrappers.{name}={end}"])
                assert run.env.wrappers == ({} if end == option.default else {name: end})


def test_a_curriculum_leaves_the_actions_alone(monkeypatch):
    monkeypatch.setitem(registry.environments(), "strong", f"{__name__}:Strong")
    strong = {"algo": {"name": "ppo"}, "env": {"name": "strong"}}
    assert config.reading.read(strong | {"env.curriculum.push": (0, 1)}).env.curriculum == {"push": (0.0, 1.0)}
    with pytest.raises(UserError, match=r"env\.curriculum\.most changes the actions of strong, which stay the same"):
        config.reading.read(strong | {"env.curriculum.most": (1, 2), "env.wrappers.rescale_action": True})


class Strength(NamedTuple):
    most: float = 2.0
    push: float = 1.0


class Strong(Pendulum):
    """The bound of the actions is a parameter."""

    default_params = Strength()

    def action_space(self, params):
        return Box(-params.most, params.most, (1,))


# --- what is wrong with it: the texts of the contract


@pytest.mark.parametrize("words, text", [
    (("algo=pp0", "env=cartpole"), 'unknown algo "pp0". Did you mean: ppo?   (jaxrl list algos)'),
    (("algo=PPO", "env=cartpole"), 'unknown algo "PPO". Did you mean: ppo?   (jaxrl list algos)'),
    (("algo=ppo", "env=CartPol"), 'unknown env "CartPol". Did you mean: cartpole?   (jaxrl list envs)'),
    (("algo.learning_rte=1",), 'unknown key "algo.learning_rte" for ppo. '
                               "Did you mean: algo.learning_rate (default 2.5e-4, optimiser's step size)?"),
    (("learning_rate=1",), 'unknown key "learning_rate". '
                           "Did you mean: algo.learning_rate (default 2.5e-4, optimiser's step size)?"),
    (("sead=1",), 'unknown key "sead". Did you mean: seed (default 0, random seed)?'),
    (("qqqqqq=1",), 'unknown key "qqqqqq".   (jaxrl train --help)'),
    (("algo.qqqqqq=1",), 'unknown key "algo.qqqqqq" for ppo.   (jaxrl list ppo)'),
    (("env.params.lenth=1",), 'unknown key "env.params.lenth" for cartpole. '
                              'Did you mean: env.params.length (default 0.5)?'),
    (("env.params.length=x",), 'env.params.length="x" is not a number'),
    (("algo.gamma=1.3",), "algo.gamma=1.3 is out of range: 0 <= gamma <= 1 (discount factor)"),
    (("algo.num_envs=0",), "algo.num_envs=0 is out of range: 1 <= num_envs <= 10000000 (parallel environments B)"),
    (("algo.learning_rate=fast",), 'algo.learning_rate="fast" is not a number'),
    (("algo.learning_rate=null",), "algo.learning_rate=null is not a number"),
    (("seed=1.5",), "seed=1.5 is not a whole number"),
    (("total_steps=1e400",), "total_steps=1e400 is not a finite number"),
    (("quiet=3",), "quiet=3 is not true or false"),
    (("device=gpuu",), 'device="gpuu" is not one of: auto, cpu, gpu. Did you mean: gpu?'),
    (("algo.network.hidden=64",), "algo.network.hidden=64 is not a list, such as [64,64]"),
    (("algo.network.hidden=[64,0]",), "algo.network.hidden=[64,0] is out of range: 1 <= hidden <= 100000 "
                                      "(sizes of the dense layers)"),
    (("preset=foo",), 'unknown preset "foo".   (jaxrl list experiments)'),
    (("algo.learning_rate=1e-4,3e-4",), "algo.learning_rate=1e-4,3e-4 names several values, this command takes one. "
                                        "To try each: jaxrl sweep (a list is written [1e-4,3e-4])"),
    (("seed=range(1,3)",), "seed=range(1,3) names several values, this command takes one. "
                           "To try each: jaxrl sweep (a list is written [range(1,3)])"),
    (("--seed",), '"--seed" is not understood. Settings are written without dashes: seed=...'),
    (("~seed",), '"~seed": a setting cannot be deleted. Leave it out, or give another value'),
    (("foo",), '"foo" is not a setting. Settings are written key=value, such as algo=ppo env=cartpole'),
    (("init_from=${oc.env:HOME}",), 'init_from="${oc.env:HOME}" holds an interpolation; write the value itself'),
    (("algo.num_envs=64", "algo.rollout_length=100", "algo.minibatches=48"),
     "num_envs x rollout_length = 64 x 100 = 6,400 does not divide into 48 minibatches. Nearest: 40, 50"),
])
def test_error_texts(words, text):
    assert problems(*words) == [text]


def test_missing_names():
    with pytest.raises(UserError) as caught:
        config.compose([])
    algo, env = (problem.message for problem in caught.value.problems)
    assert algo.startswith("algo= is missing. There are: ") and "ppo" in algo and algo.endswith("(jaxrl list algos)")
    assert env.startswith("env= is missing. There are: cartpole, pendulum") and env.endswith("(jaxrl list envs)")


def test_all_mistakes_at_once():
    found = problems("algo=ppo", "env=cartpol", "sead=1", "algo.gamma=2", "algo.lamm=1", "num_seeds=0", "foo",
                     "env.params.length=1")
    assert len(found) == 6 and all(any(word in text for text in found)
                                   for word in ("cartpol", "sead", "algo.gamma", "algo.lamm", "num_seeds", "foo"))


def test_what_does_not_fit_whatever_the_settings_is_said_beside_other_mistakes(monkeypatch):
    monkeypatch.setattr(registry.algorithm("ppo").config, "problems",
                        lambda self, spec: [f"{{algo}} needs Box actions, {{env}} has {spec.action}"])
    assert problems("algo.gamma=2") == ["algo.gamma=2 is out of range: 0 <= gamma <= 1 (discount factor)",
                                        "ppo needs Box actions, cartpole has Discrete(2)"]


# --- fuzz over the declarations


KEYS = declared("ppo")


def wrong_values():
    for key, d in KEYS.items():
        kind, optional = strip_optional(d.type)
        listed = getattr(kind, "__origin__", None) is tuple
        as_word = (lambda x: f"[{short(x)}]") if listed else short
        if kind is not str or d.choices:
            yield key, f"{key}=wrong_type"
        if kind in (int, float):
            yield key, f"{key}=1e400"
        if d.low is not None:
            yield key, f"{key}={as_word(d.low - 1)}"
        if d.high is not None:
            yield key, f"{key}={d.high + 1:.0f}" if kind is int else f"{key}={as_word(d.high * 2 + 1)}"
        if not optional and key not in ("preset", "env.time_limit"):
            yield key, f"{key}=null"
        yield key, f"{key}=[[1]]"
        yield key, f"{key}={{a: 1}}"
        yield key, f"{key[:-1] + 'zz' if key.count('.') else key + 'zz'}=1"


@pytest.mark.parametrize("key, word", [pytest.param(*case, id=case[1]) for case in wrong_values()])
def test_a_wrong_value_is_named(key, word):
    found = problems(word)
    assert len(found) == 1 and word.partition("=")[0] in found[0]


def test_the_ends_of_the_ranges_are_allowed():
    for key, d in KEYS.items():
        for end in (d.low, d.high):
            if end is not None and key not in ("algo.minibatches", "algo.num_envs", "algo.rollout_length"):
                config.compose([*BASE, f"{key}={f'[{end}]' if isinstance(d.default, tuple) else f'{end:.15g}'}"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(KEYS)), st.text(max_size=12))
def test_any_text_is_a_value_or_a_user_error(key, text):
    try:
        run = config.compose([*BASE, f"{key}={text}"])
        assert config.to_plain(run)
    except UserError as error:
        assert str(error)


# --- YAML


TOGETHER = ("num_envs", "rollout_length")        # their product has a limit, too


def value_of(d):
    """Values that `d` allows."""
    kind, optional = strip_optional(d.type)
    if d.choices:
        values = st.sampled_from(d.choices)
    elif kind is bool:
        values = st.booleans()
    elif kind is int:
        values = st.integers(d.low, 10**4 if d.name in TOGETHER else d.high or 10**12)
    elif kind is float:
        values = st.floats(d.low, d.high, allow_nan=False, allow_infinity=False)
    elif kind is str:
        values = st.text(st.characters(exclude_characters="$", exclude_categories=["Cs", "Cc"]), max_size=9)
    else:
        values = st.lists(st.integers(1, 99), min_size=1, max_size=3)
    return st.none() | values if optional else values


FREE = {key: d for key, d in KEYS.items() if key not in ("preset", "algo.minibatches", "out", "env.time_limit",
                                                         "algo.network.torso")}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=st.fixed_dictionaries({}, optional={key: value_of(d) for key, d in FREE.items()}))
def test_yaml_identity(values, tmp_path_factory):
    names = {"algo": "ppo", "env": "cartpole", "preset": "none", "algo.minibatches": 1, "env.params.length": 2,
             "env.wrappers.clip_reward": [-1, 1], "env.randomize.gravity": [9, 10], "env.curriculum.tau": [0.1, 0.2]}
    run = config.from_values({**names, **values})
    path = tmp_path_factory.mktemp("yaml") / "config.yaml"
    text = config.to_yaml(run)
    path.write_text(text)
    again = config.from_file(path)
    assert again == run and config.to_yaml(again) == text


def test_stored_file_and_overrides(tmp_path):
    path = tmp_path / "config.yaml"
    run = config.compose([*BASE, "total_steps=1000", "algo.gamma=0.5", "out=elsewhere"])
    assert run.settings.out == "elsewhere"
    path.write_text(config.to_yaml(run.with_settings(schedule_steps=1000, checkpoint_every=500)))
    again = config.compose([f"config={path}", "seed=4"])
    assert (again.settings.seed, again.settings.checkpoint_every, again.agent.gamma) == (4, 500, 0.5)
    assert again.settings.out is None, "a repeated run goes to a folder of its own"
    assert again.settings.schedule_steps == 1000
    assert config.compose([f"config={path}", "total_steps=2000"]).settings.schedule_steps is None
    assert config.from_file(path, ["total_steps=2000"]).settings.schedule_steps == 1000, "extended: schedules stay"
    assert config.compose([f"config={path}", "env=pendulum"]).env.time_limit == 200
    rows = {row.key: row.origin for row in config.origins_of_file(path, "jaxrl train algo=ppo total_steps=1000")}
    assert (rows["total_steps"], rows["algo.gamma"], rows["algo.lam"]) == ("override", "preset", "default")


def test_a_file_by_hand_may_be_short(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("algo: ppo\nenv: {name: cartpole, params: {length: 1}}\ntotal_steps: 2e4\n")
    run = config.compose([f"config={path}"])
    assert run.settings.total_steps == 20_000 and run.env.params == {"length": 1.0} and run.env.time_limit == 500


NAMES = "algo: {name: ppo}\nenv: {name: cartpole}\n"


@pytest.mark.parametrize("text, error", [
    (NAMES + "seed: !!python/object/apply:os.system ['touch pwned']\n", "not a config"),
    ("!!python/object/apply:os.system ['touch pwned']\n", "not a config"),
    (NAMES + "seed: ${oc.env:HOME}\n", 'seed="${oc.env:HOME}" holds an interpolation'),
    ("algo: {name: ppo, _target_: os.system}\nenv: {name: cartpole}\n", 'unknown key "algo._target_" for ppo'),
    ("algo: {name: os.system}\nenv: {name: 'os:system'}\n", 'unknown algo "os.system"'),
    ("algo: [1\n", "not a config"), ("- 1\n", "not a config"), ("", "algo= is missing"), ("3\n", "not a config"),
    ("algo: {name: [1]}\nenv: {name: cartpole}\n", "unknown algo"), ("algo: {name: ppo}\nenv: 3\n", "unknown env"),
    ("algo: {name: ppo, gamma: 7}\nenv: {name: cartpole}\nsead: 1\n", "algo.gamma=7 is out of range"),
])
def test_bad_files(text, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=re.escape(error)):
        config.compose(["config=c.yaml"])
    assert not (tmp_path / "pwned").exists()


def test_a_file_that_is_not_there_and_one_that_does_not_fit(tmp_path):
    assert problems("config=nowhere/c.yaml") == ["config=nowhere/c.yaml cannot be read: No such file or directory"]
    path = tmp_path / "c.yaml"
    path.write_text(config.to_yaml(config.compose(BASE)))
    assert problems(f"config={path}", "preset=none") == [
        "preset=none has no effect beside config=: a stored config holds every value"]


def test_peek_gives_the_settings_and_forgives_the_rest(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("device: cpu\nnum_devices: 2\n")
    assert config.peek(["algo=nonsense", "device=cpu", "seed=x"]) == config.Settings(device="cpu")
    assert config.peek([f"config={path}", "num_devices=1"]) == config.Settings(device="cpu", num_devices=1)
    assert config.peek(["config=nowhere", "foo"]) == config.Settings()


def test_dictconfig_of_a_script(preset):
    import hydra

    with hydra.initialize_config_module("jaxrl_configs", version_base=None):
        made = hydra.compose("config", ["algo=ppo", "env=probe-both", "total_steps=8e3", "algo.lam=0.5"])
        assert config.from_dictconfig(made).agent.gamma == 0.5
        run = config.from_dictconfig(made)
        assert run.settings.total_steps == 8000 and run.agent.lam == 0.5
        with pytest.raises(UserError, match=r"algo\.lam=7 is out of range"):
            config.from_dictconfig(hydra.compose("config", ["algo=ppo", "env=cartpole", "algo.lam=7"]))
        assert jaxrl.compose(BASE).algo == "ppo", "composing inside a Hydra script"
        made = hydra.compose("config", [*BASE, "env.params.length=1", "env.wrappers.frame_stack=2",
                                        "env.randomize.gravity=[9,10]", "env.curriculum.tau=[0.01,0.02]"])
        assert config.from_dictconfig(made).env == config.EnvConfig(
            "cartpole", 500, {"length": 1.0}, {"frame_stack": 2}, {"gravity": (9.0, 10.0)}, {"tau": (0.01, 0.02)})


def test_config_is_frozen_and_replaced():
    run = config.compose(BASE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.algo = "dqn"
    assert run.with_settings(seed=3).settings.seed == 3


@pytest.mark.parametrize("action, names", [
    (Discrete(3), "sac, dqn, ppo, a2c"), (Box(-1.0, 1.0, (2,)), "sac, td3, ddpg, ppo"),
    (Box(-np.inf, np.inf, (2,)), "ppo, a2c, pg"), (MultiDiscrete((3, 2)), "ppo, a2c, pg")])
def test_algorithms_that_are_named_instead_fit(action, names):
    spec = EnvSpec(observation=Box(-1.0, 1.0, (4,)), action=action, masked=False, state=None, agents=None,
                   max_steps=100)
    assert _fitting("qrdqn", spec) == names
    first = names.split(", ")[0]
    assert first not in _fitting(first, spec)
