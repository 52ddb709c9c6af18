"""Brings the slices of a focus sweep onto one pixel grid: focus breathing, then camera drift.

    aligned = align_sweep(images, focus_diopters, breathing_per_diopter=beta, centre_px=(cx, cy))
    if not aligned.rejected: network(aligned.images, focus_diopters)

Breathing is known from calibration and is undone about the principal point. What is left is
measured as one translation between slices that are neighbours in focus, whose blur is similar,
and summed along the chain. A translation is right for small rotations of the camera and for a
scene at one distance; parallax and moving objects remain.

Sources: half-whitened cross-correlation (Knapp and Carter, 1976) finds the pixel; the enhanced
correlation coefficient (Evangelidis and Psarakis, 2008), blind to gain and offset of the light,
the fraction. Full whitening (`cv2.phaseCorrelate`) was tried and is wrong by whole pixels where
one of the two images has lost the fine detail to which it gives most weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.sweep_noise import with_noise_put_back
from depth_fusion_ros.optics.thin_lens import breathing_scale

MIN_RESPONSE = 0.4
"""Correlation below which two slices are not taken for views of the same thing."""
_BAND_PX = (2.0, 8.0)  # finer detail does not survive defocus, coarser is vignetting
_WHITENING = 0.5
_MIN_SIDE_PX = 32
_LONG_SIDE_PX = 640  # drift of larger images is measured on reduced ones
_MIN_CONTRAST = 0.3  # counts in the band; photon noise alone is below

Images = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]


@dataclass(frozen=True)
class AlignedSweep:
    """Slices on the grid of the reference slice.

    Attributes:
        images: (N, H, W, 3) uint8, as noisy as they came (`sweep_noise.py`); the border is
            repeated where a slice has no source. Where `rejected`, only breathing is compensated.
        valid_mask: (H, W) bool, True where all slices have a source.
        drift_px: (N, 2) float64, where the content of each slice is relative to the reference,
            +x right, +y down, after breathing is undone; (0, 0) for the reference, NaN = unknown
            (the slice is then not moved).
        rejected: the drift reaches `reject_px`: do not fuse the slices.
        reason: a sentence for diagnostics; "" where there is nothing to say.
        reference_index: the slice that stays where it is.
        maps: (N, 2, 3) float64, where in a slice as it came a pixel of the result lies:
            (x, y) = maps[n] @ (u, v, 1).
    """

    images: NDArray[np.uint8]
    valid_mask: NDArray[np.bool_]
    drift_px: NDArray[np.float64]
    rejected: bool
    reason: str
    reference_index: int
    maps: NDArray[np.float64]

    @property
    def motion_px(self) -> float:
        """Largest distance between two slices, px; NaN where fewer than two are known."""
        return _motion_px(self.drift_px)


def compensate_breathing(
    images: Images,
    focus_diopters: Sequence[float],
    breathing_per_diopter: float,
    reference_index: int,
    centre_px: tuple[float, float],
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Rescale slices about the principal point to the magnification of the reference slice.

    Args:
        images: N arrays (H, W, 3) uint8. focus_diopters: N, 1/m.
        breathing_per_diopter: β of fx(D) = fx0·(1 + β·D), 1 per dioptre.
        reference_index: slice that keeps its magnification; negative counts from the end.
        centre_px: (cx, cy) of the slices.

    Returns:
        (N, H, W, 3) uint8, the border repeated where there is no source, and (H, W) bool, True
        where all slices have one.

    Raises:
        ValueError: images of different shapes or another dtype, not one focus for each, no such
            reference, or 1 + β·D not positive.
    """
    stack = _stack(images, focus_diopters, reference_index)
    scales = _scales(focus_diopters, breathing_per_diopter, reference_index)
    return _resample(stack, _maps(scales, np.zeros((len(stack), 2)), centre_px))


def estimate_drift_px(
    reference: NDArray[np.uint8], other: NDArray[np.uint8]
) -> tuple[float, float, float]:
    """Translation between two images that may differ in defocus and exposure.

    Args:
        reference, other: (H, W, 3) or (H, W) uint8 of one shape, at least 32 px a side.

    Returns:
        dx, dy, response: what is at p in `reference` is at p + (dx, dy) in `other`, px; both NaN
        where it is unknown, because one image is blank or nothing corresponds. The response is
        the correlation of the overlap after alignment, −1..1, 0 where there was nothing to
        correlate; `MIN_RESPONSE` is needed.

    Raises:
        ValueError: shapes differ or are too small.
    """
    if reference.shape != other.shape or min(reference.shape[:2]) < _MIN_SIDE_PX:
        raise ValueError(f"drift between images {reference.shape} and {other.shape}: both must "
                         f"have one shape of at least {_MIN_SIDE_PX} px a side; crop or resize")
    return _translation(_Band(reference), _Band(other))


