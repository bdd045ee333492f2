"""Pictures of environments without a display: RGB arrays [height, width, 3] uint8.

`Canvas` draws shapes in world coordinates and `grid` draws a board of cells. `ansi` shows a picture
in a terminal, and `gif` writes an animation. Pillow draws; it is imported when first used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

Color = tuple[int, int, int]

WHITE: Color = (255, 255, 255)
LIGHT: Color = (226, 229, 233)
GRAY: Color = (150, 156, 164)
DARK: Color = (66, 72, 82)
BLACK: Color = (22, 24, 29)
BLUE: Color = (38, 112, 178)       # from here on: a color-blind safe palette, after Okabe and Ito
SKY: Color = (103, 180, 228)
GREEN: Color = (22, 152, 112)
YELLOW: Color = (240, 208, 60)
ORANGE: Color = (229, 150, 26)
RED: Color = (208, 84, 30)
PINK: Color = (200, 118, 164)
BROWN: Color = (150, 108, 72)

_FINE = 3      # supersampling: a canvas is drawn this many times larger, then averaged


class Canvas:
    """A picture of the rectangle `x` x `y` of the world, with y pointing upward.

    Line widths and text sizes are in pixels.
    """

    def __init__(self, width: int, height: int, *, x: tuple[float, float], y: tuple[float, float],
                 background: Color = WHITE):
        from PIL import Image, ImageDraw

        self._picture = Image.new("RGB", (width * _FINE, height * _FINE), background)
        self._draw = ImageDraw.Draw(self._picture)
        self.x = x
        self.y = y
        self._origin = np.array([x[0], y[1]])
        self._scale = np.array([width / (x[1] - x[0]), -height / (y[1] - y[0])]) * _FINE

    def line(self, points: Any, color: Color, width: float = 2.0) -> None:
        """Draw a line through `points` [n, 2], `width` pixels thick, with round ends and bends."""
        pixels = self._pixels(points)
        thick = max(round(width * _FINE), 1)
        self._draw.line(list(map(tuple, pixels)), color, thick, joint="curve")
        for end in (pixels[0], pixels[-1]):
            self._disc(end, np.full(2, thick / 2), color)

    def polygon(self, points: Any, color: Color) -> None:
        """Draw the filled polygon with the corners `points` [n, 2]."""
        self._draw.polygon(list(map(tuple, self._pixels(points))), color)

    def circle(self, center: Any, radius: float, color: Color) -> None:
        """Draw a filled circle; `radius` is in units of the world."""
        self._disc(self._pixels([center])[0], radius * np.abs(self._scale), color)

    def text(self, at: Any, string: str, color: Color = DARK, size: float = 14.0) -> None:
        """Draw `string` centered at the point `at`, `size` pixels high."""
        pixel = tuple(self._pixels([at])[0])
        self._draw.text(pixel, string, color, font=_font(size * _FINE), anchor="mm")

    def image(self) -> UInt8[np.ndarray, "height width 3"]:
        """Return the picture drawn so far: [height, width, 3] uint8."""
        return np.array(self._picture.reduce(_FINE))

    def _disc(self, center: np.ndarray, radii: np.ndarray, color: Color) -> None:
        # Pillow includes the last pixel of a bounding box
        self._draw.ellipse([*(center - radii), *(center + radii - 1)], color)

    def _pixels(self, points: Any) -> Float[np.ndarray, "n 2"]:
        return (np.asarray(points, np.float64) - self._origin) * self._scale


def grid(cells: Any, palette: Sequence[Color] | Mapping[int, Color], *, cell: int = 32,
         labels: Any = None, agent: tuple[int, int] | None = None,
         ) -> UInt8[np.ndarray, "height width 3"]:
    """Draw a board with thin borders. Return [rows * cell, columns * cell, 3] uint8.

    cells: [rows, columns] integers, which `palette` maps to colors.
    labels: [rows, columns] strings of one or two characters, "" for none.
    agent: row and column of a disc in ORANGE.
    """
    from PIL import Image, ImageDraw

    colors = np.array([[palette[int(c)] for c in row] for row in np.asarray(cells)], np.uint8)
    board = colors.repeat(cell, axis=0).repeat(cell, axis=1)
    for lines in (board, board.swapaxes(0, 1)):
        lines[::cell] = lines[-1] = GRAY
    picture = Image.fromarray(board)
    draw = ImageDraw.Draw(picture)
    font = _font(0.5 * cell)
    labels = np.empty((0, 0), str) if labels is None else np.asarray(labels)
    for (row, column), label in np.ndenumerate(labels):
        luma = colors[row, column] @ (0.299, 0.587, 0.114)
        center = ((column + 0.5) * cell, (row + 0.5) * cell)
        draw.text(center, str(label), BLACK if luma > 128 else WHITE, font=font, anchor="mm")
    if agent is not None:
        row, column = agent
        disc = Image.new("L", (cell * _FINE, cell * _FINE))
        ImageDraw.Draw(disc).ellipse([x * cell * _FINE for x in (0.22, 0.22, 0.78, 0.78)], 255)
        picture.paste(ORANGE, (column * cell, row * cell), disc.reduce(_FINE))
    return np.array(picture)


def ansi(image: UInt8[np.ndarray, "height width 3"], width: int = 80) -> str:
    """Return the picture as text for a terminal with 24-bit color, at most `width` columns wide.

    Each character is an upper half block, whose foreground and background are two pixels, one above
    the other. There are round(columns * height / width / 2) lines, and each resets the colors.
    """
    from PIL import Image

    image_height, image_width, _ = image.shape
    columns = min(width, image_width)
    lines = max(round(columns * image_height / image_width / 2), 1)
    resized = Image.fromarray(image).resize((columns, 2 * lines), Image.Resampling.BOX)
    pairs = np.array(resized).reshape(lines, 2, columns, 3)
    return "\n".join(_half_blocks(*pair) for pair in pairs)


def gif(path: Any, frames: Sequence[np.ndarray], fps: float) -> None:
    """Write `frames` [height, width, 3] of one size as an animation that repeats forever.

    The format measures time in hundredths of a second, and merges equal frames in a row into one
    that is shown for longer. Raises ValueError if there are no frames.
    """
    from PIL import Image

    if not len(frames):
        raise ValueError("an animation needs at least one frame")
    first, *rest = (Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE)
                    for frame in frames)
    duration = 10 * max(round(100 / fps), 1)
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=duration, loop=0)


def _half_blocks(above: np.ndarray, below: np.ndarray) -> str:
    """Return one line of text for two rows of pixels [columns, 3].

    The line names a color only where it changes.
    """
    text: list[str] = []
    foreground = None
    background = None
    for upper, lower in zip(above.tolist(), below.tolist()):
        if upper != foreground:
            text.append("\x1b[38;2;{};{};{}m".format(*upper))
        if lower != background:
            text.append("\x1b[48;2;{};{};{}m".format(*lower))
        text.append("▀")
        foreground = upper
        background = lower
    return "".join(text) + "\x1b[0m"


def _font(size: float) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
