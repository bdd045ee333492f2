"""Helpers of the tests of the algorithms: a made-up rollout, a network by hand.

And training on a small task.
"""

import inspect
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import make
from envs_jax.core import EnvSpec, spec
from envs_jax.spaces import Box, Discrete
from jaxrl.blocks.networks.actor_critic import NetworkConfig, actor_critic
from jaxrl.declare import hypers
from jaxrl.drivers.build import DRIVERS
from jaxrl.types import Input, Trajectory

SMALL = NetworkConfig(hidden=(8,))


# -------------------------------------------------------------------- by hand, in float64


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def forward(params, obs):
    """Logits [n, actions] and values [n] of observations [n, d] by separate networks of one tanh
    layer.
    """
    outputs = []
    for part, head in (("actor", "policy"), ("critic", "value")):
        hidden = np.tanh(dense(params[part]["trunk"]["params"]["torso"]["dense_0"], obs))
        outputs.append(dense(params[part][head]["params"]["head"], hidden))
    return outputs[0], outputs[1][:, 0]


def flat(x):
    """[T, B, ...] -> [T B, ...]"""
    return np.asarray(x).reshape(-1, *np.shape(x)[2:])


def wide(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def made_up(make_agent, *configs):
    """A state, a rollout of a masked policy that was somewhat different.

    And the compiled `learn` of each config.
    """
    rng = np.random.default_rng(0)
    (T, B) = (7, 3)
    actions = 4
    env_spec = EnvSpec(Box(-9.0, 9.0, (2,)), Discrete(actions), masked=True)
    agents = [make_agent(config, env_spec) for config in configs]
    hyper = hypers(configs[0])._replace(
        entropy_weight=jnp.float32(0.1), max_grad_norm=jnp.float32(1e3)
    )
    state = jax.jit(agents[0].init)(jax.random.key(0), hyper)
    mask = rng.random((T, B, actions)) < 0.7
    action = rng.integers(0, actions, (T, B)).astype(np.int32)
    np.put_along_axis(mask, action[..., None], True, axis=-1)
    obs, following = rng.normal(size=(2, T, B, 2)).astype(np.float32)
    dead, late = rng.random((2, T, B)) < 0.3
    # what the fresh policy gives, nearly
    uniform = -np.log(mask.sum(-1))
    extras = {"log_prob": (uniform + 0.3 * rng.normal(size=(T, B))).astype(np.float32)}
    batch = Trajectory(
        Input(obs, dead | late, mask),
        action,
        extras,
        rng.normal(size=(T, B)).astype(np.float32),
        dead,
        late & ~dead,
        Input(following, np.zeros((T, B), bool), mask),
        carry0=(),
    )
    return SimpleNamespace(
        state=state, hyper=hyper, batch=batch, learn=[jax.jit(agent.learn) for agent in agents]
    )


def slopes(loss, params):
    """Central differences of loss(params) in every parameter, as a list of arrays in the order of
    the leaves.
    """
    leaves, treedef = jax.tree.flatten(wide(params))
    base = treedef.unflatten(leaves)
    gradient = [np.zeros_like(x) for x in leaves]
    for g, x in zip(gradient, leaves):
        for i in np.ndindex(x.shape):
            at = x[i]
            h = 1e-5
            x[i] = at + h
            up = loss(base)
            x[i] = at - h
            g[i] = (up - loss(base)) / (2 * h)
            x[i] = at
    return gradient


# -------------------------------------------------------------------- on a small task


def train(algorithm, name, updates=100, wrap=lambda env: env, seed=0, env_settings=(), **settings):
    """-> (config, environment, runner, state, metrics of the last fifth of the updates)."""
    env, params = make(name, **dict(env_settings))
    env = wrap(env)
    known = inspect.signature(algorithm.config).parameters
    config = algorithm.config(**{key: value for key, value in settings.items() if key in known})
    runner = DRIVERS[algorithm.experience](
        algorithm.make_agent(config, spec(env, params)), env, params, config, {}
    )
    advance = jax.jit(runner.advance)
    state = jax.jit(runner.init)(jax.random.key(seed), hypers(config), updates)
    kinds = jax.eval_shape(lambda state: state, state)
    state, _ = advance(state, updates - updates // 5)
    state, metrics = advance(state, updates // 5)
    assert (
        jax.eval_shape(lambda state: state, state) == kinds
        and advance._cache_size() == 1
        and state.alive
    )
    return SimpleNamespace(config=config, env=env, runner=runner, state=state, metrics=metrics)


def values(trained, observations):
    """The critic's values of observations [n, d], and the policy's modes."""
    network = actor_critic(trained.config.network, spec(trained.env))
    inputs = Input(jnp.asarray(observations)[None], jnp.zeros((1, len(observations)), bool))
    policy, value = jax.jit(network.both)(trained.state.agent.params, (), inputs)
    return np.asarray(value[0]), np.asarray(policy.mode()[0])
