"""A random MDP, whose optimum is computed exactly. Archibald et al. 1995; "Garnet" in Bhatnagar et al. 2009."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from envs_jax.exact.tabular import Outcomes, Tabular
from envs_jax.render import GREEN, LIGHT, WHITE, grid


@dataclass(frozen=True)
class RandomMDP(Tabular):
    """Observation: one of `states`; each of `actions` leads to one of `branching` states of its own. It never ends.

    `seed` draws the MDP: for each state and action, distinct successors, their probabilities (the gaps between uniform
    cuts of [0, 1]) and a reward from N(0, 1), which is paid as it is, without noise. Every state is as likely a start.
    The limit of 32 steps cuts what goes on for ever: who bootstraps there finds `optimal_values(gamma)`, who takes the
    cut for an end misses about 27 % of them with gamma = 0.9, on average over an episode, and more with a longer view.
    """

    states: int = 6
    actions: int = 3
    branching: int = 2
    seed: int = 0

    time_limit = 32

    def __post_init__(self):
        if min(self.states, self.actions) < 1 or not 1 <= self.branching <= self.states:
            raise ValueError(f"RandomMDP needs states and actions, and 1 <= branching <= states; not {self}")

    @cached_property
    def outcomes(self):
        rng = np.random.default_rng(self.seed)
        shape = (self.states, self.actions)
        successor = rng.permuted(np.broadcast_to(np.arange(self.states), (*shape, self.states)), axis=-1)
        cuts = np.sort(rng.random((*shape, self.branching - 1)), axis=-1)
        probability = np.diff(cuts, axis=-1, prepend=0.0, append=1.0)
        reward = np.broadcast_to(rng.normal(size=(*shape, 1)), probability.shape)
        return Outcomes(probability, successor[..., : self.branching], reward, np.zeros(self.states, bool),
                        np.full(self.states, 1 / self.states))

    def render(self, state, params):
        """Two rows: the states, the better the greener by the best reward in them, and below them where we are."""
        pays = self.rewards.max(-1)
        share = (pays - pays.min()) / max(np.ptp(pays), 1e-9)
        palette = [tuple(int(c) for c in (1.0 - s) * np.array(LIGHT) + s * np.array(GREEN)) for s in share] + [WHITE]
        cells = np.stack([np.arange(self.states), np.full(self.states, self.states)])
        labels = np.stack([np.arange(self.states).astype(str), np.full(self.states, "")])
        return grid(cells, palette, cell=48, labels=labels, agent=(1, int(state.place)))
