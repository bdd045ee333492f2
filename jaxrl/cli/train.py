"""jaxrl train."""

from __future__ import annotations

HELP = """
jaxrl train algo=NAME env=NAME [key=value ...]

Trains an algorithm in an environment. Prints the run folder, the result and
the next commands. If this algorithm and environment have a tuned preset, its
values are used (preset=none: defaults only); what you type takes precedence.
config=RUN/config.yaml repeats a run. schedule=RUN alone repeats the training of
a jaxrl pbt run with one member, whose hyperparameters change as those of the
best member did.

Examples:
  jaxrl train algo=ppo env=cartpole
  jaxrl train algo=ppo env=pendulum num_seeds=8 algo.gamma=0.95 out=runs/mine

Settings of the algorithm, algo.*: jaxrl list ppo
Settings of the environment, env.*: jaxrl list cartpole
A list is written [64,64], a missing value null. The other settings:
"""


def more_help() -> list[str]:
    """Return the table of the settings that every run has."""
    from jaxrl.cli.text import table
    from jaxrl.config.check import short
    from jaxrl.config.schedule import SCHEDULE
    from jaxrl.config.settings import SETTINGS

    settings = {**SETTINGS, "schedule": SCHEDULE}
    return table([name, short(d.default), d.help] for name, d in settings.items())


def run(words: list[str]) -> None:
    from jaxrl import backend, config
    from jaxrl.cli.screen import Screen

    settings = config.peek(words)
    backend.prepare(settings.device)             # before anything asks JAX for its devices
    composed = config.compose(words)

    from jaxrl.run import loop

    with Screen.of(composed.settings) as screen:
        loop.train(composed, screen)
