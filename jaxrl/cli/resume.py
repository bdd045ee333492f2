"""jaxrl resume."""

from __future__ import annotations

from jaxrl.config.check import check, describe, unknown_key
from jaxrl.config.overrides import parse
from jaxrl.config.settings import SETTINGS
from jaxrl.declare import Declaration
from jaxrl.errors import UserError

HELP = """
jaxrl resume RUN [total_steps=N] [step=N] [key=value ...]

Continues a stopped run exactly where it stopped. On the same kind of device and
the same versions, the result is bit for bit that of an uninterrupted run. A
larger total_steps extends a complete run; schedules keep their first length.
step= returns to an earlier checkpoint and drops what came after.

Settings that may change: total_steps, stop_return, keep, checkpoint_replay,
eval_episodes, device, num_devices, workers, address, quiet, json, debug,
profile.

Examples:
  jaxrl resume runs/cartpole-ppo-20260101-120000-abcd
  jaxrl resume runs/cartpole-ppo-20260101-120000-abcd total_steps=1e6
"""


STEP = Declaration("step", int | None, None, "static",
                   "step of the checkpoint to continue from; null: the last", low=0)


def run(words: list[str]) -> None:
    from jaxrl import backend, config
    from jaxrl.cli import sweep
    from jaxrl.cli.arguments import take_run, without_options
    from jaxrl.cli.screen import Screen
    from jaxrl.storage import folder
    from jaxrl.storage import sweep as sweep_files

    path, words = take_run("resume", words)
    if sweep_files.is_sweep(path):
        return sweep.resume(path, words)
    sweep_files.check_alone(path)
    stored = folder.open_run(path) / folder.CONFIG
    step = read_step(words)
    overrides = without_options(words, {"step"})
    settings = config.peek([f"config={stored}", *overrides])
    backend.prepare(settings.device)              # before anything asks JAX for its devices

    from jaxrl.run import loop, pbt

    kind = pbt if folder.is_pbt(path) else loop
    with Screen.of(settings) as screen:
        kind.resume(path, overrides, screen, step=step)


def read_step(words: list[str]) -> int | None:
    """Return the value of step=, None if it is not given.

    Raises UserError if any of the words is not understood.
    """
    items, problems = parse(words)
    step = None
    for item in items:
        if item.key == "step":
            step, problem = check(STEP, "step", item.value, item.text)
            if problem:
                problems.append(problem)
        elif item.key.split(".")[0] not in {*SETTINGS, "algo", "env", "schedule"}:
            known = describe({**SETTINGS, "step": STEP})
            problems.append(unknown_key(item.key, known, where="   (jaxrl resume --help)"))
    if problems:
        raise UserError(problems)
    return step
