"""Curricula and domain randomization: the parameters of environments in training and on resume."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from envs_jax.core import Environment
from envs_jax.spaces import Box, Discrete
from jaxrl import registry
from jaxrl.config import EnvConfig
from jaxrl.declare import hypers
from jaxrl.drivers import curriculum
from jaxrl.drivers.build import build
from jaxrl.storage import checkpoint
from tests.helpers import UPDATE, assert_same, tiny

UPDATES = 8
LIMIT = 4


class PaidParams(NamedTuple):
    level: float = 5.0
    count: int = 7
    gain: float = 9.0


class PaidState(NamedTuple):
    gain: jax.Array


@dataclass(frozen=True)
class Paid(Environment):
    """Pays `level` a step, and shows its parameters."""

    default_params = PaidParams()
    time_limit = LIMIT

    def _see(self, params):
        shown = [params.level, params.count, params.gain]
        return jnp.stack([jnp.float32(x) for x in shown])

    def reset(self, key, params):
        return self._see(params), PaidState(jnp.float32(params.gain))

    def step(self, key, state, action, params):
        reward = jnp.float32(params.level)
        return self._see(params), state, reward, jnp.bool_(False), jnp.bool_(False), {}

    def observation_space(self, params):
        return Box(-10.0 * params.level, 10.0 * params.level, (3,))

    def action_space(self, params):
        return Discrete(2)


@pytest.fixture(autouse=True)
def paid(monkeypatch):
    """The environment Paid, by the name "paid"."""
    monkeypatch.setitem(registry.environments(), "paid", f"{__name__}:Paid")


def config(updates=UPDATES, /, **settings):
    env = EnvConfig("paid", LIMIT, {}, {}, randomize={"gain": (1.0, 2.0)},
                    curriculum={"level": (1.0, 3.0), "count": (2, 5)})
    config = tiny(updates, log_every=2 * UPDATE, num_seeds=1, num_devices=1, **settings)
    return dataclasses.replace(config, env=env)


def test_a_straight_line():
    lines = {"level": (0.1, -0.7), "count": (2, 5)}
    params = jax.tree.map(jnp.asarray, PaidParams())
    now = jax.jit(curriculum.follow(lines))
    for progress, count in ((0.0, 2), (0.125, 2), (0.25, 3), (0.5, 4), (1.0, 5)):
        found = now(params, jnp.float32(progress))
        assert found.count == count and found.count.dtype == jnp.int32 and found.gain == 9.0
        np.testing.assert_allclose(found.level, 0.1 - 0.8 * progress, rtol=1e-6, atol=1e-7)
    assert now(params, jnp.float32(0)).level == np.float32(0.1)           # the ends are exact
    assert now(params, jnp.float32(1)).level == np.float32(-0.7)
    assert curriculum.at_start(PaidParams(), lines) == PaidParams(0.1, 2)
    assert curriculum.at_end(PaidParams(), lines) == PaidParams(-0.7, 5)
    assert curriculum.follow({}) is None and curriculum.at_end((), {}) == ()


def test_what_environments_see_at_each_progress():
    """The first of 4 updates is at progress 0, the third at 1/2; beyond the schedule it is 1.

    Each start has its own gain.
    """
    c = config()
    learner = build(c)
    assert learner.params == PaidParams(3.0, 5), "evaluations are at the end of it"
    assert learner.spec.observation == Box(-30.0, 30.0, (3,))
    state = jax.jit(learner.runner.init)(jax.random.key(0), hypers(c.agent), 4)
    advance = jax.jit(learner.runner.advance)
    assert (float(state.env.params.level), int(state.env.params.count)) == (1.0, 2)
    for level, count in ((1.0, 2), (1.5, 3), (2.0, 4), (2.5, 4), (3.0, 5), (3.0, 5)):
        state, _ = advance(state, 1)
        assert (float(state.env.params.level), int(state.env.params.count)) == (level, count)
        gain = np.asarray(state.env.input.obs)[:, 2]
        assert ((gain >= 1.0) & (gain <= 2.0)).all() and len(set(gain.tolist())) == len(gain)


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
def test_a_run_and_its_resume(tmp_path):
    """Returns of training follow the line, those of evaluations belong to its end.

    A run that is stopped half-way and resumed does the same.
    """
    whole = jaxrl.train(config(out=tmp_path / "whole"))
    line = 1.0 + 2.0 * np.arange(UPDATES) / UPDATES
    want = LIMIT * line.reshape(-1, 2).mean(axis=1)
    np.testing.assert_allclose([row["return_mean"][0] for row in whole.metrics()], want, rtol=1e-5)
    assert {x for row in whole.evals() for x in np.ravel(row["returns"])} == {3.0 * LIMIT}
    assert (whole.evaluate(3) == 3.0 * LIMIT).all()
    settings = vars(whole.config.settings)
    assert whole.config == config(out=None).with_settings(**settings)

    half = jaxrl.train(config(UPDATES // 2, out=tmp_path / "half", schedule_steps=UPDATES * UPDATE))
    arrays, _ = checkpoint.load(half.folder)
    assert arrays["env/params/level"].tolist() == [np.float32(line[UPDATES // 2 - 1])]
    [gain] = [x for name, x in arrays.items()
              if name.startswith("env/env/") and name.endswith("drawn/gain")]
    assert gain.shape == (1, 4) and len(np.unique(gain)) == 4
    assert (gain >= 1.0).all() and (gain <= 2.0).all()
    jaxrl.resume(half.folder, total_steps=UPDATES * UPDATE)
    assert_same(half.folder, whole.folder)
