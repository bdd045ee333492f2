"""From the words of a user to a checked `RunConfig`, and back to YAML.

Hydra composes defaults and preset (schemas.py registers the groups); the user's overrides are laid on top. Every value
then goes through `read`, which reports all that is wrong at once. Nothing named in a config is imported or called other
than by the tables of jaxrl/registry.py.
"""

from __future__ import annotations

import dataclasses
import io
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

__all__ = ["EnvConfig", "Origin", "RunConfig", "Settings", "compose", "dump_yaml", "flatten", "from_dictconfig",
           "from_file", "from_items", "from_values", "load_yaml", "origins", "origins_of_file", "peek", "to_plain",
           "to_yaml"]

MAX_BYTES = 1 << 20      # of a config file


def compose(overrides: Iterable[str] = ()) -> RunConfig:
    """`compose(["algo=ppo", "env=cartpole", "algo.gamma=0.9"])`; `config=FILE` takes a stored config in place of
    defaults and preset."""
    return _from_items(*parse(overrides))


def from_values(values: Mapping[str, Any]) -> RunConfig:
    """`compose` for Python values: {"algo": "ppo", "env": "cartpole", "algo.gamma": 0.9}; dicts may be nested."""
    return _from_items([Item(key, value) for key, value in flatten(values).items()], [])


def from_items(items: Iterable[Item], problems: Iterable[Problem] = ()) -> RunConfig:
    """`compose` for words that are parsed already; `problems` are reported beside those that are found."""
    return _from_items(list(items), list(problems))


def from_file(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """A stored config with `overrides` on top. No preset is applied: a stored config holds every value."""
    items, problems = parse(overrides)
    return _from_items([Item("config", str(path)), *items], problems, extend=True)


def from_dictconfig(config: Any) -> RunConfig:
    """What a user's own `@hydra.main` script composed."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from jaxrl.config import schemas

    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from error
    plain.pop("hydra", None)
    plain["preset"] = schemas.preset_of_script(plain.get("preset", "auto"))
    return read(plain)


def peek(overrides: Iterable[str]) -> Settings:
    """The settings alone, wrong ones at their defaults: for what must happen before JAX starts."""
    items, _ = parse(overrides)
    files = [item.value for item in items if item.key == "config"]
    try:
        plain = load_yaml(files[-1]) if files else {}
    except UserError:
        plain = {}
    plain.update({item.key: item.value for item in items})
    return Settings(**{key: check(SETTINGS[key], key, plain[key])[0] for key in SETTINGS if key in plain})


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


def _base(values: Mapping[str, Item], problems: list[Problem]) -> dict:
    """Defaults and preset of the algorithm and environment named in `values`."""
    from jaxrl.config import schemas

    algo, env = ((values.get(key) or values.get(f"{key}.name") or Item(key, None)).value for key in ("algo", "env"))
    preset = values["preset"].value if "preset" in values else "auto"
    if not (isinstance(algo, str) and algo in algorithms() and isinstance(env, str) and env in environments()):
        return {"algo": {"name": algo}, "env": {"name": env}}
    if preset not in ("auto", "none") and preset not in schemas.presets():
        problems.append(unknown("preset", str(preset), schemas.presets(), "jaxrl list experiments"))
        preset = "none"
    return schemas.compose(algo, env, preset)


def _base_of_file(values: dict[str, Item], problems: list[Problem], extend: bool) -> dict:
    base = load_yaml(values["config"].value)
    for key in ("algo", "env"):
        if isinstance(base.get(key), str):
            base[key] = {"name": base[key]}
    if "preset" in values:
        problems.append(Problem(f"preset={values['preset'].value} has no effect beside config=: "
                                "a stored config holds every value"))
    names = {key: base[key].get("name") if isinstance(base.get(key), dict) else None for key in ("algo", "env")}
    if "algo" in values and values["algo"].value != names["algo"]:
        problems.append(Problem(f"algo={values['algo'].value} does not fit config={values['config'].value}, "
                                f"which is for {names['algo']}. Leave one of them out"))
    if "env" in values and values["env"].value != names["env"]:
        base["env"] = {"name": values["env"].value}
    if "total_steps" in values and "schedule_steps" not in values and not extend:
        base["schedule_steps"] = None     # a new run of another length has schedules of its own
    return base


def _base_of_schedule(values: dict[str, Item], problems: list[Problem]) -> dict:
    """What the run was made from whose schedule is followed, without what makes it a population."""
    file = Item("config", str(reader().config_file(str(values["schedule"].value))))
    base = _base_of_file({**values, "config": file}, problems, extend=False)
    return {key: base[key] for key in ("algo", "env", "preset", "total_steps", "schedule_steps") if key in base}


def load_yaml(path: str | Path) -> dict:
    """A YAML file as plain dicts, by OmegaConf's safe loader (tags that name Python objects are refused)."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with open(path, encoding="utf-8") as file:
            plain = OmegaConf.to_container(OmegaConf.load(io.StringIO(file.read(MAX_BYTES))))
    except OSError as error:
        if error.errno is None:              # OmegaConf's, for a file that holds a number
            raise UserError(f"config={path} is not a config: it holds no keys") from error
        raise UserError(f"config={path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"config={path} is not a config: {' '.join(str(error).split())}") from error
    if not isinstance(plain, dict):
        raise UserError(f"config={path} is not a config: it holds no keys")
    return plain


def to_plain(config: RunConfig) -> dict[str, Any]:
    """The config as nested dicts of plain values: what is stored. `out` is left out: a run may be moved or repeated."""
    return {
        "algo": {"name": config.algo, **_listed(dataclasses.asdict(config.agent))},
        "env": _listed(vars(config.env)),
        **dataclasses.asdict(config.settings), "out": None,
        "schedule": config.schedule and config.schedule.to_plain(),
    }


def to_yaml(config: RunConfig) -> str:
    """Fully resolved; `from_file` reads back the same config."""
    return dump_yaml(to_plain(config))


def dump_yaml(plain: Mapping[str, Any]) -> str:
    """Plain values as YAML that `load_yaml` reads back."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes text that begins like a number: OmegaConf reads more of it as numbers than YAML 1.1 does, 1e5 too."""

    Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="'" if text[:1] in (*"+-.0123456789",) else None))
    return yaml.dump(plain, Dumper=Dumper, sort_keys=False, default_flow_style=None, width=120)


