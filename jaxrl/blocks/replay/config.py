"""Settings of every method that learns from a replay."""

from __future__ import annotations

from dataclasses import dataclass

from jaxrl.declare import Range, hyper, log_range, static
from jaxrl.types import EnvSpec


@dataclass(frozen=True)
class ReplayConfig:
    """Settings of a replay.

    An algorithm gives defaults of its own (`declare.defaults`) and adds fields.
    """

    num_envs: int = static(4, low=1, high=10**7, help="parallel environments N")
    rollout_length: int = static(
        1, low=1, high=10**7, help="environment steps T of each environment between updates")
    gradient_steps: int = static(
        2, low=1, high=10**6, help="gradient steps per N x T environment steps")
    batch_size: int = static(64, low=1, high=10**7, help="items per gradient step")
    replay_capacity: int = static(
        100_000, low=1, high=10**12, help="environment steps kept in the replay")
    warmup: int = static(
        1000, low=0, high=10**12,
        help="environment steps with random actions before the first gradient step")
    n_step: int = static(
        1, low=1, high=1000, help="rewards summed in a return before the bootstrap")
    prioritized: bool = static(
        False, help="items drawn in proportion to their error; false: uniformly")
    alpha: float = hyper(0.6, low=0.0, high=1.0, help="exponent of the priorities")
    beta: float = hyper(
        0.4, low=0.01, high=1.0,
        help="initial exponent of the importance weights, which is 1 at the end of the schedule")
    learning_rate: float = hyper(
        1e-3, low=0.0, high=1.0, search=log_range(1e-5, 1e-2), help="step size of the optimizer")
    learning_rate_end: float = hyper(
        1.0, low=0.0, high=1.0,
        help="fraction of the learning rate left at the end of the schedule")
    gamma: float = hyper(
        0.99, low=0.0, high=1.0, search=Range(0.9, 0.999), help="discount factor")
    max_grad_norm: float = hyper(
        10.0, low=0.0, high=1e9, search=log_range(0.1, 100.0),
        help="global norm above which gradients are scaled down")

    def item(self) -> tuple[int, str]:
        """Return the number of consecutive steps that an item needs, and a description of it."""
        return self.n_step, f"{self.n_step}-step returns"

    def problems(self, spec: EnvSpec) -> list[str]:
        """Return one message for each incompatible setting."""
        found = self.network.problems(spec)
        if spec.agents is not None:
            found.append(f"{{algo}} controls one agent, {{env}} has {spec.agents}")
        steps, what = self.item()
        needed = self.num_envs * (steps + self.rollout_length)
        needs = f"{self.num_envs} environments and {what} need {needed:,}"
        if self.warmup < needed:
            found.append(f"algo.warmup={self.warmup:,} is too short to have anything to draw: "
                         f"{needs}")
        if self.replay_capacity < needed:
            found.append(f"algo.replay_capacity={self.replay_capacity:,} is too short: {needs}")
        if self.batch_size > self.replay_capacity:
            found.append(f"algo.batch_size={self.batch_size:,} is more than algo.replay_capacity="
                         f"{self.replay_capacity:,} holds")
        return found
