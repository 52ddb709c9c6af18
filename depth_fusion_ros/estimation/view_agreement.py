"""Do the two views agree with a disparity? Evidence that no network is asked for. NumPy/OpenCV.

    off_px = disagreement_px(left, right, disparity_px)

The views are brought together by the disparity, and one step of Lucas and Kanade (1981) says how
far they would still move. What moves was not measured: it is a guess that the views contradict.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

WINDOW_PX = 9
EQUALISE_PX = 31
SMOOTH_PX = 0.7
DISAGREE_PX = 0.3
"""From here on views contradict a disparity: ten times what matching is exact to."""
DISAGREE_RATIO = 0.1
"""Less than this relative change of depth is not worth a contradiction."""

Image = NDArray[np.float32]


def disagreement_px(left: Image, right: Image, disparity_px: Image) -> Image:
    """How far the views would still move towards each other, (H, W) float32 px, ≥ 0.

    Args:
        left, right: (H, W) float32 square root of linear light, parallax along x.
        disparity_px: (H, W) float32 x_right − x_left of the mean view; NaN gives 0.
    """
    half = np.nan_to_num(disparity_px, nan=0.0) / np.float32(2)
    columns = np.arange(left.shape[1], dtype=np.float32)[None] + np.zeros_like(half)
    rows = np.arange(left.shape[0], dtype=np.float32)[:, None] + np.zeros_like(half)
    views = [_contrast(np.asarray(cv2.remap(
        _smooth(view), columns + shift, rows, cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE), np.float32))
        for view, shift in ((left, -half), (right, half))]
    apart = views[0] - views[1]
    apart -= _mean(apart, EQUALISE_PX)  # shading differs between the halves of a pupil
    gradient = cv2.Sobel(views[0] + views[1], cv2.CV_32F, 1, 0, ksize=1, scale=0.25,
                         borderType=cv2.BORDER_REPLICATE)
    energy = _mean(gradient * gradient, WINDOW_PX)
    moved = np.abs(_mean(gradient * apart, WINDOW_PX)) / (energy + np.float32(1e-6))
    moved[~np.isfinite(disparity_px)] = 0
    return np.asarray(moved, np.float32)


def contradicted(off_px: Image, depth_m: Image, gain_px_m: float | Image) -> NDArray[np.bool_]:
    """Where views disagree with a depth by more than matching errs and depth tolerates.

    Args:
        off_px: (H, W) of `disagreement_px`. depth_m: (H, W) float32; where it is not finite,
            `DISAGREE_PX` alone decides.
        gain_px_m: k of d = k·(1/g − 1/Z), scalar or (H, W).
    """
    with np.errstate(invalid="ignore"):
        ratio = off_px * np.abs(depth_m) / gain_px_m  # |δZ|/Z = Z·|δd|/k
        return np.asarray((off_px > DISAGREE_PX) & ~(ratio < DISAGREE_RATIO), np.bool_)


def _smooth(view: Image) -> Image:
    return np.asarray(cv2.GaussianBlur(view, (0, 0), SMOOTH_PX), np.float32)


def _contrast(view: Image) -> Image:
    return np.asarray(view / (_mean(view, EQUALISE_PX) + np.float32(0.02)), np.float32)


def _mean(image: Image, side_px: int) -> Image:
    return np.asarray(cv2.blur(image, (side_px, side_px), borderType=cv2.BORDER_REPLICATE),
                      np.float32)


__all__ = ["DISAGREE_PX", "DISAGREE_RATIO", "contradicted", "disagreement_px"]
