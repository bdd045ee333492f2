"""YAML of configs: written and read back, and files of every kind."""

from __future__ import annotations

import math
import re
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl import config, registry
from jaxrl.config.check import strip_optional
from jaxrl.config.reading import CURRICULUM, PARAMS, RANDOMIZE, declared, declared_of_env
from jaxrl.declare import Declaration
from jaxrl.errors import UserError
from tests.config.helpers import BASE, problems

KEYS = declared("ppo")


@settings(max_examples=60)
@given(st.sampled_from(sorted(KEYS)), st.text(max_size=12))
def test_any_text_is_a_value_or_a_user_error(key, text):
    try:
        run = config.compose([*BASE, f"{key}={text}"])
        assert config.to_plain(run)
    except UserError as error:
        assert str(error)


# ---------------------------------------------------------------- any config that is allowed


def value_of(d: Declaration) -> st.SearchStrategy:
    """Return the values that `d` allows."""
    kind, optional = strip_optional(d.type)
    if d.choices:
        values = st.sampled_from(d.choices)
    elif kind is bool:
        values = st.booleans()
    elif kind is int:
        values = st.integers(d.low, d.high or 10**12)
    elif kind is float:
        values = st.floats(d.low, d.high, allow_nan=False, allow_infinity=False)
    elif kind is str:
        values = st.text(TEXT, max_size=9)
    elif typing.get_args(kind)[-1] is Ellipsis:
        values = st.lists(st.integers(1, 99), min_size=1, max_size=3)
    else:
        values = pairs(typing.get_args(kind)[0])
    return st.none() | values if optional else values


def pairs(kind: type) -> st.SearchStrategy:
    """Return [low, high] with low < high, moderate numbers."""
    ends = st.integers(1, 99) if kind is int else st.floats(0.125, 8.0)
    return st.lists(ends, min_size=2, max_size=2, unique=True).map(sorted)


@st.composite
def sizes(draw) -> dict[str, Any]:
    """Return the sizes of an update: the minibatches divide its items, which an int32 can count."""
    num_envs = draw(st.integers(1, 10**4))
    rollout_length = draw(st.integers(1, 10**4))
    recurrent = draw(st.sampled_from(KEYS["algo.network.recurrent"].choices))
    items = num_envs if recurrent != "none" else num_envs * rollout_length
    minibatches = math.gcd(items, draw(st.integers(1, 10**6)))
    return {"algo.num_envs": num_envs, "algo.rollout_length": rollout_length,
            "algo.network.recurrent": recurrent, "algo.minibatches": minibatches}


@st.composite
def cluster(draw) -> dict[str, Any]:
    """Return `workers` and, only with workers, an `address`."""
    workers = draw(value_of(KEYS["workers"]))
    if workers == 0:
        return {"workers": 0}
    return {"workers": workers, "address": draw(value_of(KEYS["address"]))}


@st.composite
def clip(draw) -> dict[str, Any]:
    """Return `algo.clip` as a number or as a schedule, which exclude each other."""
    value = value_of(KEYS["algo.clip"])
    if draw(st.booleans()):
        return {"algo.clip": draw(value)}
    later = draw(st.lists(st.integers(1, 10**9), unique=True, max_size=3).map(sorted))
    steps = [0, *later]
    values = draw(st.lists(value, min_size=len(steps), max_size=len(steps)))
    return {"schedule": {"steps": steps, "clip": values}}


@st.composite
def changes_of_env(draw) -> dict[str, Any]:
    """Return changes of CartPole: each number is set, randomized or in a curriculum, never two."""
    values = {}
    for name in registry.environment_numbers("cartpole"):
        part = draw(st.sampled_from(["", PARAMS, RANDOMIZE, CURRICULUM]))
        if part == PARAMS:
            values[part + name] = draw(st.floats(0.125, 8.0))
        elif part:
            values[part + name] = draw(value_of(ENV[part + name]))
    for key in WRAPPERS_THAT_FIT:
        if draw(st.booleans()):
            values[key] = draw(value_of(ENV[key]))
    return values


TEXT = st.characters(exclude_characters="$", exclude_categories=["Cs", "Cc"])
ENV = declared_of_env("cartpole")
WRAPPERS_THAT_FIT = [f"env.wrappers.{name}" for name in (       # the others need other spaces
    "sticky_actions", "action_repeat", "scale_reward", "clip_reward", "flatten", "frame_stack")]
TIED = {
    "algo.num_envs", "algo.rollout_length", "algo.network.recurrent", "algo.minibatches",
    "workers", "address", "algo.clip"}
