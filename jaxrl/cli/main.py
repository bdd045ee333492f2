"""`jaxrl COMMAND key=value ...`: finds the command, prints errors, turns them into exit codes."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata

from jaxrl.errors import Interrupted, Problem, RunError, UserError, out_of_memory, reason
from jaxrl.registry import nearest

COMMANDS = {   # name -> what it does; each is a module of this package with HELP and run(words)
    "train": "train an algorithm in an environment",
    "resume": "go on with a run where it stopped",
    "pbt": "train a population whose members copy from each other",
    "sweep": "train many trials side by side and find the best settings",
    "eval": "play a run's policy and measure its return",
    "show": "every value of a config or of a run, and where it comes from",
    "list": "algorithms, environments, presets, and what can be set",
    "doctor": "versions, devices, memory, a self-test",
}


def main(words: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code: 0 done, 1 the run failed, 2 usage, config or input, 128+n signal n."""
    words = list(sys.argv[1:] if words is None else words)
    _occupy_standard_files()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")        # LANG=C must cost a character, not a run
    code = _run(words)
    lost = _flush("stdout")
    if lost is not None and not isinstance(lost, BrokenPipeError):     # the reader of a pipe may have seen enough
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
    """Writes what is left; a stream that cannot take it is pointed at nothing, so that Python may end in peace."""
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
    """Where stdin, stdout or stderr is closed, a file opened later would take its number, and what libraries print."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)     # takes the lowest free number: this one


def _dispatch(words: list[str]) -> int | None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    command, rest = words[0], words[1:]
    if command in ("--version", "-V"):
        print(f"jaxrl {metadata.version('jaxrl')}")
        return 0
    if command not in COMMANDS:
        near = nearest(command, COMMANDS)
        hint = f" Did you mean: {near}?" if near else ""
        raise UserError(f'unknown command "{command}".{hint}   (jaxrl --help)')
    module = importlib.import_module(f"jaxrl.cli.{command}")
    if any(word in ("-h", "--help") for word in rest):
        print(module.HELP.strip())
        for line in getattr(module, "more_help", list)():
            print(line)
        return 0
    return module.run(rest)


def overview() -> str:
    """What `jaxrl` alone prints."""
    lines = ["jaxrl COMMAND [key=value ...]", "",
             "Reinforcement learning in JAX: environments and learners compiled together.", ""]
    lines += [f"  {name:<8} {text}" for name, text in COMMANDS.items()]
    lines += ["", "Examples:", "  jaxrl train algo=ppo env=cartpole", "  jaxrl list ppo", "",
              "Each command explains itself: jaxrl train --help"]
    return "\n".join(lines)


def debugging(words: Sequence[str]) -> bool:
    """Whether debug=true is among the words, valid or not."""
    return any(word.lstrip("+").replace(" ", "").lower() == "debug=true" for word in words)


def report(error: Exception) -> None:
    """What is wrong, and what to do, on stderr."""
    if isinstance(error, UserError | RunError):
        problems = error.problems
    elif out_of_memory(error):
        problems = [Problem(f"out of memory: {' '.join(str(error).split())[:200]}",
                            "Try: fewer algo.num_envs, a shorter algo.rollout_length, fewer num_seeds")]
    else:
        problems = [Problem(reason(error)[:500], "Not expected here: debug=true shows where it comes from")]
    for message, hint in problems:
        say(f"error: {message}")
        if hint:
            say(f"       {hint}")


def say(text: str, stream: str = "stderr") -> None:
    """One line on stderr (or "stdout"), whatever state that is in: closed, or on a full disk."""
    stream = getattr(sys, stream)
    if stream is None:
        return
    with contextlib.suppress(OSError, ValueError):          # closed
        stream.write(text + "\n")
        stream.flush()


if __name__ == "__main__":
    sys.exit(main())
