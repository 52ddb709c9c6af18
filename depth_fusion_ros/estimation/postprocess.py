"""What follows the network: flying pixels, texture evidence, provenance labels. NumPy/OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import Provenance

TEXTURE_ENERGY_MIN = 2e-4
"""Mean squared relative gradient across the split below which nothing can be matched: about the
gradient energy of 1.4 % noise."""
TEXTURE_WINDOW_PX = 15
CLIPPED_MARGIN_PX = 2
"""Round clipped pixels where the gradient is that of clipping."""
NOISE_TILE_PX = 16
NOISE_QUANTILE = 0.05
"""Of the tiles: where there is texture the views differ by their disparity too."""
NOISE_MARGIN = 1.7
"""The quietest tiles show 0.7 of the noise's energy, and that of a window varies by a tenth."""
EQUALISE_PX = 31
FLYING_CONTRAST = 0.1
"""Depth edges weaker than 10 % are slopes, not edges."""


def texture_energy(left: NDArray[np.float32], right: NDArray[np.float32],
                   saturated: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Mean squared relative gradient along x of the mean view: what matching can hold on to.

    Args:
        left, right: (H, W) float32 square root of linear light, parallax along x.
        saturated: (H, W) clipped in either view: the edge of clipping is no texture; None = none.

    Returns:
        (H, W) float32, unitless, ≥ 0.
    """
    mean = (left + right) * np.float32(0.5)
    local = cv2.blur(mean, (EQUALISE_PX, EQUALISE_PX), borderType=cv2.BORDER_REPLICATE)
    gradient = cv2.Sobel(mean, cv2.CV_32F, 1, 0, ksize=1, scale=0.5,
                         borderType=cv2.BORDER_REPLICATE)
    relative = gradient / (local + np.float32(0.02))
    if saturated is not None and saturated.any():
        relative[_dilated(saturated, CLIPPED_MARGIN_PX)] = 0
    window = (TEXTURE_WINDOW_PX, TEXTURE_WINDOW_PX)
    return np.asarray(cv2.blur(relative * relative, window, borderType=cv2.BORDER_REPLICATE),
                      dtype=np.float32)


def noise_energy(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """What noise contributes to `texture_energy` at most, (H, W) float32 ≥ 0; arguments as there.

    Noise is what differs between the views at the finest scale, in the tiles where they differ
    least. In square-root light shot noise is the same everywhere.
    """
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6  # gain 1
    rough = np.abs(cv2.filter2D(left - right, cv2.CV_32F, kernel))
    height, width = (side // NOISE_TILE_PX * NOISE_TILE_PX for side in rough.shape)
    tiles = rough[:height, :width].reshape(height // NOISE_TILE_PX, NOISE_TILE_PX, -1,
                                           NOISE_TILE_PX)
    sigma = float(np.quantile(np.median(tiles, axis=(1, 3)), NOISE_QUANTILE)) / 0.67449 / 2**0.5
    local = cv2.blur((left + right) * np.float32(0.5), (EQUALISE_PX, EQUALISE_PX),
                     borderType=cv2.BORDER_REPLICATE)
    # The mean of two views has half the variance, half a difference of two pixels half of that.
    return np.asarray(NOISE_MARGIN * (sigma / 2 / (local + np.float32(0.02))) ** 2, np.float32)


def flying_pixels(depth_m: NDArray[np.float32], radius_px: int) -> NDArray[np.bool_]:
    """Pixels that hang between foreground and background at a depth edge.

    A pixel is flying when its window of `radius_px` spans more than 10 % of depth and its
    inverse depth lies in the middle half of that span. Non-finite pixels are never flying.

    Args:
        depth_m: (H, W) float32 metres, NaN and ±Inf allowed. radius_px: 0 = none are.
    """
    if radius_px <= 0:
        return np.zeros(depth_m.shape, np.bool_)
    finite = np.isfinite(depth_m)
    inverse = np.where(finite, 1 / np.where(finite, depth_m, 1), 0).astype(np.float32)
    kernel = np.ones((2 * radius_px + 1,) * 2, np.uint8)
    high = cv2.dilate(np.where(finite, inverse, -np.inf).astype(np.float32), kernel)
    low = cv2.erode(np.where(finite, inverse, np.inf).astype(np.float32), kernel)
    with np.errstate(invalid="ignore", over="ignore"):  # nothing finite near
        span = high - low
        middle = np.abs(inverse - (high + low) / 2) < span / 4
        return np.asarray(finite & middle & (span > FLYING_CONTRAST * low), np.bool_)


def label_provenance(value: NDArray[np.float32], energy: NDArray[np.float32],
                     saturated: NDArray[np.bool_],
                     contradicted: NDArray[np.bool_] | None = None, *,
                     window_px: float = TEXTURE_WINDOW_PX) -> NDArray[np.uint8]:
    """Label each pixel with `Provenance`: where its depth comes from, or why it has none.

    Args:
        value: (H, W) depth (or relative disparity): NaN → NONE and ±Inf → OUT_OF_RANGE where it
            was measured. A blank or clipped surface keeps its label: it is the cause where there
            is no depth, and free space is only what was seen to be free.
        energy: (H, W) from `texture_energy`, less `noise_energy`.
        saturated: (H, W) clipped in either view.
        contradicted: (H, W) the views disagree with the depth: PRIOR_ONLY, a guess; None = nowhere.
        window_px: side of the window of `energy` on this grid. Energy reaches half of it from
            texture into a blank surface, where a guess of +Inf must not be taken for free space:
            +Inf so near to a blank or clipped pixel is TEXTURELESS.
    """
    label = np.full(value.shape, Provenance.MEASURED, np.uint8)
    label[np.isinf(value)] = Provenance.OUT_OF_RANGE
    if contradicted is not None:
        label[contradicted] = Provenance.PRIOR_ONLY
    label[np.isnan(value)] = Provenance.NONE
    blank = energy < TEXTURE_ENERGY_MIN
    far = np.isposinf(value)
    if far.any():
        blank |= far & _dilated(blank | saturated, round(window_px) // 2)
    label[blank] = Provenance.TEXTURELESS
    label[saturated] = Provenance.SATURATED
    return label


def _dilated(mask: NDArray[np.bool_], radius_px: int) -> NDArray[np.bool_]:
    """Pixels with one of the mask in the square of this radius round them."""
    kernel = np.ones((2 * radius_px + 1,) * 2, np.uint8)
    return np.asarray(cv2.dilate(mask.view(np.uint8), kernel), np.uint8).view(np.bool_)
