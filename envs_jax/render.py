"""Pictures of environments without a display: RGB arrays [height, width, 3] uint8, for terminals and GIFs too.

`Canvas` draws shapes in world coordinates, `grid` a board of cells; `ansi` and `gif` take the pictures of either.
Pillow draws, and is imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
LIGHT: Colour = (226, 229, 233)
GREY: Colour = (150, 156, 164)
DARK: Colour = (66, 72, 82)
BLACK: Colour = (22, 24, 29)
BLUE: Colour = (38, 112, 178)       # these are told apart by the colour-blind (after Okabe and Ito)
SKY: Colour = (103, 180, 228)
GREEN: Colour = (22, 152, 112)
YELLOW: Colour = (240, 208, 60)
ORANGE: Colour = (229, 150, 26)
RED: Colour = (208, 84, 30)
PINK: Colour = (200, 118, 164)
BROWN: Colour = (150, 108, 72)

_FINE = 3      # a canvas is drawn this many times larger, and averaged: smooth edges


class Canvas:
    """A picture of the rectangle `x` x `y` of the world, y upwards. Widths and text sizes are in pixels."""

    def __init__(self, width: int, height: int, *, x: tuple[float, float], y: tuple[float, float],
                 background: Colour = WHITE):
        from PIL import Image, ImageDraw

        self._picture = Image.new("RGB", (width * _FINE, height * _FINE), background)
        self._draw = ImageDraw.Draw(self._picture)
        self.x, self.y = x, y
        self._origin = np.array([x[0], y[1]])
        self._scale = np.array([width / (x[1] - x[0]), -height / (y[1] - y[0])]) * _FINE

    def line(self, points: Any, colour: Colour, width: float = 2.0) -> None:
        """Through `points` [n, 2], `width` pixels thick, with round ends and bends."""
        at, thick = self._pixels(points), max(round(width * _FINE), 1)
        self._draw.line(list(map(tuple, at)), colour, thick, joint="curve")
        for end in (at[0], at[-1]):
            self._disc(end, np.full(2, thick / 2), colour)

    def polygon(self, points: Any, colour: Colour) -> None:
        """The filled polygon with the corners `points` [n, 2]."""
        self._draw.polygon(list(map(tuple, self._pixels(points))), colour)

    def circle(self, centre: Any, radius: float, colour: Colour) -> None:
        """A filled circle, `radius` in the world's units."""
        self._disc(self._pixels([centre])[0], radius * np.abs(self._scale), colour)

    def text(self, at: Any, string: str, colour: Colour = DARK, size: float = 14.0) -> None:
        """`string`, its middle at the point `at`, `size` pixels high."""
        self._draw.text(tuple(self._pixels([at])[0]), string, colour, font=_font(size * _FINE), anchor="mm")

    def image(self) -> np.ndarray:
        """What has been drawn so far: [height, width, 3] uint8."""
        return np.array(self._picture.reduce(_FINE))

    def _disc(self, at: np.ndarray, radii: np.ndarray, colour: Colour) -> None:
        self._draw.ellipse([*(at - radii), *(at + radii - 1)], colour)         # Pillow counts the last pixel in

    def _pixels(self, points: Any) -> np.ndarray:
        return (np.asarray(points, np.float64) - self._origin) * self._scale


def grid(cells: Any, palette: Sequence[Colour] | Mapping[int, Colour], *, cell: int = 32,
         labels: Any = None, agent: tuple[int, int] | None = None) -> np.ndarray:
    """A board: `cells` [rows, columns] of integers that `palette` turns into colours, with thin borders.

    labels: [rows, columns] strings of a character or two, "" for none. agent: the row and column of a disc, ORANGE.
    -> [rows * cell, columns * cell, 3] uint8
    """
    from PIL import Image, ImageDraw

    colours = np.array([[palette[int(c)] for c in row] for row in np.asarray(cells)], np.uint8)
    board = colours.repeat(cell, axis=0).repeat(cell, axis=1)
    for lines in (board, board.swapaxes(0, 1)):
        lines[::cell] = lines[-1] = GREY
    picture = Image.fromarray(board)
    draw, font = ImageDraw.Draw(picture), _font(0.5 * cell)
    for (row, column), label in np.ndenumerate(np.empty((0, 0), str) if labels is None else np.asarray(labels)):
        on_light = colours[row, column] @ (0.299, 0.587, 0.114) > 128          # luma
        middle = ((column + 0.5) * cell, (row + 0.5) * cell)
        draw.text(middle, str(label), BLACK if on_light else WHITE, font=font, anchor="mm")
    if agent is not None:
        disc = Image.new("L", (cell * _FINE, cell * _FINE))
        ImageDraw.Draw(disc).ellipse([x * cell * _FINE for x in (0.22, 0.22, 0.78, 0.78)], 255)
        picture.paste(ORANGE, (agent[1] * cell, agent[0] * cell), disc.reduce(_FINE))
    return np.array(picture)


def ansi(image: np.ndarray, width: int = 80) -> str:
    """The picture [H, W, 3] as text for a terminal of 24-bit colour, at most `width` columns wide.

    A character is an upper half block over a background, so it shows two pixels, one above the other; there are
    round(columns * H / W / 2) lines. Each ends by resetting the colours.
    """
    from PIL import Image

    height, columns = image.shape[0], min(width, image.shape[1])
    lines = max(round(columns * height / image.shape[1] / 2), 1)
    small = np.array(Image.fromarray(image).resize((columns, 2 * lines), Image.Resampling.BOX))
    return "\n".join(_half_blocks(*pair) for pair in small.reshape(lines, 2, columns, 3))


def gif(path: Any, frames: Sequence[np.ndarray], fps: float) -> None:
    """Write pictures [H, W, 3] of one size as an animation that repeats for ever.

    The format counts in hundredths of a second, and equal frames in a row become one that is shown for longer.
    """
    from PIL import Image

    if not len(frames):
        raise ValueError("an animation needs a frame or more")
    first, *rest = (Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE) for frame in frames)
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=10 * max(round(100 / fps), 1), loop=0)


def _half_blocks(above: np.ndarray, below: np.ndarray) -> str:
    """One line of text for two rows of pixels [columns, 3]; a colour is named where it changes."""
    text, ink, paper = [], None, None
    for a, b in zip(above.tolist(), below.tolist()):
        text.append("\x1b[38;2;{};{};{}m".format(*a) if a != ink else "")
        text.append("\x1b[48;2;{};{};{}m".format(*b) if b != paper else "")
        text.append("▀")
        ink, paper = a, b
    return "".join(text) + "\x1b[0m"


def _font(size: float) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
