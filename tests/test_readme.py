"""Every command and every Python block of the README is run, in order, in a folder of its own.

Three things differ from what a reader does. `pip install` is checked, not repeated: this process
runs in the environment that it made. `pytest` only collects, or it would start itself. The first
command, which trains for minutes, stops early (FIRST).
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata, util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
INSTALL = "pip install -e . && jaxrl train algo=ppo env=cartpole num_seeds=8"
TEST = "pip install -e '.[dev]' && pytest"
FIRST = "total_steps=5_000 eval_episodes=8"  # appended to the first command: fewer updates
QUICK = ("pip", "pytest", "jaxrl list")  # of a second or two; the rest is in the slow tests


def commands(code: str) -> list[str]:
    return [line for line in code.splitlines() if line.strip() and not line.startswith("#")]


def cases() -> list:
    """Return a case for each bash line and each Python block, in the order of the README."""
    found = []
    for kind, code in BLOCKS:
        if kind == "python":
            found.append(
                pytest.param("python", code, id=code.splitlines()[0][:40], marks=pytest.mark.slow)
            )
        elif kind == "bash":
            for line in commands(code):
                for part in line.split(" && "):
                    slow = () if part.startswith(QUICK) else pytest.mark.slow
                    found.append(pytest.param("bash", part, id=part[:60], marks=slow))
    return found


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A working folder outside the checkout."""
    return tmp_path_factory.mktemp("desk")


def sh(words: list[str], cwd: Path, code: int = 0) -> str:
    binary = {"jaxrl": [str(Path(sys.executable).with_name("jaxrl"))], "python": [sys.executable]}
    done = subprocess.run(
        [*binary[words[0]], *words[1:]], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=300,
    )
    assert done.returncode == code, (
        f"{shlex.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    )
    return done.stdout + done.stderr


def check_install(words: list[str]) -> None:
    """Check that the extras exist and that the package is installed."""
    extras = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    )
    editable = words[2] == "-e"
    what = words[-1]
    name, _, asked = what.rstrip("]").partition("[")
    if editable:
        assert name == "." and (not asked or asked in extras)
        assert util.find_spec("jaxrl") and Path(sys.executable).with_name("jaxrl").exists(), (
            "jaxrl is not installed"
        )
    else:
        assert asked in (metadata.metadata(name).get_all("Provides-Extra") or [])


def has_gpu() -> bool:
    done = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.default_backend())"], capture_output=True,
        text=True, timeout=120,
    )
    return done.stdout.strip() == "gpu"


@pytest.mark.parametrize("kind, code", cases())
def test_the_readme_does_what_it_says(kind, code, desk):
    if kind == "python":
        named = re.match(r"# (\w+\.py)\n", code)
        script = desk / (named[1] if named else "block.py")
        script.write_text(code)
        if not named:                              # a named one is run by the command that follows
            assert sh(["python", script.name], desk).strip(), "prints nothing"
        return
    words = shlex.split(code, comments=True)
    if words[:2] == ["pip", "install"]:
        check_install(words)
    elif words == ["pytest"]:
        done = subprocess.run(
            [
                sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider",
                "tests/test_readme.py", "tests/test_registry.py",
            ],
            cwd=ROOT, capture_output=True, text=True, timeout=300,
        )
        assert done.returncode == 0, done.stdout[-3000:]
    elif "device=gpu" in words and not has_gpu():
        assert "device=gpu was asked for" in sh(words, desk, code=2)
    elif "exits with 2" in code:
        said = sh(words, desk, code=2)
        assert said.strip() in README, said
    else:
        first = INSTALL.endswith(code)
        out = sh([*words, *(FIRST.split() if first else [])], desk)
        assert out.strip()
        if first:
            assert (
                "(8 seeds x 8 episodes)" in out
                and len(list((desk / "runs").glob("cartpole-ppo-*"))) == 1
            )


def test_the_two_first_commands_are_these():
    assert [code.strip() for kind, code in BLOCKS if kind == "bash"][:2] == [INSTALL, TEST]


def test_every_block_says_what_it_is():
    assert README.count("```") == 2 * len(BLOCKS)
    assert {kind for kind, _ in BLOCKS} <= {"bash", "python", "text"}
    assert all(ast.parse(code) for kind, code in BLOCKS if kind == "python")


def test_links_and_files_lead_somewhere():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    assert len(pages) > 4
    dead = [f"{page.name}: {target}" for page in pages
            for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
            if "://" not in target and not (page.parent / target).exists()]
    tests = {
        name
        for page in pages
        for name in re.findall(
            r"`((?:tests|jaxrl|envs_jax|algos|configs)/[\w/.]+\.\w+)`",
            page.read_text(encoding="utf-8"),
        )
    }
    dead += [name for name in tests if not (ROOT / name).exists()]
    assert len(tests) > 10 and not dead, dead


def test_the_table_of_commands_is_complete():
    from jaxrl.cli.main import COMMANDS

    named = set(re.findall(r"^\| `jaxrl (\w+)", README, re.M))
    assert named == set(COMMANDS)


def test_the_script_is_the_example():
    """The Hydra script of the README is examples/hydra_main.py in short."""
    script = next(code for kind, code in BLOCKS if kind == "python" and "hydra.main" in code)
    decorator = next(line for line in script.splitlines() if line.startswith("@hydra.main"))
    assert decorator in (ROOT / "examples" / "hydra_main.py").read_text()


def test_the_types_in_the_architecture_are_the_real_ones():
    from jaxrl import types

    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    shown = re.findall(r"^class (\w+)\(NamedTuple\):.*\n    (.*)$", text, re.M)
    assert len(shown) == 4
    for name, fields in shown:
        assert tuple(fields.split("; ")) == getattr(types, name)._fields, name
