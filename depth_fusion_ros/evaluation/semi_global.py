"""OpenCV's semi-global block matching on a dual-pixel pair: the stereo engineer's baseline.

Dual-pixel disparities are a few pixels, of both signs, and their fractions are what counts. OpenCV
locks fractions to its grid: its cost is flat within half a pixel. So both views are stretched along
the parallax axis, and matched several times with the right view displaced by parts of a stretched
pixel; the mean is free of locking (0.04 px left of 0.15 px on a shifted texture). Stretching
alone, four- or eightfold, does not help: the slopes it leaves drown in OpenCV's 8-bit prefilter.
Contrast is normalised locally, since the views differ in shading.
Source: Hirschmüller 2008, as implemented in OpenCV.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

EQUALISE_PX = 31
CONTRAST = 0.35
"""Relative contrast that is mapped to the full 8-bit range, ±."""

Image = NDArray[np.float32]


@dataclass(frozen=True)
class SemiGlobalOptions:
    """Settings; the defaults were chosen on the simulated evaluation set.

    Attributes:
        stretch: upsampling along x. phases: displacements of the right view that are averaged.
        block_px: odd side of the matched block, in stretched pixels along x.
        penalty_small, penalty_large: P1 and P2 per pixel of the block.
        uniqueness: margin by which the best match must win, per cent.
    """

    stretch: int = 2
    phases: int = 4
    block_px: int = 9
    penalty_small: int = 8
    penalty_large: int = 32
    uniqueness: int = 0


def semi_global_disparity(
    left: Image, right: Image, limits_px: tuple[float, float] = (-12.0, 12.0),
    options: SemiGlobalOptions | None = None,
) -> Image:
    """Match a pair and return the disparity on the grid between the views.

    Args:
        left, right: (H, W) float32 square root of linear light, parallax along x.
        limits_px: least and largest x_right − x_left that is searched, and returned; a lens
            knows that of infinity and of its nearest depth.
        options: settings.

    Returns:
        (H, W) float32 x_right − x_left in px of the input, finite everywhere: pixels that OpenCV
        leaves out get the value of the nearest one that it answers, 0 where there is none.

    Raises:
        ValueError: shapes differ, or the limits are no range.
    """
    if left.shape != right.shape or left.ndim != 2:
        raise ValueError(f"left {left.shape}, right {right.shape}: both views must be (H, W) of "
                         "one size")
    low_px, high_px = limits_px
    if not low_px < high_px:
        raise ValueError(f"limits_px = {limits_px!r}: the least disparity must be below the "
                         "largest; check the depth range")
    options = options or SemiGlobalOptions()
    # OpenCV's disparity is x_left − x_right; it counts candidates in sixteens.
    first = math.floor(-high_px * options.stretch) - 1
    count = math.ceil((-low_px * options.stretch + 2 - first) / 16) * 16
    border = max(abs(first), abs(first + count))
    matcher = cv2.StereoSGBM.create(
        minDisparity=first, numDisparities=count, blockSize=options.block_px,
        P1=options.penalty_small * options.block_px**2,
        P2=options.penalty_large * options.block_px**2, disp12MaxDiff=-1, preFilterCap=31,
        uniquenessRatio=options.uniqueness, mode=cv2.STEREO_SGBM_MODE_HH)
    found = np.zeros((left.shape[0], left.shape[1] * options.stretch), np.float32)
    for phase in range(options.phases):
        offset_px = ((phase + 0.5) / options.phases - 0.5) / options.stretch
        # OpenCV answers no pixel within the search range of the border: give it one to lose.
        views = [cv2.copyMakeBorder(_stretched(view, options.stretch, offset), 0, 0, border,
                                    border, cv2.BORDER_REPLICATE)
                 for view, offset in ((left, 0.0), (right, offset_px))]
        counts = matcher.compute(*views)[:, border:-border]
        answered = counts >= 16 * first  # in sixteenths of a stretched pixel
        shifts = _filled(counts.astype(np.float32) / np.float32(-16 * options.stretch), answered)
        found += (shifts + np.float32(offset_px)) / np.float32(options.phases)
    return _between_views(found.clip(low_px, high_px), left.shape, options.stretch)


def _stretched(view: Image, stretch: int, offset_px: float) -> NDArray[np.uint8]:
    """Local relative contrast at 8 bits, upsampled along x and read `offset_px` further right."""
    mean = cv2.blur(view, (EQUALISE_PX, EQUALISE_PX), borderType=cv2.BORDER_REPLICATE)
    contrast = view / (mean + np.float32(0.02)) - 1
    height, width = view.shape
    row = (np.arange(width * stretch, dtype=np.float32) + np.float32(0.5)) / np.float32(stretch)
    x = np.tile(row - np.float32(0.5 - offset_px), (height, 1))
    y = np.tile(np.arange(height, dtype=np.float32)[:, None], (1, width * stretch))
    wide = cv2.remap(contrast, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.clip(128 + wide * (127 / CONTRAST), 0, 255).round(), np.uint8)


def _filled(values: Image, known: NDArray[np.bool_]) -> Image:
    """Give unknown pixels the value of the nearest known one."""
    if known.all():
        return values
    if not known.any():
        return np.zeros_like(values)
    _, label = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    table = np.zeros(int(label.max()) + 1, np.float32)
    table[label[known]] = values[known]
    return np.asarray(table[label], np.float32)


def _between_views(found: Image, shape: tuple[int, ...], stretch: int) -> Image:
    """Read a map on the stretched left grid from the grid between the views, (H, W)."""
    height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    disparity = np.zeros((height, width), np.float32)
    for _ in range(4):  # a point at x lies in the left view at x − d/2
        wide_x = (x - disparity / 2 + np.float32(0.5)) * stretch - np.float32(0.5)
        disparity = np.asarray(cv2.remap(found, wide_x, y, cv2.INTER_LINEAR,
                                         borderMode=cv2.BORDER_REPLICATE), np.float32)
    return disparity
