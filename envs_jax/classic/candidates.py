"""CartPole with parametric actions: each step offers other candidates, and their features tell what they do.

After RLlib's example of parametric actions, a CartPole whose two actions hide in ten slots. As there, a slot means
something else in every step, the observation brings a vector of features per slot, and a mask tells the legal slots;
a policy must score a candidate by its features. What differs: two or more candidates are legal, where RLlib has
exactly two; illegal ones carry features like the legal, where RLlib's are zeros, so that only the mask tells; features
are noisy, where RLlib draws one vector per direction for good; the mask is `action_mask`, not part of the observation;
an illegal action costs a penalty, where RLlib raises an error, which a compiled step cannot.
"""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.classic.cartpole import CartPole, CartPoleParams, CartPoleState, draw
from envs_jax.render import BLUE, LIGHT
from envs_jax.spaces import Box, Discrete

CandidateCartPoleParams = namedtuple(          # those of CartPole, and two more
    "CandidateCartPoleParams",
    (*CartPoleParams._fields,
     "p_legal",                                # of a candidate beyond the two sure ones
     "penalty"),                               # what an illegal action costs
    defaults=(*CartPoleParams(), 0.5, 1.0))


class CandidateCartPoleState(NamedTuple):
    cart: CartPoleState
    right: jax.Array         # [slots] bool: the candidate pushes right, else left
    legal: jax.Array         # [slots] bool


@dataclass(frozen=True)
class CandidateCartPole(CartPole):
    """Observation: {"obs": [4] as CartPole's, "candidates": [slots, features]}. Action: a slot.

    In each step a random slot is a legal push left and another a legal push right; every other one pushes either way,
    and is legal or not, by chance. So both ways are always open, and 500 can be reached as in CartPole. The features
    of a push right are 1, -1, ... (`direction`), those of a push left the negative, plus noise U(-noise, noise) in
    each. An illegal action pushes all the same, but costs `penalty` instead of earning 1, and info["illegal"] is 1 for
    it, else 0; so an episode's return is its length only if all of its actions were legal.
    """

    slots: int = 10
    features: int = 2
    noise: float = 0.5

    default_params = CandidateCartPoleParams()

    def __post_init__(self):
        if self.slots < 2 or self.features < 1:
            raise ValueError(f"CandidateCartPole needs two slots and a feature, or more, not {self.slots} and "
                             f"{self.features}")

    @property
    def direction(self) -> np.ndarray:
        """[features]: the features of a push right but for the noise."""
        return np.float32([1.0, -1.0] * self.features)[: self.features]

    def reset(self, key, params):
        start, offer = jax.random.split(key)
        return self._offer(offer, *super().reset(start, params), params)

    def step(self, key, state, action, params):
        push = state.right[action].astype(jnp.int32)
        obs, cart, reward, fallen, truncated, info = super().step(key, state.cart, push, params)
        illegal = ~state.legal[action]
        obs, state = self._offer(key, obs, cart, params)
        info = {**info, "illegal": illegal.astype(jnp.int32)}
        return obs, state, jnp.where(illegal, -params.penalty, reward), fallen, truncated, info

    def _offer(self, key, obs, cart, params):
        """Fresh candidates, from one draw of numbers."""
        n = self.slots
        drawn = jax.random.uniform(key, (n * self.features + n + 2,), jnp.float32)
        noise, chance, sure = jnp.split(drawn, (n * self.features, n * self.features + n))

        slot = jnp.arange(n)
        to_left = jnp.int32(sure[0] * n)
        to_right = (to_left + 1 + jnp.int32(sure[1] * (n - 1))) % n           # any slot but `to_left`
        right = ((chance < 0.5) | (slot == to_right)) & (slot != to_left)
        legal = (2.0 * chance % 1.0 < params.p_legal) | (slot == to_left) | (slot == to_right)
        candidates = jnp.where(right[:, None], self.direction[None], -self.direction[None])
        candidates = candidates + self.noise * (2.0 * noise.reshape(n, self.features) - 1.0)
        return {"obs": obs, "candidates": candidates}, CandidateCartPoleState(cart, right, legal)

    def action_mask(self, state, params):
        """[slots] bool"""
        return state.legal

    def observation_space(self, params):
        bound = 1.0 + self.noise
        return {"obs": super().observation_space(params),
                "candidates": Box(-bound, bound, (self.slots, self.features))}

    def action_space(self, params):
        return Discrete(self.slots)

    def render(self, state, params):
        """CartPole's picture, and below it an arrow per candidate: blue where it is legal."""
        canvas = draw(state.cart, params)
        wide, high = (canvas.x[1] - canvas.x[0]) / self.slots, 0.06 * (canvas.x[1] - canvas.x[0])
        arrow = 0.3 * min(wide, high) * np.array([(-1, .3), (0, .3), (0, 1), (1.2, 0), (0, -1), (0, -.3), (-1, -.3)])
        for slot, (right, legal) in enumerate(zip(np.asarray(state.right), np.asarray(state.legal))):
            middle = canvas.x[0] + (slot + 0.5) * wide, canvas.y[0] + 0.5 * high
            canvas.polygon(middle + arrow * (1 if right else -1), BLUE if legal else LIGHT)
        return canvas.image()