def align_sweep(
    images: Images,
    focus_diopters: Sequence[float],
    *,
    breathing_per_diopter: float,
    centre_px: tuple[float, float],
    warn_px: float = 2.0,
    reject_px: float = 12.0,
    reference_index: int | None = None,
    scales: Sequence[float] | None = None,
    find_drift: bool = True,
) -> AlignedSweep:
    """Undo breathing and drift of a sweep, in one resampling.

    Args:
        images: N arrays (H, W, 3) uint8 in rising (or falling) order of focus.
        focus_diopters, breathing_per_diopter, centre_px: as of `compensate_breathing`.
        warn_px: drift from which `reason` mentions it. reject_px: drift from which the sweep is
            rejected. Drift is the largest distance between any two slices.
        reference_index: slice that stays; None = the middle one, to which chains are shortest.
        scales: N magnifications, each that of a slice over that of the result, where they are
            known otherwise; `breathing_per_diopter` is then not used.
        find_drift: False = the camera stands still: no drift is sought, and none is known.

    Raises:
        ValueError: as `compensate_breathing` and `estimate_drift_px`.
    """
    reference = len(images) // 2 if reference_index is None else reference_index
    stack = _stack(images, focus_diopters, reference)
    reference %= len(stack)
    if scales is None:
        scales = _scales(focus_diopters, breathing_per_diopter, reference)
    still = np.zeros((len(stack), 2))
    maps = _maps(scales, still, centre_px)
    level, valid = _resample(stack, maps)
    if not find_drift:
        unknown_px = np.full_like(still, np.nan)
        return AlignedSweep(with_noise_put_back(level, maps), valid, unknown_px, False, "",
                            reference, maps)
    drift_px = _chain(level, valid, reference)
    motion_px = _motion_px(drift_px)
    unknown = np.flatnonzero(np.isnan(drift_px[:, 0]))
    reasons = []
    rejected = motion_px >= reject_px
    if rejected:
        reasons.append(f"the image moved {motion_px:.1f} px during the sweep: must be below "
                       f"motion.reject_px = {reject_px:g}; stand still or sweep faster")
    elif motion_px >= warn_px:
        reasons.append(f"the image moved {motion_px:.1f} px during the sweep (motion.warn_px = "
                       f"{warn_px:g}) and was aligned; near and far move differently")
    if len(unknown):
        reasons.append(f"drift unknown for slices {', '.join(map(str, unknown))}: too little "
                       "texture in common with the others; they were not moved")
    if not rejected:
        maps = _maps(scales, np.nan_to_num(drift_px), centre_px)
        level, valid = _resample(stack, maps)
        level = with_noise_put_back(level, maps)
    return AlignedSweep(level, valid, drift_px, bool(rejected), "; ".join(reasons), reference,
                        maps)


