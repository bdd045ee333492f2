"""Any value for any declared setting: a config whose YAML reads back the same, or a UserError.

The texts of the error are single lines. No other exception is raised, and no file is opened but
those of the packages (`config=FILE`, which reads a file by design, is tested in
tests/config/test_yaml.py).
"""

from __future__ import annotations

import datetime
import decimal
import itertools
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl import config, registry
from jaxrl.config.check import check
from jaxrl.config.overrides import TEXT_KEYS
from jaxrl.config.reading import declared, declared_of_env
from jaxrl.errors import UserError

HUGE = 10**400
WORDS = [
    "", " ", "null", "true", "nan", "inf", "-inf", "-1", "0", "1", "3", "1e5", "1e400", "-0.0",
    "0x10", "1_0", "9" * 400, "9" * 5000, "'9'", '"1e5"', "yes", "2024-01-01", "=", "a=b", ":", "#",
    "-", "[]", "[1]", "[1,2]", "[2,1]", "[[1,2],3]", "[1,null]", "[nan,1]", "[" * 500, "{}",
    "{a:1}", "{a:{b:[1]}}", "[1", "${oc.env:HOME}", "${seed}", "$", "a,b", "1,2", "range(1,3)",
    "glob(*)", "sort(3,2)", "???", "~", "é", "\u0085", "\u2028", "\ud800", "\x00", "a\nb", "\t",
    "🙂" * 50, "/dev/null", "../../etc/passwd", "%s{}", "!!python/name:os.system", "*a", "&a 1",
    "\\", "'", '"',
]
VALUES = [
    None, True, False, 0, 1, 3, -1, 2**31, 2**63, HUGE, -HUGE, 0.5, -0.0, 1e308, 1e5, float("nan"),
    float("inf"), -float("inf"), "", "1e5", "1", "null", "a\nb", "\x00", "\ud800", "é", "${seed}",
    "???", "0x10", "1_0", "2024-01-01", "~", "=", "\u0085", b"1", [], [1], [1, 2], [2, 1],
    (0.1, 0.2), [[1, 2], [3]], [None], [HUGE, 1], [float("nan"), 0], {}, {"a": 1}, {"name": "x"},
    {1: 2}, {1, 2}, range(2), 1j, object, object(), np.float32(0.5), np.int64(3), np.bool_(True),
    np.array(2), np.array([1, 2]), np.zeros((3, 3)), np.array("x"), np.float64("nan"),
    np.datetime64("2024-01-01"), decimal.Decimal(1), datetime.date(2024, 1, 1), Path("a"),
    SimpleNamespace(a=1),
]

ENVS = [
    "cartpole", "pendulum", "repeat-previous", "probe-multidiscrete", "masked-bandit", "frozenlake",
    "gymnax/CartPole-v1",
]
PAIRS = [("ppo", env) for env in ENVS] + [
    (algo, "pendulum" if algo in ("ddpg", "td3") else "probe-both")
    for algo in registry.algorithms()
]


def keys_of(algo: str, env: str) -> list[str]:
    return [*declared(algo), *declared_of_env(env)]


def owner_of(algo: str, env: str, key: str) -> str:
    if key.startswith("algo."):
        return algo
    return env if key.startswith("env.params.") else ""


