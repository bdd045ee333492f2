"""Pictures of MinAtar's games (Young and Tian 2019), drawn from the channels of observations."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs_jax.render import (
    BLACK,
    BLUE,
    BROWN,
    GRAY,
    GREEN,
    LIGHT,
    ORANGE,
    PINK,
    RED,
    SKY,
    WHITE,
    YELLOW,
    grid,
)

# game -> (channel, color), topmost first; channels that repeat others are left out
COLORS = {
    # agent, gold, enemy, trail of the enemy
    "Asterix": ((0, BLUE), (3, YELLOW), (1, RED), (2, PINK)),
    # ball, paddle, bricks, trail of the ball
    "Breakout": ((1, WHITE), (0, BLUE), (3, ORANGE), (2, GRAY)),
    # chicken, cars, and behind them trails for five speeds
    "Freeway": (
        (0, YELLOW), (1, RED), (2, LIGHT), (3, GRAY), (4, BROWN), (5, PINK), (6, ORANGE)),
    # submarine, its back, own bullets, enemy bullets, enemy submarines, fish, divers, trails,
    # gauges of oxygen and of divers
    "Seaquest": (
        (0, YELLOW), (1, ORANGE), (2, WHITE), (4, PINK), (6, RED), (5, BROWN), (9, GREEN),
        (3, GRAY), (7, SKY), (8, GREEN)),
    # cannon, own bullets, alien bullets, aliens
    "SpaceInvaders": ((0, BLUE), (4, WHITE), (5, ORANGE), (1, GREEN)),
}


def picture(game: str, obs: Any) -> np.ndarray:
    """Draw `obs` [10, 10, channels] of a game in COLORS. Return [height, width, 3] uint8."""
    obs = np.asarray(obs) > 0
    channels = COLORS[game]
    cells = np.zeros(obs.shape[:2], int)
    for number, (channel, _) in reversed(list(enumerate(channels, start=1))):
        cells[obs[..., channel]] = number
    return grid(cells, (BLACK, *(color for _, color in channels)))
