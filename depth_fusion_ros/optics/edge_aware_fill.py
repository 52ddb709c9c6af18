"""Fill and smooth a sparse, uncertain map along the surfaces that a picture shows.

    filled, sigma = fill_diopters(diopters, sigma_diopters, picture)

Weighted least squares: each pixel wants its own measurement, in proportion to 1/σ², and the value
of its four neighbours, in proportion to how alike they look. A blank surface so takes the values of
its own rim and not of what is beyond it, as long as it looks different. Inverse depth is the right
unit: that of a plane is linear in the image.

Source: the energy is that of Farbman et al., SIGGRAPH 2008; solved by conjugate gradients from
coarse to fine.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SMOOTHNESS = 2.0
"""Weight of a neighbour that looks the same, against a measurement among the surest fifth."""
CONTRAST = 0.03
"""Difference of two neighbours, of full scale, at which their tie falls to 1/e."""
WEAKEST_TIE = 1e-3
MOST_WEIGHT = 4.0
LEVELS = 4
"""Resolutions from 1/8 to 1."""
STEPS = 20
"""Conjugate-gradient steps at full resolution; coarser levels take twice as many."""
REACH_PX = 8.0
"""Beyond about so many px from a measurement, a filled value is a guess."""
GUESS_FACTOR = 2.0
"""σ of a guess, against what measurements around it scatter."""

Array = NDArray[Any]
Image = NDArray[np.float32]


def fill_diopters(diopters: Image, sigma_diopters: Image, picture: Array) -> tuple[Image, Image]:
    """Inverse depth everywhere, smooth along what looks alike.

    Args:
        diopters, sigma_diopters: (H, W) float32, NaN where nothing was measured.
        picture: (H, W, 3) uint8, or float 0..1, registered: the sharper, the better.

    Returns:
        filled diopters and σ, (H, W) float32 each: between the extremes of what was measured.
        σ is what measurements of the surface scatter around it, wider where none is near.
        All NaN where `diopters` is.

    Raises:
        ValueError: the shapes do not agree.
    """
    if diopters.shape != sigma_diopters.shape or picture.shape != (*diopters.shape, 3):
        raise ValueError(f"diopters {diopters.shape}, sigma {sigma_diopters.shape}, picture "
                         f"{picture.shape}: must be (H, W), (H, W) and (H, W, 3)")
    known = np.isfinite(diopters) & np.isfinite(sigma_diopters) & (sigma_diopters > 0)
    if not known.any():
        nothing = np.full(diopters.shape, np.nan, np.float32)
        return nothing, nothing.copy()
    sure = np.quantile(sigma_diopters[known], 0.2)
    sigma = np.where(known, sigma_diopters, np.inf)
    weight = np.minimum((sure / sigma) ** 2, MOST_WEIGHT).astype(np.float32)
    scale = 255.0 if picture.dtype.kind == "u" else 1.0
    levels = _pyramid(weight, picture.astype(np.float32) / np.float32(scale))
    values = np.where(known, diopters, 0).astype(np.float32)
    filled = _smoothed(values, levels)
    filled = np.clip(filled, values[known].min(), values[known].max())
    scatter = _smoothed((values - filled) ** 2 + (sure / 2) ** 2, levels)
    near = cv2.GaussianBlur(np.minimum(weight, 1), (0, 0), REACH_PX, borderType=cv2.BORDER_REFLECT)
    wider = 1 + GUESS_FACTOR * (1 - np.sqrt(near))
    sigma_filled = np.sqrt(np.maximum(scatter, (sure / 2) ** 2)) * wider
    return filled.astype(np.float32), sigma_filled.astype(np.float32)


class _Level:
    """One resolution: weights of the measurements, and ties between neighbours."""

    def __init__(self, weight: Image, picture: Image) -> None:
        self.weight = weight + np.float32(1e-9)
        self.tie_x, self.tie_y = (
            np.float32(SMOOTHNESS) * (np.exp(-np.abs(np.diff(picture, axis=axis)).mean(-1)
                                             / np.float32(CONTRAST)) + np.float32(WEAKEST_TIE))
            for axis in (1, 0))
        self.diagonal = self.weight.copy()
        self.diagonal[:, 1:] += self.tie_x
        self.diagonal[:, :-1] += self.tie_x
        self.diagonal[1:] += self.tie_y
        self.diagonal[:-1] += self.tie_y

    def apply(self, x: Image) -> Image:
        """The matrix of the normal equations, times x."""
        y = self.weight * x
        pull = self.tie_x * (x[:, 1:] - x[:, :-1])
        y[:, 1:] += pull
        y[:, :-1] -= pull
        pull = self.tie_y * (x[1:] - x[:-1])
        y[1:] += pull
        y[:-1] -= pull
        return y

    def solve(self, values: Image, x: Image, steps: int) -> Image:
        """Conjugate gradients with the diagonal as preconditioner, from x."""
        rest: Array = self.weight * values - self.apply(x)
        scaled: Array = rest / self.diagonal
        direction, norm = scaled.copy(), float(np.vdot(rest, scaled))
        for _ in range(steps):
            if norm <= 1e-12:
                break
            image = self.apply(direction)
            length = np.float32(norm / float(np.vdot(direction, image)))
            x = np.asarray(x + length * direction, np.float32)
            rest = rest - length * image
            scaled = rest / self.diagonal
            norm, before = float(np.vdot(rest, scaled)), norm
            direction = scaled + np.float32(norm / before) * direction
        return x


def _pyramid(weight: Image, picture: Image) -> list[_Level]:
    """From coarse to fine."""
    levels = []
    for level in reversed(range(LEVELS)):
        size = _size(weight, level)
        levels.append(_Level(*(np.asarray(cv2.resize(a, size, interpolation=cv2.INTER_AREA),
                                          np.float32) for a in (weight, picture))))
    return levels


def _smoothed(values: Image, levels: list[_Level]) -> Image:
    """What minimises the energy, for values with the levels' weights."""
    weight = levels[-1].weight
    x = np.full(levels[0].weight.shape, float((weight * values).sum() / weight.sum()), np.float32)
    for number, level in enumerate(levels):
        height, width = level.weight.shape
        size = (width, height)
        own = cv2.resize(weight * values, size, interpolation=cv2.INTER_AREA) / level.weight
        start = cv2.resize(x, size, interpolation=cv2.INTER_LINEAR)
        x = level.solve(np.asarray(own, np.float32), np.asarray(start, np.float32),
                        STEPS if number == len(levels) - 1 else 2 * STEPS)
    return x


def _size(image: Image, level: int) -> tuple[int, int]:
    """(width, height) of a level, at least 2 px."""
    height, width = image.shape
    return max(2, width >> level), max(2, height >> level)