def _listed(x: Any) -> Any:
    if isinstance(x, Mapping):
        return {key: _listed(value) for key, value in x.items()}
    return [_listed(item) for item in x] if isinstance(x, list | tuple) else x


class Origin(NamedTuple):
    key: str
    value: Any
    origin: str        # "default", "preset", "override", or "file" of what config=FILE set
    help: str


def origins(overrides: Iterable[str]) -> list[Origin]:
    """Every value of a config with where it comes from."""
    overrides = list(overrides)
    config = compose(overrides)
    given = {item.key for item in parse(overrides)[0]}
    other = "file" if "config" in given else "preset"
    usual = flatten(to_plain(from_values({"algo": config.algo, "env": config.env.name, "preset": "none"})))
    known = {**declared(config.algo), **declared_of_env(config.env.name)}
    helps = {key: declaration.help for key, declaration in known.items()}
    rows = []
    for key, value in flatten(to_plain(config) | {"out": config.settings.out}).items():
        name = key.removesuffix(".name") if key in ("algo.name", "env.name") else key
        if name in given or key in given or key.partition(".")[0] == "schedule" in given:
            origin = "override"
        else:
            origin = "default" if name == "preset" or usual.get(key) == value else other
        rows.append(Origin(name, value, origin, helps.get(key, "")))
    return rows


def _put(plain: dict, key: str, value: Any) -> None:
    """plain["a"]["b"] = value, for key "a.b"."""
    *heads, last = key.split(".")
    for head in heads:
        if not isinstance(plain.get(head), dict):
            plain[head] = {}
        plain = plain[head]
    plain[last] = value


def origins_of_file(path: str | Path, command: str = "") -> list[Origin]:
    """`origins` of a stored run; `command` is the command line that made it, which tells overrides from the preset."""
    import shlex

    try:
        words = [word for word in shlex.split(command) if "=" in word]
    except ValueError:
        words = []
    given = {item.key for item in parse(words)[0]}
    return [row._replace(origin="override" if row.key in given else "preset" if row.origin == "file" else row.origin)
            for row in origins([f"config={path}"])]
