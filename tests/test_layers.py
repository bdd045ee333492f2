"""What the source may import, and what it may not contain: read from the syntax tree, so that nothing is left out."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("envs_jax", "jaxrl", "algos")

LAYERS = [      # of jaxrl, lowest first: a module imports from the lines above its own, and from its own package
    ("jaxrl.errors", "jaxrl.declare", "jaxrl.types"),
    ("jaxrl.backend", "jaxrl.registry"),
    ("jaxrl.blocks", "jaxrl.config", "jaxrl.distributed", "jaxrl.storage"),      # the last two: nothing of learning
    ("jaxrl.drivers", "jaxrl.evaluate"),
    ("jaxrl.population",),
    ("jaxrl.report",),                             # draws what storage and population hold
    ("jaxrl.run",),
    ("jaxrl.api",),
    ("jaxrl.cli",),
    ("jaxrl",),                                    # the package itself, which names what users import from it
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
PURE = {"jaxrl.blocks", "jaxrl.declare", "jaxrl.errors", "jaxrl.types"}        # what blocks and algorithms may see
TABLES = {(f"jaxrl.blocks.networks.{name}", "jaxrl.registry") for name in ("actor_critic", "modules")}      # of torsos
PROTOCOL = {"envs_jax", *(f"envs_jax.{name}" for name in (       # what jaxrl may see
    "core", "parameters", "render", "sharding", "sizes", "spaces", "suites", "vector", "wrappers"))}

EDGE = {        # packages that stay at the edge, and who may import them; "module!" may do so at its top
    "flax": ["jaxrl.blocks.networks.modules!", "jaxrl.blocks.networks.noisy!"],
    "PIL": ["envs_jax.render"],
    **{suite: [f"envs_jax.adapters.{suite}"] for suite in ("brax", "craftax", "jaxmarl", "jumanji", "pgx")},
    "gymnasium": ["envs_jax.bridges!"],
    "gymnax": ["envs_jax.adapters.gymnax", "envs_jax.bridges.gymnax!"],
    "hydra": ["jaxrl.config.schemas!", "jaxrl.config.overrides"],
    "jaxtyping": ["algos", "envs_jax", "jaxrl.blocks"],         # in annotations: under TYPE_CHECKING only
    "matplotlib": [],
    "omegaconf": ["jaxrl.config.schemas!", "jaxrl.config"],
    "optax": ["jaxrl.blocks!", "algos!"],
    "ray": ["jaxrl.distributed"],
    "rich": ["jaxrl.cli"],
    "safetensors": [],
    "tensorboardX": ["jaxrl.report.tensorboard"],
    "yaml": ["jaxrl.config"],
}
BROUGHT = {"ml_dtypes": "jax", "pil": "pillow", "yaml": "omegaconf"}      # imported, brought by the dependency named
IMPORTERS = {"envs_jax", "jaxrl", "jaxrl.registry", "jaxrl.cli.main"}      # may import by name: from literal tables


class Import(NamedTuple):
    module: str
    line: int
    top: bool          # runs when the importing module is imported


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}


def imports_of(tree: ast.AST, top: bool = True) -> Iterator[Import]:
    """Every import, those inside functions and under TYPE_CHECKING included."""
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


IMPORTS = {module: list(imports_of(tree)) for module, tree in TREES.items()}


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def layer(module: str) -> str:
    """"jaxrl.run.loop" -> "jaxrl.run"."""
    return ".".join(module.split(".")[:2])


def own(module: str) -> list[Import]:
    """The imports of a module that name one of the packages of this repository."""
    return [found for found in IMPORTS[module] if found.module.split(".")[0] in PACKAGES]


def offences(found: Iterator[tuple[str, Import | ast.AST, str]]) -> list[str]:
    return [f"{FILES[module].relative_to(ROOT)}:{getattr(at, 'line', None) or at.lineno}: {text}"
            for module, at, text in found]


def allow_none(found: Iterator[tuple[str, Import | ast.AST, str]]) -> None:
    lines = offences(found)
    assert not lines, "\n".join(["", *lines])


# ---------------------------------------------------------------- the import graph


def test_every_module_was_read():
    assert {"envs_jax.vector", "jaxrl.run.loop", "algos.ppo"} <= set(FILES) and len(FILES) > 50
    assert not [module for module, found in IMPORTS.items() for i in found if i.module.startswith(".")], "relative"


@pytest.mark.parametrize("low, high", [("envs_jax", "jaxrl"), ("envs_jax", "algos"), ("jaxrl", "algos")])
def test_packages_point_one_way(low, high):
    allow_none((m, i, f"imports {i.module}") for m in FILES if inside(m, low)
                        for i in own(m) if inside(i.module, high))


def test_layers_of_jaxrl_point_one_way():
    unknown = {layer(module) for module in FILES if inside(module, "jaxrl")} - set(RANK)
    assert not unknown, f"new modules: say in LAYERS where they stand: {sorted(unknown)}"
    allow_none(
        (m, i, f"{layer(m)} imports {i.module}, which does not stand below it")
        for m in FILES if inside(m, "jaxrl") for i in own(m)
        if inside(i.module, "jaxrl") and layer(i.module) != layer(m) and RANK[layer(i.module)] >= RANK[layer(m)])


def test_nothing_imports_in_a_circle():
    """At the top of modules; inside functions the layers above bound it."""
    graph = {m: {i.module for i in own(m) if i.top and i.module in FILES and i.module != m} for m in FILES}
    while leaves := {m for m, needs in graph.items() if not needs}:
        graph = {m: needs - leaves for m, needs in graph.items() if m not in leaves}
    assert not graph, f"circles among {sorted(graph)}"


def test_blocks_and_algorithms_see_no_machinery():
    """They take values and give values: where experience comes from and how a run is stored is not theirs."""
    allow_none((m, i, f"imports {i.module}") for m in FILES if inside(m, "jaxrl.blocks") or inside(m, "algos")
                        for i in own(m) if inside(i.module, "jaxrl") and layer(i.module) not in PURE
                        and (m, i.module) not in TABLES)


def test_algorithms_never_import_each_other():
    allow_none((m, i, f"imports {i.module}") for m in FILES if inside(m, "algos")
                        for i in own(m) if inside(i.module, "algos"))


def test_environments_are_found_in_tables():
    """jaxrl knows the protocol of environments, none of them by name."""
    allow_none((m, i, f"imports {i.module}") for m in FILES if inside(m, "jaxrl")
                        for i in own(m) if inside(i.module, "envs_jax") and i.module not in PROTOCOL)


@pytest.mark.parametrize("package", EDGE)
def test_packages_of_the_edge_stay_there(package):
    allowed = [name.rstrip("!") for name in EDGE[package]]
    at_top = [name.rstrip("!") for name in EDGE[package] if name.endswith("!")]
    allow_none(
        (m, i, f"imports {i.module}" + (" at its top" if i.top else "")) for m in FILES for i in IMPORTS[m]
        if inside(i.module, package) and not any(inside(m, name) for name in (at_top if i.top else allowed)))


def test_the_lower_package_needs_little():
    """envs_jax is useful alone: jax and numpy; other packages only in adapters, and where EDGE says so."""
    needed = {*sys.stdlib_module_names, "envs_jax", "jax", "numpy", "chex", *EDGE}
    allow_none((m, i, f"imports {i.module}") for m in FILES if inside(m, "envs_jax") for i in IMPORTS[m]
               if i.module.split(".")[0] not in needed and not inside(m, "envs_jax.adapters"))


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [text for name, texts in project["optional-dependencies"].items() if name != "dev" for text in texts]
    names = {re.split(r"[^A-Za-z0-9_.-]", text)[0].lower() for text in [*project["dependencies"], *extras]}
    names |= {name for name, brings in BROUGHT.items() if brings in names}
    names |= {"hydra"} if "hydra-core" in names else set()
    names |= {"jaxtyping"}                                      # never imported at run time: see EDGE
    used = {i.module.split(".")[0] for found in IMPORTS.values() for i in found}
    missing = {name for name in used - {*sys.stdlib_module_names, *PACKAGES} if name.lower() not in names}
    assert not missing, f"imported, but in no line of pyproject.toml: {sorted(missing)}"


# ---------------------------------------------------------------- what an import costs


def modules_after(code: str) -> set[str]:
    """The modules of a fresh interpreter after `code`."""
    code += "\nimport json, sys\nprint('\\n' + json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def tops(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_importing_environments_costs_nothing():
    assert not tops(modules_after("import envs_jax; list(envs_jax.ENVIRONMENTS)")) & {"jax", "numpy", "chex", "jaxrl"}


def test_importing_jaxrl_beside_jax_costs_little():
    """Hydra and what it brings, because the configs are registered; of ours almost nothing."""
    plain, both = modules_after("import jax"), modules_after("import jax, jaxrl")
    added = both - plain
    assert tops(added) - set(sys.stdlib_module_names) <= {
        "jaxrl", "hydra", "omegaconf", "antlr4", "yaml", "attr", "attrs", "packaging", "cython_runtime",
        *(name for name in tops(added) if name.startswith(("_cython", "_distutils", "__mypyc", "_yaml")))}
    assert len([name for name in added if inside(name, "jaxrl")]) < 12      # errors, declare, registry, config
    assert len(added) < 250


def test_storage_needs_no_jax():
    """A full disk or a damaged file is handled, and tested, without it."""
    storage = [module for module in FILES if inside(module, "jaxrl.storage")]
    code = f"import {', '.join(storage)}, jaxrl.report.page, jaxrl.report.tensorboard"
    assert not tops(modules_after(code)) & {"jax", "jaxlib", "flax", "tensorboardX", "envs_jax", "algos"}


def test_the_python_api_loads_no_network_library_and_no_algorithm():
    assert not tops(modules_after("import jaxrl.api")) & {"flax", "optax", "gymnax", "gymnasium", "ray", "rich",
                                                          "tensorboardX", "algos"}


# ---------------------------------------------------------------- what is banned


SERIALISERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
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
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield module, node, "allow_pickle runs what it reads"
        elif text.endswith(".PRNGKey") or (isinstance(node, ast.ImportFrom) and any(
                alias.name == "PRNGKey" for alias in node.names)):
            yield module, node, "legacy keys: jax.random.key"
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "yaml" and (
                node.attr.endswith("load") or node.attr.endswith("load_all")) and "safe" not in node.attr.split("_"):
            yield module, node, f"{text}: yaml.safe_load"
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("np.random", "numpy.random") \
                and node.attr not in NUMPY_RANDOM:
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
            yield module, node, f"{text}: names are looked up in tables, in {', '.join(sorted(IMPORTERS))}"


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_banned_is_in_the_source(package):
    allow_none(hit for m, tree in TREES.items() if inside(m, package) for hit in banned(m, tree))


@pytest.mark.parametrize("code", [
    "jax.random.PRNGKey(0)", "from jax.random import PRNGKey", "import pickle", "def f():\n from cloudpickle import x",
    "np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=flag)", "yaml.load(x)", "yaml.full_load(x)",
    "yaml.unsafe_load_all(x)", "np.random.seed(0)", "np.random.normal()", "from numpy.random import rand",
    "import random", "print(1)", "assert x", "eval(x)", "exec(x)", "jax.pure_callback(f)", "jax.debug.print('x')",
    "importlib.import_module(x)", "instantiate(config)"])
def test_the_ban_sees(code):
    assert list(banned("somewhere", ast.parse(code)))


@pytest.mark.parametrize("code", [
    "jax.random.key(0)", "np.load(f, allow_pickle=False)", "yaml.safe_load(x)", "yaml.safe_dump(x)",
    "OmegaConf.load(x)", "np.random.default_rng(0).normal()", "pattern.evaluate(x)",
    "jax.random.normal(key)", "self.print(x)"])
def test_the_ban_lets_pass(code):
    assert not list(banned("somewhere", ast.parse(code)))


# ---------------------------------------------------------------- style


def test_files_and_functions_are_short():
    long = [f"{path.relative_to(ROOT)} has {n} lines" for path in (*FILES.values(), *(ROOT / "tests").rglob("*.py"))
            if (n := len(path.read_text(encoding="utf-8").splitlines())) >= 700]
    long += offences((m, node, f"{node.name} has {n} lines") for m, tree in TREES.items() for node in ast.walk(tree)
                     if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                     and (n := node.end_lineno - node.lineno + 1) >= 150)
    assert not long, "\n".join(["", *long])


CLASSES = {node.name: node for tree in TREES.values() for node in tree.body if isinstance(node, ast.ClassDef)}
PROTOCOLS = {name for name, node in CLASSES.items() if "Protocol" in map(ast.unparse, node.bases)}


def methods(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {m.name: m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")}


def documented_above(node: ast.ClassDef, name: str) -> bool:
    """Whether a base class of this repository says what the method does, or declares it as a field."""
    bases = [CLASSES[base] for base in map(ast.unparse, node.bases) if base in CLASSES]
    fields = {ast.unparse(target) for base in bases for line in base.body
              for target in getattr(line, "targets", [getattr(line, "target", line)])}
    return name in fields or any(
        (name in methods(base) and ast.get_docstring(methods(base)[name])) or documented_above(base, name)
        for base in bases)


def undocumented(tree: ast.Module) -> Iterator[ast.AST]:
    """Public functions, classes and their methods without a docstring.

    Exempt: what a protocol or a base class documents, tuples that are nothing but named fields, and a command's
    `run`, which the HELP above it explains.
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
            yield from (method for name, method in methods(node).items() if not ast.get_docstring(method)
                        and name not in promised and not documented_above(node, name)
                        and "overload" not in map(ast.unparse, method.decorator_list))


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_public_says_what_it_does(package):
    allow_none((m, node, f"{node.name} has no docstring") for m, tree in TREES.items() if inside(m, package)
                        for node in undocumented(tree))
    silent = [m for m, tree in TREES.items() if inside(m, package) and tree.body and not ast.get_docstring(tree)]
    assert not silent, f"modules without a docstring: {silent}"