FIXED = {"preset": "none", "algo.network.torso": "mlp"}      # other torsos need images
FREE = {key: value_of(d) for key, d in KEYS.items() if key not in {*TIED, *FIXED}}


@st.composite
def allowed(draw) -> dict[str, Any]:
    """Return the values of a config that is allowed: settings that are tied are drawn together."""
    values = {"algo": "ppo", "env": "cartpole", **FIXED}
    values |= draw(st.fixed_dictionaries({}, optional=FREE))
    for part in (sizes(), cluster(), clip(), changes_of_env()):
        values |= draw(part)
    return values


@settings(max_examples=40)
@given(values=allowed())
def test_yaml_identity(values, tmp_path_factory):
    run = config.from_values(values)
    path = tmp_path_factory.mktemp("yaml") / "config.yaml"
    text = config.to_yaml(run)
    path.write_text(text)
    again = config.from_file(path)
    assert again == run.with_settings(out=None)
    assert config.to_yaml(again) == text


# ---------------------------------------------------------------- files


def test_stored_file_and_overrides(tmp_path):
    path = tmp_path / "config.yaml"
    run = config.compose([*BASE, "total_steps=1000", "algo.gamma=0.5", "out=elsewhere"])
    assert run.settings.out == "elsewhere"
    path.write_text(config.to_yaml(run.with_settings(schedule_steps=1000, checkpoint_every=500)))
    again = config.compose([f"config={path}", "seed=4"])
    assert (again.settings.seed, again.settings.checkpoint_every, again.agent.gamma) == (
        4, 500, 0.5,
    )
    assert again.settings.out is None, "a repeated run goes to a folder of its own"
    assert again.settings.schedule_steps == 1000
    assert config.compose([f"config={path}", "total_steps=2000"]).settings.schedule_steps is None
    assert config.from_file(path, ["total_steps=2000"]).settings.schedule_steps == 1000, (
        "extended: schedules stay"
    )
    assert config.compose([f"config={path}", "env=pendulum"]).env.time_limit == 200
    rows = {
        row.key: row.origin
        for row in config.origins_of_file(path, "jaxrl train algo=ppo total_steps=1000")
    }
    assert (rows["total_steps"], rows["algo.gamma"], rows["algo.lam"]) == (
        "override", "preset", "default",
    )


def test_a_file_by_hand_may_be_short(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("algo: ppo\nenv: {name: cartpole, params: {length: 1}}\ntotal_steps: 2e4\n")
    run = config.compose([f"config={path}"])
    assert (
        run.settings.total_steps == 20_000
        and run.env.params == {"length": 1.0}
        and run.env.time_limit == 500
    )


NAMES = "algo: {name: ppo}\nenv: {name: cartpole}\n"


@pytest.mark.parametrize(
    "text, error",
    [
        (NAMES + "seed: !!python/object/apply:os.system ['touch pwned']\n", "not a config"),
        ("!!python/object/apply:os.system ['touch pwned']\n", "not a config"),
        (NAMES + "seed: ${oc.env:HOME}\n", 'seed="${oc.env:HOME}" holds an interpolation'),
        (
            "algo: {name: ppo, _target_: os.system}\nenv: {name: cartpole}\n",
            'unknown key "algo._target_" for ppo',
        ),
        ("algo: {name: os.system}\nenv: {name: 'os:system'}\n", 'unknown algo "os.system"'),
        ("algo: [1\n", "not a config"), ("- 1\n", "not a config"), ("", "algo= is missing"),
        ("3\n", "not a config"), ("algo: {name: [1]}\nenv: {name: cartpole}\n", "unknown algo"),
        ("algo: {name: ppo}\nenv: 3\n", "unknown env"),
        (
            "algo: {name: ppo, gamma: 7}\nenv: {name: cartpole}\nsead: 1\n",
            "algo.gamma=7 is out of range",
        ),
    ],
)
def test_bad_files(text, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=re.escape(error)):
        config.compose(["config=c.yaml"])
    assert not (tmp_path / "pwned").exists()


def test_a_file_that_is_not_there_and_one_that_does_not_fit(tmp_path):
    assert problems("config=nowhere/c.yaml") == [
        "config=nowhere/c.yaml cannot be read: No such file or directory"
    ]
    path = tmp_path / "c.yaml"
    path.write_text(config.to_yaml(config.compose(BASE)))
    assert problems(f"config={path}", "preset=none") == [
        "preset=none has no effect beside config=: a stored config holds every value"]


