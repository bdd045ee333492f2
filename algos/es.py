"""OpenAI-ES. Salimans et al. 2017, "Evolution Strategies as a Scalable Alternative to RL", arXiv:1703.03864.

repeat: eps_1 ... eps_n ~ N(0, I); F of theta + sigma eps_k and of theta - sigma eps_k, an episode or several each
  u <- ranks of all 2n returns, from -0.5 to 0.5
  g = sum_k (u_k+ - u_k-) eps_k / 2n
  theta <- Adam(-g + lambda theta)

Without the 1 / sigma of the estimator, as in the authors' code: Adam does not see it, but the weight decay lambda does.
Both candidates of a pair play from the same starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from jaxrl.blocks.evolution import EvolutionConfig, centered_ranks, mirrored
from jaxrl.blocks.optim import adam
from jaxrl.declare import defaults, hyper, log_range
from jaxrl.types import Algorithm, EnvSpec, Strategy


@dataclass(frozen=True)
class Config(defaults(EvolutionConfig, learning_rate=0.03)):
    """Settings; the defaults suit classic control."""

    weight_decay: float = hyper(0.005, low=0.0, high=1.0, search=log_range(1e-4, 0.1), help="pull of parameters to 0")


def weights(fitness: jax.Array) -> jax.Array:
    """What each direction weighs in the gradient, (u+ - u-) / 2n: [n], of returns [n, 2]."""
    ranks = centered_ranks(fitness)
    return (ranks[:, 0] - ranks[:, 1]) / fitness.size


def make_strategy(config: Config, spec: EnvSpec) -> Strategy:
    """OpenAI-ES for environments like `spec`: pure functions over what varies."""
    optimizer = lambda hyper: adam(hyper.learning_rate, max_grad_norm=jnp.inf, eps=1e-8)

    def climb(theta, opt, hyper, direction):
        update, opt = optimizer(hyper).update(hyper.weight_decay * theta - direction, opt)
        return optax.apply_updates(theta, update), opt

    start = lambda theta, hyper: optimizer(hyper).init(theta)
    return mirrored(config, spec, weigh=weights, optimizer=start, climb=climb)


ES = Algorithm(Config, make_strategy, "evolution")
