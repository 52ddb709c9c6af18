"""Calibrate a lens with a method's own disparities, from captures whose depth is known.

    calibration = calibrate_on_captures(flats, measured_by(estimator))
    frame = replace(sample.frame, lens=calibration.apply(sample.frame.lens))

The method that will be used measures the disparities: what it finds a little too small on a
blurred texture, k then makes up for. A network is told k and focus, so the fit is repeated with
what the previous pass found (`PASSES`). The captures used must not be scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.dual_pixel import DualPixelEstimator, DualPixelFrame
from depth_fusion_ros.optics.calibration_file import CalibrationError, LensCalibration
from depth_fusion_ros.optics.gain_field import Term, even_terms
from depth_fusion_ros.optics.lens_calibration import (
    Observation,
    calibrate_flats,
    calibrate_reference,
)
from depth_fusion_ros.optics.thin_lens import IDEAL_DUAL_PIXEL_KAPPA, ThinLens

PASSES = 2
FIRST_KAPPA = IDEAL_DUAL_PIXEL_KAPPA / 4
"""First guess: real sensors have 0.22 to 0.5 of the ideal κ."""
EDGE_RATIO = 1.03
EDGE_REACH_PX = 16
"""Half the widest matching window: no disparity that is used may come from both sides."""
FAR_M = 1e6
GAIN_TERMS: tuple[Term, ...] = even_terms(4, 0)
"""Even in x up to x⁴: the split turns with the angle of the light along the parallax axis."""


class KnownCapture(Protocol):
    """A frame with truth, such as `Sample` of the benchmark.

    Attributes:
        name: for messages. frame: estimator input. depth_m: (H, W) metres, NaN = none.
        textured: (H, W) bool, where there is something to match.
    """

    @property
    def name(self) -> str: ...
    @property
    def frame(self) -> DualPixelFrame: ...
    @property
    def depth_m(self) -> NDArray[np.float32]: ...
    @property
    def textured(self) -> NDArray[np.bool_]: ...


Capture = TypeVar("Capture", bound=KnownCapture)
Measured = tuple[NDArray[np.floating], "NDArray[np.floating] | None"]
Measure = Callable[[Capture, ThinLens], Measured]
"""Disparity and its sigma (None = unknown), px, (H, W) each, of a capture whose lens is given."""


def measured_by(estimator: DualPixelEstimator) -> Measure[KnownCapture]:
    """Return the `Measure` of an estimator; it raises `InvalidFrameError` as the estimator does."""
    def measure(capture: KnownCapture, lens: ThinLens) -> Measured:
        estimate = estimator.estimate(replace(capture.frame, lens=lens))
        return estimate.disparity_px, estimate.sigma_px

    return measure


def observe(capture: Capture, measure: Measure[Capture], lens: ThinLens) -> Observation:
    """Measure a capture's disparities with `lens` as what is known of the lens.

    Valid are textured pixels farther than `EDGE_REACH_PX` from a step of 3 % in the truth.
    """
    disparity, sigma = measure(capture, lens)
    valid = capture.textured & ~_near_edges(capture.depth_m)
    return Observation(disparity, capture.depth_m, sigma, valid, capture.name)


def calibrate_on_captures(
    captures: Sequence[Capture],
    measure: Measure[Capture],
    *,
    gain_terms: Sequence[Term] = GAIN_TERMS,
    focus_terms: Sequence[Term] = (),
    flat: bool = True,
    passes: int = PASSES,
    source: str = "",
    date: str = "",
) -> LensCalibration:
    """Fit k, focus and fields to captures of known depth, taken with one lens state.

    Args:
        captures: flat targets (``flat``), or any captures with a reference depth map. The lens of
            the first gives focal length, f-number, pitch and a first focus; its κ is not used.
        measure: the method that will be used, see `measured_by`.
        gain_terms, focus_terms: powers of the fields; empty = one value for the image.
        passes: how often disparities are measured; the first pass assumes `FIRST_KAPPA`.
        source: default: the captures' names.

    Raises:
        CalibrationError: no captures, no lens, or the fit's own reasons.
    """
    if not captures or captures[0].frame.lens is None:
        raise CalibrationError("captures without a lens state: k needs focal length, f-number and "
                               "pixel pitch to become kappa; give DualPixelFrame.lens")
    lens = replace(captures[0].frame.lens, kappa=FIRST_KAPPA, gain_field=None, focus_field=None)
    fit = calibrate_flats if flat else calibrate_reference
    for _ in range(max(passes, 1)):
        calibration = fit([observe(c, measure, lens) for c in captures], gain_terms=gain_terms,
                          focus_terms=focus_terms, date=date,
                          source=source or ", ".join(c.name for c in captures))
        lens = calibration.apply(lens)
    return calibration


def _near_edges(depth_m: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Within `EDGE_REACH_PX` of a step of the truth (ratio above `EDGE_RATIO`); holes are none."""
    known = np.isfinite(depth_m)
    kernel = np.ones((3, 3), np.uint8)
    high = cv2.dilate(np.where(known, depth_m, 0).astype(np.float32), kernel)
    low = cv2.erode(np.where(known, depth_m, FAR_M).astype(np.float32), kernel)
    side = 2 * EDGE_REACH_PX + 1
    step = (high > EDGE_RATIO * low).astype(np.uint8)
    return np.asarray(cv2.dilate(step, np.ones((side, side), np.uint8)) > 0)
