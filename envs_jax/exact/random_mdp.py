"""A random Markov decision process with an exactly computed optimum.

Archibald et al. 1995; called "Garnet" in Bhatnagar et al. 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from envs_jax.exact.tabular import Outcomes, Tabular
from envs_jax.render import GREEN, LIGHT, WHITE, grid

if TYPE_CHECKING:
    from envs_jax.core import Params
    from envs_jax.exact.tabular import TabularState
    from envs_jax.render import Color


@dataclass(frozen=True)
class RandomMDP(Tabular):
    """Random decision process: observation of the state's index, action one of `actions`.

    Each action in each state leads to one of `branching` states. `seed` draws the process: for each
    state and action, distinct successors, their probabilities (the gaps between uniform cuts of
    [0, 1]) and a reward from N(0, 1) without noise. All states are equally likely starts.

    Episodes end only by the time limit of 32 steps. A learner that bootstraps there finds
    `optimal_values(gamma)`. One that treats the limit as a termination misses about 27 % of them
    for gamma = 0.9, on average over an episode, and more for a larger gamma.
    """

    states: int = 6
    actions: int = 3
    branching: int = 2
    seed: int = 0

    time_limit = 32

    def __post_init__(self) -> None:
        if min(self.states, self.actions) < 1 or not 1 <= self.branching <= self.states:
            raise ValueError("RandomMDP needs states >= 1, actions >= 1 and "
                             f"1 <= branching <= states, not {self}")

    @cached_property
    def outcomes(self) -> Outcomes:
        rng = np.random.default_rng(self.seed)
        shape = (self.states, self.actions)
        in_order = np.broadcast_to(np.arange(self.states), (*shape, self.states))
        successor = rng.permuted(in_order, axis=-1)[..., : self.branching]
        cuts = np.sort(rng.random((*shape, self.branching - 1)), axis=-1)
        probability = np.diff(cuts, axis=-1, prepend=0.0, append=1.0)
        reward = np.broadcast_to(rng.normal(size=(*shape, 1)), probability.shape)
        return Outcomes(
            probability,
            successor,
            reward,
            terminal=np.zeros(self.states, bool),
            start=np.full(self.states, 1 / self.states),
        )

    def render(self, state: TabularState, params: Params) -> np.ndarray:
        """Draw the states in a row, greener for a higher best reward, and the agent below."""
        best = self.rewards.max(-1)
        share = (best - best.min()) / max(np.ptp(best), 1e-9)
        palette = [_blend(s) for s in share] + [WHITE]
        cells = np.stack([np.arange(self.states), np.full(self.states, self.states)])
        names = np.arange(self.states).astype(str)
        labels = np.stack([names, np.full(self.states, "")])
        return grid(cells, palette, cell=48, labels=labels, agent=(1, int(state.place)))


def _blend(share: float) -> Color:
    """Return a color between LIGHT (share 0) and GREEN (share 1)."""
    color = (1.0 - share) * np.array(LIGHT) + share * np.array(GREEN)
    return tuple(int(c) for c in color)
