"""jaxrl list."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxrl import registry
from jaxrl.cli.text import table
from jaxrl.declare import Declaration
from jaxrl.errors import Problem, UserError

HELP = """
jaxrl list [algos|envs|wrappers|networks|experiments|NAME]

Lists algorithms, environments, wrappers, networks or tuned presets. For one
algorithm: every setting with default and range. For one environment: its
spaces and parameters.

Examples:
  jaxrl list envs
  jaxrl list ppo
"""


def run(words: list[str]) -> None:
    names = [_without_key(word) for word in words]
    if not names:
        names = [kind for kind in KINDS if kind != "wrappers"]       # their table imports JAX
    for i, name in enumerate(names):
        if i:
            print()
        print("\n".join(lines_of(name)))


def _without_key(word: str) -> str:
    """Return NAME for algo=NAME and env=NAME."""
    if word.startswith(("algo=", "env=")):
        return word.partition("=")[2]
    return word


def lines_of(name: str) -> list[str]:
    """Return the table of one of KINDS, an algorithm, an environment or a preset.

    Raises UserError if nothing has this name.
    """
    from jaxrl.config import schemas

    if name in KINDS:
        return KINDS[name]()
    if name in registry.algorithms():
        return algorithm(name)
    if name in registry.environments():
        return environment(name)
    if name in families():
        return family(name)
    if name in schemas.presets():
        return [f"{name}:", *preset_text(name).splitlines()]
    known = [*KINDS, *registry.algorithms(), *registry.environments(), *families(),
             *schemas.presets()]
    hint = registry.did_you_mean(name, known)
    raise UserError([Problem(f'nothing is called "{name}".{hint}   (jaxrl list)')])


def algorithms() -> list[str]:
    """Return the table of algorithms."""
    rows = [(name, first_line(target, of_module=True))
            for name, target in registry.algorithms().items()]
    return ["algorithms   (jaxrl list NAME)", *table(rows)]


def environments() -> list[str]:
    """Return the table of environments.

    The members of a family, whose names are `family/id`, share a row.
    """
    rows = [(name, first_line(target)) for name, target in registry.environments().items()
            if "/" not in name]
    rows += [(f"{name}/...", f"{len(ids)}: {', '.join(ids)}") for name, ids in families().items()]
    return ["environments   (jaxrl list NAME; wrappers of any environment: jaxrl list wrappers)",
            *table(rows)]


def families() -> dict[str, list[str]]:
    """Return family -> the ids of its environments, which are called `family/id`."""
    found: dict[str, list[str]] = {}
    for name in registry.environments():
        head, slash, rest = name.partition("/")
        if slash:
            found.setdefault(head, []).append(rest)
    return found


def family(name: str) -> list[str]:
    """Return the environments of a family, one per line."""
    members = [f"{name}/{id}" for id in families()[name]]
    text = first_line(registry.environments()[members[0]])
    return [f"{name}: {text}   (jaxrl list {members[0]})", *(f"  {member}" for member in members)]


def wrappers() -> list[str]:
    """Return the table of wrappers, which any environment can have."""
    from jaxrl.config.check import short
    from jaxrl.config.reading import declared_wrappers

    rows = [(key, short(d.default), allowed(d), d.help) for key, d in declared_wrappers().items()]
    return ["wrappers of any environment, in the order in which they are applied", "",
            *table(rows, ("setting", "default", "allowed", ""))]


def networks() -> list[str]:
    """Return the table of torsos."""
    rows = [(name, first_line(target)) for name, target in registry.networks().items()]
    return ["networks   (algo.network.torso=NAME)", *table(rows)]


def experiments() -> list[str]:
    """Return the table of presets, with the score that each has reached."""
    from jaxrl.config import schemas

    rows = [(name, reached(name) or "") for name in schemas.presets()]
    title = "experiments: tuned presets, which preset=auto applies   (jaxrl list NAME)"
    return [title, *(table(rows) or ["  none yet"])]


KINDS: dict[str, Callable[[], list[str]]] = {
    "algos": algorithms,
    "envs": environments,
    "wrappers": wrappers,
    "networks": networks,
    "experiments": experiments,
}


def algorithm(name: str) -> list[str]:
    """Return every setting of an algorithm: default, range, search range, kind and help."""
    from jaxrl.config.check import short
    from jaxrl.declare import declarations

    rows = [(f"algo.{d.name}", short(d.default), allowed(d), _search(d), d.kind, d.help)
            for d in declarations(registry.algorithm(name).config)]
    title = first_line(registry.algorithms()[name], of_module=True)
    return [
        f"{name}: {title}", "",
        *table(rows, ("setting", "default", "allowed", "search", "kind", "")), "",
        "  hyper: a number that may change during training",
        "  static: a value that shapes the compiled program"]


def allowed(declaration: Declaration) -> str:
    """Return the allowed values: "a|b", "0 <= x <= 1" or ""."""
    from jaxrl.config.check import bounds

    if declaration.choices:
        return "|".join(declaration.choices)
    return bounds(declaration, name="x")


def _search(declaration: Declaration) -> str:
    from jaxrl.config.check import short

    found = declaration.search
    if found is None:
        return ""
    scale = " log" if found.log else ""
    return f"{short(found.low)} .. {short(found.high)}{scale}"


def environment(name: str) -> list[str]:
    """Return the spaces, limits and parameters of an environment."""
    from jaxrl.config.check import short

    options = [(f"env.params.{key}", short(_plain(value)))
               for key, value in registry.environment_options(name).items()]
    parameters = ["  no parameters"]
    if options:
        parameters = table(options, ("setting", "default"))
    title = first_line(registry.environments()[name])
    return [f"{name}: {title}", "", *table(_facts(name)), "", *parameters, "",
            *table(_changes(name))]


def _facts(name: str) -> list[tuple[str, Any]]:
    """Return (label, text) of the spaces and limits of an environment."""
    from envs_jax.core import spec

    env, params = registry.environment(name)
    facts = spec(env, params)
    limit = "none" if env.time_limit is None else f"{env.time_limit} steps"
    rows = [("observation", facts.observation), ("action", facts.action), ("time limit", limit)]
    if env.max_steps not in (None, env.time_limit):
        rows.append(("longest episode", f"{env.max_steps} steps"))
    if facts.agents:
        rows.append(("agents", facts.agents))
    if facts.masked:
        rows.append(("legal actions", "masked"))
    if facts.state is not None:
        rows.append(("global state", facts.state))
    return rows


def _changes(name: str) -> list[tuple[str, str]]:
    """Return (key, text) of the settings that change an environment."""
    rows = [("env.wrappers.*", "frame_stack=4, sticky_actions=0.25 and others: "
                               "jaxrl list wrappers")]
    numbers = ", ".join(registry.environment_numbers(name))
    if numbers:
        rows += [
            ("env.randomize.NAME", "[low,high]: range of a uniform draw of NAME at every reset"),
            ("env.curriculum.NAME", "[first,last]: values of NAME over the course of the training"),
            ("  NAME", f"one of {numbers}")]
    return rows


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def first_line(target: str, of_module: bool = False) -> str:
    """Return the first paragraph of the docstring of "module:attribute", or of its module.

    The docstring is read from the source, so that nothing is imported to list names.
    """
    module, _, attribute = target.partition(":")
    try:
        tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text())
    except (OSError, SyntaxError, AttributeError, TypeError, ImportError, ValueError):
        return ""
    node: ast.AST | None = tree
    if not of_module:
        named = (node for node in tree.body if getattr(node, "name", None) == attribute)
        node = next(named, None)
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        return ""
    text = ast.get_docstring(node) or ""
    return text.partition("\n\n")[0].replace("\n", " ")


def preset_text(name: str) -> str:
    """Return the YAML of a preset, "" if the preset is not a file."""
    import importlib.resources

    file = importlib.resources.files("jaxrl_configs") / "experiment" / f"{name}.yaml"
    try:
        return file.read_text()
    except OSError:
        return ""


def reached(name: str) -> str | None:
    """Return the measured score of a preset, which its file holds as `# reached: ...`."""
    mark = "# reached:"
    for line in preset_text(name).splitlines():
        if line.startswith(mark):
            return line.removeprefix(mark).strip()
    return None
