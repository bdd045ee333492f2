"""Pictures of MinAtar's games (Young and Tian 2019), drawn from the channels that an agent observes."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs_jax.render import BLACK, BLUE, BROWN, GREEN, GREY, LIGHT, ORANGE, PINK, RED, SKY, WHITE, YELLOW, grid

# game -> (channel, colour), what lies on top first; channels that only say what others show are left out
COLOURS = {
    "Asterix": ((0, BLUE), (3, YELLOW), (1, RED), (2, PINK)),                   # agent, gold, enemy, its trail
    "Breakout": ((1, WHITE), (0, BLUE), (3, ORANGE), (2, GREY)),                # ball, paddle, bricks, the ball's trail
    "Freeway": ((0, YELLOW), (1, RED),                                          # chicken, cars and, behind them,
                (2, LIGHT), (3, GREY), (4, BROWN), (5, PINK), (6, ORANGE)),     # trails of five speeds
    "Seaquest": ((0, YELLOW), (1, ORANGE), (2, WHITE), (4, PINK),               # submarine, its back, bullet, theirs,
                 (6, RED), (5, BROWN), (9, GREEN), (3, GREY),                   # submarines, fish, divers, trails,
                 (7, SKY), (8, GREEN)),                                         # gauges of oxygen and of divers
    "SpaceInvaders": ((0, BLUE), (4, WHITE), (5, ORANGE), (1, GREEN)),          # cannon, bullet, theirs, aliens
}


def picture(game: str, obs: Any) -> np.ndarray:
    """`obs` [10, 10, channels] of a game in COLOURS, as an RGB array."""
    obs, cells = np.asarray(obs) > 0, np.zeros(np.shape(obs)[:2], int)
    for number, (channel, _) in reversed(list(enumerate(COLOURS[game], start=1))):
        cells[obs[..., channel]] = number
    return grid(cells, (BLACK, *(colour for _, colour in COLOURS[game])))