class _Band:
    """The band of detail that survives defocus, of an image reduced to a workable size."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        grey: Any = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        self.reduced = max(1.0, max(grey.shape) / _LONG_SIDE_PX)
        if self.reduced > 1:
            grey = cv2.resize(grey, None, fx=1 / self.reduced, fy=1 / self.reduced,
                              interpolation=cv2.INTER_AREA)
        grey = grey.astype(np.float32)
        fine, coarse = (cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in _BAND_PX)
        self.values = fine - coarse
        self.blank = bool(self.values.std() < _MIN_CONTRAST)
        window = cv2.createHanningWindow(self.values.shape[::-1], cv2.CV_32F)
        self.spectrum = np.fft.rfft2(self.values * window)


def _translation(a: _Band, b: _Band) -> tuple[float, float, float]:
    """`estimate_drift_px` of two prepared images."""
    if a.blank or b.blank:
        return np.nan, np.nan, 0.0
    height, width = a.values.shape
    cross = b.spectrum * np.conj(a.spectrum)
    peaks = np.fft.irfft2(cross / (np.abs(cross) ** _WHITENING + 1e-9), (height, width))
    y, x = (int(v) for v in np.unravel_index(peaks.argmax(), peaks.shape))
    start = np.array([[1, 0, x - width if x > width / 2 else x],
                      [0, 1, y - height if y > height / 2 else y]], np.float32)
    inside = np.zeros((height, width), np.uint8)  # the filters' border differs in both
    inside[6:-6, 6:-6] = 255
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-4)
    try:
        response, found = cv2.findTransformECC(a.values, b.values, start, cv2.MOTION_TRANSLATION,
                                               stop, inside, 1)
    except cv2.error:  # it did not converge: the images are not correlated
        return np.nan, np.nan, 0.0
    if not response >= MIN_RESPONSE:
        return np.nan, np.nan, float(response)
    return float(found[0, 2]) * a.reduced, float(found[1, 2]) * a.reduced, float(response)


def _chain(stack: NDArray[np.uint8], valid: NDArray[np.bool_], reference: int
           ) -> NDArray[np.float64]:
    """Drift of each slice from the reference, by way of the slices in between that have one."""
    drift_px = np.full((len(stack), 2), np.nan)
    drift_px[reference] = 0
    # The edge of what is valid stands still, so a border would pull every drift towards zero.
    rows, columns = np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0))
    if min(len(rows), len(columns)) < _MIN_SIDE_PX:
        return drift_px
    bands = [_Band(image[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]) for image in stack]
    for way in (range(reference + 1, len(stack)), range(reference - 1, -1, -1)):
        last = reference
        for index in way:
            dx, dy, _ = _translation(bands[last], bands[index])
            if np.isfinite(dx):
                drift_px[index] = drift_px[last] + (dx, dy)
                last = index
    return drift_px


def _motion_px(drift_px: NDArray[np.float64]) -> float:
    known = drift_px[np.isfinite(drift_px[:, 0])]
    if len(known) < 2:
        return np.nan
    return float(np.linalg.norm(known[:, None] - known[None], axis=2).max())


def _stack(images: Images, focus_diopters: Sequence[float] | None, reference: int
           ) -> NDArray[np.uint8]:
    shapes = {(image.shape, str(image.dtype)) for image in images}
    if len(shapes) != 1 or any(len(shape) != 3 or shape[2] != 3 or dtype != "uint8"
                               for shape, dtype in shapes):
        raise ValueError(f"slices are {sorted(shapes)}: needs at least one, all (H, W, 3) uint8 "
                         "of one size; a sweep ends where the image size changes")
    if focus_diopters is not None and len(focus_diopters) != len(images):
        raise ValueError(f"{len(focus_diopters)} focus positions for {len(images)} slices: needs "
                         "one for each")
    if not -len(images) <= reference < len(images):
        raise ValueError(f"reference_index = {reference}: must be one of {len(images)} slices")
    return np.asarray(images)


def _scales(focus_diopters: Sequence[float], breathing_per_diopter: float, reference: int
            ) -> list[float]:
    return [breathing_scale(focus, focus_diopters[reference], breathing_per_diopter)
            for focus in focus_diopters]


def _maps(scales: Sequence[float], drift_px: NDArray[np.float64], centre_px: tuple[float, float]
          ) -> NDArray[np.float64]:
    """Output pixel p lies at c + scale·(p + drift − c): drift is of the rescaled slice.

    Interpolation takes away fine detail, noise included, and so looks like defocus: where there
    is no breathing, shifts are rounded to whole pixels, which need none.
    """
    centre = np.asarray(centre_px)
    maps = np.zeros((len(drift_px), 2, 3))
    for each, scale, drift in zip(maps, scales, drift_px):
        moved = np.rint(drift) if scale == 1 else drift
        each[0, 0] = each[1, 1] = scale
        each[:, 2] = scale * (moved - centre) + centre
    return maps


def _resample(stack: NDArray[np.uint8], maps: NDArray[np.float64]
              ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Slices on the grid of the result, and where all have a source."""
    height, width = stack.shape[1:3]
    out = np.empty_like(stack)
    valid = np.ones((height, width), bool)
    for image, matrix, target in zip(stack, maps, out):
        if np.array_equal(matrix, np.eye(2, 3)):
            target[:] = image
            continue
        cv2.warpAffine(image, matrix, (width, height), dst=target,
                       flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP,
                       borderMode=cv2.BORDER_REPLICATE)
        x = matrix[0, 0] * np.arange(width) + matrix[0, 2]
        y = matrix[1, 1] * np.arange(height) + matrix[1, 2]
        valid &= ((y >= 0) & (y <= height - 1))[:, None] & ((x >= 0) & (x <= width - 1))
    return out, valid
