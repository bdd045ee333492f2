"""The source of this repository as syntax trees, for the tests that read code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGES = ("envs_jax", "jaxrl", "algos")


class Import(NamedTuple):
    """An import of a module."""

    module: str
    line: int
    top: bool          # runs when the importing module is imported


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


FILES = {
    module_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}


def imports_of(tree: ast.AST, top: bool = True) -> Iterator[Import]:
    """Yield every import, also those inside functions and under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(inner if inner in FILES else base, node.lineno, top)
        else:
            typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_of(node, top and not typing_only and not function)


Offense = tuple[str, Import | ast.AST, str]       # module, place, text
IMPORTS = {module: list(imports_of(tree)) for module, tree in TREES.items()}


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def layer(module: str) -> str:
    """"jaxrl.run.loop" -> "jaxrl.run"."""
    return ".".join(module.split(".")[:2])


def own(module: str) -> list[Import]:
    """Return the imports of packages of this repository."""
    return [found for found in IMPORTS[module] if found.module.split(".")[0] in PACKAGES]


def offences(found: Iterator[Offense]) -> list[str]:
    return [f"{FILES[module].relative_to(ROOT)}:{getattr(at, 'line', None) or at.lineno}: {text}"
            for module, at, text in found]


def allow_none(found: Iterator[Offense]) -> None:
    lines = offences(found)
    assert not lines, "\n".join(["", *lines])
