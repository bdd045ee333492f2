"""The installed files are those of the repository: list of packages, wheel, editable install."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {
    "envs_jax": "envs_jax", "jaxrl": "jaxrl", "algos": "algos", "jaxrl_configs": "configs",
}  # name -> folder
FIRST = [
    "train", "algo=ppo", "env=cartpole", "preset=none", "total_steps=2000", "eval_episodes=4",
    "json=true",
]


def test_every_package_is_listed():
    """setuptools looks for none itself, because configs/ is installed under another name."""
    found = {".".join((name, *init.parent.relative_to(ROOT / folder).parts))
             for name, folder in FOLDERS.items() for init in (ROOT / folder).rglob("__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found
    inside = [path for folder in FOLDERS.values() for path in (ROOT / folder).rglob("*.py")]
    assert not [path for path in inside if not (path.parent / "__init__.py").exists()], (
        "modules outside any package"
    )


def test_no_other_file_would_be_left_behind():
    """Beside modules, the packages hold the files that package-data names, and nothing else."""
    others = {
        path.relative_to(ROOT)
        for folder in FOLDERS.values()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    typed = {Path(name) / "py.typed" for name in ("jaxrl", "envs_jax", "algos")}
    yaml = {path for path in others
            if path.parts[0] == "configs" and path.suffix == ".yaml" and len(path.parts) < 4}
    assert yaml and others == yaml | typed


def test_entry_points_and_script_exist():
    for table in PROJECT["project"]["entry-points"].values():
        assert all(metadata.EntryPoint("", target, "").load() for target in table.values())
    assert callable(metadata.EntryPoint("", PROJECT["project"]["scripts"]["jaxrl"], "").load())


# ---------------------------------------------------------------- installs, outside the checkout


def run(*words: str | Path, cwd: Path, timeout: int = 300) -> str:
    """stdout of a command that knows nothing of this checkout."""
    env = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")
    }
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env={**env, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def isolation() -> list[str]:
    """Return pip's option for builds with our setuptools, nothing if it is older than required."""
    needed = int(PROJECT["build-system"]["requires"][0].rpartition("=")[2])
    try:
        return ["--no-build-isolation"] * (
            int(metadata.version("setuptools").split(".")[0]) >= needed
        )
    except metadata.PackageNotFoundError:
        return []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the sources alone, so that builds find no old ones and leave nothing behind."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *isolation(), "--wheel-dir",
        folder, checkout, cwd=folder,
    )
    return next(folder.glob("jaxrl-*.whl"))


def environment(folder: Path, *what: str | Path) -> Path:
    """Install jaxrl into a new environment with the dependencies of this process; return bin/."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = next((folder / "lib").glob("python*/site-packages"))
    # Python does not read .pth files in folders that a .pth file names, so no editable install of
    # ours is found. Written first, because a build without isolation looks for setuptools here.
    (site / "dependencies.pth").write_text(
        sysconfig.get_path("purelib") + "\n" + sysconfig.get_path("platlib") + "\n"
    )
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps",
        "--ignore-installed", *what, cwd=folder,
    )
    return folder / "bin"


def works(binaries: Path, home: Path, cwd: Path) -> None:
    """The console script trains, with the packages of `home`, and finds the preset."""
    names = ", ".join(FOLDERS)
    code = f"import json, {names}; print(json.dumps([m.__file__ for m in ({names})]))"
    found = json.loads(run(binaries / "python", "-c", code, cwd=cwd))
    assert all(Path(path).resolve().is_relative_to(home.resolve()) for path in found), found
    assert f"jaxrl {PROJECT['project']['version']}" in run(binaries / "jaxrl", "--version", cwd=cwd)
    assert "ppo_cartpole" in run(binaries / "jaxrl", "list", "experiments", cwd=cwd)
    assert "preset ppo_cartpole" in run(
        binaries / "jaxrl", "show", "algo=ppo", "env=cartpole", cwd=cwd
    )
    summary = json.loads(run(binaries / "jaxrl", *FIRST, cwd=cwd))
    assert summary["status"] == "completed" and summary["total_steps"] >= 2000


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_config(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for name, folder in FOLDERS.items():
        wanted = {f"{name}/{path.relative_to(ROOT / folder)}" for path in (ROOT / folder).rglob("*")
                  if path.suffix in (".py", ".yaml", ".typed")}
        assert wanted and not wanted - names
    assert not [
        name for name in names if name.startswith(("tests/", "configs/", "examples/", "docs/"))
    ]
    assert [name for name in names if name.endswith("/LICENSE")]


@pytest.mark.slow
def test_a_wheel_trains_outside_the_checkout(wheel, tmp_path):
    works(environment(tmp_path / "venv", wheel), tmp_path / "venv", tmp_path)


@pytest.mark.slow
def test_an_editable_install_trains_outside_the_checkout(checkout, tmp_path):
    works(environment(tmp_path / "venv", *isolation(), "--editable", checkout), checkout, tmp_path)
