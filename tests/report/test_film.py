"""Films of episodes."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import jaxrl
from jaxrl.cli.main import main
from jaxrl.errors import UserError
from jaxrl.report import film

SMALL = {"algo.num_envs": 4, "algo.rollout_length": 8, "algo.network.hidden": [8],
         "total_steps": 64, "eval_episodes": 2, "num_seeds": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in a cliff walk of at most 30 steps."""
    out = tmp_path_factory.mktemp("film") / "run"
    return jaxrl.train("a2c", "cliffwalk", out=str(out), **{"env.time_limit": 30}, **SMALL)


def test_a_film_ends_with_the_episode(run):
    learner, state = run.restore()
    frames = film.frames(learner, jax.tree.map(lambda x: x[1], state), seed=0)
    assert 2 <= len(frames) <= 31
    assert frames[0].shape == (4 * 48, 12 * 48, 3)
    assert frames[0].dtype == np.uint8
    assert np.any(frames[0] != frames[-1]) or len(frames) == 31


def test_the_command_writes_a_gif_and_prints_its_path(run, capsys):
    assert main(["eval", str(run.folder), "episodes=2", "render=gif", "json=true"]) == 0
    path = json.loads(capsys.readouterr().out)["film"]
    with Image.open(path) as picture:
        assert picture.format == "GIF" and picture.size == (12 * 48, 4 * 48)
    assert path.endswith("episode-last.gif")


def test_an_environment_without_pictures_is_named(tmp_path):
    blind = jaxrl.train("a2c", "probe-both", out=str(tmp_path / "run"), **SMALL)
    with pytest.raises(UserError, match="ObservationActionReward has no pictures"):
        blind.film()
