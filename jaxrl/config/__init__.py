"""Composition of a checked `RunConfig` from the words of a user, and its YAML.

Hydra composes defaults and preset (schemas.py registers the groups); the user's overrides are laid
on top. Every value then goes through `read`, which reports all mistakes at once. Names in a config
are looked up in the tables of jaxrl/registry.py and never imported or called by other means.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.config.check import check
from jaxrl.config.overrides import Item, parse
from jaxrl.config.reading import declared, declared_of_env, flatten, read
from jaxrl.config.schedule import reader
from jaxrl.config.settings import SETTINGS, EnvConfig, RunConfig, Settings
from jaxrl.errors import Problem, UserError
from jaxrl.registry import algorithms, environments, unknown

__all__ = [
    "EnvConfig", "Origin", "RunConfig", "Settings", "compose", "dump_yaml", "flatten",
    "from_dictconfig", "from_file", "from_items", "from_values", "load_yaml", "origins",
    "origins_of_file", "peek", "to_plain", "to_yaml"]

MAX_BYTES = 1 << 20      # of a config file


def compose(overrides: Iterable[str] = ()) -> RunConfig:
    """Return the config of `key=value` words: compose(["algo=ppo", "env=cartpole", "seed=3"]).

    `config=FILE` takes a stored config in place of defaults and preset. Raises UserError with
    everything that is wrong.
    """
    return _from_items(*parse(overrides))


def from_values(values: Mapping[str, Any]) -> RunConfig:
    """Return the config of Python values: {"algo": "ppo", "env": "cartpole", "algo.gamma": 0.9}.

    Dicts may be nested. Raises UserError as `compose` does.
    """
    return _from_items([Item(key, value) for key, value in flatten(values).items()], [])


def from_items(items: Iterable[Item], problems: Iterable[Problem] = ()) -> RunConfig:
    """Return the config of parsed words. `problems` are reported together with new ones."""
    return _from_items(list(items), list(problems))


def from_file(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Return a stored config with `overrides` on top.

    No preset is applied: a stored config holds every value.
    """
    items, problems = parse(overrides)
    return _from_items([Item("config", str(path)), *items], problems, extend=True)


