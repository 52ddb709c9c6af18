"""Depth from a focus sweep without learning: in which slice is each pixel's surroundings sharpest?

    diopters, sigma = shape_from_focus(stack, focus_diopters)
    picture = all_in_focus(stack, focus_diopters, diopters)
    filled, sigma = fill_diopters(diopters, sigma, picture)         # optics/edge_aware_fill.py

1. A focus measure of each slice: squared responses of small high-pass filters, less what the
   sensor's noise contributes (its level is estimated from differences between slices).
2. Its square root averaged over a Gaussian window: unlike squares, one strong edge does not drown
   the texture of its neighbours.
3. The peak over the slices, between positions, as that of a Gaussian in dioptres: a parabola
   through the logarithms of the highest slice and its two neighbours, whatever their spacing.
   Blur grows with |1/g − 1/Z|, alike to both sides, so a peak is symmetric in dioptres.
4. σ from how sharply the peak bends and from how far it stands out.

Sources: modified Laplacian, Gaussian peak: Nayar and Nakagawa, PAMI 1994; ring difference: Jeon
et al., TIP 2020 (as in `networks/focus_volume.py`). Constants were chosen on simulated rooms
(`simulation/rooms.py`), not on any evaluation set.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LAPLACIAN_STEPS_PX = (1, 2, 4)
"""Fine texture tells small blur best, coarse texture survives noise: the measure sums them."""
LAPLACIAN_NOISE_GAIN = 12.0
"""Mean of `modified_laplacian` for white noise of variance 1: two filters (−1, 2, −1)."""
RING_NOISE_GAIN = 1 / 9 + 1 / 40 + 0.5 * 72 / 81
"""The same of `ring_difference`: 9 against 40 pixels, and half of a pixel against those 9."""
NOISE_MARGIN = 1.5
"""So many times the noise's mean energy is taken off: what is left of it is mostly 0."""
NOISE_WINDOW_PX = 1.0
WINDOW_PX = 3.0
"""Standard deviation of the Gaussian window over which sharpness is averaged."""
TEXTURE_SPREAD = 0.03
"""Relative error of sharpness even without noise: neighbours at other depths, bokeh."""
NOISE_SPREAD = 0.07
"""Error of the sharpness in a window of `WINDOW_PX`, relative to that of the noise itself."""
FEWEST_ERRORS = 4.0
"""Sharpest and blurriest slice differ by so many errors of the noise, else nothing was measured."""
SURE_SPREADS = 6.0
"""Where they differ by twice so many errors of all kinds, the highest slice is the right one."""
GAP_SHARE = 0.1
"""σ is never below this share of the gap between slices."""

Array = NDArray[Any]
Image = NDArray[np.float32]


def modified_laplacian(grey: Image, step_px: int = 1) -> Image:
    """Squared second differences along x and y, summed: a focus measure.

    Args:
        grey: (H, W) float32. step_px: distance of the neighbours that are compared.

    Returns:
        (H, W) float32 ≥ 0, in units of `grey` squared.
    """
    kernel = np.zeros((1, 2 * step_px + 1), np.float32)
    kernel[0, [0, step_px, -1]] = (-1, 2, -1)
    along_x, along_y = (cv2.filter2D(grey, cv2.CV_32F, k) for k in (kernel, kernel.T))
    return np.asarray(along_x * along_x + along_y * along_y, np.float32)


def ring_difference(grey: Image) -> Image:
    """Squared difference of 3×3 pixels to the ring around them up to 7×7: a focus measure.

    Half the squared difference of a pixel to its 3×3 mean is added, so that a single sharp pixel
    counts too. Argument and result as of `modified_laplacian`.
    """
    inner, outer = (cv2.blur(grey, (side, side)) for side in (3, 7))
    ring = (49 * outer - 9 * inner) / 40
    return np.asarray((inner - ring) ** 2 + 0.5 * (grey - inner) ** 2, np.float32)


def _laplacians(grey: Image) -> Image:
    return np.asarray(sum(modified_laplacian(grey, s) for s in LAPLACIAN_STEPS_PX), np.float32)


