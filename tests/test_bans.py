"""Constructs that the source may not contain, found in the syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.source import IMPORTS, PACKAGES, TREES, allow_none, imports_of, inside

IMPORTERS = {      # may import by name, from literal tables
    "envs_jax", "jaxrl", "jaxrl.registry", "jaxrl.cli.main"}

SERIALISERS = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal",
    "jsonpickle",
}
NUMPY_RANDOM = {"default_rng", "Generator", "SeedSequence"}
CALLBACKS = {"pure_callback", "io_callback"}


def banned(module: str, tree: ast.AST) -> Iterator[tuple[str, ast.AST, str]]:
    for found in IMPORTS.get(module) or imports_of(tree):
        if found.module.split(".")[0] in SERIALISERS:
            yield module, found, f"{found.module} runs what it reads"
        if found.module in ("random", "numpy.random") or found.module.startswith("numpy.random."):
            yield module, found, "global random state: numpy.random.default_rng(seed)"
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if isinstance(node, ast.Assert):
            yield module, node, "assert vanishes under -O: raise, or chex.assert_*"
        elif (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and ast.unparse(node.value) != "False"
        ):
            yield module, node, "allow_pickle runs what it reads"
        elif text.endswith(".PRNGKey") or (isinstance(node, ast.ImportFrom) and any(
                alias.name == "PRNGKey" for alias in node.names)):
            yield module, node, "legacy keys: jax.random.key"
        elif (
            isinstance(node, ast.Attribute)
            and ast.unparse(node.value) == "yaml"
            and (node.attr.endswith("load") or node.attr.endswith("load_all"))
            and "safe" not in node.attr.split("_")
        ):
            yield module, node, f"{text}: yaml.safe_load"
        elif (
            isinstance(node, ast.Attribute)
            and ast.unparse(node.value) in ("np.random", "numpy.random")
            and node.attr not in NUMPY_RANDOM
        ):
            yield module, node, f"{text} is global: numpy.random.default_rng(seed)"
        elif isinstance(node, ast.Attribute) and (node.attr in CALLBACKS or text in (
                "jax.debug.print", "jax.debug.callback")):
            yield module, node, f"{text}: no host callback in compiled code"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            if name in ("eval", "exec", "__import__"):
                yield module, node, f"{name} runs text"
            elif name == "print" and not inside(module, "jaxrl.cli"):
                yield module, node, "print: only the command line does"
            elif name == "instantiate":
                yield module, node, "names in configs are looked up in tables"
        if text.endswith("import_module") and module not in IMPORTERS:
            yield (
                module, node,
                f"{text}: names are looked up in tables, in {', '.join(sorted(IMPORTERS))}",
            )


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_banned_is_in_the_source(package):
    allow_none(hit for m, tree in TREES.items() if inside(m, package) for hit in banned(m, tree))


@pytest.mark.parametrize(
    "code",
    [
        "jax.random.PRNGKey(0)", "from jax.random import PRNGKey", "import pickle",
        "def f():\n from cloudpickle import x", "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)", "yaml.load(x)", "yaml.full_load(x)",
        "yaml.unsafe_load_all(x)", "np.random.seed(0)", "np.random.normal()",
        "from numpy.random import rand", "import random", "print(1)", "assert x", "eval(x)",
        "exec(x)", "jax.pure_callback(f)", "jax.debug.print('x')", "importlib.import_module(x)",
        "instantiate(config)",
    ],
)
def test_the_ban_sees(code):
    assert list(banned("somewhere", ast.parse(code)))


@pytest.mark.parametrize("code", [
    "jax.random.key(0)", "np.load(f, allow_pickle=False)", "yaml.safe_load(x)", "yaml.safe_dump(x)",
    "OmegaConf.load(x)", "np.random.default_rng(0).normal()", "pattern.evaluate(x)",
    "jax.random.normal(key)", "self.print(x)"])
def test_the_ban_lets_pass(code):
    assert not list(banned("somewhere", ast.parse(code)))