def from_dictconfig(config: Any) -> RunConfig:
    """Return the config that a user's own `@hydra.main` script composed."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from jaxrl.config import schemas

    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from error
    plain.pop("hydra", None)
    plain["preset"] = schemas.preset_of_script(plain.get("preset", "auto"))
    return read(plain)


def peek(overrides: Iterable[str]) -> Settings:
    """Return the settings alone, with defaults in place of wrong values.

    Commands need them before JAX starts.
    """
    items, _ = parse(overrides)
    files = [item.value for item in items if item.key == "config"]
    plain: dict[str, Any] = {}
    if files:
        with contextlib.suppress(UserError):
            plain = load_yaml(files[-1])
    plain.update({item.key: item.value for item in items})
    known = {key: check(SETTINGS[key], key, plain[key])[0] for key in SETTINGS if key in plain}
    return Settings(**known)


def _from_items(items: list[Item], problems: list[Problem], extend: bool = False) -> RunConfig:
    values = {item.key: item for item in items}
    if "config" in values:
        base = _base_of_file(values, problems, extend)
    elif "schedule" in values and not {"algo", "env", "algo.name", "env.name"} & set(values):
        base = _base_of_schedule(values, problems)
    else:
        base = _base(values, problems)
    texts = {}
    for key, item in values.items():
        if key not in ("config", "algo", "env", "preset"):
            _put(base, key, item.value)
            texts[key] = item.text
    return read(base, problems, texts)


def _value_of(values: Mapping[str, Item], *keys: str) -> Any:
    """Return the value of the first of `keys` that is given, None if none is."""
    return next((values[key].value for key in keys if key in values), None)


def _is_in(table: Mapping[str, str], name: Any) -> bool:
    return isinstance(name, str) and name in table


def _base(values: Mapping[str, Item], problems: list[Problem]) -> dict[str, Any]:
    """Return defaults and preset of the algorithm and environment that `values` name."""
    from jaxrl.config import schemas

    algo = _value_of(values, "algo", "algo.name")
    env = _value_of(values, "env", "env.name")
    if not (_is_in(algorithms(), algo) and _is_in(environments(), env)):
        return {"algo": {"name": algo}, "env": {"name": env}}
    preset = _value_of(values, "preset") if "preset" in values else "auto"
    if preset not in ("auto", "none") and preset not in schemas.presets():
        problems.append(
            unknown("preset", str(preset), schemas.presets(), "jaxrl list experiments"))
        preset = "none"
    return schemas.compose(algo, env, preset)


def _name_in(base: Mapping[str, Any], key: str) -> Any:
    """Return base[key]["name"], None if a stored config holds no such thing."""
    section = base.get(key)
    return section.get("name") if isinstance(section, dict) else None


def _base_of_file(values: dict[str, Item], problems: list[Problem], extend: bool
                  ) -> dict[str, Any]:
    path = values["config"].value
    base = load_yaml(path)
    for key in ("algo", "env"):
        if isinstance(base.get(key), str):
            base[key] = {"name": base[key]}
    if "preset" in values:
        problems.append(Problem(f"preset={values['preset'].value} has no effect beside config=: "
                                "a stored config holds every value"))
    stored = _name_in(base, "algo")
    if "algo" in values and values["algo"].value != stored:
        problems.append(Problem(f"algo={values['algo'].value} does not fit config={path}, "
                                f"which is for {stored}. Leave one of them out"))
    if "env" in values and values["env"].value != _name_in(base, "env"):
        base["env"] = {"name": values["env"].value}
    if "total_steps" in values and "schedule_steps" not in values and not extend:
        base["schedule_steps"] = None     # a new run of another length has its own schedules
    return base


def _base_of_schedule(values: dict[str, Item], problems: list[Problem]) -> dict[str, Any]:
    """Return the config of the run whose schedule is followed, without its population keys."""
    file = Item("config", str(reader().config_file(str(values["schedule"].value))))
    base = _base_of_file({**values, "config": file}, problems, extend=False)
    kept = ("algo", "env", "preset", "total_steps", "schedule_steps")
    return {key: base[key] for key in kept if key in base}


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file as plain dicts.

    OmegaConf's safe loader refuses tags that name Python objects. Raises UserError if the file
    cannot be read or is not a config.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with open(path, encoding="utf-8") as file:
            plain: Any = OmegaConf.to_container(OmegaConf.load(io.StringIO(file.read(MAX_BYTES))))
    except OSError as error:
        if error.errno is None:      # OmegaConf raises this for a file that holds a number
            raise UserError(f"config={path} is not a config: the file has no keys") from error
        raise UserError(f"config={path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise UserError(f"config={path} is not a config: {text}") from error
    if not isinstance(plain, dict):
        raise UserError(f"config={path} is not a config: the file has no keys")
    return plain


def to_plain(config: RunConfig) -> dict[str, Any]:
    """Return the config as nested dicts of plain values, as it is stored.

    `out` is None in the result, because a run may be moved or repeated.
    """
    return {
        "algo": {"name": config.algo, **_listed(dataclasses.asdict(config.agent))},
        "env": _listed(vars(config.env)),
        **dataclasses.asdict(config.settings), "out": None,
        "schedule": config.schedule and config.schedule.to_plain(),
    }


def to_yaml(config: RunConfig) -> str:
    """Return the config as YAML with every value, from which `from_file` reads an equal config."""
    return dump_yaml(to_plain(config))


def dump_yaml(plain: Mapping[str, Any]) -> str:
    """Return plain values as YAML that `load_yaml` reads back."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """A dumper that quotes text which begins like a number.

        OmegaConf reads more texts as numbers than YAML 1.1 does, such as 1e5.
        """

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
        style = "'" if text.startswith(tuple("+-.0123456789")) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    return yaml.dump(plain, Dumper=Dumper, sort_keys=False, default_flow_style=None, width=120)


def _listed(x: Any) -> Any:
    """Return `x` with lists in place of tuples."""
    if isinstance(x, Mapping):
        return {key: _listed(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_listed(item) for item in x]
    return x


class Origin(NamedTuple):
    """A value of a config, where it comes from, and the help text of its key."""

    key: str
    value: Any
    origin: str        # "default", "preset", "override", or "file": a value from config=FILE
    help: str


def origins(overrides: Iterable[str]) -> list[Origin]:
    """Return every value of a config with its origin."""
    overrides = list(overrides)
    config = compose(overrides)
    given = {item.key for item in parse(overrides)[0]}
    other = "file" if "config" in given else "preset"
    names = {"algo": config.algo, "env": config.env.name, "preset": "none"}
    usual = flatten(to_plain(from_values(names)))
    known = {**declared(config.algo), **declared_of_env(config.env.name)}
    rows = []
    for key, value in flatten(to_plain(config) | {"out": config.settings.out}).items():
        name = key.removesuffix(".name") if key in ("algo.name", "env.name") else key
        scheduled = key.startswith("schedule.") and "schedule" in given
        if name in given or key in given or scheduled:
            origin = "override"
        elif name == "preset" or usual.get(key) == value:
            origin = "default"
        else:
            origin = other
        rows.append(Origin(name, value, origin, known[key].help if key in known else ""))
    return rows


def _put(plain: dict[str, Any], key: str, value: Any) -> None:
    """Set plain["a"]["b"] = value for key "a.b"."""
    *heads, last = key.split(".")
    for head in heads:
        if not isinstance(plain.get(head), dict):
            plain[head] = {}
        plain = plain[head]
    plain[last] = value


def origins_of_file(path: str | Path, command: str = "") -> list[Origin]:
    """Return the `origins` of a stored run.

    command: the command line that made the run, which tells overrides from the preset.
    """
    try:
        words = [word for word in shlex.split(command) if "=" in word]
    except ValueError:
        words = []
    given = {item.key for item in parse(words)[0]}
    rows = []
    for row in origins([f"config={path}"]):
        if row.key in given:
            row = row._replace(origin="override")
        elif row.origin == "file":
            row = row._replace(origin="preset")
        rows.append(row)
    return rows
