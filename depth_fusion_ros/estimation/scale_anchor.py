"""Known distances that fix the scale of a lens whose dioptres are not calibrated.

    anchor = ScaleAnchor()
    anchor.observe(seen_diopters(estimate, region), range_m=1.2, sigma_m=0.02)
    fit = anchor.fit()             # 1/Z = scale·r + offset

r is the inverse depth that the lens's own numbers give. A lens that reports wrong dioptres is
wrong by a factor and an offset: dual-pixel depth is then known up to an affine map of inverse depth
(Garg et al., ICCV 2019), and so is that of a focus sweep. One distance fixes the offset, two that
differ fix both.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import DepthEstimate, Provenance

BIN_DIOPTERS = 0.1
PER_BIN = 8
"""Observations kept of each tenth of a dioptre: a long stand before one wall outvotes no other."""
LEAST_SPREAD_DIOPTERS = 0.2
SPREAD_SIGMAS = 6.0
"""Distances that differ by less, or by fewer standard deviations, do not fix a scale."""
SCALE_LIMITS = (0.2, 5.0)
LEAST_MEASURED_SHARE = 0.25
FLOOR_DIOPTERS = 0.005
"""No observation is believed to be better than this."""


@dataclass(frozen=True)
class AnchorFit:
    """1/Z = scale·r + offset.

    Attributes:
        scale: 1 where only the offset is fixed. offset_diopters: 1/m.
        sigma_diopters: standard deviation of the inverse depths that it gives, from what is left
            of the observations, or from their own where there is one alone.
        observations: how many it rests on. fixes_scale: whether distances differed enough.
    """

    scale: float
    offset_diopters: float
    sigma_diopters: float
    observations: int
    fixes_scale: bool

    def corrected(self, gain_px_m: float | NDArray[np.floating],
                  focus_diopters: float | NDArray[np.floating]
                  ) -> tuple[float | NDArray[np.floating], float | NDArray[np.floating]]:
        """Gain k and focus with which 1/Z = 1/g − d/k gives the anchored inverse depth."""
        return gain_px_m / self.scale, focus_diopters * self.scale + self.offset_diopters


@dataclass(frozen=True)
class Seen:
    """What the lens alone says of a region: median and standard deviation, dioptres."""

    diopters: float
    sigma_diopters: float


def seen_diopters(estimate: DepthEstimate, region: tuple[slice, slice]) -> Seen | None:
    """Inverse depth of a region of an estimate before any anchor.

    Args:
        estimate: with `lens_diopters`. region: rows and columns of the depth image.

    Returns:
        None where the lens is unknown, or less than a quarter of the region was measured.
    """
    if estimate.lens_diopters is None:
        return None
    values = estimate.lens_diopters[region]
    labels = [Provenance.MEASURED, Provenance.FUSED]
    if estimate.sweep is None:
        # A wrong scale puts what was measured out of range; beyond a sweep nothing is measured.
        labels.append(Provenance.OUT_OF_RANGE)
    measured = np.isin(estimate.provenance[region], labels) & np.isfinite(values)
    if not values.size or measured.mean() < LEAST_MEASURED_SHARE:
        return None
    good = values[measured].astype(np.float64)
    middle = float(np.median(good))
    spread = 1.4826 * float(np.median(np.abs(good - middle)))
    return Seen(middle, float(np.hypot(spread, FLOOR_DIOPTERS)))


class ScaleAnchor:
    """Keeps observations of known distances and fits scale and offset to them."""

    def __init__(self) -> None:
        self._bins: dict[int, deque[tuple[float, float, float]]] = {}
        self.refusal = ""
        """Why the newest fit was refused; "" where it was not."""

    def observe(self, seen: Seen, range_m: float, sigma_m: float) -> None:
        """Take a known distance.

        Args:
            seen: what the lens says there. range_m: the distance along the optical axis, > 0.
            sigma_m: its standard deviation, > 0.

        Raises:
            ValueError: a distance or deviation that is not positive and finite.
        """
        for name, value in (("range_m", range_m), ("sigma_m", sigma_m)):
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} = {value!r}: must be finite and > 0; leave such "
                                 "measurements out (REP-117)")
        known = 1 / range_m
        sigma = float(np.hypot(seen.sigma_diopters, sigma_m / range_m**2))
        number = round(known / BIN_DIOPTERS)
        self._bins.setdefault(number, deque(maxlen=PER_BIN)).append((seen.diopters, known, sigma))

    def reset(self) -> None:
        """Forget all observations."""
        self._bins.clear()
        self.refusal = ""

    def fit(self) -> AnchorFit | None:
        """Weighted least squares of what was observed; None without observations or a sane fit."""
        rows = [row for held in self._bins.values() for row in held]
        if not rows:
            return None
        r, known, sigma = np.array(rows).T
        weight = 1 / sigma**2
        spread = float(np.ptp([np.mean([row[0] for row in held]) for held in self._bins.values()]))
        fixes_scale = spread >= max(LEAST_SPREAD_DIOPTERS,
                                    SPREAD_SIGMAS * float(np.median(sigma)))
        mean_r, mean_known = np.average(r, weights=weight), np.average(known, weights=weight)
        scale = 1.0
        if fixes_scale:
            scale = float(np.average((r - mean_r) * (known - mean_known), weights=weight)
                          / np.average((r - mean_r) ** 2, weights=weight))
        self.refusal = ""
        if not SCALE_LIMITS[0] <= scale <= SCALE_LIMITS[1]:
            self.refusal = (f"anchor scale = {scale:.3g}: must be {SCALE_LIMITS[0]:g} to "
                            f"{SCALE_LIMITS[1]:g}; check anchor.roi, the sign of the disparity "
                            "(dp.swap_views) and the range sensor, then call reset_anchor")
            return None
        offset = float(mean_known - scale * mean_r)
        left_over = np.sqrt(np.average((scale * r + offset - known) ** 2, weights=weight))
        own = np.sqrt(1 / weight.sum())
        return AnchorFit(scale, offset, float(np.hypot(left_over, own)), len(rows), fixes_scale)