MEASURES: dict[str, tuple[Callable[[Image], Image], float]] = {
    "laplacian": (_laplacians, LAPLACIAN_NOISE_GAIN * len(LAPLACIAN_STEPS_PX)),
    "ring": (ring_difference, RING_NOISE_GAIN),
}
"""Name → focus measure, and its mean for white noise of variance 1."""


def shape_from_focus(
    stack: Array, focus_diopters: Array, *, measure: str = "ring",
    window_px: float = WINDOW_PX, unaligned: tuple[Array, Array] | None = None,
) -> tuple[Image, Image]:
    """Inverse depth at which each pixel is sharpest, and its standard deviation.

    Args:
        stack: (N, H, W, 3) slices in any order, aligned to one another, uint8 or float,
            sRGB-encoded (or square roots of light). Slices may differ in brightness by a factor.
        focus_diopters: (N,) focus of each, all different, N ≥ 3.
        measure: a name of `MEASURES`.
        window_px: standard deviation of the window, px.
        unaligned: the slices as they came, (N, H', W', 3), and maps (N, 2, 3) that say where in
            them a pixel of `stack` lies. Sharpness is then measured in them and brought over, for
            interpolated slices have lost fine detail and look blurred. None = `stack` is as it
            came.

    Returns:
        diopters, sigma_diopters: (H, W) float32, NaN where no slice stands out (blank surfaces,
        noise). Diopters lie within the sweep; at its ends the truth may lie beyond, and σ is at
        least half a gap there.

    Raises:
        ValueError: fewer than three slices, positions that do not fit or repeat, unknown measure.
    """
    focus = np.asarray(focus_diopters, np.float64)
    if stack.ndim != 4 or stack.shape[3] != 3 or focus.shape != (len(stack),) or len(stack) < 3:
        raise ValueError(f"stack {stack.shape}, focus_diopters {focus.shape}: must be (N, H, W, 3) "
                         "and (N,) with N >= 3; a peak needs three slices")
    if not np.isfinite(focus).all() or len(np.unique(focus)) < len(focus):
        raise ValueError(f"focus_diopters = {focus.tolist()}: must be finite and all different; "
                         "drop slices that were taken twice")
    if measure not in MEASURES:
        raise ValueError(f"measure {measure!r}: unknown; use one of {', '.join(MEASURES)}")
    order = np.argsort(focus)
    source = None if unaligned is None else (unaligned[0][order], unaligned[1][order])
    sharpness, error = _sharpness(np.asarray(stack)[order], measure, window_px, source)
    return _with_sigma(sharpness, error, focus[order])


def _sharpness(stack: Array, measure: str, window_px: float,
               unaligned: tuple[Array, Array] | None = None) -> tuple[Image, float]:
    """Windowed sharpness (N, H, W) of slices, and the error that noise leaves in it."""
    grey = _grey(stack)
    brightness = grey.mean((1, 2), keepdims=True)
    gains = brightness.mean() / np.maximum(brightness, 1e-12)
    noise = _noise(grey * gains)
    if stack.dtype.kind == "u":
        noise = max(noise, 12**-0.5)  # of rounding to whole counts
    energy_of, gain = MEASURES[measure]
    raw = grey if unaligned is None else _grey(unaligned[0])
    energies = (cv2.GaussianBlur(energy_of(g), (0, 0), NOISE_WINDOW_PX) for g in raw * gains)
    roots = (np.sqrt(np.maximum(e - NOISE_MARGIN * gain * noise**2, 0)) for e in energies)
    smooth = [cv2.GaussianBlur(root, (0, 0), window_px) for root in roots]
    if unaligned is not None:
        size = stack.shape[2], stack.shape[1]
        smooth = [cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE,
                                 flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
                  for image, matrix in zip(smooth, unaligned[1])]
    sharpness = np.stack(smooth)
    return sharpness, float(NOISE_SPREAD * gain**0.5 * noise * WINDOW_PX / window_px)


def _grey(stack: Array) -> Image:
    return np.asarray(stack.astype(np.float32) @ np.array((0.299, 0.587, 0.114), np.float32))


