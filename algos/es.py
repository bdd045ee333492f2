"""OpenAI-ES. Salimans et al. 2017, "Evolution Strategies as a Scalable Alternative to RL".

arXiv:1703.03864.

repeat: eps_1 ... eps_n ~ N(0, I)
  F of theta + sigma eps_k and of theta - sigma eps_k, over one or several episodes each
  u <- ranks of all 2n returns, from -0.5 to 0.5
  g = sum_k (u_k+ - u_k-) eps_k / 2n
  theta <- Adam(-g + lambda theta)

The estimator's factor 1 / sigma is left out, as in the authors' code. Adam is invariant to it, but
the weight decay lambda is not. Both candidates of a pair play from the same starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from jaxrl.blocks.evolution import EvolutionConfig, centered_ranks, mirrored
from jaxrl.blocks.optim import adam
from jaxrl.declare import defaults, hyper, log_range
from jaxrl.types import Algorithm, EnvSpec, Strategy

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclass(frozen=True)
class Config(defaults(EvolutionConfig, learning_rate=0.03)):
    """Settings. The defaults suit classic control."""

    weight_decay: float = hyper(
        0.005, low=0.0, high=1.0, search=log_range(1e-4, 0.1),
        help="weight decay lambda, which pulls parameters to 0")


def weights(fitness: Float[Array, "n 2"]) -> Float[Array, " n"]:
    """Return the weight of each direction in the gradient, (u+ - u-) / 2n."""
    ranks = centered_ranks(fitness)
    return (ranks[:, 0] - ranks[:, 1]) / fitness.size


def make_strategy(config: Config, spec: EnvSpec) -> Strategy:
    """Return OpenAI-ES for environments that match `spec`."""
    def optimizer(hyper: Any) -> optax.GradientTransformation:
        return adam(hyper.learning_rate, max_grad_norm=jnp.inf, eps=1e-8)

    def init_optimizer(theta: Float[Array, " n"], hyper: Any) -> optax.OptState:
        return optimizer(hyper).init(theta)

    def step(theta: Float[Array, " n"], opt_state: optax.OptState, hyper: Any, direction: jax.Array
             ) -> tuple[Float[Array, " n"], optax.OptState]:
        gradient = hyper.weight_decay * theta - direction
        update, opt_state = optimizer(hyper).update(gradient, opt_state)
        return optax.apply_updates(theta, update), opt_state

    return mirrored(config, spec, weigh=weights, init_optimizer=init_optimizer, step=step)


ES = Algorithm(Config, make_strategy, "evolution")
