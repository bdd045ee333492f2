"""Wrappers: environments around an environment. They keep the protocol of core.py, so they compose.

`envs_jax.make` applies them in this order, innermost first. TimeLimit (unless None),
EpisodeStatistics and ClipAction (for a Box of actions) are always present, the others on request:

    environment - Randomize - ClipAction - RescaleAction - StickyActions - TimeLimit -
    EpisodeStatistics - ActionRepeat - ScaleReward - ClipReward - OneHotObservation -
    FlattenObservation - FrameStack

The time limit, the episode return and the episode length are those of the environment, because
wrappers that repeat actions or change rewards for the learner are outside. Rewards are clipped
after those of a repeated action are added up. Frames are stacked last.
"""

from envs_jax.wrappers.actions import ActionRepeat, ClipAction, RescaleAction, StickyActions
from envs_jax.wrappers.base import DefaultParams, Wrapper
from envs_jax.wrappers.episodes import EpisodeStatistics, TimeLimit
from envs_jax.wrappers.observations import (
    FlattenObservation,
    FrameStack,
    ObservationWrapper,
    OneHotObservation,
)
from envs_jax.wrappers.randomize import Randomize, cover
from envs_jax.wrappers.rewards import ClipReward, ScaleReward
from envs_jax.wrappers.table import WRAPPERS, Option, wrap

__all__ = [
    "WRAPPERS", "ActionRepeat", "ClipAction", "ClipReward", "DefaultParams", "EpisodeStatistics",
    "FlattenObservation", "FrameStack", "ObservationWrapper", "OneHotObservation", "Option",
    "Randomize", "RescaleAction", "ScaleReward", "StickyActions", "TimeLimit", "Wrapper", "cover",
    "wrap"]
