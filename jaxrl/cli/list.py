"""jaxrl list."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxrl import registry
from jaxrl.cli.text import table
from jaxrl.errors import Problem, UserError

HELP = """
jaxrl list [algos|envs|experiments|NAME]

What there is; for one algorithm every setting with its default and range, for one environment its spaces and params.

Examples:
  jaxrl list envs
  jaxrl list ppo
"""

KINDS = ("algos", "envs", "experiments")


def run(words: list[str]) -> None:
    names = [word.partition("=")[2] if word.startswith(("algo=", "env=")) else word for word in words]
    for i, name in enumerate(names or KINDS):
        if i:
            print()
        print("\n".join(lines_of(name)))


def lines_of(name: str) -> list[str]:
    """The table for "algos", "envs", "experiments", an algorithm, an environment or a preset."""
    from jaxrl.config import schemas

    if name in KINDS:
        return {"algos": algorithms, "envs": environments, "experiments": experiments}[name]()
    if name in registry.algorithms():
        return algorithm(name)
    if name in registry.environments():
        return environment(name)
    if name in schemas.presets():
        return [f"{name}:", *preset_text(name).splitlines()]
    known = [*KINDS, *registry.algorithms(), *registry.environments(), *schemas.presets()]
    near = registry.nearest(name, known)
    raise UserError([Problem(f'there is nothing called "{name}".' + (f" Did you mean: {near}?" if near else "")
                             + "   (jaxrl list)")])


def algorithms() -> list[str]:
    """The table of algorithms."""
    rows = [(name, first_line(target, of_module=True)) for name, target in registry.algorithms().items()]
    return ["algorithms   (jaxrl list NAME)", *table(rows)]


def environments() -> list[str]:
    """The table of environments."""
    rows = [(name, first_line(target)) for name, target in registry.environments().items()]
    return ["environments   (jaxrl list NAME)", *table(rows)]


def experiments() -> list[str]:
    """The table of presets, with the score each reached."""
    from jaxrl.config import schemas

    rows = [(name, reached(name) or "") for name in schemas.presets()]
    return ["experiments: tuned presets, used by preset=auto   (jaxrl list NAME)", *(table(rows) or ["  none yet"])]


def algorithm(name: str) -> list[str]:
    """Every setting with default, range, search range, kind and help."""
    from jaxrl.config.check import bounds, short
    from jaxrl.declare import declarations

    rows = []
    for d in declarations(registry.algorithm(name).config):
        allowed = "|".join(d.choices) if d.choices else bounds(d).replace(d.name.rpartition(".")[2], "x")
        search = f"{short(d.search.low)} .. {short(d.search.high)}{' log' if d.search.log else ''}" if d.search else ""
        rows.append((f"algo.{d.name}", short(d.default), allowed, search, d.kind, d.help))
    return [f"{name}: {first_line(registry.algorithms()[name], of_module=True)}", "",
            *table(rows, ("setting", "default", "allowed", "search", "kind", "")), "",
            "  hyper: a number that may change while training; static: shapes the compiled program"]


def environment(name: str) -> list[str]:
    """Spaces, limits and parameters of one environment."""
    from envs_jax.core import spec
    from jaxrl.config.check import short

    env, params = registry.environment(name)
    facts = spec(env, params)
    rows = [("observation", facts.observation), ("action", facts.action),
            ("time limit", "none" if env.time_limit is None else f"{env.time_limit} steps")]
    rows += [("agents", facts.agents)] if facts.agents else []
    rows += [("legal actions", "masked")] if facts.masked else []
    rows += [("global state", facts.state)] if facts.state is not None else []
    options = [(f"env.params.{key}", short(_plain(value))) for key, value in registry.environment_options(name).items()]
    return [f"{name}: {first_line(registry.environments()[name])}", "", *table(rows), "",
            *(table(options, ("setting", "default")) if options else ["  no parameters"])]


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def first_line(target: str, of_module: bool = False) -> str:
    """The first line of a docstring, read from the source: nothing is imported to list names."""
    module, _, attribute = target.partition(":")
    try:
        tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text())
    except (OSError, SyntaxError, AttributeError, TypeError, ImportError, ValueError):
        return ""
    same: Callable[[Any], bool] = lambda node: getattr(node, "name", None) == attribute
    node = tree if of_module else next(filter(same, tree.body), None)
    text = node and ast.get_docstring(node) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) else ""
    return (text or "").partition("\n\n")[0].replace("\n", " ")


def preset_text(name: str) -> str:
    """The YAML of a preset, "" where it is not a file."""
    import importlib.resources

    try:
        return (importlib.resources.files("jaxrl_configs") / "experiment" / f"{name}.yaml").read_text()
    except OSError:
        return ""


def reached(name: str) -> str | None:
    """The measured score of a preset, kept in a comment of its file: `# reached: ...`."""
    mark = "# reached:"
    lines = [line for line in preset_text(name).splitlines() if line.startswith(mark)]
    return lines[0].removeprefix(mark).strip() if lines else None
