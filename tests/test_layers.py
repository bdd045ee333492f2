"""The import graph: order of the layers, packages at the edge, cost of imports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib

import pytest

from tests.source import FILES, IMPORTS, PACKAGES, ROOT, allow_none, inside, layer, own

# The layers of jaxrl, lowest first. A module imports from its own package and from the lines above.
LAYERS = [
    ("jaxrl.errors", "jaxrl.declare", "jaxrl.types"),
    ("jaxrl.backend", "jaxrl.registry"),
    ("jaxrl.blocks", "jaxrl.config", "jaxrl.distributed", "jaxrl.storage"),
    ("jaxrl.drivers", "jaxrl.evaluate"),
    ("jaxrl.population",),
    ("jaxrl.report",),                             # draws what storage and population hold
    ("jaxrl.run",),
    ("jaxrl.api",),
    ("jaxrl.cli",),
    ("jaxrl",),                                    # the package itself: names for users
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
PURE = {       # blocks and algorithms may import these
    "jaxrl.blocks", "jaxrl.declare", "jaxrl.errors", "jaxrl.types"}
TABLES = {     # pairs that may look up torsos
    (f"jaxrl.blocks.networks.{name}", "jaxrl.registry") for name in ("actor_critic", "modules")}
PROTOCOL = {"envs_jax", *(f"envs_jax.{name}" for name in (       # jaxrl may import these
    "core", "parameters", "render", "sharding", "sizes", "spaces", "suites", "vector", "wrappers"))}

EDGE = {        # package -> modules that may import the package, "module!" also at its top
    "flax": ["jaxrl.blocks.networks.modules!", "jaxrl.blocks.networks.noisy!"],
    "PIL": ["envs_jax.render"],
    **{suite: [f"envs_jax.adapters.{suite}"]
       for suite in ("brax", "craftax", "jaxmarl", "jumanji", "pgx")},
    "gymnasium": ["envs_jax.bridges!"],
    "gymnax": ["envs_jax.adapters.gymnax", "envs_jax.bridges.gymnax!"],
    "jaxtyping": ["algos", "envs_jax", "jaxrl.blocks"],       # only under TYPE_CHECKING
    "hydra": ["jaxrl.config.schemas!", "jaxrl.config.overrides"],
    "matplotlib": [],
    "omegaconf": ["jaxrl.config.schemas!", "jaxrl.config"],
    "optax": ["jaxrl.blocks!", "algos!"],
    "ray": ["jaxrl.distributed"],
    "rich": ["jaxrl.cli"],
    "safetensors": [],
    "tensorboardX": ["jaxrl.report.tensorboard"],
    "yaml": ["jaxrl.config"],
}
BROUGHT = {     # imported package -> the dependency that installs the package
    "ml_dtypes": "jax", "pil": "pillow", "yaml": "omegaconf"}


# ---------------------------------------------------------------- the import graph


def test_every_module_was_read():
    assert {"envs_jax.vector", "jaxrl.run.loop", "algos.ppo"} <= set(FILES) and len(FILES) > 50
    assert not [
        module for module, found in IMPORTS.items() for i in found if i.module.startswith(".")
    ], "relative"


@pytest.mark.parametrize(
    "low, high", [("envs_jax", "jaxrl"), ("envs_jax", "algos"), ("jaxrl", "algos")]
)
def test_packages_point_one_way(low, high):
    allow_none((m, i, f"imports {i.module}") for m in FILES if inside(m, low)
                        for i in own(m) if inside(i.module, high))


def test_layers_of_jaxrl_point_one_way():
    unknown = {layer(module) for module in FILES if inside(module, "jaxrl")} - set(RANK)
    assert not unknown, f"new modules: say in LAYERS where they stand: {sorted(unknown)}"
    allow_none(
        (m, i, f"{layer(m)} imports {i.module}, which does not stand below it")
        for m in FILES
        if inside(m, "jaxrl")
        for i in own(m)
        if inside(i.module, "jaxrl")
        and layer(i.module) != layer(m)
        and RANK[layer(i.module)] >= RANK[layer(m)]
    )


def test_nothing_imports_in_a_circle():
    """There is no circle of imports at the top of modules; the layers bound those in functions."""
    graph = {
        m: {i.module for i in own(m) if i.top and i.module in FILES and i.module != m}
        for m in FILES
    }
    while leaves := {m for m, needs in graph.items() if not needs}:
        graph = {m: needs - leaves for m, needs in graph.items() if m not in leaves}
    assert not graph, f"circles among {sorted(graph)}"


def test_blocks_and_algorithms_see_no_machinery():
    """They take and return values; collecting experience and storing runs is outside of them."""
    allow_none(
        (m, i, f"imports {i.module}")
        for m in FILES
        if inside(m, "jaxrl.blocks") or inside(m, "algos")
        for i in own(m)
        if inside(i.module, "jaxrl") and layer(i.module) not in PURE and (m, i.module) not in TABLES
    )


def test_algorithms_never_import_each_other():
    allow_none((m, i, f"imports {i.module}") for m in FILES if inside(m, "algos")
                        for i in own(m) if inside(i.module, "algos"))


def test_environments_are_found_in_tables():
    """jaxrl knows the protocol of environments, none of them by name."""
    allow_none(
        (m, i, f"imports {i.module}")
        for m in FILES
        if inside(m, "jaxrl")
        for i in own(m)
        if inside(i.module, "envs_jax") and i.module not in PROTOCOL
    )


@pytest.mark.parametrize("package", EDGE)
def test_packages_of_the_edge_stay_there(package):
    allowed = [name.rstrip("!") for name in EDGE[package]]
    at_top = [name.rstrip("!") for name in EDGE[package] if name.endswith("!")]
    allow_none(
        (m, i, f"imports {i.module}" + (" at its top" if i.top else ""))
        for m in FILES
        for i in IMPORTS[m]
        if inside(i.module, package)
        and not any(inside(m, name) for name in (at_top if i.top else allowed))
    )


def test_the_lower_package_needs_little():
    """envs_jax needs jax and numpy; other packages only in adapters and where EDGE allows them."""
    needed = {*sys.stdlib_module_names, "envs_jax", "jax", "numpy", "chex", *EDGE}
    allow_none(
        (m, i, f"imports {i.module}")
        for m in FILES
        if inside(m, "envs_jax")
        for i in IMPORTS[m]
        if i.module.split(".")[0] not in needed and not inside(m, "envs_jax.adapters")
    )


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [
        text
        for name, texts in project["optional-dependencies"].items()
        if name != "dev"
        for text in texts
    ]
    names = {
        re.split(r"[^A-Za-z0-9_.-]", text)[0].lower()
        for text in [*project["dependencies"], *extras]
    }
    names |= {name for name, brings in BROUGHT.items() if brings in names}
    names |= {"hydra"} if "hydra-core" in names else set()
    names |= {"jaxtyping"}                    # never imported at run time: see EDGE
    used = {i.module.split(".")[0] for found in IMPORTS.values() for i in found}
    missing = {
        name for name in used - {*sys.stdlib_module_names, *PACKAGES} if name.lower() not in names
    }
    assert not missing, f"imported, but in no line of pyproject.toml: {sorted(missing)}"


# ---------------------------------------------------------------- what an import costs


def modules_after(code: str) -> set[str]:
    """Return the modules of a new interpreter after `code`."""
    code += "\nimport json, sys\nprint('\\n' + json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def tops(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_importing_environments_costs_nothing():
    assert not tops(modules_after("import envs_jax; list(envs_jax.ENVIRONMENTS)")) & {
        "jax", "numpy", "chex", "jaxrl",
    }


def test_importing_jaxrl_beside_jax_costs_little():
    """`import jaxrl` adds Hydra with its dependencies and almost nothing of our own."""
    added = modules_after("import jax, jaxrl") - modules_after("import jax")
    assert tops(added) - set(sys.stdlib_module_names) <= {
        "jaxrl", "hydra", "omegaconf", "antlr4", "yaml", "attr", "attrs", "packaging",
        "cython_runtime",
        *(
            name
            for name in tops(added)
            if name.startswith(("_cython", "_distutils", "__mypyc", "_yaml"))
        ),
    }
    assert (
        len([name for name in added if inside(name, "jaxrl")]) < 12
    )  # errors, declare, registry, config
    assert len(added) < 250


def test_storage_needs_no_jax():
    """Full disks and damaged files are handled, and tested, without JAX."""
    storage = [module for module in FILES if inside(module, "jaxrl.storage")]
    code = f"import {', '.join(storage)}, jaxrl.report.page, jaxrl.report.tensorboard"
    assert not tops(modules_after(code)) & {
        "jax", "jaxlib", "flax", "tensorboardX", "envs_jax", "algos",
    }


def test_the_python_api_loads_no_network_library_and_no_algorithm():
    assert not tops(modules_after("import jaxrl.api")) & {
        "flax", "optax", "gymnax", "gymnasium", "ray", "rich", "tensorboardX", "algos",
    }
