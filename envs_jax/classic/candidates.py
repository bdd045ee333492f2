"""CartPole with parametric actions: each step offers new candidates, described by feature vectors.

After RLlib's example of parametric actions, a CartPole whose two actions hide in ten slots. As
there, a slot has another meaning in every step, the observation has a feature vector for each slot,
and a mask gives the legal slots; a policy must score a candidate by its features. Differences:

- Two or more candidates are legal; in RLlib, exactly two.
- Illegal candidates have features like legal ones, so only the mask tells them apart; in RLlib,
  their features are zeros.
- Features are noisy; RLlib draws one vector for each direction once.
- The mask is `action_mask`; in RLlib, it is part of the observation.
- An illegal action costs a penalty; in RLlib, it raises an error, which a compiled step cannot.
"""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.classic.cartpole import CartPole, CartPoleParams, CartPoleState, draw
from envs_jax.render import BLUE, LIGHT
from envs_jax.spaces import Box, Discrete

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key

    from envs_jax.core import StepResult

    Obs = dict[str, Float[Array, "..."]]

CandidateCartPoleParams = namedtuple(
    "CandidateCartPoleParams",
    (
        *CartPoleParams._fields,
        "p_legal",         # probability that a candidate is legal, beyond the two that always are
        "penalty",         # cost of an illegal action
    ),
    defaults=(*CartPoleParams(), 0.5, 1.0))


class CandidateCartPoleState(NamedTuple):
    """State of the cart, and the candidates of the next action."""

    cart: CartPoleState
    right: jax.Array         # [slots] bool: the candidate pushes right, otherwise left
    legal: jax.Array         # [slots] bool


@dataclass(frozen=True)
class CandidateCartPole(CartPole):
    """Pole balancing with candidate actions: dict observation (cart, candidates), action a slot.

    The observation is {"obs": [4] as in CartPole, "candidates": [slots, features]}. In each step a
    random slot is a legal push left, and another one a legal push right. All other slots push in a
    random direction and are legal at random. Both directions are always available, so an episode
    can reach 500 steps as in CartPole. The features of a push right are 1, -1, ... (`direction`),
    those of a push left are the negative; each has noise U(-noise, noise). An illegal action has
    the same effect, but costs `penalty` instead of earning 1, and info["illegal"] is 1 for it,
    otherwise 0. The return of an episode is its length only if all of its actions were legal.
    """

    slots: int = 10
    features: int = 2
    noise: float = 0.5

    default_params = CandidateCartPoleParams()

    def __post_init__(self) -> None:
        if self.slots < 2 or self.features < 1:
            raise ValueError("CandidateCartPole needs slots >= 2 and features >= 1, not "
                             f"slots = {self.slots} and features = {self.features}")

    @property
    def direction(self) -> Float[np.ndarray, " features"]:
        """The features of a push right, without noise."""
        return np.float32([1.0, -1.0] * self.features)[: self.features]

    def reset(self, key: Key[Array, ""], params: Any) -> tuple[Obs, CandidateCartPoleState]:
        start_key, offer_key = jax.random.split(key)
        obs, cart = super().reset(start_key, params)
        return self._offer(offer_key, obs, cart, params)

    def step(self, key: Key[Array, ""], state: CandidateCartPoleState, action: Int[Array, ""],
             params: Any) -> StepResult:
        push = state.right[action].astype(jnp.int32)
        obs, cart, reward, fallen, truncated, info = super().step(key, state.cart, push, params)
        illegal = ~state.legal[action]
        obs, state = self._offer(key, obs, cart, params)
        info = {**info, "illegal": illegal.astype(jnp.int32)}
        reward = jnp.where(illegal, -params.penalty, reward)
        return obs, state, reward, fallen, truncated, info

    def _offer(self, key: Key[Array, ""], obs: Float[Array, "4"], cart: CartPoleState, params: Any,
               ) -> tuple[Obs, CandidateCartPoleState]:
        """Return (observation, state) with new candidates, from one draw of random numbers."""
        n = self.slots
        drawn = jax.random.uniform(key, (n * self.features + n + 2,), jnp.float32)
        noise, chance, always = jnp.split(drawn, (n * self.features, n * self.features + n))

        slot = jnp.arange(n)
        to_left = jnp.int32(always[0] * n)
        to_right = (to_left + 1 + jnp.int32(always[1] * (n - 1))) % n     # any slot but `to_left`
        right = ((chance < 0.5) | (slot == to_right)) & (slot != to_left)
        legal = (2.0 * chance % 1.0 < params.p_legal) | (slot == to_left) | (slot == to_right)
        candidates = jnp.where(right[:, None], self.direction[None], -self.direction[None])
        candidates = candidates + self.noise * (2.0 * noise.reshape(n, self.features) - 1.0)
        state = CandidateCartPoleState(cart, right, legal)
        return {"obs": obs, "candidates": candidates}, state

    def action_mask(self, state: CandidateCartPoleState, params: Any) -> Bool[Array, " slots"]:
        """Return the legal slots."""
        return state.legal

    def observation_space(self, params: Any) -> dict[str, Box]:
        bound = 1.0 + self.noise
        return {"obs": super().observation_space(params),
                "candidates": Box(-bound, bound, (self.slots, self.features))}

    def action_space(self, params: Any) -> Discrete:
        return Discrete(self.slots)

    def render(self, state: CandidateCartPoleState, params: Any) -> np.ndarray:
        """Draw CartPole, and below it one arrow for each candidate: blue if legal."""
        canvas = draw(state.cart, params)
        left, right = canvas.x
        width = (right - left) / self.slots
        height = 0.06 * (right - left)
        outline = [(-1, .3), (0, .3), (0, 1), (1.2, 0), (0, -1), (0, -.3), (-1, -.3)]
        arrow = 0.3 * min(width, height) * np.array(outline)
        for slot in range(self.slots):
            center = (left + (slot + 0.5) * width, canvas.y[0] + 0.5 * height)
            sign = 1 if state.right[slot] else -1
            canvas.polygon(center + arrow * sign, BLUE if state.legal[slot] else LIGHT)
        return canvas.image()
