"""Environments of other packages, by name: adapters/gymnax.py makes `gymnax/CartPole-v1`.

The names are written down here, so that listing them imports no other package. gymnax is a
dependency of this package; every other suite is an extra: pip install 'jaxrl[brax]'.
"""

from __future__ import annotations

import importlib.util

SUITES = {      # package -> (class of the adapter, names of the package's environments)
    "gymnax": ("Gymnax", (
        "CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0",
        "Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar", "Seaquest-MinAtar",
        "SpaceInvaders-MinAtar", "Catch-bsuite", "DeepSea-bsuite", "MemoryChain-bsuite",
        "UmbrellaChain-bsuite", "DiscountingChain-bsuite", "MNISTBandit-bsuite",
        "SimpleBandit-bsuite", "FourRooms-misc", "MetaMaze-misc", "PointRobot-misc",
        "BernoulliBandit-misc", "GaussianBandit-misc", "Reacher-misc", "Swimmer-misc", "Pong-misc",
        "FrozenLake-misc")),
    "brax": ("Brax", (
        "ant", "halfcheetah", "hopper", "humanoid", "humanoidstandup", "inverted_pendulum",
        "inverted_double_pendulum", "pusher", "reacher", "walker2d")),
    "jumanji": ("Jumanji", (
        "BinPack-v2", "CVRP-v1", "Cleaner-v0", "FlatPack-v0", "Game2048-v1", "GraphColoring-v1",
        "JobShop-v0", "Knapsack-v1", "MMST-v0", "Maze-v0", "Minesweeper-v0", "PacMan-v1",
        "RobotWarehouse-v0", "RubiksCube-v0", "RubiksCube-partly-scrambled-v0",
        "SlidingTilePuzzle-v0", "Snake-v1", "Sudoku-v0", "Sudoku-very-easy-v0", "TSP-v1",
        "Tetris-v0")),
    "pgx": ("Pgx", (
        "2048", "animal_shogi", "backgammon", "chess", "connect_four", "gardner_chess", "go_9x9",
        "go_19x19", "hex", "kuhn_poker", "leduc_holdem", "othello", "shogi", "sparrow_mahjong",
        "tic_tac_toe")),
    "jaxmarl": ("JaxMARL", (
        "MPE_simple_v3", "MPE_simple_spread_v3", "MPE_simple_reference_v3", "switch_riddle",
        "HeuristicEnemySMAX", "overcooked", "hanabi")),
    "craftax": ("Craftax", (
        "Craftax-Symbolic-v1", "Craftax-Pixels-v1", "Craftax-Classic-Symbolic-v1",
        "Craftax-Classic-Pixels-v1")),
}

TABLE = {f"{suite}/{name}": f"envs_jax.adapters.{suite}:{adapter}"
         for suite, (adapter, names) in SUITES.items() for name in names}


class MissingPackage(ImportError):
    """Error: the package of the requested environment is not installed."""


def require(name: str) -> None:
    """Raise MissingPackage, with the command to install it, if the package of `name` is missing."""
    package = name.partition("/")[0]
    if name in TABLE and importlib.util.find_spec(package) is None:
        raise MissingPackage(f"{name} needs the package {package}: pip install 'jaxrl[{package}]'")
