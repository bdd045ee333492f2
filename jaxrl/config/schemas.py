"""The groups that Hydra sees: `algo/<name>`, `env/<name>` and the schema of the top level, made from the declarations.

They are registered when `jaxrl` is imported, so that a user's own `@hydra.main` script composes the same configs. What
they hold is made when Hydra first looks, so that importing jaxrl imports no algorithm and no other package. Keys are
fixed; types are left open, because `config.read` converts and checks values with texts of its own.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import OmegaConf

from jaxrl.errors import UserError


def register() -> None:
    """Called by `import jaxrl`."""
    from jaxrl import registry

    repo = ConfigStore.instance().repo
    repo["algo"] = _Group("algo", registry.algorithms, _algorithm)
    repo["env"] = _Group("env", registry.environments, _environment)
    repo["jaxrl_settings.yaml"] = _Node("jaxrl_settings.yaml", None, _settings)


def compose(algo: str, env: str, preset: str) -> dict[str, Any]:
    """Defaults and preset ("auto", "none" or a name) as nested dicts; `preset` in it is the name of the one applied."""
    return copy.deepcopy(_composed(algo, env, preset))


@functools.cache                 # Hydra takes 0.1 s to compose
def _composed(algo: str, env: str, preset: str) -> dict[str, Any]:
    import hydra
    from hydra.errors import HydraException

    with _hydra():
        name = preset_name(algo, env) if preset == "auto" else preset
        name = name if name in _presets() else "none"
        choice = "~experiment" if name == "none" else f"experiment={name}"
        try:
            made = hydra.compose("config", [f"algo={algo}", f"env={env}", choice])
            plain = OmegaConf.to_container(made, resolve=True)
        except HydraException as error:
            raise UserError(f"preset {name}: {' '.join(str(error).split())}") from error
    return plain | {"preset": name}


def presets() -> list[str]:
    """Names of the tuned presets, configs/experiment/*.yaml."""
    with _hydra():
        return _presets()


@contextlib.contextmanager
def _hydra():
    """Hydra with our configs; a user's `@hydra.main` around it finds its own again."""
    import hydra
    from hydra import version
    from hydra.core.global_hydra import GlobalHydra

    outer, base = GlobalHydra.instance().hydra, version.VersionBase.instance().version_base
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_module("jaxrl_configs", version_base=None):
            yield
    finally:
        GlobalHydra.instance().hydra, version.VersionBase.instance().version_base = outer, base


def preset_name(algo: str, env: str) -> str:
    """The preset that `preset=auto` looks for. Slashes and colons of a name become dashes in a file name."""
    return f"{algo}_{env}".lower().replace("/", "-").replace(":", "-")


def preset_of_script(preset: Any) -> Any:
    """The preset that Hydra itself applied in a user's `@hydra.main` script, where `preset` reads "auto"."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return "none" if preset == "auto" else preset      # composed by other means: what was applied is in the values
    chosen = HydraConfig.get().runtime.choices.get("experiment")
    chosen = chosen if chosen in _presets() else "none"
    if preset not in ("auto", chosen):
        raise UserError(f"preset={preset} has no effect in a script of your own. "
                        f"Use: {'~experiment' if preset == 'none' else f'experiment={preset}'}")
    return chosen


def _presets() -> list[str]:
    from hydra.core.global_hydra import GlobalHydra

    return GlobalHydra.instance().config_loader().get_group_options("experiment")


def _schema(value: Any, first: Iterable[tuple[str, Any]] = ()) -> type:
    """A dataclass with the fields and values of the config `value`, every type left open: OmegaConf fixes the keys."""
    fields = [(name, Any, default) for name, default in first]
    for name, inner in ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value)):
        if dataclasses.is_dataclass(inner):
            kind = _schema(inner)
            fields.append((name, kind, dataclasses.field(default_factory=kind)))
        else:
            fields.append((name, Any, _default(inner)))
    return dataclasses.make_dataclass(type(value).__name__, fields)


def _default(value: Any) -> Any:
    return dataclasses.field(default_factory=lambda: list(value)) if isinstance(value, list | tuple) else value


def _algorithm(name: str) -> Any:
    from jaxrl import registry

    return _schema(registry.algorithm(name).config(), [("name", name)])


def _environment(name: str) -> Any:
    open_ended = ("params", "wrappers", "randomize", "curriculum")
    node = OmegaConf.create({"name": name, "time_limit": "default", **{part: {} for part in open_ended}})
    for part in open_ended:
        node[part]._set_flag("struct", False)    # their keys are the environment's, which is not imported here
    return node


def _settings() -> Any:
    from jaxrl.config.settings import Settings

    return _schema(Settings(), [("algo", "???"), ("env", "???"), ("schedule", None)])


class _Node(ConfigNode):
    """An entry of the ConfigStore whose content is made when it is loaded."""

    def __init__(self, name: str, group: str | None, make: Callable[[], Any]):
        self.name, self.group, self.package, self.provider, self.make = name, group, None, "jaxrl", make

    def __getattr__(self, attribute: str) -> Any:     # called for what is not set: `node`, the first time
        if attribute != "node":
            raise AttributeError(attribute)
        made = self.make()
        return made if OmegaConf.is_config(made) else OmegaConf.structured(made)


class _Group(dict):
    """A group of the ConfigStore (nested dicts, by path) whose names are looked up when it is first read."""

    def __init__(self, group: str, names: Callable[[], Iterable[str]], make: Callable[[str], Any]):
        super().__init__()
        self._pending = (group, names, make)

    def _fill(self) -> None:
        if self._pending is None:
            return
        (group, names, make), self._pending = self._pending, None
        for name in names():
            *folders, last = name.split("/")
            at: dict = self
            for folder in folders:
                at = dict.setdefault(at, folder, {})
            at[f"{last}.yaml"] = _Node(f"{last}.yaml", "/".join([group, *folders]), lambda name=name: make(name))

    def __contains__(self, key: object) -> bool:
        self._fill()
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self._fill()
        return super().__getitem__(key)

    def keys(self):
        self._fill()
        return super().keys()
