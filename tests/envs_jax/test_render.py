"""Tests of pictures: shapes are drawn in the right place, and pictures follow the state."""

import re

import jax
import numpy as np
import pytest
from PIL import Image, ImageSequence

from envs_jax import make, render
from envs_jax.classic.acrobot import Acrobot, AcrobotState
from envs_jax.classic.candidates import CandidateCartPole, CandidateCartPoleState
from envs_jax.classic.cartpole import CartPole, CartPoleState
from envs_jax.classic.mountaincar import MountainCar, MountainCarContinuous, MountainCarState
from envs_jax.classic.pendulum import Pendulum, PendulumState

RESET = "\x1b[0m"


def where(image, color):
    """Return the pixels [n, 2] of exactly one color as (column, row), with rows downward."""
    return np.argwhere((image == np.uint8(color)).all(-1))[:, ::-1]


def middle(image, color):
    found = where(image, color)
    assert len(found), f"no pixel of {color}"
    return found.mean(0)


# ---------------------------------------------------------------- the canvas


def test_shapes_are_where_the_world_says():
    canvas = render.Canvas(80, 40, x=(-2.0, 2.0), y=(0.0, 2.0), background=render.LIGHT)
    canvas.circle((1.0, 1.5), 0.25, render.RED)                     # a meter is 20 pixels
    canvas.polygon([(-2, 0), (-1, 0), (-1, 1), (-2, 1)], render.BLUE)
    canvas.line([(-1, 2), (1, 2)], render.GREEN, width=4)
    image = canvas.image()
    assert image.shape == (40, 80, 3) and image.dtype == np.uint8
    np.testing.assert_allclose(middle(image, render.RED), (59.5, 9.5), atol=0.5)
    # its edge is blended
    np.testing.assert_allclose(len(where(image, render.RED)), np.pi * 5**2, rtol=0.3)
    np.testing.assert_allclose(middle(image, render.BLUE), (9.5, 29.5), atol=0.5)
    np.testing.assert_allclose(len(where(image, render.BLUE)), 400, rtol=0.1)
    assert set(where(image, render.GREEN)[:, 1]) <= {0, 1} and len(where(image, render.GREEN)) > 60
    assert tuple(image[20, 70]) == render.LIGHT
    # smooth edges: more colors than were drawn
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 6


def test_text_is_centered():
    canvas = render.Canvas(200, 100, x=(0, 2), y=(0, 1))
    canvas.text((1.0, 0.5), "HOH", render.BLACK, size=40)
    ink = np.argwhere(canvas.image().min(-1) < 128)
    np.testing.assert_allclose((ink.min(0) + ink.max(0)) / 2, (50, 100), atol=6)
    # capitals, 40 pixels from line to line
    assert 20 < np.ptp(ink[:, 0]) < 45


def test_an_unequal_scale_makes_an_ellipse():
    canvas = render.Canvas(100, 100, x=(0, 10), y=(0, 5))
    canvas.circle((5, 2.5), 2.0, render.RED)
    np.testing.assert_allclose(np.ptp(where(canvas.image(), render.RED), axis=0), (40, 80), atol=3)


