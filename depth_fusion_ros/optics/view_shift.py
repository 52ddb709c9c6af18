"""How far two views of one scene are displaced against each other, pixel by pixel.

    along_x, along_y = displacement(left, right)         # which axis is it?
    shift, sigma = displacement_along(left, right, "x")  # d = x_right − x_left, one axis

Windowed, iterated Lucas and Kanade (1981), symmetric about the mean view. The views stay linear in
light and are smoothed before they are matched: a split pupil blurs its two views with mirrored
kernels, and only far below the frequency of the blur is their displacement that of the kernels'
centroids, which is what disparity means here.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SMOOTH_PX = 3.0
WINDOW_PX = 8.0
"""Standard deviations of the smoothing and of the window."""
EQUALISE_PX = 20.0
ITERATIONS = 8
NOTHING = 1e-12
REMAP_STEPS = 32
"""OpenCV rounds coordinates to so many places per pixel (INTER_TAB_SIZE)."""

Image = NDArray[np.float32]


def displacement(left: Image, right: Image) -> tuple[Image, Image, Image]:
    """Displacement right − left along x and y, and how well it is determined.

    Args:
        left, right: (H, W) float32, linear in light.

    Returns:
        along_x, along_y: (H, W) px. weight: (H, W) ≥ 0, the smaller eigenvalue of the structure
        tensor: 0 where there are not edges of two directions.
    """
    views = _prepared(left), _prepared(right)
    x = np.zeros_like(left, np.float32)
    y = x.copy()
    weight = x
    for _ in range(ITERATIONS):
        x, y = _exact(x), _exact(y)
        apart, gx, gy = _compared(views, x, y)
        xx, xy, yy = (_windowed(a * b) for a, b in ((gx, gx), (gx, gy), (gy, gy)))
        bx, by = _windowed(gx * apart), _windowed(gy * apart)
        half_trace, gap = (xx + yy) / 2, np.sqrt(((xx - yy) / 2)**2 + xy**2)
        weight = np.maximum(half_trace - gap, 0)
        determinant = np.maximum(xx * yy - xy * xy, NOTHING)
        x = _added(x, (yy * bx - xy * by) / determinant)
        y = _added(y, (xx * by - xy * bx) / determinant)
    return x, y, weight.astype(np.float32)


def displacement_along(left: Image, right: Image, axis: str) -> tuple[Image, Image]:
    """Displacement right − left along one axis and its standard deviation, (H, W) px each.

    Args:
        left, right: (H, W) float32, linear in light. axis: "x" or "y".

    Returns:
        shift, sigma; sigma is +Inf where no edge crosses the axis. It follows the noise that is
        left after alignment and is relative: good for weights.
    """
    if axis == "y":
        shift, sigma = displacement_along(left.T, right.T, "x")
        return np.ascontiguousarray(shift.T), np.ascontiguousarray(sigma.T)
    views = _prepared(left), _prepared(right)
    x = np.zeros_like(views[0])
    still = np.zeros_like(x)
    energy = x
    for _ in range(ITERATIONS):
        x = _exact(x)
        apart, gx, _ = _compared(views, x, still)
        energy = _windowed(gx * gx)
        x = _added(x, _windowed(gx * apart) / np.maximum(energy, NOTHING))
    apart, _, _ = _compared(views, _exact(x), still)
    strongest = float(np.percentile(energy, 99))
    noise = np.sqrt(_windowed(apart * apart) / np.maximum(energy, NOTHING))
    return x, np.where(energy > 0.02 * strongest, noise + 1e-3, np.inf).astype(np.float32)


def _prepared(view: Image) -> Image:
    """Smoothed, and divided by its local mean: left and right are shaded differently."""
    smooth = cv2.GaussianBlur(np.asarray(view, np.float32), (0, 0), SMOOTH_PX)
    local = cv2.GaussianBlur(smooth, (0, 0), EQUALISE_PX)
    floor = np.float32(0.02 * float(local.mean()) + 1e-6)
    return np.asarray(smooth / (local + floor), np.float32)


def _added(shift: Image, step: NDArray[np.floating]) -> Image:
    """The shift after a step, which is believed up to a pixel."""
    return np.asarray(shift + np.clip(step, -1, 1), np.float32)


def _exact(shift: Image) -> Image:
    """The nearest shift that remapping can do: it knows 32 places between pixels.

    What is left, at most 1/32 px, is found from the gradient and not made by remapping.
    """
    return np.asarray(np.round(shift * REMAP_STEPS / 2) * 2 / REMAP_STEPS, np.float32)


def _compared(views: tuple[Image, Image], x: Image, y: Image) -> tuple[Image, Image, Image]:
    """Difference left − right after moving each by half, and gradients of their mean."""
    rows, columns = np.indices(x.shape, dtype=np.float32)
    # Linear, for OpenCV's cubic kernel (a = -0.75) bends even a straight ramp: it errs by 20 % of
    # a tenth of a pixel. On views as smooth as these a linear one is exact enough.
    moved = [cv2.remap(view, columns + side * x / 2, rows + side * y / 2, cv2.INTER_LINEAR,
                       borderMode=cv2.BORDER_REPLICATE)
             for view, side in zip(views, (np.float32(-1), np.float32(1)))]
    mean = (moved[0] + moved[1]) / 2
    gx, gy = (np.asarray(cv2.Sobel(mean, cv2.CV_32F, dx, 1 - dx, ksize=1, scale=0.5), np.float32)
              for dx in (1, 0))
    return np.asarray(moved[0] - moved[1], np.float32), gx, gy


def _windowed(image: Image) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), WINDOW_PX), np.float32)


__all__ = ["displacement", "displacement_along"]
