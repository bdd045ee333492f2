"""Tests of the suites that are extras, where installed: results, masks and ends of episodes.

tests/envs_jax/cases.py names the environments that the contract tests include.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import make, spaces, suites
from envs_jax.spaces import Box, Discrete, MultiDiscrete
from tests.envs_jax.cases import SAMPLES, needs, random_actions, rollout


def close(a, b):
    return np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def keys_of(rollout_steps, seed=0):
    """Return the keys that `rollout` uses for one environment: for reset, then for each step."""
    return jax.random.split(jax.random.key(seed), (1, rollout_steps + 1))[0]


def follow(reset, step, keys, actions):
    """Return the results of a package's own functions for `actions`, NumPy [T, ...].

    reset(key) -> state; step(key, state, action) -> (state, results).
    """
    def run(keys, actions):
        return jax.lax.scan(
            lambda carry, x: step(x[0], carry, x[1]), reset(keys[0]), (keys[1:], actions)
        )[1]

    with jax.numpy_rank_promotion("allow"):
        return jax.tree.map(np.asarray, jax.jit(run)(keys, actions))


@pytest.mark.parametrize("suite", SAMPLES)
def test_the_extra_is_declared_and_tried(suite):
    assert all(name in suites.TABLE for name in SAMPLES[suite])


# ---------------------------------------------------------------- brax


@needs("brax")
def test_brax_is_braxs():
    from brax import envs

    env, params = make("brax/inverted_pendulum")
    package_env = envs.get_environment("inverted_pendulum")
    actions = random_actions(env, params, (1, 20))
    assert env.action_space(params) == Box(-3.0, 3.0, (1,))
    assert env.observation_space(params).shape == (4,)
    assert env.max_steps == env.time_limit == 1000

    def step(key, state, action):
        after = package_env.step(state, action)
        return after, (state.obs, after.reward, after.done)

    obs, _, reward, terminated, truncated, info = rollout(env, params, 20, actions=actions)
    want = follow(package_env.reset, step, keys_of(20), actions[0])
    for got, wanted in zip((obs, reward, terminated), want):
        close(got[0], wanted)
    assert not truncated.any() and "episode_return" in info


# ---------------------------------------------------------------- jumanji


@needs("jumanji")
def test_jumanji_is_jumanjis():
    """Random moves in Snake, to its death and beyond."""
    import jumanji

    env, params = make("jumanji/Snake-v1", num_rows=5, num_cols=4)
    package_env = jumanji.make("Snake-v1", num_rows=5, num_cols=4)
    actions = random_actions(env, params, (1, 30))
    assert env.action_space(params) == Discrete(4)
    assert set(env.observation_space(params)) == {"grid", "step_count",}
    assert env.observation_space(params)["grid"] == Box(0.0, 1.0, (5, 4, 5))
    assert env.observation_space(params)["step_count"] == Box(0, 3999, (), np.int32)

    def reset(key):
        state, step = package_env.reset(key)
        return state, step.observation

    def step(key, carry, action):
        state, seen = package_env.step(carry[0], action)
        return (state, seen.observation), (
            carry[1].grid,
            carry[1].step_count,
            seen.reward,
            seen.discount == 0,
            seen.observation.action_mask,
        )

    obs, _, reward, terminated, truncated, _ = rollout(env, params, 30, actions=actions)
    grid, count, *outcome, masks = follow(reset, step, keys_of(30), actions[0])
    for got, wanted in zip(
        (obs["grid"], obs["step_count"], reward, terminated), (grid, count, *outcome)
    ):
        close(got[0], wanted)
    assert terminated.any() and not truncated[:, :-1].any()

    key = keys_of(30)
    _, state = env.reset(key[0], params)
    _, state, *_ = env.step(key[1], state, actions[0, 0], params)
    np.testing.assert_array_equal(env.action_mask(state, params), masks[0])


@needs("jumanji")
def test_jumanjis_last_step_of_discount_one_is_truncated(monkeypatch):
    from jumanji import registration
    from jumanji.environments import Snake

    class Cut(Snake):
        def step(self, state, action):
            state, seen = super().step(state, action)
            return state, seen.replace(discount=jnp.ones((), float))

    monkeypatch.setitem(
        registration._REGISTRY,
        "Cut-v0",
        registration.EnvSpec("Cut-v0", "jumanji.environments:Snake"),
    )
    monkeypatch.setattr(registration, "load", lambda entry_point: Cut)
    from envs_jax.adapters.jumanji import Jumanji

    env = Jumanji("Cut-v0")
    # into the wall
    *_, terminated, truncated, _ = rollout(env, (), 20, actions=jnp.ones((1, 20), jnp.int32))
    assert truncated.any() and not terminated.any()


@needs("jumanji")
def test_jumanjis_several_choices_keep_the_mask_in_the_observation():
    env, params = make("jumanji/BinPack-v2")
    space = env.observation_space(params)
    assert env.action_space(params) == MultiDiscrete((40, 20)) and env.action_mask is None
    assert space["action_mask"] == Box(0, 1, (40, 20), np.bool_)
    assert set(space["ems"]) == {"x1", "x2", "y1", "y2", "z1", "z2"}


@needs("jumanji")
def test_jumanjis_rewards_per_agent_are_refused():
    from envs_jax.adapters.jumanji import Jumanji

    with pytest.raises(
        ValueError, match=r"jumanji/LevelBasedForaging-v0 has rewards of shape \(2,\)"
    ):
        Jumanji("LevelBasedForaging-v0")


# ---------------------------------------------------------------- pgx


def legal_game(env, params, key, rng, steps):
    """Return [(mask, action, obs, reward, terminated, truncated, next mask)], legal moves."""
    reset = jax.jit(env.reset)
    step = jax.jit(env.step)
    masks = jax.jit(env.action_mask)
    obs, state = reset(key, params)
    rows = []
    for _ in range(steps):
        mask = np.asarray(masks(state, params))
        action = np.array([rng.choice(np.flatnonzero(legal)) for legal in mask], np.int32)
        after, state, reward, terminated, truncated, _ = step(key, state, action, params)
        rows.append(
            (
                mask,
                action,
                np.asarray(obs),
                np.asarray(reward),
                np.asarray(terminated),
                bool(truncated),
                np.asarray(masks(state, params)),
            )
        )
        obs = after
    return rows


@needs("pgx")
def test_pgx_is_pgxs(rng):
    """Legal moves in tic-tac-toe, to the end and beyond; a waiting player has one legal action."""
    import pgx

    env, params = make("pgx/tic_tac_toe")
    package_env = pgx.make("tic_tac_toe")
    key = jax.random.key(4)
    assert env.agents == 2 and env.observation_space(params) == Box(0, 1, (3, 3, 2), np.bool_)
    rows = legal_game(env, params, key, rng, 10)
    state = package_env.init(key)
    step = jax.jit(package_env.step)
    for mask, action, obs, reward, terminated, truncated, mask_after in rows:
        player = int(state.current_player)
        np.testing.assert_array_equal(obs[player], state.observation)
        # the player's view of the board
        np.testing.assert_array_equal(obs[1 - player], np.asarray(state.observation)[..., ::-1])
        np.testing.assert_array_equal(mask[player], state.legal_action_mask)
        if not state.terminated:
            assert np.flatnonzero(mask[1 - player]).tolist() == [0]
        state = step(state, action[player], key)
        np.testing.assert_array_equal(reward, state.rewards)
        assert terminated.tolist() == [bool(state.terminated)] * 2 and not truncated
        if state.terminated:
            assert mask_after.all()
    assert rows[-1][4].all()


@needs("pgx")
def test_pgxs_illegal_move_loses():
    env, params = make("pgx/tic_tac_toe")
    reset = jax.jit(env.reset)
    step = jax.jit(env.step)
    _, state = reset(jax.random.key(0), params)
    players = []
    for cell in (4, 4):
        players.append(int(state.env.current_player))
        _, state, reward, terminated, _, _ = step(
            jax.random.key(0), state, jnp.full(2, cell, jnp.int32), params
        )
    assert terminated.all() and players[0] != players[1]
    assert reward[players[1]] == -1.0 and reward[players[0]] == 1.0


@needs("pgx")
def test_pgxs_players_see_their_own_cards():
    """Kuhn poker has three cards; each player has one."""
    env, params = make("pgx/kuhn_poker")
    obs = np.stack(
        [np.asarray(jax.jit(env.reset)(jax.random.key(seed), params)[0]) for seed in range(8)]
    )
    cards = obs[..., :3].argmax(-1)
    assert obs[..., :3].sum(-1).tolist() == [[1, 1]] * 8 and (cards[:, 0] != cards[:, 1]).all()


@needs("pgx")
def test_pgxs_one_player_is_no_axis():
    env, params = make("pgx/2048")
    obs, state = jax.eval_shape(env.reset, jax.random.key(0), params)
    _, _, reward, terminated, *_ = jax.eval_shape(
        env.step, jax.random.key(0), state, jnp.int32(0), params
    )
    assert env.agents is None and obs.shape == (4, 4, 31) and reward.shape == terminated.shape == ()


# ---------------------------------------------------------------- jaxmarl


@needs("jaxmarl")
def test_jaxmarl_is_jaxmarls():
    """Simple spread ends only by its limit: truncated after 26 steps for max_steps=25."""
    import jaxmarl

    env, params = make("jaxmarl/MPE_simple_spread_v3")
    package_env = jaxmarl.make("MPE_simple_spread_v3")
    actions = random_actions(env, params, (1, 26))

    def stack(by_agent):
        return jnp.stack([by_agent[agent] for agent in package_env.agents])

    def reset(key):
        obs, state = package_env.reset(key)
        return state, stack(obs)

    def step(key, carry, action):
        obs, state, reward, done, _ = package_env.step_env(
            key, carry[0], dict(zip(package_env.agents, action))
        )
        return (state, stack(obs)), (carry[1], stack(reward), done["__all__"])

    obs, _, reward, terminated, truncated, _ = rollout(env, params, 26, actions=actions)
    *want, done = follow(reset, step, keys_of(26), actions[0])
    for got, wanted in zip((obs, reward), want):
        close(got[0], wanted)
    assert done.tolist() == truncated[0].tolist() == [False] * 25 + [True] and not terminated.any()
    assert env.max_steps == 26 and env.agents == 3 and reward.shape == (1, 26, 3)


@needs("jaxmarl")
def test_jaxmarls_ends_by_itself_are_terminated():
    """The switch riddle ends when the agent in the room tells (action 2), or after 6 steps."""
    env, params = make("jaxmarl/switch_riddle")
    tell, wait = (jnp.full((1, 6, 3), action, jnp.int32) for action in (2, 0))
    *_, terminated, truncated, _ = rollout(env, params, 6, actions=tell)
    assert terminated[0, 0].all() and not truncated[0, :5].any()
    *_, terminated, truncated, _ = rollout(env, params, 6, actions=wait)
    assert not terminated.any() and truncated[0].tolist() == [False] * 5 + [True]


@needs("jaxmarl")
def test_jaxmarls_masks_and_global_state():
    env, params = make("jaxmarl/HeuristicEnemySMAX")
    _, state = env.reset(jax.random.key(0), params)
    mask = env.action_mask(state, params)
    world = env.global_state(state, params)
    assert mask.shape == (5, 10) and mask.dtype == bool and mask.any(-1).all() and not mask.all()
    assert spaces.contains(env.state_space(params), world) and world.shape == (120,)
    assert env.max_steps == 100 and make("jaxmarl/MPE_simple_spread_v3")[0].action_mask is None


@needs("jaxmarl")
def test_jaxmarls_unlike_agents_are_refused():
    from envs_jax.adapters.jaxmarl import JaxMARL

    with pytest.raises(
        ValueError, match="jaxmarl/MPE_simple_push_v3 have different observations or actions"
    ):
        JaxMARL("MPE_simple_push_v3")


# ---------------------------------------------------------------- craftax


@needs("craftax")
def test_craftax_is_craftaxs_and_tells_death_from_the_limit():
    from craftax.craftax_env import make_craftax_env_from_name

    name = "Craftax-Classic-Symbolic-v1"
    env, params = make(f"craftax/{name}")
    package_env = make_craftax_env_from_name(name, auto_reset=False)
    actions = random_actions(env, params, (1, 12))

    def step(key, carry, action):
        obs, state, reward, done, _ = package_env.step_env(key, carry[0], action, params)
        return (state, obs), (carry[1], reward, done)

    obs, _, reward, terminated, truncated, _ = rollout(env, params, 12, actions=actions)
    def reset(key):
        return package_env.reset_env(key, params)[::-1]

    want = follow(reset, step, keys_of(12), actions[0])
    for got, wanted in zip((obs, reward, terminated), want):
        close(got[0], wanted)
    assert not truncated.any() and env.max_steps == 10000

    ends = jax.jit(
        lambda state, params: env.unwrapped.step(jax.random.key(1), state, jnp.int32(0), params)[
            3:5
        ]
    )
    _, start = jax.jit(env.unwrapped.reset)(jax.random.key(0), params)
    dead = start.replace(player_health=jnp.full_like(start.player_health, -5))
    late = params.replace(max_timesteps=1)
    outcomes = [
        tuple(map(bool, ends(state, limit))) for state in (start, dead) for limit in (params, late)
    ]
    assert outcomes == [(False, False), (False, True), (True, False), (True, False)]
