"""jaxrl pbt."""

from __future__ import annotations

HELP = """
jaxrl pbt algo=NAME env=NAME [KEY=range(LOW,HIGH)] [key=value ...]

Population-based training: members train side by side. After each interval,
poor members are replaced by copies of good ones, whose hyperparameters are
perturbed or drawn anew. KEY=range(LOW,HIGH) names a hyperparameter to explore;
without any, all that have a search range are explored (jaxrl list ppo). The run
folder is that of jaxrl train, with lineage.jsonl: which member was copied from
which, with which values. jaxrl resume RUN continues a stopped run.

Examples:
  jaxrl pbt algo=ppo env=cartpole population=8
  jaxrl pbt algo=ppo env=cartpole "algo.gamma=range(0.9,0.999)" workers=2

All settings of jaxrl train but num_seeds, eval_every and stop_return, and:
"""


def more_help() -> list[str]:
    """Return the table of the settings of PBT."""
    from jaxrl.cli.text import table
    from jaxrl.config.check import short
    from jaxrl.population.pbt import OPTIONS

    return table([name, short(d.default), d.help] for name, d in OPTIONS.items())


def run(words: list[str]) -> None:
    from jaxrl import backend, config
    from jaxrl.cli.arguments import without_options
    from jaxrl.cli.screen import Screen
    from jaxrl.config.overrides import parse_sweep
    from jaxrl.population.pbt import OPTIONS

    settings = config.peek(without_options(words, OPTIONS))
    backend.prepare(settings.device)             # before anything asks JAX for its devices

    from jaxrl.run import pbt

    asked = pbt.question(*parse_sweep(words))
    with Screen.of(asked.config.settings) as screen:
        pbt.train(asked, screen)
