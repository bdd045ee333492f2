"""jaxrl eval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxrl.cli.arguments import DEVICE, OUTPUT, of_run
from jaxrl.declare import Declaration

HELP = """
jaxrl eval RUN [episodes=100] [step=N|best] [render=gif] [device=auto]
               [num_devices=N] [json=true]

Plays the greedy policy of a checkpoint (the last one, a step, or the best) from
initial states that training never used. Prints the interquartile mean of the
returns with its 95 % confidence interval (over seeds; for one seed, over
episodes), and the mean of each seed. render=gif also writes one episode of the
first seed as an animation into the run folder.

Examples:
  jaxrl eval runs/cartpole-ppo-20260101-120000-abcd
  jaxrl eval runs/cartpole-ppo-20260101-120000-abcd step=best render=gif
"""

SETTINGS = {
    "episodes": Declaration("episodes", int, 100, "static", "episodes per seed", low=1),
    "step": Declaration("step", int | None, None, "static",
                        "step of the checkpoint, or best; null: the last", low=0),
    "render": Declaration("render", str | None, None, "static",
                          "format of a film of one episode; null: no film", choices=("gif",)),
    **DEVICE,
    **OUTPUT,
}


def run(words: list[str]) -> None:
    best = [word for word in words if word == "step=best"]
    others = [word for word in words if word not in best]
    path, values = of_run("eval", others, SETTINGS)
    from jaxrl.storage import folder

    folder.open_run(path)                         # reports a wrong path before JAX starts
    step = "best" if best else values.get("step")
    result = evaluate(path, values.get("episodes", 100), step, values)
    film = None
    if values.get("render"):
        film = picture(path, step)
    if values.get("json"):
        import json

        if film:
            result["film"] = film
        print(json.dumps(result))
        return
    for line in lines_of(result):
        print(line)
    if film:
        print(f"  film    {film}")


def evaluate(path: str, episodes: int, step: int | str | None, values: dict[str, Any]
             ) -> dict[str, Any]:
    """Play `episodes` per seed and return the result as JSON data."""
    from jaxrl import api, backend
    from jaxrl.evaluate import bootstrap_ci, iqm
    from jaxrl.storage.metrics import plain

    backend.prepare(values.get("device", "auto"))
    run = api.load(path)
    returns = run.evaluate(episodes, step, num_devices=values.get("num_devices"))
    seeds = returns.mean(axis=1)
    return plain({
        "step": _number_of(step, run.folder),
        "episodes": episodes,
        "eval_iqm": iqm(seeds),
        "eval_ci95": bootstrap_ci(returns),
        "eval_returns": seeds,
        "returns": returns,
    })


def _number_of(step: int | str | None, folder: Path) -> int:
    """Return the environment step of a checkpoint, for "best" and None (the last) as well."""
    from jaxrl.storage import checkpoint

    if step == "best":
        return checkpoint.best(folder)[0]
    if step is None:
        return checkpoint.last(folder)
    return int(step)


def picture(path: str, step: int | str | None) -> str:
    """Write the film and return its path as a person types it."""
    from jaxrl import api
    from jaxrl.storage.folder import shown

    return shown(api.load(path).film(step))


def lines_of(result: dict[str, Any]) -> list[str]:
    """Return the result as a person reads it."""
    from jaxrl.cli.screen import number
    from jaxrl.storage.files import counted

    means = result["eval_returns"]
    low, high = result["eval_ci95"]
    iqm = result["eval_iqm"]
    interval = ""
    if low is not None:
        interval = f" [{number(low, iqm)}, {number(high, iqm)}]"
    lines = [f"  return {_or_dash(iqm)}{interval}  ({counted(len(means), 'seed')} x "
             f"{result['episodes']} episodes, checkpoint {result['step']:,})"]
    if len(means) > 1:
        lines.append("  seeds   " + "  ".join(map(_or_dash, means)))
    return lines


def _or_dash(x: float | None) -> str:
    from jaxrl.cli.screen import number

    return "-" if x is None else number(x)
