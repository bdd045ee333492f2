"""Hydra's config groups `algo/<name>` and `env/<name>` and the top level, made from declarations.

They are registered when `jaxrl` is imported, so that a user's own `@hydra.main` script composes
the same configs. Their content is made when Hydra first reads them, so that importing jaxrl
imports no algorithm and no other package. Keys are fixed; types are left open, because
`config.read` converts and checks values with error texts of its own.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import OmegaConf

from jaxrl.errors import UserError


def register() -> None:
    """Register the groups with Hydra; `import jaxrl` calls this."""
    from jaxrl import registry

    repo = ConfigStore.instance().repo
    repo["algo"] = _Group("algo", registry.algorithms, _algorithm)
    repo["env"] = _Group("env", registry.environments, _environment)
    repo["jaxrl_settings.yaml"] = _Node("jaxrl_settings.yaml", None, _settings)


def compose(algo: str, env: str, preset: str) -> dict[str, Any]:
    """Compose defaults and preset as nested dicts.

    preset: "auto", "none" or a name. In the result, `preset` is the name of the applied one.
    Raises UserError if the preset does not compose.
    """
    return copy.deepcopy(_composed(algo, env, preset))


@functools.cache                 # Hydra takes 0.1 s to compose
def _composed(algo: str, env: str, preset: str) -> dict[str, Any]:
    import hydra
    from hydra.errors import HydraException

    with _hydra():
        name = preset_name(algo, env) if preset == "auto" else preset
        if name not in _presets():
            name = "none"
        try:
            made = hydra.compose("config", [f"algo={algo}", f"env={env}", _choice(name)])
            plain: Any = OmegaConf.to_container(made, resolve=True)
        except HydraException as error:
            raise UserError(f"preset {name}: {' '.join(str(error).split())}") from error
    return plain | {"preset": name}


def _choice(preset: str) -> str:
    """Return the Hydra override that applies a preset."""
    return "~experiment" if preset == "none" else f"experiment={preset}"


def presets() -> list[str]:
    """Return the names of the tuned presets, configs/experiment/*.yaml."""
    with _hydra():
        return _presets()


@contextlib.contextmanager
def _hydra() -> Iterator[None]:
    """Initialize Hydra with our configs; afterwards restore those of a user's `@hydra.main`."""
    import hydra
    from hydra import version
    from hydra.core.global_hydra import GlobalHydra

    outer = GlobalHydra.instance().hydra
    base = version.VersionBase.instance().version_base
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_module("jaxrl_configs", version_base=None):
            yield
    finally:
        GlobalHydra.instance().hydra = outer
        version.VersionBase.instance().version_base = base


def preset_name(algo: str, env: str) -> str:
    """Return the preset that `preset=auto` looks for.

    Slashes and colons of a name become dashes, because presets are files.
    """
    return f"{algo}_{env}".lower().replace("/", "-").replace(":", "-")


def preset_of_script(preset: Any) -> Any:
    """Return the preset that Hydra itself applied in a user's `@hydra.main` script.

    There the value of `preset` stays "auto". Raises UserError if another preset is given.
    """
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():       # composed by other means: the values hold the preset
        return "none" if preset == "auto" else preset
    chosen = HydraConfig.get().runtime.choices.get("experiment")
    if chosen not in _presets():
        chosen = "none"
    if preset not in ("auto", chosen):
        raise UserError(f"preset={preset} has no effect in a script of your own. "
                        f"Use: {_choice(preset)}")
    return chosen


def _presets() -> list[str]:
    from hydra.core.global_hydra import GlobalHydra

    return GlobalHydra.instance().config_loader().get_group_options("experiment")


def _schema(value: Any, first: Iterable[tuple[str, Any]] = ()) -> type:
    """Return a dataclass with the fields and values of the config `value`.

    Every type is left open; OmegaConf fixes the keys.
    """
    fields: list[tuple[str, Any, Any]] = [(name, Any, default) for name, default in first]
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            kind = _schema(inner)
            fields.append((field.name, kind, dataclasses.field(default_factory=kind)))
        else:
            fields.append((field.name, Any, _default(inner)))
    return dataclasses.make_dataclass(type(value).__name__, fields)


def _default(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return dataclasses.field(default_factory=lambda: list(value))
    return value


def _algorithm(name: str) -> Any:
    from jaxrl import registry

    return _schema(registry.algorithm(name).config(), [("name", name)])


def _environment(name: str) -> Any:
    open_ended = ("params", "wrappers", "randomize", "curriculum")
    node = OmegaConf.create(
        {"name": name, "time_limit": "default", **{part: {} for part in open_ended}})
    for part in open_ended:        # any key: the environment, which declares them, is not imported
        node[part]._set_flag("struct", False)
    return node


def _settings() -> Any:
    from jaxrl.config.settings import Settings

    return _schema(Settings(), [("algo", "???"), ("env", "???"), ("schedule", None)])


class _Node(ConfigNode):
    """An entry of the ConfigStore whose content is made when Hydra loads the entry."""

    def __init__(self, name: str, group: str | None, make: Callable[[], Any]):
        self.name = name
        self.group = group
        self.package = None
        self.provider = "jaxrl"
        self.make = make

    def __getattr__(self, attribute: str) -> Any:     # called for `node`, which is not set
        if attribute != "node":
            raise AttributeError(attribute)
        made = self.make()
        return made if OmegaConf.is_config(made) else OmegaConf.structured(made)


class _Group(dict):
    """A group of the ConfigStore (nested dicts, by path), filled when Hydra first reads it."""

    def __init__(self, group: str, names: Callable[[], Iterable[str]], make: Callable[[str], Any]):
        super().__init__()
        self.group = group
        self.names = names
        self.make = make
        self.filled = False

    def _fill(self) -> None:
        if self.filled:
            return
        self.filled = True
        for name in self.names():
            *folders, last = name.split("/")
            at: dict = self
            for folder in folders:
                at = dict.setdefault(at, folder, {})
            path = "/".join([self.group, *folders])
            make = functools.partial(self.make, name)
            at[f"{last}.yaml"] = _Node(f"{last}.yaml", path, make)

    def __contains__(self, key: object) -> bool:
        self._fill()
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self._fill()
        return super().__getitem__(key)

    def keys(self) -> Any:
        self._fill()
        return super().keys()
