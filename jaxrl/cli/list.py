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
jaxrl list [algos|envs|wrappers|networks|experiments|NAME]

What there is; for one algorithm every setting with its default and range, for one environment its spaces and params.

Examples:
  jaxrl list envs
  jaxrl list ppo
"""

KINDS = ("algos", "envs", "wrappers", "networks", "experiments")


def run(words: list[str]) -> None:
    names = [word.partition("=")[2] if word.startswith(("algo=", "env=")) else word for word in words]
    for i, name in enumerate(names or [kind for kind in KINDS if kind != "wrappers"]):       # whose table imports JAX
        if i:
            print()
        print("\n".join(lines_of(name)))


def lines_of(name: str) -> list[str]:
    """The table for one of KINDS, an algorithm, an environment or a preset."""
    from jaxrl.config import schemas

    if name in KINDS:
        return {"algos": algorithms, "envs": environments, "wrappers": wrappers, "networks": networks,
                "experiments": experiments}[name]()
    if name in registry.algorithms():
        return algorithm(name)
    if name in registry.environments():
        return environment(name)
    if name in families():
        return family(name)
    if name in schemas.presets():
        return [f"{name}:", *preset_text(name).splitlines()]
    known = [*KINDS, *registry.algorithms(), *registry.environments(), *families(), *schemas.presets()]
    near = registry.nearest(name, known)
    raise UserError([Problem(f'there is nothing called "{name}".' + (f" Did you mean: {near}?" if near else "")
                             + "   (jaxrl list)")])


def algorithms() -> list[str]:
    """The table of algorithms."""
    rows = [(name, first_line(target, of_module=True)) for name, target in registry.algorithms().items()]
    return ["algorithms   (jaxrl list NAME)", *table(rows)]


def environments() -> list[str]:
    """The table of environments; the members of a family, whose names are `family/id`, share a row."""
    rows = [(name, first_line(target)) for name, target in registry.environments().items() if "/" not in name]
    rows += [(f"{name}/...", f"{len(ids)}: {', '.join(ids)}") for name, ids in families().items()]
    return ["environments   (jaxrl list NAME; what may be put around any of them: jaxrl list wrappers)", *table(rows)]


def families() -> dict[str, list[str]]:
    """Family -> the ids of its environments, `family/id`."""
    found: dict[str, list[str]] = {}
    for head, slash, rest in (name.partition("/") for name in registry.environments()):
        if slash:
            found.setdefault(head, []).append(rest)
    return found


def family(name: str) -> list[str]:
    """One environment per line."""
    members = [f"{name}/{id}" for id in families()[name]]
    text = first_line(registry.environments()[members[0]])
    return [f"{name}: {text}   (jaxrl list {members[0]})", *(f"  {member}" for member in members)]


def wrappers() -> list[str]:
    """The wrappers that any environment may be asked in."""
    from jaxrl.config.check import bounds, short
    from jaxrl.config.reading import declared_wrappers

    rows = [(key, short(d.default), bounds(d).replace(d.name, "x"), d.help) for key, d in declared_wrappers().items()]
    return ["wrappers of any environment, in the order in which they are put around it", "",
            *table(rows, ("setting", "default", "allowed", ""))]


def networks() -> list[str]:
    """The table of torsos."""
    rows = [(name, first_line(target)) for name, target in registry.networks().items()]
    return ["networks   (algo.network.torso=NAME)", *table(rows)]


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

    values = registry.environment_options(name)
    env, params = registry.environment(name)
    facts = spec(env, params)
    rows = [("observation", facts.observation), ("action", facts.action),
            ("time limit", "none" if env.time_limit is None else f"{env.time_limit} steps")]
    rows += [("longest episode", f"{env.max_steps} steps")] if env.max_steps not in (None, env.time_limit) else []
    rows += [("agents", facts.agents)] if facts.agents else []
    rows += [("legal actions", "masked")] if facts.masked else []
    rows += [("global state", facts.state)] if facts.state is not None else []
    options = [(f"env.params.{key}", short(_plain(value))) for key, value in values.items()]
    may_change = ", ".join(registry.environment_numbers(name))
    more = [("env.wrappers.*", "frame_stack=4, sticky_actions=0.25 and others: jaxrl list wrappers")]
    more += [("env.randomize.NAME", "[low,high]: NAME is drawn from there at every reset"),
             ("env.curriculum.NAME", "[first,last]: NAME goes from first to last along with the training"),
             ("  NAME", f"one of {may_change}")] if may_change else []
    return [f"{name}: {first_line(registry.environments()[name])}", "", *table(rows), "",
            *(table(options, ("setting", "default")) if options else ["  no parameters"]), "", *table(more)]


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