def new_keys(pairs: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Return (algorithm, environment, key), each key of an algorithm or an environment once."""
    seen = set()
    found = []
    for algo, env in pairs:
        for key in keys_of(algo, env):
            owner = owner_of(algo, env, key)
            if (owner, key) not in seen:
                seen.add((owner, key))
                found.append((algo, env, key))
    return found


KEYS = new_keys(PAIRS)


def compilation_cache() -> Path:
    """JAX's cache, which a slow compilation reads and writes."""
    return Path(jax.config.jax_compilation_cache_dir or sys.prefix).resolve()


class Watch:
    """A record of the files that are opened and the programs that are started outside packages."""

    on = False
    seen: ClassVar[list[tuple[str, Any]]] = []
    homes = (str(Path(__file__).parents[2]), sys.prefix, sys.base_prefix, str(compilation_cache()))

    @classmethod
    def hook(cls, event, args):
        if cls.on and event in (
            "open", "os.system", "subprocess.Popen", "os.listdir", "os.remove", "os.mkdir",
        ):
            path = args[0] if args else ""
            if isinstance(path, str | bytes | os.PathLike) and not os.path.realpath(
                os.fsdecode(path)
            ).startswith(cls.homes):
                cls.seen.append((event, path))


sys.addaudithook(Watch.hook)


def one_line(text: str) -> bool:
    return isinstance(text, str) and bool(text.strip()) and len(text.splitlines()) == 1


def composed(make) -> config.RunConfig | None:
    """Return what `make` returns, or None for a UserError whose texts are single lines."""
    Watch.on = True
    Watch.seen = []
    try:
        made = make()
    except UserError as error:
        assert error.problems and all(
            map(one_line, filter(None, itertools.chain(*error.problems)))
        ), error.problems
        return None
    finally:
        Watch.on = False
        assert not Watch.seen, Watch.seen
    return made


def check_round_trip(made, path):
    path.write_text(config.to_yaml(made), encoding="utf-8")
    again = config.from_file(path)
    assert again == made.with_settings(out=None), again
    assert hash(made.make_env()[0]) == hash(again.make_env()[0])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "config.yaml"


def values_of(key: str) -> list[Any]:
    """Return values for `key`: VALUES from Python, and the values that WORDS parse to."""
    items, _ = config.parse(f"{key}={word}" for word in WORDS)
    return [*VALUES, 10**5000, *(item.value for item in items)]


def accepted(declaration, key: str, values: list[Any]) -> list[Any]:
    """Return the `values` that the declaration allows, one for each converted value."""
    taken = {}
    for value in values:
        try:
            converted, problem = check(declaration, key, value)
        except Exception as error:
            raise AssertionError(f"{key}={value!r}: {type(error).__name__}: {error}") from error
        if problem is None:
            taken[repr(converted)] = value
    return list(taken.values())


@pytest.mark.parametrize("algo, env", PAIRS)
def test_every_setting_takes_or_refuses_every_value(algo, env, path):
    """Values that fit their declarations make a config, several at a time or else one by one."""
    known = {**declared(algo), **declared_of_env(env)}
    base = {"algo": algo, "env": env, "preset": "none"}
    names = values_of("out")       # names and paths stay as they are typed
    others = values_of("seed")
    failures = []

    def compose(values):
        made = composed(lambda: config.from_values(base | values))
        if made is not None:
            check_round_trip(made, path)
        return made is not None

    for section, keys in sections([key for *owner, key in KEYS if owner == [algo, env]]).items():
        taken = [
            [
                (key, value)
                for value in accepted(known[key], key, names if key in TEXT_KEYS else others)
            ]
            for key in keys
        ]
        for row in itertools.zip_longest(*taken):
            row = dict(filter(None, row))
            try:
                if not compose(row):
                    for key, value in row.items():
                        compose({key: value})
            except Exception as error:
                failures.append(f"{section}: {row}: {type(error).__name__}: {error}"[:600])
    assert not failures, "\n".join([f"{len(failures)} failures", *failures])


def sections(keys: list[str]) -> dict[str, list[str]]:
    """Return the keys by the part before their last dot."""
    return {head: list(group) for head, group in itertools.groupby(
        sorted(keys, key=lambda key: key.rpartition(".")[0]), lambda key: key.rpartition(".")[0])}


ANY_KEY = st.sampled_from(sorted({key for *_, key in KEYS} - {"config"})) | st.text(max_size=8)
ANY_TEXT = st.recursive(
    st.sampled_from(WORDS) | st.text(max_size=12) | st.floats().map(str) | st.integers().map(str),
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]"),
    max_leaves=4,
)
ANY_VALUE = st.recursive(
    st.sampled_from(VALUES) | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)
FUZZ = settings(max_examples=150)


def test_the_watch_sees(tmp_path):
    (tmp_path / "secret").touch()
    with pytest.raises(AssertionError, match="secret"):
        composed(lambda: (tmp_path / "secret").read_text())


@FUZZ
@given(
    pair=st.sampled_from(PAIRS),
    overrides=st.lists(st.tuples(ANY_KEY, ANY_TEXT), min_size=1, max_size=3),
)
def test_any_words(path, pair, overrides):
    words = [
        f"algo={pair[0]}", f"env={pair[1]}", "preset=none",
        *(f"{key}={text}" for key, text in overrides),
    ]
    if any(word.partition("=")[0].strip().lstrip("+") == "config" for word in words):
        return
    assert isinstance(config.peek(words), config.Settings)
    made = composed(lambda: config.compose(words))
    if made is not None:
        check_round_trip(made, path)


@FUZZ
@given(
    pair=st.sampled_from(PAIRS), values=st.dictionaries(ANY_KEY, ANY_VALUE, min_size=1, max_size=3)
)
def test_any_python_values(path, pair, values):
    values = {"algo": pair[0], "env": pair[1], "preset": "none", **values}
    values.pop("config", None)
    made = composed(lambda: config.from_values(values))
    if made is not None:
        check_round_trip(made, path)


@FUZZ
@given(word=st.text(max_size=20) | st.text(alphabet="+~-=.[]{}$'\"\\, algo1", max_size=20))
def test_any_word(word):
    if not word.strip().lstrip("+").startswith("config"):
        assert isinstance(config.peek([word]), config.Settings)
        composed(lambda: config.compose(["algo=ppo", "env=cartpole", word]))
