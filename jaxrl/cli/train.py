"""jaxrl train."""

from __future__ import annotations

HELP = """
jaxrl train algo=NAME env=NAME [key=value ...]

Trains, and prints the run folder and what to do next. Values of the tuned preset of this algorithm and environment are
used where there is one (preset=none: not); what you type always wins. config=RUN/config.yaml repeats a run.
schedule=RUN alone trains what the members of RUN trained (jaxrl pbt), with the hyperparameters as the fittest had them.

Examples:
  jaxrl train algo=ppo env=cartpole
  jaxrl train algo=ppo env=pendulum num_seeds=8 total_steps=1e6 algo.learning_rate=3e-4 out=runs/mine

algo.* are the settings of the algorithm (jaxrl list ppo), env.params.* those of the environment (jaxrl list cartpole).
Lists are written [64,64], nothing is null. The others are:
"""


def more_help() -> list[str]:
    """The settings of every run, for the help."""
    from jaxrl.cli.text import table
    from jaxrl.config.check import short
    from jaxrl.config.schedule import SCHEDULE
    from jaxrl.config.settings import SETTINGS

    return table([name, short(d.default), d.help] for name, d in {**SETTINGS, "schedule": SCHEDULE}.items())


def run(words: list[str]) -> None:
    from jaxrl import backend, config
    from jaxrl.cli.screen import Screen

    settings = config.peek(words)
    backend.prepare(settings.device)             # before anything asks JAX for its devices
    composed = config.compose(words)

    from jaxrl.run import loop

    settings = composed.settings
    with Screen(quiet=settings.quiet, json=settings.json, episodes=settings.eval_episodes) as screen:
        loop.train(composed, screen)
