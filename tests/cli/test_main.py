"""The command line as a whole: help, errors, exit codes, imports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module

import pytest

from jaxrl.cli import main as cli
from jaxrl.errors import Interrupted, Problem, RunError, UserError
from tests.config.helpers import with_helps

HEAVY = ("flax", "gymnax", "ray", "rich", "tensorboardX", "gymnasium", "matplotlib")


def modules_after(code: str) -> set[str]:
    """Return the top-level modules of a new interpreter after `code`."""
    code += "\nimport json, sys\nprint('\\n' + json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["--version"], ["list"], ["list", "envs"], ["list", "--help"]]
)
def test_names_are_listed_without_jax(words):
    assert not modules_after(f"from jaxrl.cli.main import main; main({words})") & {
        *HEAVY, "jax", "optax",
    }


@pytest.mark.parametrize("words", [["list", "ppo"], ["list", "cartpole"], ["train", "--help"],
                                   ["show", "algo=ppo", "env=cartpole"]])
def test_tables_are_made_without_heavy_packages(words):
    assert not modules_after(f"from jaxrl.cli.main import main; main({words})") & set(HEAVY)


def test_import_registers_the_configs_and_imports_no_algorithm():
    assert not modules_after("import jaxrl") & {*HEAVY, "jax", "algos", "envs_jax"}


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself_with_two_examples(command, capsys):
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    examples = text.split("Examples:")[1].split("\n\n")[0].strip().splitlines()
    assert len(examples) == 2 and all(
        line.strip().startswith(f"jaxrl {command}") for line in examples
    )
    assert callable(import_module(f"jaxrl.cli.{command}").run)


def test_overview_names_every_command(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {command} " in text for command in cli.COMMANDS) and text.count("  jaxrl ") == 2


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"jaxrl \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "words, text",
    [
        (["tarin"], 'error: unknown command "tarin". Did you mean: train?   (jaxrl --help)\n'),
        (["LIST"], 'error: unknown command "LIST". Did you mean: list?   (jaxrl --help)\n'),
        (["algo=ppo"], 'error: unknown command "algo=ppo".   (jaxrl --help)\n'),
        (["list", "pp0"], 'error: nothing is called "pp0". Did you mean: ppo?   (jaxrl list)\n'),
        (
            ["train", "algo=pp0", "env=cartpole"],
            'error: unknown algo "pp0". Did you mean: ppo?   (jaxrl list algos)\n',
        ),
        (
            ["train", "algo=ppo", "env=cartpole", "algo.gamma=1.3", "sead=1"],
            "error: algo.gamma=1.3 is out of range: 0 <= gamma <= 1 (<algo.gamma>)\n"
            'error: unknown key "sead". Did you mean: seed (default 0, <seed>)?\n',
        ),
        (
            ["show", "algo=ppo", "env=cartpole", "algo.lam=high"],
            'error: algo.lam="high" is not a number\n',
        ),
        (["eval"], "error: eval needs a run: jaxrl eval RUN\n       jaxrl eval --help\n"),
        (
            ["resume", "total_steps=3"],
            "error: resume needs a run: jaxrl resume RUN\n       jaxrl resume --help\n",
        ),
        (
            ["eval", "nowhere", "episodes=0", "sted=3"],
            "error: episodes=0 is out of range: episodes >= 1 (episodes per seed)\n"
            'error: unknown key "sted". Did you mean: step (default null, '
            "step of the checkpoint, or best; null: the last)?\n",
        ),
        (
            ["doctor", "device=tpu"],
            'error: device="tpu" is not one of: auto, cpu, gpu. Did you mean: gpu?\n',
        ),
    ],
)
def test_errors(words, text, capsys):
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", with_helps(text))


@pytest.mark.parametrize("command", ["eval", "resume", "show"])
def test_a_folder_that_is_no_run(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "cartpole-ppo-x").mkdir(parents=True)
    (tmp_path / "runs" / "cartpole-ppo-x" / "config.yaml").touch()
    assert cli.main([command, "runs/x"]) == 2
    assert capsys.readouterr().err == ("error: runs/x is not a run (no config.yaml).\n"
                                       "       Runs here: runs/cartpole-ppo-x\n")


@pytest.mark.parametrize(
    "error, code, text",
    [
        (UserError([Problem("a", "do b"), "c"]), 2, "error: a\n       do b\nerror: c\n"),
        (RunError("training diverged", "Try: x"), 1, "error: training diverged\n       Try: x\n"),
        (Interrupted(15), 143, ""), (Interrupted(2), 130, ""), (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 0, ""),
        (
            ValueError("odd\nthing"),
            1,
            "error: ValueError: odd thing\n"
            "       This error is unexpected: debug=true shows its traceback\n",
        ),
    ],
)
def test_exit_codes(error, code, text, capsys, monkeypatch):
    def fail(words):
        raise error
    monkeypatch.setattr("jaxrl.cli.doctor.run", fail)
    assert cli.main(["doctor"]) == code
    assert capsys.readouterr().err == text


def test_a_traceback_only_when_debugging(capsys):
    assert (
        cli.main(["train", "algo=pp0", "env=cartpole"]) == 2
        and "Traceback" not in capsys.readouterr().err
    )
    assert (
        cli.main(["train", "algo=pp0", "env=cartpole", "debug=true"]) == 2
        and "Traceback" in capsys.readouterr().err
    )


def test_a_closed_pipe_is_no_error():
    for command in ("list", "train --help"):
        pipe = f"{sys.executable} -m jaxrl.cli.main {command} | head -1; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_list_tables(capsys):
    assert cli.main(["list", "ppo"]) == 0
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if "algo.learning_rate " in line)
    assert all(
        part in row for part in ("2.5e-4", "0 <= x <= 1", "1e-5 .. 0.01 log", "hyper", "step size")
    )
    assert cli.main(["list", "cartpole"]) == 0
    text = capsys.readouterr().out
    assert all(
        part in text
        for part in (
            "Discrete(2)", "Box(", "500 steps", "env.params.length", "0.5", "env.wrappers.*",
            "env.randomize.NAME", "env.curriculum.NAME", "of gravity",
        )
    )
    assert cli.main(["list", "wrappers"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert (
        "1 <= x <= 1000" in rows["env.wrappers.frame_stack"]
        and "null" in rows["env.wrappers.clip_reward"]
    )
    assert cli.main(["list", "networks"]) == 0 and "mlp" in capsys.readouterr().out
    assert cli.main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(
        part in text for part in ("algorithms", "PPO", "environments", "cartpole", "experiments")
    )


def test_show_says_where_values_come_from(capsys):
    assert cli.main(["show", "algo=ppo", "env=pendulum", "algo.gamma=0.9", "preset=none"]) == 0
    lines = capsys.readouterr().out.splitlines()

    def find(key: str) -> list[str]:
        return next(line.split() for line in lines if line.split()[:1] == [key])

    assert find("algo.gamma")[1:3] == ["0.9", "override"] and find("algo.lam")[1:3] == [
        "0.95",
        "default",
    ]
    assert find("env")[1:3] == ["pendulum", "override"] and find("env.time_limit")[1:3] == [
        "200",
        "default",
    ]
