"""jaxrl resume."""

from __future__ import annotations

HELP = """
jaxrl resume RUN [total_steps=N] [step=N] [key=value ...]

Goes on exactly where a run stopped: as if it had not been interrupted, bit for bit on the same kind of device and the
same versions. A run that is complete is extended by a larger total_steps; schedules stay as they were at first launch.
step= goes back to an earlier checkpoint; what came after it is dropped. May change: total_steps, stop_return, keep,
checkpoint_replay, eval_episodes, device, num_devices, workers, address, quiet, json, debug, profile.

Examples:
  jaxrl resume runs/cartpole-ppo-20260101-120000-abcd
  jaxrl resume runs/cartpole-ppo-20260101-120000-abcd total_steps=1e6 step=300000
"""


def run(words: list[str]) -> None:
    from jaxrl import backend, config
    from jaxrl.cli import sweep
    from jaxrl.cli.arguments import take_run
    from jaxrl.cli.screen import Screen
    from jaxrl.config.check import check, unknown_key
    from jaxrl.config.overrides import parse
    from jaxrl.config.settings import SETTINGS
    from jaxrl.declare import Declaration
    from jaxrl.errors import UserError
    from jaxrl.storage import folder
    from jaxrl.storage import sweep as sweep_files

    path, words = take_run("resume", words)
    if sweep_files.is_sweep(path):
        return sweep.resume(path, words)
    sweep_files.check_alone(path)
    stored = folder.open_run(path) / folder.CONFIG
    known = {**SETTINGS, "step": Declaration("step", int | None, None, "static", "the checkpoint to go on from", low=0)}
    items, problems = parse(words)
    step = None
    for item in items:
        if item.key == "step":
            step, problem = check(known["step"], "step", item.value, item.text)
            problems += [problem] if problem else []
        elif item.key.split(".")[0] not in {*SETTINGS, "algo", "env", "schedule"}:
            problems.append(unknown_key(item.key, {key: (d.default, d.help) for key, d in known.items()},
                                        where="   (jaxrl resume --help)"))
    if problems:
        raise UserError(problems)

    overrides = [word for word in words if word.partition("=")[0].strip().lstrip("+") != "step"]
    settings = config.peek([f"config={stored}", *overrides])
    backend.prepare(settings.device)              # before anything asks JAX for its devices

    from jaxrl.run import loop, pbt

    kind = pbt if folder.is_pbt(path) else loop
    with Screen(quiet=settings.quiet, json=settings.json, episodes=settings.eval_episodes) as screen:
        kind.resume(path, overrides, screen, step=step)
