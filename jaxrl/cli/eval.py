"""jaxrl eval."""

from __future__ import annotations

from typing import Any

HELP = """
jaxrl eval RUN [episodes=100] [step=N|best] [render=gif] [device=auto] [num_devices=N] [json=true]

Plays the greedy policy of a checkpoint (the last one, a step, or the best) from starts that training never saw: the
interquartile mean of the returns with its 95 % confidence interval (over seeds; of one seed, over episodes), and the
mean of each seed. render=gif also writes one episode of the first seed as a moving picture into the run folder.

Examples:
  jaxrl eval runs/cartpole-ppo-20260101-120000-abcd
  jaxrl eval runs/cartpole-ppo-20260101-120000-abcd episodes=1000 step=best render=gif
"""


def run(words: list[str]) -> None:
    from jaxrl.cli.arguments import DEVICE, OUTPUT, of_run
    from jaxrl.declare import Declaration

    best = [word for word in words if word == "step=best"]
    path, values = of_run("eval", [word for word in words if word not in best], {
        "episodes": Declaration("episodes", int, 100, "static", "episodes per seed", low=1),
        "step": Declaration("step", int | None, None, "static", "checkpoint: a step or best; null: the last", low=0),
        "render": Declaration("render", str | None, None, "static", "a picture of one episode", choices=("gif",)),
        **DEVICE, **OUTPUT})
    from jaxrl.storage import folder

    folder.open_run(path)                         # says so before JAX starts
    step = "best" if best else values.get("step")
    result = evaluate(path, values.get("episodes", 100), step, values)
    film = picture(path, step) if values.get("render") else None
    if values.get("json"):
        import json

        print(json.dumps(result | ({"film": film} if film else {})))
    else:
        print("\n".join([*lines_of(result), *([f"  film    {film}"] if film else [])]))


def evaluate(path: str, episodes: int, step: int | str | None, values: dict[str, Any]) -> dict[str, Any]:
    """Plays; -> what is printed, as JSON data."""
    from jaxrl import api, backend
    from jaxrl.evaluate import bootstrap_ci, iqm
    from jaxrl.storage import checkpoint
    from jaxrl.storage.metrics import plain

    backend.prepare(values.get("device", "auto"))
    run = api.load(path)
    returns = run.evaluate(episodes, step, num_devices=values.get("num_devices"))
    at = checkpoint.best(run.folder)[0] if step == "best" else checkpoint.last(run.folder) if step is None else step
    seeds = returns.mean(axis=1)
    return plain({"step": at, "episodes": episodes, "eval_iqm": iqm(seeds), "eval_ci95": bootstrap_ci(returns),
                  "eval_returns": seeds, "returns": returns})


def picture(path: str, step: int | str | None) -> str:
    """Writes the film; -> where it is, as a person types it."""
    from jaxrl import api
    from jaxrl.storage.folder import shown

    return shown(api.load(path).film(step))


def lines_of(result: dict[str, Any]) -> list[str]:
    """The result as a person reads it."""
    from jaxrl.cli.screen import number

    seeds = result["eval_returns"]
    low, high = result["eval_ci95"]
    mean = result["eval_iqm"]
    interval = "" if low is None else f" [{number(low, mean)}, {number(high, mean)}]"
    mean = "-" if mean is None else number(mean)
    lines = [f"  return {mean}{interval}  ({len(seeds)} seed{'s' if len(seeds) > 1 else ''} x {result['episodes']} "
             f"episodes, checkpoint {result['step']:,})"]
    if len(seeds) > 1:
        lines.append("  seeds   " + "  ".join("-" if x is None else number(x) for x in seeds))
    return lines
