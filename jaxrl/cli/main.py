"""The `jaxrl` command: finds a subcommand, prints its errors, returns its exit code."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata

from jaxrl.errors import Interrupted, Problem, RunError, UserError, out_of_memory, reason
from jaxrl.registry import unknown

COMMANDS = {   # name -> help; each is a module of this package with HELP and run(words)
    "train": "train an algorithm in an environment",
    "resume": "continue a stopped run, or extend a complete one",
    "pbt": "train a population whose members copy from each other",
    "sweep": "train many trials side by side and find the best settings",
    "eval": "play the policy of a run and measure its return",
    "show": "show every value of a config or a run, and its origin",
    "list": "list algorithms, environments, presets and their settings",
    "doctor": "show versions, devices and memory, and run a self-test",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: done; 1: the run failed; 2: a mistake in usage, config or input; 128 + n: signal n.
    """
    words = list(sys.argv[1:] if words is None else words)
    _occupy_standard_files()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")     # LANG=C may cost a character, not a run
    code = _run(words)
    lost = _flush("stdout")
    if lost is not None and not isinstance(lost, BrokenPipeError):     # a pipe may close early
        say(f"error: stdout cannot be written ({lost.strerror or lost})")
        code = code or 1
    _flush("stderr")
    return code


def _run(words: list[str]) -> int:
    try:
        return _dispatch(words) or 0
    except BrokenPipeError:
        return 0
    except Interrupted as stop:
        return stop.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debugging(words):
            traceback.print_exc()
        report(error)
        return getattr(error, "exit_code", 1)


def _flush(stream: str) -> OSError | None:
    """Flush a stream. Redirect a stream that fails to /dev/null, so that Python exits normally."""
    file = getattr(sys, stream)
    try:
        if file is not None and not file.closed:
            file.flush()
    except OSError as error:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
        return error
    return None


def _occupy_standard_files() -> None:
    """Open /dev/null in place of closed standard streams.

    Otherwise a file that is opened later would take their number, and receive what libraries print.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)     # takes the lowest free number, which is this one


def _dispatch(words: list[str]) -> int | None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    command, *rest = words
    if command in ("--version", "-V"):
        print(f"jaxrl {metadata.version('jaxrl')}")
        return 0
    if command not in COMMANDS:
        raise UserError([unknown("command", command, COMMANDS, "jaxrl --help")])
    module = importlib.import_module(f"jaxrl.cli.{command}")
    if any(word in ("-h", "--help") for word in rest):
        print(module.HELP.strip())
        for line in getattr(module, "more_help", list)():
            print(line)
        return 0
    return module.run(rest)


def overview() -> str:
    """Return the help of `jaxrl` itself."""
    commands = [f"  {name:<8} {text}" for name, text in COMMANDS.items()]
    return "\n".join([
        "jaxrl COMMAND [key=value ...]", "",
        "Reinforcement learning in JAX: environments and learners compiled together.", "",
        *commands, "",
        "Examples:", "  jaxrl train algo=ppo env=cartpole", "  jaxrl list ppo", "",
        "Help of a command: jaxrl train --help"])


def debugging(words: Sequence[str]) -> bool:
    """Tell whether debug=true is among the words, valid or not."""
    return any(word.lstrip("+").replace(" ", "").lower() == "debug=true" for word in words)


def report(error: Exception) -> None:
    """Print what is wrong, and what to do, on stderr."""
    if isinstance(error, UserError | RunError):
        problems = error.problems
    elif out_of_memory(error):
        text = " ".join(str(error).split())[:200]
        problems = [Problem(
            f"out of memory: {text}",
            "Try: fewer algo.num_envs, a shorter algo.rollout_length, fewer num_seeds")]
    else:
        problems = [Problem(
            reason(error)[:500], "This error is unexpected: debug=true shows its traceback")]
    for message, hint in problems:
        say(f"error: {message}")
        if hint:
            say(f"       {hint}")


def say(text: str, stream: str = "stderr") -> None:
    """Print a line on stderr (or "stdout"). A stream that is closed or full is ignored."""
    file = getattr(sys, stream)
    if file is None:
        return
    with contextlib.suppress(OSError, ValueError):          # ValueError: closed
        file.write(text + "\n")
        file.flush()


if __name__ == "__main__":
    sys.exit(main())
