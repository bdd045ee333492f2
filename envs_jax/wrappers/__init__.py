"""Wrappers: environments around an environment. They keep the protocol of core.py, so they compose.

The order in which `envs_jax.make` puts them, innermost first. TimeLimit (unless None), EpisodeStatistics and ClipAction
are always there, the others if asked for:

    environment - Randomize - ClipAction (a Box of actions) - RescaleAction - StickyActions - TimeLimit -
    EpisodeStatistics - ActionRepeat - ScaleReward - ClipReward - OneHotObservation - FlattenObservation - FrameStack

A time limit counts, and an episode's return and length are, the environment's own, whatever is repeated or rescaled for
the learner outside of them. Rewards are clipped after those of a repeated action are added up; frames are stacked last.
"""

from envs_jax.wrappers.actions import ActionRepeat, ClipAction, RescaleAction, StickyActions
from envs_jax.wrappers.base import DefaultParams, Wrapper
from envs_jax.wrappers.episodes import EpisodeStatistics, TimeLimit
from envs_jax.wrappers.observations import FlattenObservation, FrameStack, ObservationWrapper, OneHotObservation
from envs_jax.wrappers.randomize import Randomize, cover
from envs_jax.wrappers.rewards import ClipReward, ScaleReward
from envs_jax.wrappers.table import WRAPPERS, Option, wrap

__all__ = [
    "WRAPPERS", "ActionRepeat", "ClipAction", "ClipReward", "DefaultParams", "EpisodeStatistics", "FlattenObservation",
    "FrameStack", "ObservationWrapper", "OneHotObservation", "Option", "Randomize", "RescaleAction", "ScaleReward",
    "StickyActions", "TimeLimit", "Wrapper", "cover", "wrap"]
