"""Calibrate a dual-pixel lens: k and the focus dioptre, and how both vary over the image.

    flats = [Observation(disparity_px, sigma_px, depth_m=0.6), Observation(…, depth_m=1.5)]
    calibration = calibrate_flats(flats, gain_terms=even_terms(4, 2))
    lens = calibration.apply(lens)

The model, with u, v in −1 … 1 over the image and r, s polynomials that are 0 at its centre:

    d = k·(1 + r(u, v)) · (F + s(u, v) − 1/Z)

Two flat targets at one focus and aperture determine k and F at every place (two equations, two
unknowns); one reference depth map with enough range (a depth camera beside the lens) does too,
where it has texture at several depths. All are fitted together by Gauss–Newton with weights that
forget outliers: Huber first, then Tukey's biweight, both scaled by the median residual. Errors of
neighbouring pixels are not independent, so the standard errors are of the cluster-robust kind:
residuals are summed over blocks of `BLOCK_SHARE` of the image before they are squared.

Sources: robust weights and their constants, Huber 1981, and Beaton and Tukey 1974; clustered
standard errors, Liang and Zeger 1986.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.optics.calibration_file import CalibrationError, LensCalibration
from depth_fusion_ros.optics.gain_field import (
    FieldPolynomial,
    Term,
    monomials,
    normalised_grid,
)

MIN_PIXELS = 200
MAX_PIXELS = 40_000
BLOCK_SHARE = 1 / 12
MIN_SPAN_DIOPTERS = 0.15
MAX_CONDITION = 1e6
HUBER, TUKEY = 1.345, 4.685
MAD_TO_SIGMA = 1.4826
HUBER_STEPS, TUKEY_STEPS = 12, 20
SETTLED = 1e-9
FOCUS_SLACK_DIOPTERS = 0.02


@dataclass(frozen=True)
class Observation:
    """Disparities of one capture whose distances are known.

    Attributes:
        disparity_px: (H, W) x_right − x_left; NaN = none.
        depth_m: metres; one number for a flat target square to the axis, or (H, W) where NaN or
            ±Inf = unknown.
        sigma_px: (H, W) standard deviation of the disparity; None = the same everywhere.
        valid: (H, W) bool: where there is texture to match and no depth edge; None = all.
        name: for error messages.
    """

    disparity_px: NDArray[np.floating]
    depth_m: float | NDArray[np.floating]
    sigma_px: NDArray[np.floating] | None = None
    valid: NDArray[np.bool_] | None = None
    name: str = "observation"


def calibrate_flats(
    flats: Sequence[Observation],
    *,
    gain_terms: Sequence[Term] = (),
    focus_terms: Sequence[Term] = (),
    source: str = "flat targets",
    date: str = "",
) -> LensCalibration:
    """Fit a lens to two or more flat targets, taken at one focus, aperture and resolution.

    Args:
        flats: at least two distances, `MIN_SPAN_DIOPTERS` apart.
        gain_terms: powers of the gain field, such as ``even_terms(4, 2)``; empty = one k.
        focus_terms: powers of the focus field; empty = a flat field.
        source, date: kept with the result.

    Raises:
        CalibrationError: fewer than two flats, too close in dioptres, too few valid pixels, the
            views are exchanged (k ≤ 0), or the places do not determine the terms.
    """
    if len(flats) < 2:
        raise CalibrationError(
            f"{len(flats)} flat target(s): at least two distances are needed, for k and focus are "
            "two unknowns; add one nearer and one farther than the focus")
    return _calibrate(flats, gain_terms, focus_terms, source, date,
                      "put the targets farther apart, one on each side of the focus")


def calibrate_reference(
    reference: Observation | Sequence[Observation],
    *,
    gain_terms: Sequence[Term] = (),
    focus_terms: Sequence[Term] = (),
    source: str = "reference depth map",
    date: str = "",
) -> LensCalibration:
    """Fit a lens to captures with a registered depth map: disparity is regressed on 1/Z.

    Mask depth edges in `Observation.valid`: a second device sees them elsewhere. Fields need
    several depths in every part of the image, which one scene seldom has; see `condition`.

    Args and errors: as `calibrate_flats`; one capture is enough if it has the span in dioptres.
    """
    captures = [reference] if isinstance(reference, Observation) else list(reference)
    return _calibrate(captures, gain_terms, focus_terms, source, date,
                      "record a scene with near and far texture")


@dataclass(frozen=True)
class _Rows:
    """Flat arrays of the pixels that are used."""

    u: NDArray[np.float64]
    v: NDArray[np.float64]
    disparity_px: NDArray[np.float64]
    sigma_px: NDArray[np.float64]
    diopters: NDArray[np.float64]
    block: NDArray[np.int64]


def _calibrate(captures: Sequence[Observation], gain_terms: Sequence[Term],
               focus_terms: Sequence[Term], source: str, date: str, remedy: str
               ) -> LensCalibration:
    shapes = {np.shape(c.disparity_px) for c in captures}
    if len(shapes) != 1:
        raise CalibrationError(f"observations have the sizes {sorted(shapes)}: k counts pixels, "
                               "so all must have one size; resample the images first")
    height, width = shapes.pop()
    parts = [_rows(c, index, max(1, MAX_PIXELS // len(captures)))
             for index, c in enumerate(captures)]
    names = ("u", "v", "disparity_px", "sigma_px", "diopters", "block")
    rows = _Rows(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))
    low, high = np.percentile(rows.diopters, (2, 98))
    if not high - low >= MIN_SPAN_DIOPTERS:
        raise CalibrationError(
            f"distances span {high - low:.3f} dioptres ({1 / high:.3g} to {1 / low:.3g} m): at "
            f"least {MIN_SPAN_DIOPTERS} are needed to tell k from focus; {remedy}")
    fit = _Fit(rows, tuple(gain_terms), tuple(focus_terms))
    parameters, weights = fit.robust()
    k, focus = float(parameters[0]), float(parameters[1])
    if not k > 0:
        raise CalibrationError(
            f"disparity grows by {-k:.3g} px per dioptre towards the camera (k = {k:.3g} px·m): "
            "must be k > 0; the views are exchanged, set dp.swap_views, or correct the distances")
    errors, condition = fit.uncertainty(parameters, weights)
    if not focus >= -max(3 * float(errors[1]), FOCUS_SLACK_DIOPTERS):
        raise CalibrationError(f"focus = {focus:.3g} dioptres: must be >= 0; check the distances "
                               "(metres) and that both views come from one exposure")
    if not condition < MAX_CONDITION:
        raise CalibrationError(
            f"condition {condition:.3g} of the fit: must be below {MAX_CONDITION:g}; the textured "
            "places do not determine all terms, use fewer terms or targets that fill the image")
    count = 2 + len(gain_terms)
    relative = [(i, j, float(c)) for (i, j), c in zip(gain_terms, parameters[2:count])]
    curvature = [(i, j, float(c)) for (i, j), c in zip(focus_terms, parameters[count:])]
    residual = fit.residuals(parameters)
    return LensCalibration(
        gain_px_m=k, focus_diopters=max(focus, 0.0), gain_std_px_m=float(errors[0]),
        focus_std_diopters=float(errors[1]),
        gain_field=FieldPolynomial(tuple(relative)) if relative else None,
        focus_field=FieldPolynomial(tuple(curvature)) if curvature else None,
        field_std=tuple(float(e) for e in errors[2:]),
        residual_px=MAD_TO_SIGMA * float(np.median(np.abs(residual))),
        outlier_share=float(np.mean(weights == 0)), condition=float(condition),
        coverage=float(np.unique(rows.block % 4096).size * BLOCK_SHARE**2),
        pixels=int(rows.u.size), nearest_m=float(1 / high), farthest_m=float(1 / low),
        width_px=int(width), height_px=int(height), source=source, date=date)


def _rows(capture: Observation, index: int, limit: int) -> _Rows:
    """Valid pixels of a capture, thinned evenly to `limit`."""
    disparity = np.asarray(capture.disparity_px, np.float64)
    height, width = disparity.shape
    depth = np.broadcast_to(np.asarray(capture.depth_m, np.float64), disparity.shape)
    sigma = (np.ones(disparity.shape) if capture.sigma_px is None
             else np.asarray(capture.sigma_px, np.float64))
    for name, array in (("sigma_px", sigma), ("valid", capture.valid)):
        if array is not None and np.shape(array) != disparity.shape:
            raise CalibrationError(f"{capture.name}: {name} has shape {np.shape(array)}, "
                                   f"disparity_px {disparity.shape}: bring them to one grid")
    use = np.isfinite(disparity) & np.isfinite(depth) & np.isfinite(sigma) & (sigma > 0)
    use &= depth > 0
    if capture.valid is not None:
        use &= capture.valid
    places = np.flatnonzero(use)
    if places.size < MIN_PIXELS:
        raise CalibrationError(
            f"{capture.name}: {places.size} pixels with texture and distance, at least "
            f"{MIN_PIXELS} are needed; use a printed target, more light or a finer texture")
    # An even thinning of the list of valid pixels keeps their distribution over the image.
    places = places[np.linspace(0, places.size - 1, min(limit, places.size)).astype(np.int64)]
    grid_u, grid_v = normalised_grid(width, height)
    y, x = np.divmod(places, width)
    sigma = sigma.ravel()[places]
    # A sigma that promises too much must not let a few pixels decide.
    sigma = np.maximum(sigma, 0.25 * np.median(sigma))
    side = round(1 / BLOCK_SHARE)
    block = (y * side // height) * side + x * side // width + 4096 * index
    return _Rows(grid_u[0, x], grid_v[y, 0], disparity.ravel()[places], sigma,
                 1 / depth.ravel()[places], block)


class _Fit:
    """Gauss–Newton on (k, F, r…, s…) for fixed weights, and the loop that finds the weights."""

    def __init__(self, rows: _Rows, gain_terms: tuple[Term, ...],
                 focus_terms: tuple[Term, ...]) -> None:
        self.rows = rows
        self.gain = monomials(gain_terms, rows.u, rows.v)
        self.focus = monomials(focus_terms, rows.u, rows.v)

    def _parts(self, p: NDArray[np.float64]
               ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(1 + r, F + s − 1/Z) at the parameters, one value a row each."""
        count = 2 + self.gain.shape[1]
        relative = 1 + self.gain @ p[2:count]
        return relative, p[1] + self.focus @ p[count:] - self.rows.diopters

    def residuals(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        relative, defocus = self._parts(p)
        return np.asarray(self.rows.disparity_px - p[0] * relative * defocus)

    def _jacobian(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        relative, defocus = self._parts(p)
        slope = p[0] * relative
        return np.concatenate([
            (relative * defocus)[:, None], slope[:, None],
            p[0] * defocus[:, None] * self.gain, slope[:, None] * self.focus], 1)

    def _start(self) -> NDArray[np.float64]:
        """One k and F from a line d = a − k/Z through the weighted points."""
        p = np.zeros(2 + self.gain.shape[1] + self.focus.shape[1])
        design = np.stack([np.ones_like(self.rows.diopters), -self.rows.diopters], 1)
        weight = 1 / self.rows.sigma_px**2
        for _ in range(HUBER_STEPS):
            line = _solve(design, self.rows.disparity_px, weight)
            weight = self._weights(self.rows.disparity_px - design @ line, huber=True)
        p[0] = line[1] if line[1] != 0 else 1e-9
        p[1] = line[0] / p[0]
        return p

    def _weights(self, residual: NDArray[np.float64], *, huber: bool
                 ) -> NDArray[np.float64]:
        """Weights: 1/σ² × a factor from the residual over its median."""
        ratio = np.abs(residual) / self.rows.sigma_px
        scale = max(MAD_TO_SIGMA * float(np.median(ratio)), 1e-12)
        relative = ratio / scale
        if huber:
            factor = np.minimum(1, HUBER / np.maximum(relative, 1e-9))
        else:
            factor = np.clip(1 - (relative / TUKEY)**2, 0, None)**2
        return np.asarray(factor / self.rows.sigma_px**2)

    def robust(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(parameters, weights) of the robust fit."""
        p = self._start()
        for step in range(HUBER_STEPS + TUKEY_STEPS):
            residual = self.residuals(p)
            weights = self._weights(residual, huber=step < HUBER_STEPS)
            step_p = _solve(self._jacobian(p), residual, weights)
            p = p + step_p
            if step >= HUBER_STEPS and np.abs(step_p).max() < SETTLED * np.abs(p).max():
                break
        return p, self._weights(self.residuals(p), huber=False)

    def uncertainty(self, p: NDArray[np.float64], weights: NDArray[np.float64]
                    ) -> tuple[NDArray[np.float64], float]:
        """Standard errors of the parameters, and the condition of the scaled normal matrix."""
        jacobian = self._jacobian(p)
        normal = jacobian.T @ (weights[:, None] * jacobian)
        size = np.sqrt(np.maximum(np.diag(normal), 1e-300))
        condition = float(np.linalg.cond(normal / np.outer(size, size)))
        pull = jacobian * (weights * self.residuals(p))[:, None]
        _, block = np.unique(self.rows.block, return_inverse=True)
        blocks = np.zeros((int(block.max()) + 1, p.size))
        np.add.at(blocks, block, pull)
        inverse = np.linalg.pinv(normal)
        spread = max(len(blocks) / max(len(blocks) - p.size, 1), 1.0)
        covariance = spread * inverse @ (blocks.T @ blocks) @ inverse
        return np.sqrt(np.maximum(np.diag(covariance), 0)), condition


def _solve(design: NDArray[np.float64], values: NDArray[np.float64],
           weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted least squares; the smallest solution where the columns do not determine it."""
    weighted = design * weights[:, None]
    normal = design.T @ weighted
    size = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    scaled = normal / np.outer(size, size)  # unit diagonal: columns have different units
    solution = np.linalg.lstsq(scaled, (weighted.T @ values) / size, rcond=1e-10)[0]
    return np.asarray(solution / size, dtype=np.float64)
