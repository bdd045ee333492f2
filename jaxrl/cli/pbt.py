"""jaxrl pbt."""

from __future__ import annotations

HELP = """
jaxrl pbt algo=NAME env=NAME [population=N] [KEY=range(LOW,HIGH)] [key=value ...]

Population-based training: members train side by side, and between intervals the worse go on from copies of the better,
with hyperparameters that are perturbed or drawn anew. KEY=range(LOW,HIGH) says which of them are explored, and where;
without it all that have a search range (jaxrl list ppo). The run folder is that of `jaxrl train`, with lineage.jsonl:
who went on from whom, with which values. `jaxrl resume RUN` goes on with a stopped one.

Examples:
  jaxrl pbt algo=ppo env=cartpole population=8
  jaxrl pbt algo=ppo env=cartpole population=16 "algo.learning_rate=range(1e-6,1e-2)" interval=20000 workers=2

All settings of jaxrl train but num_seeds, eval_every and stop_return, and these:
"""


def more_help() -> list[str]:
    """The settings of PBT, for the help."""
    from jaxrl.cli.text import table
    from jaxrl.config.check import short
    from jaxrl.population.pbt import OPTIONS

    return table([name, short(d.default), d.help] for name, d in OPTIONS.items())


def run(words: list[str]) -> None:
    from jaxrl import backend, config
    from jaxrl.cli.screen import Screen
    from jaxrl.config.overrides import parse_sweep
    from jaxrl.population.pbt import OPTIONS

    settings = config.peek([word for word in words if word.partition("=")[0].lstrip("+") not in OPTIONS])
    backend.prepare(settings.device)             # before anything asks JAX for its devices

    from jaxrl.run import pbt

    asked = pbt.question(*parse_sweep(words))
    settings = asked.config.settings
    with Screen(quiet=settings.quiet, json=settings.json, episodes=settings.eval_episodes) as screen:
        pbt.train(asked, screen)
