"""Wording and style of the source, read from syntax trees: help texts, docstrings, sizes.

Each check yields offenders, which a failing test lists by file and line. Each is also tried on
made-up offenders, and on code that it must accept.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.source import FILES, PACKAGES, ROOT, TREES, Offense, allow_none, inside

FILE_LINES = 450
FUNCTION_LINES = 60
FOLDER_FILES = 15
WIDE_FOLDERS = {"jaxrl/cli"}          # one small file a command
ANNOTATED = 0.9                       # share of the arguments of public functions

HELP_STARTS = {"of", "by", "after", "per", "and", "how", "at", "in", "without"}
DOCSTRING_STARTS = {
    "What", "Of", "Those", "As", "Whether", "Where", "How", "That", "Who", "Which", "By", "Per",
    "So"}
PAIRS = (      # may be bound together: a, b = x, y
    ("low", "high"), ("first", "last"), ("lower", "upper"), ("min", "max"), ("start", "end"))
HELP_POSITION = {"Declaration": 4, "Option": 3}       # of the help among positional arguments

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


# ---------------------------------------------------------------- words


def first_word(text: str) -> str:
    return re.split(r"[^A-Za-z]", text.strip(), maxsplit=1)[0]


def text_of(node: ast.expr) -> str:
    """Return the literal part of a string expression."""
    strings = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
    return "".join(value for value in strings if isinstance(value, str))


def helps(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the help texts of declarations."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        named = [keyword.value for keyword in node.keywords if keyword.arg == "help"]
        name = ast.unparse(node.func).rpartition(".")[2]
        place = HELP_POSITION.get(name)
        if place is not None and len(node.args) > place:
            named.append(node.args[place])
        if name in {"static", "hyper", *HELP_POSITION}:
            yield from named


def odd_helps(module: str, tree: ast.AST) -> Iterator[Offense]:
    for node in helps(tree):
        text = text_of(node)
        if first_word(text) in HELP_STARTS:
            yield module, node, f'a help text begins with "{first_word(text)}": {text[:50]}'
        if re.search(r"\bit\b", text):
            yield module, node, f'a help text says "it" without a subject: {text[:50]}'


def odd_docstrings(module: str, tree: ast.AST) -> Iterator[Offense]:
    for node in ast.walk(tree):
        if not isinstance(node, FUNCTIONS | ast.ClassDef | ast.Module):
            continue
        word = first_word(ast.get_docstring(node) or "")
        if word in DOCSTRING_STARTS:
            yield module, node.body[0], f'a docstring begins with "{word}"'


# ---------------------------------------------------------------- one idea a line


def odd_conditionals(module: str, tree: ast.AST) -> Iterator[Offense]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.IfExp):
            continue
        if node.lineno != node.end_lineno:
            yield module, node, "a conditional expression over several lines"
        if any(isinstance(inner, ast.IfExp) for inner in ast.walk(node) if inner is not node):
            yield module, node, "a conditional expression inside another"


def is_pair(names: list[str]) -> bool:
    """Tell whether the names are those of a range: low, high; first_x, last_x; a.min, a.max."""
    if len(names) != 2:
        return False
    a, b = names
    return any(low in a and a.replace(low, high) == b for low, high in PAIRS)


def parallel_bindings(module: str, tree: ast.AST) -> Iterator[Offense]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple | ast.List):
            continue
        values = sorted(map(ast.unparse, node.value.elts))
        for target in node.targets:
            if not isinstance(target, ast.Tuple | ast.List):
                continue
            names = list(map(ast.unparse, target.elts))
            if sorted(names) != values and not is_pair(names):
                yield module, node, f"a parallel binding of unlike things: {', '.join(names)}"


# ---------------------------------------------------------------- sizes


def long_functions(module: str, tree: ast.AST) -> Iterator[Offense]:
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            lines = node.end_lineno - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield module, node, f"{node.name} has {lines} lines"


def arguments(node: FUNCTIONS) -> list[ast.arg]:
    """Return the arguments of a function but self and cls."""
    spec = node.args
    found = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]
    found += filter(None, (spec.vararg, spec.kwarg))
    return [argument for argument in found if argument.arg not in ("self", "cls")]


def public_functions(tree: ast.Module) -> Iterator[FUNCTIONS]:
    """Yield the public functions of a module and the public methods of its public classes."""
    scopes = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    for scope in scopes:
        if getattr(scope, "name", "").startswith("_"):
            continue
        for node in scope.body:
            if not isinstance(node, FUNCTIONS):
                continue
            if node.name in ("__init__", "__call__") or not node.name.startswith("_"):
                yield node


def bare_arguments(module: str, tree: ast.Module) -> Iterator[Offense]:
    for node in public_functions(tree):
        for argument in arguments(node):
            if argument.annotation is None:
                yield module, argument, f"{node.name}({argument.arg}) has no type"


# ---------------------------------------------------------------- the tests


CHECKS = [odd_helps, odd_docstrings, odd_conditionals, parallel_bindings, long_functions]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("check", CHECKS)
def test_the_source_is_plain(check, package):
    trees = [(module, tree) for module, tree in TREES.items() if inside(module, package)]
    allow_none(hit for module, tree in trees for hit in check(module, tree))


@pytest.mark.parametrize("package", PACKAGES)
def test_arguments_have_types(package):
    trees = [(module, tree) for module, tree in TREES.items() if inside(module, package)]
    every = [argument for _, tree in trees for node in public_functions(tree)
             for argument in arguments(node)]
    bare = [hit for module, tree in trees for hit in bare_arguments(module, tree)]
    if len(bare) > (1 - ANNOTATED) * len(every):
        allow_none(iter(bare))


def test_files_are_short():
    files = [*FILES.values(), *(ROOT / "tests").rglob("*.py")]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    long = [f"{path.relative_to(ROOT)}:1: {n} lines" for path, n in lines.items()
            if n > FILE_LINES]
    assert not long, "\n".join(["", *long])


def test_functions_of_tests_are_short():
    long = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        long += [f"{path.relative_to(ROOT)}:{node.lineno}: {text}"
                 for _, node, text in long_functions("", tree)]
    assert not long, "\n".join(["", *long])


def crowded(folders: dict[str, int]) -> list[str]:
    """Return the folders (name -> number of modules) that have too many."""
    return [f"{name}: {count} files" for name, count in folders.items()
            if count > FOLDER_FILES and name not in WIDE_FOLDERS]


def test_folders_are_small():
    folders = {path.parent for path in (ROOT / "jaxrl").rglob("*.py")}
    count = {str(folder.relative_to(ROOT)): len(modules(folder)) for folder in folders}
    assert len(count) > 5
    assert not crowded(count)


def modules(folder: Path) -> list[Path]:
    return list(folder.glob("*.py"))


# ---------------------------------------------------------------- the checks see


LONG = "def f(x):\n" + "    x = x + 1\n" * FUNCTION_LINES


@pytest.mark.parametrize("check, code", [
    *((odd_helps, f"x: int = static(1, help='{word} the run')") for word in sorted(HELP_STARTS)),
    (odd_helps, "x: float = hyper(1.0, low=0, high=1, help='the most it may be off')"),
    (odd_helps, "x: float = hyper(1.0, help='fraction of '\n 'it left')"),
    (odd_helps, "x = Declaration('x', int, None, 'static', 'of a Ray cluster')"),
    (odd_helps, "x = Declaration('x', int, None, 'static', help=f'{a} of it')"),
    (odd_helps, "x = {'flatten': Option(f, bool, False, 'without it')}"),
    *((odd_docstrings, f"def f(x):\n    '''{word} there is.'''")
      for word in sorted(DOCSTRING_STARTS)),
    (odd_docstrings, "'''What the source may import.'''"),
    (odd_docstrings, "class A:\n    def f(self):\n        '''Whether they fit.'''"),
    (odd_conditionals, "x = 1 if a else 2 if b else 3"),
    (odd_conditionals, "x = f(1 if (2 if a else 3) else 4)"),
    (odd_conditionals, "x = (1 if a\n     else 2)"),
    (odd_conditionals, "x = f(a,\n      b) if c else d"),
    (parallel_bindings, "a, b = x, y"),
    (parallel_bindings, "self.a, self.b = a, b"),
    (parallel_bindings, "low, up = 0, 1"),
    (parallel_bindings, "a, *b = x, *y"),
    (parallel_bindings, "[a, b] = [0, {}]"),
    (parallel_bindings, "c = a, b = x, y"),
    (long_functions, LONG),
    (long_functions, "class A:\n" + re.sub("^", "    ", LONG, flags=re.MULTILINE)),
    (bare_arguments, "def f(x): ..."),
    (bare_arguments, "def f(x: int, *more, **rest: int): ..."),
    (bare_arguments, "class A:\n    def __init__(self, *, x): ..."),
])
def test_a_check_sees(check, code):
    assert list(check("somewhere", ast.parse(code)))


@pytest.mark.parametrize("check, code", [
    (odd_helps, "x: int = static(1, help='item per unit; without a limit if null')"),
    (odd_helps, "subparsers.add_parser('x', help='of it')"),
    (odd_docstrings, "def f(x):\n    '''Return what there is.'''"),
    (odd_docstrings, "def f(x):\n    '''Assign a value.'''"),
    (odd_docstrings, "def f(x): return 'What there is.'"),
    (odd_conditionals, "x = 1 if a else 2\ny = [1 if a else 2 for a in b if c]"),
    (parallel_bindings, "a, b = f(x)\nlow, high = 0, 1\nself.low, self.high = x, y"),
    (parallel_bindings, "a, b = b, a\nx = a, b\nfirst_x, last_x = steps[0], steps[-1]"),
    (long_functions, LONG.removesuffix("    x = x + 1\n")),
    (bare_arguments, "def _f(x): ...\nclass _A:\n    def f(self, x): ..."),
    (bare_arguments, "class A:\n    def f(self, x: int): ...\ndef f(*, x: int = 3): ..."),
])
def test_a_check_accepts(check, code):
    assert not list(check("somewhere", ast.parse(code)))


def test_the_check_of_folders_sees():
    assert crowded({"jaxrl/x": FOLDER_FILES + 1, "jaxrl/y": FOLDER_FILES, "jaxrl/cli": 99}) == [
        f"jaxrl/x: {FOLDER_FILES + 1} files"]
