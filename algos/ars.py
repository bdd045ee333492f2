"""Augmented random search. Mania et al. 2018, arXiv:1803.07055.

"Simple random search provides a competitive approach to reinforcement learning".

repeat: delta_1 ... delta_N ~ N(0, I)
  r_k+ and r_k- <- returns of theta + nu delta_k and of theta - nu delta_k
  keep the b directions with the largest max(r_k+, r_k-)
  theta <- theta + alpha / (b sigma_R) sum (r_k+ - r_k-) delta_k

sigma_R is the standard deviation of the 2b returns that are kept. The paper's linear policy starts
from zero; here the last layer does, whatever comes before it. Versions V1 and V2 differ in
`normalize_observation`; V1-t and V2-t keep `top` < N = population / 2 directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxrl.blocks.evolution import EvolutionConfig, best_directions, mirrored
from jaxrl.blocks.networks.actor_critic import NetworkConfig
from jaxrl.declare import defaults, nested, static
from jaxrl.types import Algorithm, EnvSpec, Strategy

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclass(frozen=True)
class Config(defaults(EvolutionConfig, population=16, learning_rate=0.02, sigma=0.03)):
    """Settings. The defaults are those of the authors' code, V1."""

    top: int | None = static(
        None, low=1, high=10**7, help="number of directions b kept for the update; null: all")
    network: NetworkConfig = nested(NetworkConfig, hidden=())

    def problems(self, spec: EnvSpec) -> list[str]:
        """Return one message for each incompatible setting."""
        found = super().problems(spec)
        if self.top is not None and self.top > self.population // 2:
            found.append(f"algo.top={self.top} directions cannot be kept of algo.population / 2 = "
                         f"{self.population // 2}")
        return found


def weights(fitness: Float[Array, "N 2"], top: int) -> Float[Array, " N"]:
    """Return the weight of each direction in the update: (r+ - r-) / (b sigma_R) if kept, else 0.
    """
    kept = best_directions(fitness, top)
    mean = jnp.sum(jnp.where(kept, fitness.mean(axis=1), 0.0)) / top
    variance = jnp.sum(jnp.where(kept, jnp.square(fitness - mean).mean(axis=1), 0.0)) / top
    # no step if all returns are equal
    scale = jnp.where(variance > 0, jax.lax.rsqrt(variance), 0.0)
    return jnp.where(kept, fitness[:, 0] - fitness[:, 1], 0.0) * scale / top


def make_strategy(config: Config, spec: EnvSpec) -> Strategy:
    """Return ARS for environments that match `spec`."""
    def init_optimizer(theta: Float[Array, " n"], hyper: Any) -> tuple:
        return ()

    def step(theta: Float[Array, " n"], opt_state: tuple, hyper: Any, direction: Float[Array, " n"]
             ) -> tuple[Float[Array, " n"], tuple]:
        return theta + hyper.learning_rate * direction, opt_state

    weigh = partial(weights, top=config.top or config.population // 2)
    return mirrored(config, spec, weigh=weigh, init_optimizer=init_optimizer, step=step,
                    adjust=with_last_layer_zero)


def with_last_layer_zero(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a policy with zeros in its last layer."""
    last = {}
    for name, part in params["policy"]["params"].items():
        last[name] = part if name == "log_std" else jax.tree.map(jnp.zeros_like, part)
    return {**params, "policy": {"params": last}}


ARS = Algorithm(Config, make_strategy, "evolution")