def _noise(grey: Image) -> float:
    """Standard deviation of the noise: what differs between slices and has no structure.

    Where neither of two neighbouring slices is in focus they differ by noise alone, so the
    median over pixels is taken, and the least of it over the pairs.
    """
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6  # gain 1
    medians = [np.median(np.abs(cv2.filter2D(after - before, cv2.CV_32F, kernel)))
               for before, after in pairwise(grey)]
    return float(min(medians)) / 0.67449 / 2**0.5


def gaussian_peak(sharpness: Image, focus_diopters: Array, floor: float = 0.0
                  ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Peak of a Gaussian through the sharpest slice and its neighbours: exact at any spacing.

    Args:
        sharpness: (N, H, W) ≥ 0, N ≥ 3. focus_diopters: (N,) rising.
        floor: added before the logarithm, so that neighbours of no sharpness stay finite.

    Returns:
        diopters: (H, W); the slice itself where it is the first or the last.
        bend: (H, W) minus the second derivative of the logarithm there, per square dioptre: 1/w²
            of a Gaussian of standard deviation w; ≤ 0 where there is no peak.
    """
    focus = np.asarray(focus_diopters, np.float64)
    top = sharpness.argmax(0)
    middle = np.clip(top, 1, len(focus) - 2)
    before, here, after = (
        np.log(np.take_along_axis(sharpness, (middle + k)[None], 0)[0].astype(np.float64)
               + floor + 1e-300) for k in (-1, 0, 1))
    x0, x1, x2 = focus[middle - 1], focus[middle], focus[middle + 1]
    slope_before, slope_after = (here - before) / (x1 - x0), (after - here) / (x2 - x1)
    bend = 2 * (slope_before - slope_after) / (x2 - x0)
    slope = slope_before - bend * (x1 - x0) / 2
    inside = (top == middle) & (bend > 0)
    return np.where(inside, x1 + slope / np.where(inside, bend, 1), focus[top]), bend


def _with_sigma(sharpness: Image, error: float, focus: NDArray[np.float64]
                ) -> tuple[Image, Image]:
    """Peak in dioptres and its σ, NaN where nothing stands out of the noise."""
    highest, lowest, top = sharpness.max(0), sharpness.min(0), sharpness.argmax(0)
    tiny = 1e-6 * float(highest.max()) + 1e-30
    # A third of the noise's error is far below any peak that counts.
    diopters, bend = gaussian_peak(sharpness, focus, 0.3 * error + tiny)

    middle = np.clip(top, 1, len(focus) - 2)
    gap, whole = (focus[middle + 1] - focus[middle - 1]) / 2, focus[-1] - focus[0]
    spread = np.hypot(TEXTURE_SPREAD, error / np.maximum(highest, tiny))
    stands_out = (highest - lowest) / (spread * np.maximum(highest, tiny))
    of_fit = gap * spread / (2**0.5 * np.maximum(bend * gap**2, 1e-4))
    # A peak that hardly stands out may be the wrong one: then it may be anywhere.
    variance = (of_fit**2 + (GAP_SHARE * gap)**2
                + np.exp(-(stands_out / SURE_SPREADS)**2) * (whole / 2)**2
                + np.where(top == middle, 0, gap / 2)**2)
    nothing = highest - lowest <= FEWEST_ERRORS * error + tiny
    diopters[nothing] = np.nan
    sigma = np.where(nothing, np.nan, np.minimum(np.sqrt(variance), whole))
    return diopters.astype(np.float32), sigma.astype(np.float32)


def all_in_focus(stack: Array, focus_diopters: Array, diopters: Image) -> Array:
    """Each pixel from the slice that is focused nearest to it, (H, W, 3) of the stack's type.

    Args:
        stack, focus_diopters: as of `shape_from_focus`.
        diopters: (H, W); where NaN, the mean over the slices is taken.
    """
    focus = np.asarray(focus_diopters, np.float32)
    distance = np.abs(focus[:, None, None] - np.nan_to_num(diopters)[None])
    nearest = distance.argmin(0)[None, ..., None]
    sharp = np.take_along_axis(stack, nearest, 0)[0]
    mean = stack.mean(0).astype(stack.dtype)
    return np.asarray(np.where(np.isnan(diopters)[..., None], mean, sharp))