def test_grid():
    cells = np.array([[0, 1, 2], [2, 2, 0]])
    for palette in (
        [render.WHITE, render.SKY, render.BLACK],
        {0: render.WHITE, 1: render.SKY, 2: render.BLACK},
    ):
        plain = render.grid(cells, palette, cell=20)
        assert plain.shape == (40, 60, 3) and plain.dtype == np.uint8
        for (row, column), value in np.ndenumerate(cells):
            block = plain[20 * row + 1: 20 * row + 19, 20 * column + 1: 20 * column + 19]
            assert np.all(block == np.uint8(palette[value]))
        frame = np.concatenate(
            [plain[0], plain[-1], plain[20], plain[:, 0], plain[:, -1], plain[:, 40]]
        )
        assert np.all(frame == np.uint8(render.GRAY))
    labeled = render.grid(cells, palette, cell=20, labels=[["S", "", ""], ["", "G1", ""]])
    changed = np.argwhere((labeled != plain).any(-1))
    assert set(map(tuple, changed // 20)) == {(0, 0), (1, 1)}       # and stays inside its cell
    assert labeled[:20, :20].min() < 60                            # dark on white
    agent = render.grid(cells, palette, cell=20, agent=(1, 2))
    np.testing.assert_allclose(middle(agent, render.ORANGE), (49.5, 29.5), atol=0.5)
    np.testing.assert_array_equal(agent[:20], plain[:20])
    # light on black
    assert render.grid([[2]], palette, cell=20, labels=[["X"]])[1:-1, 1:-1].max() > 200


# ---------------------------------------------------------------- terminals and files


def pixels_of(text):
    """Return the pixels that a terminal with 24-bit color would show, [2 * lines, columns, 3]."""
    rows = []
    for line in text.split("\n"):
        ink = paper = None
        upper = []
        lower = []
        for code, block in re.findall(r"\x1b\[([\d;]+)m|(▀)", line):
            numbers = tuple(map(int, code.split(";"))) if code else ()
            if block:
                upper.append(ink)
                lower.append(paper)
            elif numbers[:2] == (38, 2):
                ink = numbers[2:]
            elif numbers[:2] == (48, 2):
                paper = numbers[2:]
        rows += [upper, lower]
    return np.array(rows, np.uint8)


def test_ansi_shows_the_picture(rng):
    image = rng.integers(256, size=(6, 10, 3), dtype=np.uint8)
    # runs of one color, which is named once
    image[2:4, 3:] = image[2, 3]
    text = render.ansi(image)
    np.testing.assert_array_equal(pixels_of(text), image)
    assert text.count("\n") == 2 and all(line.endswith(RESET) for line in text.split("\n"))
    assert text.split("\n")[1].count("\x1b[38") == 4


@pytest.mark.parametrize("shape, width, lines, columns", [
    ((300, 600), 80, 20, 80), ((400, 400), 60, 30, 60), ((5, 7), 80, 2, 7), ((1, 50), 80, 1, 50)])
def test_ansi_fits_the_terminal(rng, shape, width, lines, columns):
    image = np.broadcast_to(np.uint8([10, 200, 30]), (*shape, 3))
    text = render.ansi(image, width)
    shown = pixels_of(text)
    assert shown.shape == (2 * lines, columns, 3) and np.all(shown == [10, 200, 30])
    assert text.endswith(RESET)
    assert len(re.sub(r"\x1b\[[\d;]*m", "", text).split("\n")[0]) == columns


def test_ansi_averages(rng):
    """A character of a picture that is twice too wide is the mean of its pixels."""
    image = rng.integers(256, size=(8, 20, 3), dtype=np.uint8)
    blocks = image.reshape(4, 2, 10, 2, 3).mean((1, 3))
    np.testing.assert_allclose(pixels_of(render.ansi(image, 10)), blocks, atol=1)


def test_gif_round_trip(tmp_path):
    colors = [render.WHITE, render.RED, render.BLUE]
    frames = [
        render.grid(
            np.roll(np.eye(3, dtype=int), i, axis=1) * 2 + i % 2, [*colors, render.SKY], cell=8
        )
        for i in range(3)
    ]
    path = tmp_path / "play.gif"
    render.gif(path, frames, fps=20)
    with Image.open(path) as animation:
        assert (animation.n_frames, animation.info["duration"], animation.info["loop"]) == (
            3,
            50,
            0,
        )
        for frame, want in zip(ImageSequence.Iterator(animation), frames):
            np.testing.assert_array_equal(np.array(frame.convert("RGB")), want)
    with pytest.raises(ValueError, match="at least one frame"):
        render.gif(path, [], fps=20)


def test_gif_of_an_episode(tmp_path):
    """A smooth picture has more than 256 shades, so colors change slightly."""
    env = CartPole()
    frames = [
        env.render(CartPoleState(x, 0.0, 4 * x, 0.0), env.default_params)
        for x in (0.0, 0.1, 0.1, 0.2)
    ]
    render.gif(tmp_path / "play.gif", frames, fps=50)
    with Image.open(tmp_path / "play.gif") as animation:
        # the equal pair is one, shown for longer
        assert animation.n_frames == 3
        shown = [
            (np.array(f.convert("RGB")), f.info["duration"])
            for f in ImageSequence.Iterator(animation)
        ]
    assert [duration for _, duration in shown] == [20, 40, 20]
    for (frame, _), want in zip(shown, (frames[0], frames[1], frames[3])):
        assert np.abs(frame.astype(int) - want).max() < 24
        assert np.abs(frame.astype(int) - want).mean() < 0.1


# ---------------------------------------------------------------- environments


def picture(env, state, **changes):
    image = env.render(
        state, env.default_params._replace(**changes) if changes else env.default_params
    )
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 3
    return image


def test_cartpole():
    def pole(x, theta, **changes):
        image = picture(CartPole(), CartPoleState(x, 0.0, theta, 0.0), **changes)
        return (
            middle(image, render.BROWN),
            middle(image, render.BLUE),
            where(image, render.BROWN)[:, 1].min(),
        )

    (upright, cart, top) = pole(0.0, 0.0)
    (right, still, _) = pole(0.0, 0.2)
    (left, *_) = pole(0.0, -0.2)
    assert left[0] < upright[0] - 5 < right[0] - 10 and still[0] == pytest.approx(cart[0], abs=1)
    np.testing.assert_allclose(right[0] - upright[0], upright[0] - left[0], atol=1)
    pixels = 600 / (2 * 1.15 * 2.4)                                 # to a meter
    for x in (-1.0, 2.0):
        moved, cart_there, _ = pole(x, 0.0)
        np.testing.assert_allclose(
            [moved[0] - upright[0], cart_there[0] - cart[0]], x * pixels, atol=1
        )
    # a meter long, and round at its end
    np.testing.assert_allclose(225 - top, pixels * 1.0 + 5, atol=2)
    # a longer one fits into the picture
    assert pole(0.0, 0.0, length=2.0)[2] > 3


def test_pendulum():
    def tip(theta):
        return middle(picture(Pendulum(), PendulumState(theta, 0.0)), render.RED) - 199.5

    for theta in (0.0, 1.0, np.pi / 2, np.pi, -2.0):
        at = tip(theta)
        np.testing.assert_allclose(at / np.hypot(*at), (-np.sin(theta), -np.cos(theta)), atol=0.02)


def test_acrobot():
    def links(theta1, theta2, **changes):
        image = picture(Acrobot(), AcrobotState(theta1, theta2, 0.0, 0.0), **changes)
        return middle(image, render.BLUE) - 199.5, middle(image, render.SKY) - 199.5

    # in pixels rightwards and down
    def link(theta):
        return 400 / 4.6 * np.array([np.sin(theta), np.cos(theta)])

    for theta1, theta2 in [(0.0, 0.0), (np.pi / 2, np.pi / 2), (-0.7, 1.9), (2.5, -0.4)]:
        first = link(theta1)
        second = link(theta1 + theta2)
        got = links(theta1, theta2)
        middles = (first / 2, first + second / 2)
        # discs hide the ends, and the links each other
        np.testing.assert_allclose(got, middles, atol=8)
    np.testing.assert_allclose(links(0.3, 0.4, link_length_1=2.0), links(0.3, 0.4), atol=1)
    goal = where(picture(Acrobot(), AcrobotState(0.0, 0.0, 0.0, 0.0)), render.GREEN)
    np.testing.assert_allclose(goal[:, 1], 200 - 400 / 4.6, atol=2)


@pytest.mark.parametrize("env", [MountainCar(), MountainCarContinuous()])
def test_mountain_car(env):
    def car(position):
        return middle(picture(env, MountainCarState(position, 0.0)), render.RED)

    positions = [-1.2, -np.pi / 6, 0.0, 0.5]
    cars = np.array([car(p) for p in positions])
    # leaning moves it a bit
    np.testing.assert_allclose(np.diff(cars[:, 0]), np.diff(positions) * 300, atol=20)
    assert cars[1, 1] == max(cars[:, 1]) and cars[3, 1] == min(cars[:, 1])
    flag = where(picture(env, MountainCarState(0.0, 0.0)), render.YELLOW)
    np.testing.assert_allclose(
        flag[:, 0].min(), (env.default_params.goal_position + 1.3) * 300, atol=3
    )


def test_candidates():
    env = CandidateCartPole(slots=4)
    cart = CartPoleState(0.3, 0.0, 0.1, 0.0)
    right = np.array([True, False, True, False])
    legal = np.array([True, True, False, False])
    image = picture(env, CandidateCartPoleState(cart, right, legal))
    same = (image == CartPole().render(cart, CartPole().default_params)).all(-1)
    # CartPole's picture above the arrows
    assert same[:250].all()
    for slot in range(4):
        shown = image[260:, 150 * slot: 150 * (slot + 1)]
        color = render.BLUE if legal[slot] else render.LIGHT
        assert len(where(shown, color)) > 50
        across = where(shown, color)[:, 0]
        thick = [np.sum(across < 75), np.sum(across >= 75)]         # the head is the thicker part
        assert (thick[1] > thick[0]) == right[slot]


@pytest.mark.parametrize(
    "name",
    [
        "cartpole",
        "pendulum",
        "acrobot",
        "mountaincar",
        "mountaincar-continuous",
        "cartpole-candidates",
    ],
)
def test_wrappers_pass_the_picture_through(name):
    env, params = make(name)
    _, state = env.reset(jax.random.key(0), params)
    image = env.render(state, params)
    assert image.shape[2:] == (3,) and image.dtype == np.uint8 and np.ptp(image) > 100
    inner = state
    while hasattr(inner, "env"):
        inner = inner.env
    np.testing.assert_array_equal(image, env.unwrapped.render(inner, params))
