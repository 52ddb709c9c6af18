"""Calibrate a camera with errors that hold its systematic part: leave one board distance out.

    result = calibrate_with_errors(collected, board)        # as calibrate_camera, ± replaced

Residuals of single peaks and pixels are small and say little: what is wrong at one distance of
the board is wrong in all its images. So every fit is repeated without each distance in turn, and
the spread of what comes out is the error (jackknife over groups, Efron and Tibshirani 1993).

It does not see what is wrong at all distances alike, and the place of the sharpest focus is: each
is trusted to `PEAK_SHARE` of the width of its peak only, which goes through the line of the
dioptres into scale and offset, and from the scale into the breathing. An error of the print's
size, or of the camera matrix, is in none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from depth_fusion_ros.evaluation.lens_bench_fit import CameraCalibration, calibrate_camera
from depth_fusion_ros.evaluation.lens_stations import Collected, PairOnBoard
from depth_fusion_ros.optics.calibration_board import CalibrationBoard
from depth_fusion_ros.optics.calibration_file import CalibrationError
from depth_fusion_ros.optics.dioptre_fit import DioptreFit
from depth_fusion_ros.optics.focus_response import FocusPeak, focus_peaks
from depth_fusion_ros.optics.gain_field import Term
from depth_fusion_ros.optics.robust_fit import Numbers

PEAK_SHARE = 0.005
"""One standard deviation of a peak's place, of its full width at half height. Chosen on five
simulated cameras, whose peaks were off by 0.0025 (rms) and 0.01 (most), neighbours alike; it held
with other noise and walls (docs/calibrate_lens.md)."""
SAME_PLACE_DIOPTERS = 0.1
MIN_FOLDS = 3

Fit = Callable[[Collected], CameraCalibration]


def calibrate_with_errors(collected: Collected, board: CalibrationBoard, *,
                          intrinsics_diopters: float | None = None,
                          gain_terms: Sequence[Term] | None = None) -> CameraCalibration:
    """Calibrate as `calibrate_camera` does, with errors that hold; a note says where they do not.

    Args and errors: of `calibrate_camera`.
    """

    def fit(part: Collected) -> CameraCalibration:
        return calibrate_camera(part, board, intrinsics_diopters=intrinsics_diopters,
                                gain_terms=gain_terms)

    whole = fit(collected)
    result, notes = whole, list(whole.notes)
    for part, replaced in (("the dioptres", _sweep_errors(whole, collected, fit)),
                           ("the gain", _gain_errors(whole, collected, board, fit))):
        if replaced is None:
            notes.append(f"± of {part} is repeatability only, and too small: honest ones need "
                         f"{MIN_FOLDS} board distances or more")
        else:
            result = replace(result, **replaced)
    return replace(result, notes=tuple(notes))


def _sweep_errors(whole: CameraCalibration, collected: Collected, fit: Fit
                  ) -> dict[str, Any] | None:
    """What is to be replaced in the result; None = too few distances."""
    sweep = whole.sweep
    if sweep is None:
        return {}
    stations = collected.stations

    def numbers(result: CameraCalibration) -> list[float]:
        s = result.sweep
        return [np.nan] * 4 if s is None else [
            s.scale, s.offset, np.nan if s.hysteresis is None else s.hysteresis, s.breathing]

    folds = [replace(collected, stations=stations[:i] + stations[i + 1:], pairs=[], notes=[])
             for i in range(len(stations))]
    spread = _spread(folds, fit, numbers)
    if spread is None:
        return None
    scale, offset, hysteresis, breathing = spread
    lag = 0 if whole.latency is None else whole.latency.frames or 0
    peaks = [p for s in stations for p in focus_peaks(s.trace, lag)]
    peak_error = PEAK_SHARE * float(np.median([_width(p) for p in peaks])) * sweep.scale
    scale, offset = np.hypot((scale, offset), peak_error * _line_errors(sweep))
    breathing = float(np.hypot(breathing, sweep.breathing * scale / sweep.scale))
    return {"peak_error_diopters": peak_error, "sweep": replace(
        sweep, scale_error=float(scale), offset_error=float(offset),
        hysteresis_error=hysteresis, breathing_error=breathing)}


def _line_errors(sweep: DioptreFit) -> Numbers:
    """Errors of scale and offset (2,) where those of the boards' focus are 1 each."""
    places = np.array([sweep.peak_diopters[sweep.stations == s].mean()
                       for s in np.unique(sweep.stations)])
    design = np.stack([places, np.ones_like(places)], -1)
    return np.asarray(np.sqrt(np.diag(np.linalg.pinv(design.T @ design))))


def _width(peak: FocusPeak) -> float:
    """Full width at half height, reported dioptres; no more than the sweep."""
    levels = np.linspace(peak.levels[0], peak.levels[-1], 1000)
    height = np.interp(levels, peak.levels, peak.fitted)
    return float(np.ptp(levels[height > (height.max() + height.min()) / 2]))


def _gain_errors(whole: CameraCalibration, collected: Collected, board: CalibrationBoard, fit: Fit
                 ) -> dict[str, Any] | None:
    """What is to be replaced in the result; None = too few distances."""
    dual = whole.dual_pixel
    if dual is None:
        return {}
    terms = len(dual.calibration.field_std)

    def numbers(result: CameraCalibration) -> list[float]:
        if result.dual_pixel is None:
            return [np.nan] * (2 + terms)
        c = result.dual_pixel.calibration
        gain = [] if c.gain_field is None else [value for _, _, value in c.gain_field.terms]
        return [c.gain_px_m, c.focus_diopters, *gain]

    places = _places(collected.pairs, board)
    folds = [replace(collected, notes=[], pairs=[p for p, where in zip(collected.pairs, places)
                                                 if where != left_out])
             for left_out in sorted(set(places))]
    spread = _spread(folds, fit, numbers)
    if spread is None:
        return None
    gain, focus, *field = spread
    return {"dual_pixel": replace(dual, calibration=replace(
        dual.calibration, gain_std_px_m=gain, focus_std_diopters=focus,
        field_std=tuple(field)))}


def _places(pairs: Sequence[PairOnBoard], board: CalibrationBoard) -> list[int]:
    """Number of the board distance of each pair; −1 where the board has no pose."""
    poses = [board.pose(p.view.ids, p.view.corners_px, p.matrix) for p in pairs]
    diopters = [np.inf if pose is None else pose.corner_diopters(board.object_m[p.view.ids])
                for p, pose in zip(pairs, poses)]
    places, place, before = [-1] * len(pairs), 0, np.nan
    for index in np.argsort(diopters).tolist():
        if not np.isfinite(diopters[index]):
            break
        place += bool(diopters[index] - before > SAME_PLACE_DIOPTERS)
        places[index], before = place, diopters[index]
    return places


def _spread(folds: Sequence[Collected], fit: Fit,
            numbers: Callable[[CameraCalibration], list[float]]) -> list[float] | None:
    """Jackknife standard errors of `numbers`; None where too few folds can be fitted."""
    found = []
    for fold in folds:
        try:
            found.append(numbers(fit(fold)))
        except CalibrationError:  # what is left is too close together: tells nothing
            continue
    found = [row for row in found if np.isfinite(row[0])]
    if len(found) < MIN_FOLDS:
        return None
    values, n = np.array(found), len(found)
    errors = np.sqrt((n - 1) / n * ((values - values.mean(0))**2).sum(0))
    return [float(error) for error in errors]


__all__ = ["PEAK_SHARE", "calibrate_with_errors"]
