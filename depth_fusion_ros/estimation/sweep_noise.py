"""Puts back the noise that interpolation takes from the slices of a breathing lens.

    images = with_noise_put_back(images, maps)

A pixel between pixels is a weighted mean of several, so it has less of the sensor's noise, and less
the nearer it is to the middle. One slice of a sweep keeps its grid and all of its noise. Where
noise is about as strong as texture, that slice then looks sharpest everywhere, and depth is drawn
to its focus. So that slices differ by their blur alone, each pixel gets independent noise of the
variance that its interpolation weights have taken.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

TAPS = 8
"""Of OpenCV's Lanczos interpolation along each axis."""
LEAST_COUNTS = 0.3
"""Noise of about a count's rounding: less is not worth putting back."""
BLACK, SATURATED = 1, 254
"""Pixels at or beyond these are clipped: a sensor shows no noise there."""
_ROUGH = np.array([1.0, -2.0, 1.0]) / 6**0.5  # gain 1 for white noise, along each axis
_STRIDE = 2  # of the pixels from which noise is told: a quarter of them is plenty

Images = NDArray[np.uint8]
Array = NDArray[Any]


def with_noise_put_back(images: Images, maps: NDArray[np.float64]) -> Images:
    """Slices that are alike in noise again.

    Args:
        images: (N, H, W, 3) uint8, resampled by Lanczos interpolation.
        maps: (N, 2, 3) scale and translation by which they were, see `AlignedSweep.maps`.

    Returns:
        (N, H, W, 3) uint8: a new array, or `images` where there is nothing to put back. The same
        sweep always gives the same result.
    """
    height, width = images.shape[1:3]
    weights = [(_weights(m[1, 1] * np.arange(height) + m[1, 2]),
                _weights(m[0, 0] * np.arange(width) + m[0, 2])) for m in maps]
    kept = [[(w * w).sum(1) for w in both] for both in weights]
    changed = [min(y.min() * x.min(), 1.0) < 1 - 1e-6 for y, x in kept]
    if len(images) < 2 or not any(changed):
        return images
    noise = _noise_counts(images, weights)
    if float(noise.max()) < LEAST_COUNTS:
        return images
    out = images.copy()
    random = np.random.default_rng(0)
    for target, (y, x), resampled in zip(out, kept, changed):
        if not resampled:
            continue
        taken = np.sqrt(np.maximum(1 - y[:, None] * x[None], 0)).astype(np.float32)
        fresh = random.standard_normal(target.shape, np.float32) * noise * taken[..., None]
        clipped = (target <= BLACK) | (target >= SATURATED)
        fresh[clipped] = 0
        target[:] = np.clip(np.rint(target + fresh), 0, 255)
    return out


def _weights(places: Array) -> Array:
    """(n, `TAPS`) interpolation weights of the pixels at `places`."""
    phase = places - np.floor(places)
    taps = np.arange(1 - TAPS // 2, 1 + TAPS // 2)[None] - phase[:, None]
    weights = np.sinc(taps) * np.sinc(taps / (TAPS // 2))
    return np.asarray(weights / weights.sum(1, keepdims=True))


def _noise_counts(images: Images, weights: list[tuple[Array, Array]]) -> NDArray[np.float32]:
    """(3,) standard deviation of each channel's noise before it was resampled.

    What differs between neighbouring slices and has no structure, as `networks/focus_evidence.py`
    has it; but of the finest detail interpolation leaves less, by a share that is known.
    """
    left = [float(np.mean([_rough_share(w) for w in y]) * np.mean([_rough_share(w) for w in x]))
            for y, x in ((b[0][::_STRIDE * 4], b[1][::_STRIDE * 4]) for b in weights)]
    light = images.astype(np.float32)
    light *= light.mean() / np.maximum(light.mean((1, 2, 3), keepdims=True), 1e-3)
    found = []
    for (before, share), (after, share_after) in pairwise(zip(light, left)):
        rough = cv2.sepFilter2D(after - before, cv2.CV_32F, _ROUGH, _ROUGH)
        spread = np.median(np.abs(rough[::_STRIDE, ::_STRIDE]), axis=(0, 1)) / 0.67449
        found.append(spread / (share + share_after) ** 0.5)
    return np.asarray(np.min(found, axis=0), np.float32)


def _rough_share(weights: Array) -> float:
    """Of the variance that `_ROUGH` finds in white noise: what is left after interpolation."""
    return float((np.convolve(weights, _ROUGH) ** 2).sum())
