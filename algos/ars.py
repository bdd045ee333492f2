"""Augmented random search. Mania et al. 2018, "Simple random search provides a competitive approach", arXiv:1803.07055.

repeat: delta_1 ... delta_N ~ N(0, I); r_k+ and r_k- of theta + nu delta_k and of theta - nu delta_k
  keep the b directions with the largest max(r_k+, r_k-)
  theta <- theta + alpha / (b sigma_R) sum (r_k+ - r_k-) delta_k        sigma_R: deviation of the 2b returns kept

With a linear policy that starts from zero: the last layer here, whatever is before it. Versions V1 and V2 differ in
`normalize_observation`; V1-t and V2-t keep `top` < N = population / 2 directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxrl.blocks.evolution import EvolutionConfig, best_directions, mirrored
from jaxrl.blocks.networks.actor_critic import NetworkConfig
from jaxrl.declare import defaults, nested, static
from jaxrl.types import Algorithm, EnvSpec, Strategy


@dataclass(frozen=True)
class Config(defaults(EvolutionConfig, population=16, learning_rate=0.02, sigma=0.03)):
    """Settings; the defaults are those of the authors' code, V1."""

    top: int | None = static(None, low=1, high=10**7, help="directions kept, b; null: all")
    network: NetworkConfig = nested(NetworkConfig, hidden=())

    def problems(self, spec: EnvSpec) -> list[str]:
        """What does not fit together, in words."""
        found = super().problems(spec)
        if self.top is not None and self.top > self.population // 2:
            found.append(f"algo.top={self.top} directions cannot be kept of algo.population / 2 = "
                         f"{self.population // 2}")
        return found


def weights(fitness: jax.Array, top: int) -> jax.Array:
    """What each direction weighs in the update, (r+ - r-) / (b sigma_R) if it is kept: [N], of returns [N, 2]."""
    kept = best_directions(fitness, top)
    mean = jnp.sum(jnp.where(kept, fitness.mean(axis=1), 0.0)) / top
    variance = jnp.sum(jnp.where(kept, jnp.square(fitness - mean).mean(axis=1), 0.0)) / top
    scale = jnp.where(variance > 0, jax.lax.rsqrt(variance), 0.0)              # no step where all returns are equal
    return jnp.where(kept, fitness[:, 0] - fitness[:, 1], 0.0) * scale / top


def make_strategy(config: Config, spec: EnvSpec) -> Strategy:
    """ARS for environments like `spec`: pure functions over what varies."""
    def climb(theta, opt, hyper, direction):
        return theta + hyper.learning_rate * direction, opt

    def adjust(params):
        last = {name: part if name == "log_std" else jax.tree.map(jnp.zeros_like, part)
                for name, part in params["policy"]["params"].items()}
        return {**params, "policy": {"params": last}}

    weigh = partial(weights, top=config.top or config.population // 2)
    return mirrored(config, spec, weigh=weigh, optimizer=lambda theta, hyper: (), climb=climb, adjust=adjust)


ARS = Algorithm(Config, make_strategy, "evolution")
