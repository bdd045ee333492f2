"""Contract tests of every wrapper, around environments with masks, agents, states and dicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from envs_jax import spaces
from envs_jax.wrappers import WRAPPERS
from tests.envs_jax.cases import random_actions, rollout

VALUES = {"rescale_action": True, "sticky_actions": 0.25, "action_repeat": 2, "scale_reward": 0.1,
          "clip_reward": [-1, 1], "one_hot": True, "flatten": True, "frame_stack": 3}
RANGES = {
    "cartpole": "length",
    "cartpole-candidates": "length",
    "pendulum": "m",
    "masked-bandit": "penalty",
}
ENVS = (*RANGES, "two-step", "probe-multidiscrete")
REFUSED = {(name, env) for env in ENVS for name in ("rescale_action", "one_hot")} - {
    ("rescale_action", "pendulum")
}
CASES = [
    *(
        (env, {"wrappers": {name: value}})
        for name, value in VALUES.items()
        for env in ENVS
        if (name, env) not in REFUSED
    ),
    *((env, {"randomize": {name: (0.1, 0.2)}}) for env, name in RANGES.items()),
    (
        "cartpole-candidates",
        {
            "randomize": {"length": (0.1, 0.9)},
            "wrappers": {
                name: value
                for name, value in VALUES.items()
                if name not in ("rescale_action", "one_hot")
            },
        },
    ),
]


def test_every_wrapper_has_a_case():
    assert VALUES.keys() == WRAPPERS.keys()


@pytest.mark.parametrize("name, env", sorted(REFUSED))
def test_what_does_not_fit_is_refused(name, env):
    with pytest.raises(ValueError, match="needs a"):
        envs_jax.make(env, wrappers={name: VALUES[name]})


def id_of(value):
    if isinstance(value, str):
        return value
    return "+".join([*value.get("wrappers", ()), *value.get("randomize", ())])


@pytest.mark.parametrize("name, settings", CASES, ids=id_of)
def test_the_protocol_is_kept(name, settings):
    bare, params = envs_jax.make(name)
    env, _ = envs_jax.make(name, **settings)
    again, _ = envs_jax.make(name, **settings)
    assert env == again != bare and hash(env) == hash(again) and env.unwrapped == bare.unwrapped
    assert env.agents == bare.agents and env.time_limit == bare.time_limit
    lead = () if env.agents is None else (env.agents,)
    key = jax.random.key(0)

    def avals(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)

    for values in (params, jax.tree.map(np.float32, params)):
        obs, state = jax.eval_shape(env.reset, key, values)
        after = jax.eval_shape(env.step, key, state, random_actions(env, params, ()), values)
        assert avals((obs, state)) == avals(after[:2])
        assert not any(x.weak_type for x in jax.tree.leaves((obs, state, after)))
        assert after[2].shape == lead and after[2].dtype == jnp.float32 and after[4].shape == ()
        space = env.observation_space(params)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), obs) == jax.tree.map(
            lambda s: ((*lead, *s.shape), jnp.dtype(s.dtype)), space)
        for method in ("action_mask", "global_state"):
            wrapped = getattr(env, method)
            plain = getattr(bare, method)
            assert (wrapped is None) == (plain is None)
            if wrapped is not None:
                inner = jax.eval_shape(bare.reset, key, values)[1]
                assert avals(jax.eval_shape(wrapped, state, values)) == avals(
                    jax.eval_shape(plain, inner, values)
                )
    assert env.state_space(params) == bare.state_space(params)
    assert (env.render is None) == (bare.render is None)


def test_all_at_once_on_dict_observations():
    env, params = envs_jax.make(CASES[-1][0], **CASES[-1][1])
    obs, _, reward, terminated, truncated, info = rollout(env, params, 20, batch=2)
    space = env.observation_space(params)
    one = env.unwrapped
    assert obs.shape[2:] == space.shape == (3 * (4 + one.slots * one.features),)
    over = np.cumsum(terminated | truncated, 1) - (terminated | truncated)
    for at in np.argwhere(over == 0):
        assert spaces.contains(space, obs[tuple(at)])
    np.testing.assert_array_equal(
        obs[:, 1:, : 2 * space.shape[0] // 3], obs[:, :-1, space.shape[0] // 3 :]
    )
    assert (np.abs(reward) <= 0.2 + 1e-6).all() and (info["episode_length"][:, 0] <= 2).all()
    _, state = env.reset(jax.random.key(0), params)
    assert env.render(state, params).ndim == 3
