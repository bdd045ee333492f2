"""An outside package, tests/plugin, installed and used by name through the command line; docs/extending.md shows it.

The page's named blocks are that package, word for word; its commands and its other Python blocks are run, in order.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "tests" / "plugin"
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S)
FILES = {name: text for kind, code in BLOCKS for name, text in re.findall(r"\A# ([\w/]+\.\w+)\n(.*)", code, re.S)}
SCRIPTS = [code for kind, code in BLOCKS if kind == "python" and not re.match(r"# [\w/]+\.py\n", code)]
COMMANDS = [line for kind, code in BLOCKS if kind == "bash" for line in code.splitlines()]
SMALL = ["preset=none", "num_devices=1", "algo.num_envs=16", "algo.rollout_length=16", "algo.network.hidden=[16,16]",
         "eval_episodes=16"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where pip has installed the package: nothing is downloaded, and nothing built beside the sources."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
                           "--no-index", "--target", folder / "site", folder / "source"], timeout=300,
                          env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    return tmp_path_factory.mktemp("desk")


def sh(words: list[str], site: Path, cwd: Path, code: int = 0, more: tuple[Path, ...] = ()) -> tuple[str, str]:
    """(stdout, stderr) of a command where the package is installed."""
    binary = {"jaxrl": [str(Path(sys.executable).with_name("jaxrl"))], "python": [sys.executable]}
    path = os.pathsep.join(filter(None, [*map(str, [site, *more]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run([*binary[words[0]], *words[1:]], cwd=cwd, env={**os.environ, "PYTHONPATH": path},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, f"{shlex.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout, done.stderr


def test_names_are_listed_beside_ours(site, tmp_path):
    out, err = sh(["jaxrl", "list", "algos", "envs", "networks"], site, tmp_path)
    assert not err
    for name, text in (("awr", "AWR: advantage-weighted regression."), ("ppo", "PPO"), ("signpost", "Observation [2]"),
                       ("cartpole", ""), ("bsuite/...", "1: Catch"), ("cartpole-noisy", "CartPole under"),
                       ("residual", "Features [N, F]"), ("mlp", "")):
        assert re.search(rf"^ +{re.escape(name)} +{re.escape(text)}", out, re.M), name
    out, _ = sh(["jaxrl", "list", "awr", "signpost"], site, tmp_path)
    assert re.search(r"algo\.temperature +0\.5 +0\.001 <= x <= 1000 +0\.05 \.\. 5 log +hyper +temperature beta", out)
    assert "residual|" in out and re.search(r"env\.params\.half +3", out)


def test_a_name_in_two_packages_is_one_line(site, tmp_path):
    other = tmp_path / "other-0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 0\n")
    (other / "entry_points.txt").write_text("[jaxrl.algorithms]\nother = other:TABLE\n")
    (tmp_path / "other.py").write_text('TABLE = {"awr": "other:AWR"}\n')
    for words in (["list", "algos"], ["train", "algo=ppo", "env=cartpole"]):
        out, err = sh(["jaxrl", *words], site, tmp_path, code=2, more=(tmp_path,))
        assert not out and re.fullmatch(r'error: "awr" is declared by two packages, (signpost and other|other and '
                                        r"signpost)\. Rename one, or uninstall one\n", err), err


@pytest.mark.slow
def test_theirs_trains_by_name(site, tmp_path):
    """Their algorithm with their network in their environment: the best return is the prize, in every episode."""
    words = ["algo=awr", "env=signpost", "env.params.prize=3", "algo.network.torso=residual", "num_seeds=2", *SMALL]
    out, _ = sh(["jaxrl", "train", *words, "total_steps=15_000", "out=run", "json=true"], site, tmp_path)
    summary = json.loads(out)
    assert summary["status"] == "completed" and summary["eval_returns"] == [3.0, 3.0]
    out, _ = sh(["jaxrl", "eval", "run", "episodes=8", "json=true"], site, tmp_path)
    assert json.loads(out)["returns"] == [[3.0] * 8] * 2
    sh(["jaxrl", "resume", "run", "total_steps=16_000", "quiet=true"], site, tmp_path)
    again = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert again["total_steps"] > summary["total_steps"] and again["eval_returns"] == [3.0, 3.0]
    _, err = sh(["jaxrl", "train", *words, "algo.network.torso=residul", "algo.temprature=1"], site, tmp_path, code=2)
    assert "Did you mean: residual?" in err and "Did you mean: algo.temperature" in err


@pytest.mark.slow
def test_theirs_and_ours_mix(site, tmp_path):
    """Their algorithm in our probe, whose best policy uses the observation: worth 1; ours in their environment."""
    for words, best in ((["algo=awr", "env=probe-both"], 1.0), (["algo=ppo", "env=signpost"], 1.0)):
        out, _ = sh(["jaxrl", "train", *words, *SMALL, "total_steps=15_000", "algo.learning_rate=3e-3", "json=true",
                     f"out={words[0]}"], site, tmp_path)
        assert json.loads(out)["eval_returns"] == [best]


@pytest.mark.slow
def test_without_the_package_a_run_of_it_says_what_is_missing(site, tmp_path):
    words = ["algo=awr", "env=signpost", *SMALL, "total_steps=300", "out=run", "quiet=true"]
    sh(["jaxrl", "train", *words], site, tmp_path)
    for words in (["eval", "run"], ["resume", "run", "total_steps=600"], ["train", "config=run/config.yaml"]):
        _, err = sh(["jaxrl", *words], tmp_path, tmp_path, code=2)
        assert 'unknown algo "awr"' in err and 'unknown env "signpost"' in err and "Traceback" not in err


# ---------------------------------------------------------------- the page


def test_the_page_shows_the_package():
    assert PAGE.count("```") == 2 * len(BLOCKS)
    want = {str(path.relative_to(PLUGIN)): path.read_text(encoding="utf-8") for path in PLUGIN.rglob("*")
            if path.suffix in (".py", ".toml")}
    assert want.keys() == FILES.keys()
    for name, text in want.items():
        assert FILES[name] == text, name
    assert COMMANDS[0] == "pip install -e ."


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS[1:])
def test_the_page_s_commands_run(command, site, desk):
    out, _ = sh(shlex.split(command), site, desk)
    assert out.strip()


@pytest.mark.slow
@pytest.mark.parametrize("code", SCRIPTS, ids=lambda code: code.splitlines()[0])
def test_the_page_s_scripts_run(code, site, desk):
    (desk / "script.py").write_text(code)
    out, _ = sh(["python", "script.py"], site, desk)
    assert out.split() == re.search(r"print\(.*\) *# (.*)$", code, re.M)[1].split()
