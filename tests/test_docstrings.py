"""Every public function, class, method and module has a docstring."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.source import PACKAGES, TREES, allow_none, inside

CLASSES = {
    node.name: node
    for tree in TREES.values()
    for node in tree.body
    if isinstance(node, ast.ClassDef)
}
PROTOCOLS = {name for name, node in CLASSES.items() if "Protocol" in map(ast.unparse, node.bases)}


def methods(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {
        m.name: m
        for m in node.body
        if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")
    }


def documented_above(node: ast.ClassDef, name: str) -> bool:
    """Tell whether a base class of this repository documents the method or declares the field."""
    bases = [CLASSES[base] for base in map(ast.unparse, node.bases) if base in CLASSES]
    fields = {ast.unparse(target) for base in bases for line in base.body
              for target in getattr(line, "targets", [getattr(line, "target", line)])}
    return name in fields or any(
        (name in methods(base) and ast.get_docstring(methods(base)[name]))
        or documented_above(base, name)
        for base in bases
    )


def undocumented(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the public functions, classes and methods without a docstring.

    Exempt are methods that a protocol or a base class documents, tuples of named fields, and the
    `run` of a command, which its HELP explains.
    """
    command = any(ast.unparse(node).startswith("HELP =") for node in tree.body)
    promised = {name for protocol in PROTOCOLS for name in methods(CLASSES[protocol])}
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        is_class = isinstance(node, ast.ClassDef)
        fields = is_class and "NamedTuple" in map(ast.unparse, node.bases) and not methods(node)
        if not (ast.get_docstring(node) or fields or (command and node.name == "run")):
            yield node
        if is_class and node.name not in PROTOCOLS:
            yield from (
                method
                for name, method in methods(node).items()
                if not ast.get_docstring(method)
                and name not in promised
                and not documented_above(node, name)
                and "overload" not in map(ast.unparse, method.decorator_list)
            )


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_public_says_what_it_does(package):
    allow_none(
        (m, node, f"{node.name} has no docstring")
        for m, tree in TREES.items()
        if inside(m, package)
        for node in undocumented(tree)
    )
    silent = [
        m
        for m, tree in TREES.items()
        if inside(m, package) and tree.body and not ast.get_docstring(tree)
    ]
    assert not silent, f"modules without a docstring: {silent}"
