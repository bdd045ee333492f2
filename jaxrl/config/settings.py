"""The settings that every run has, and `RunConfig`, which holds everything a run is made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxrl.config.schedule import Schedule
from jaxrl.declare import Declaration, declarations, static
from jaxrl.registry import algorithm, environment

if TYPE_CHECKING:
    from envs_jax.core import Environment
    from jaxrl.types import Algorithm

TIME_LIMIT = Declaration(
    "time_limit", int | None, "default", "static", low=1, high=2**31 - 1,
    help="maximum steps of an episode; null: no limit; default: the environment's usual limit")


@dataclass(frozen=True)
class Settings:
    """The keys of a run beside `algo`, `env` and the keys below these two."""

    preset: str = static("auto", help=(
        "name of the tuned values to start from; auto: those of this algorithm and environment, "
        "if there are any; none: defaults only"))
    seed: int = static(0, low=0, high=2**32 - 1, help="random seed")
    num_seeds: int = static(
        1, low=1, high=10**6, help="number of independent learners trained side by side")
    total_steps: int = static(
        500_000, low=1, high=10**15,
        help="environment steps per seed, rounded up to whole updates")
    schedule_steps: int | None = static(None, low=1, high=10**15, help=(
        "environment steps over which schedules run; null: total_steps of the first launch, "
        "also after the run is extended"))
    log_every: int | None = static(
        None, low=1,
        help="environment steps between rows of metrics.jsonl; null: chosen at launch")
    eval_every: int | None = static(
        None, low=1, help="environment steps between greedy evaluations; null: chosen at launch")
    eval_episodes: int = static(
        128, low=1, high=10**6, help="episodes per seed in each evaluation")
    checkpoint_every: int | None = static(
        None, low=1, help="environment steps between checkpoints; null: chosen at launch")
    checkpoint_replay: bool = static(True, help=(
        "storage of the replay in checkpoints; false: a resumed run first collects as many steps "
        "as the warm-up has, with its current policy"))
    keep: int = static(2, low=0, help="number of checkpoints kept beside the last and the best")
    stop_return: float | None = static(None, help=(
        "mean greedy return that ends training once every seed has reached the value; "
        "null: train to total_steps"))
    device: str = static(
        "auto", choices=("auto", "cpu", "gpu"), help="platform to train on: auto, cpu or gpu")
    num_devices: int | None = static(None, low=1, help="number of devices to use; null: all")
    workers: int = static(
        0, low=0, high=10**5,
        help="number of Ray actors that hold blocks of members; 0: this process alone")
    address: str | None = static(
        None, help="address of a Ray cluster; null starts a private one if workers > 0")
    block_size: int | None = static(None, low=1, high=10**6, help=(
        "number of members per block, on which the bits of a result depend; "
        "null: chosen for the devices of this host"))
    out: str | None = static(
        None,
        help="path of the run folder, new or empty; null: runs/<env>-<algo>-<time>-<letters>")
    init_from: str | None = static(
        None, help="path of a run whose parameters are the initial ones; null: random parameters")
    quiet: bool = static(False, help="quiet output: only the result is printed")
    json: bool = static(
        False, help="JSON output: only the content of summary.json is printed, on stdout")
    debug: bool = static(False, help="debugging output: errors come with their tracebacks")
    profile: bool = static(
        False, help="profile of some updates, recorded into the run folder")


SETTINGS = {d.name: d for d in declarations(Settings)}


@dataclass(frozen=True)
class EnvConfig:
    """An environment and its changes. The mappings hold only values that differ from the defaults.

    time_limit: steps, None for no limit. randomize: parameter -> (low, high), drawn at every
    reset. curriculum: parameter -> (first, last), interpolated along with the training progress.
    """

    name: str
    time_limit: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    wrappers: Mapping[str, Any] = field(default_factory=dict)
    randomize: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    curriculum: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run is made from, checked."""

    settings: Settings
    algo: str
    agent: Any             # an instance of the algorithm's Config
    env: EnvConfig
    schedule: Schedule | None = None

    def with_settings(self, **changes: Any) -> RunConfig:
        """Return a copy with some settings replaced. The new values are not checked."""
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, **changes))

    def algorithm(self) -> Algorithm:
        """Return the `Algorithm` that `algo` names."""
        return algorithm(self.algo)

    def make_env(self) -> tuple[Environment, Any]:
        """Return (env, params). The curriculum is not applied: the driver follows it."""
        env = self.env
        return environment(env.name, env.params, env.time_limit, env.wrappers, env.randomize)
