"""What a run is made from: the keys that every run has, and `RunConfig`, which holds them all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxrl.config.schedule import Schedule
from jaxrl.declare import Declaration, declarations, static
from jaxrl.registry import algorithm, environment

TIME_LIMIT = Declaration("time_limit", int | None, "default", "static", low=1, high=2**31 - 1,
                         help="steps until an episode is cut; null: never; default: the environment's usual limit")


@dataclass(frozen=True)
class Settings:
    """The keys of a run beside `algo`, `env` and what belongs to these."""

    preset: str = static("auto", help="tuned values: auto (those of this algo and env, if there are any), none, a name")
    seed: int = static(0, low=0, high=2**32 - 1, help="random seed")
    num_seeds: int = static(1, low=1, high=10**6, help="independent learners trained side by side")
    total_steps: int = static(500_000, low=1, high=10**15,
                              help="environment steps per seed, rounded up to whole updates")
    schedule_steps: int | None = static(None, low=1, high=10**15, help="steps over which schedules run down; null: "
                                        "total_steps at first launch, kept when a run is extended")
    log_every: int | None = static(None, low=1, help="steps between rows of metrics.jsonl; null: chosen at launch")
    eval_every: int | None = static(None, low=1, help="steps between greedy evaluations; null: chosen at launch")
    eval_episodes: int = static(128, low=1, high=10**6, help="episodes per seed of an evaluation")
    checkpoint_every: int | None = static(None, low=1, help="steps between checkpoints; null: chosen at launch")
    checkpoint_replay: bool = static(True, help="keep the replay in checkpoints; without it a resume first collects "
                                                "the warm-up's steps again, by its policy")
    keep: int = static(2, low=0, help="checkpoints kept beside the last and the best")
    stop_return: float | None = static(None, help="stop once the mean greedy return of every seed reaches this")
    device: str = static("auto", choices=("auto", "cpu", "gpu"), help="what to train on")
    num_devices: int | None = static(None, low=1, help="devices to use; null: all")
    workers: int = static(0, low=0, high=10**5, help="Ray actors that hold blocks of members; 0: this process alone")
    address: str | None = static(None, help="of a Ray cluster; null: a private one on this machine, if workers > 0")
    block_size: int | None = static(None, low=1, high=10**6, help="members per block, on which the bits of a result "
                                    "depend; null: as this host's devices suggest")
    out: str | None = static(None, help="the run folder, new or empty; null: runs/<env>-<algo>-<time>-<letters>")
    init_from: str | None = static(None, help="a run whose parameters to start from")
    quiet: bool = static(False, help="print only the result")
    json: bool = static(False, help="print only the content of summary.json, on stdout")
    debug: bool = static(False, help="show tracebacks")
    profile: bool = static(False, help="record a profile of some updates into the run folder")


SETTINGS = {d.name: d for d in declarations(Settings)}


@dataclass(frozen=True)
class EnvConfig:
    """Which environment. The mappings hold only what differs from the defaults.

    time_limit: steps, None for none. randomize: parameter -> (low, high), drawn anew at every reset. curriculum:
    parameter -> (first, last), which it goes through along with the progress of training.
    """

    name: str
    time_limit: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    wrappers: Mapping[str, Any] = field(default_factory=dict)
    randomize: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    curriculum: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig:
    """All that a run is made from, checked."""

    settings: Settings
    algo: str
    agent: Any             # an instance of the algorithm's Config
    env: EnvConfig
    schedule: Schedule | None = None

    def with_settings(self, **changes: Any) -> RunConfig:
        """A copy with some settings changed; the values are taken as they are."""
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, **changes))

    def algorithm(self) -> Any:
        """The `Algorithm`."""
        return algorithm(self.algo)

    def make_env(self) -> Any:
        """-> (env, params). The curriculum is the driver's to follow."""
        return environment(self.env.name, self.env.params, self.env.time_limit, self.env.wrappers, self.env.randomize)
