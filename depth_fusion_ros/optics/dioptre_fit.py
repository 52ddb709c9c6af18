"""What reported dioptres mean: scale, offset, hysteresis and focus breathing, fitted together.

    fit = fit_dioptres(stations, board, matrix)

The model, with R the reported focus of an image (latency undone) and s = +1 where it was reached
from far, −1 from near:

    D = a·R + b − s·h            a lens with hysteresis stops short of where it was sent
    fx(D) = fx0·(1 + β·D)        its picture grows as it focuses nearer

A board at Z is sharpest where D = 1/Z. Z comes from the size of its picture, which needs fx, which
needs D: the two are solved in turn, which settles in a few rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.optics.calibration_board import BoardPose, BoardView, CalibrationBoard
from depth_fusion_ros.optics.calibration_file import CalibrationError
from depth_fusion_ros.optics.focus_response import FocusPeak
from depth_fusion_ros.optics.robust_fit import Fit, Numbers, huber_linear

ROUNDS = 8
MIN_SPAN_DIOPTERS = 0.3
"""Board distances closer together than this leave the scale to chance."""
MIN_VIEWS = 4


@dataclass(frozen=True)
class Station:
    """A board at one distance and the sweep over it.

    Attributes:
        name: for messages.
        peaks: from `focus_peaks`.
        views: of the board, undistorted, in some of the images.
        view_diopters: (V,) reported focus of each of them, latency undone.
        view_directions: (V,) +1, −1, or 0 where the lens had not moved yet.
        focal_lengths_px: (V,) fx of the camera_info of each.
    """

    name: str
    peaks: tuple[FocusPeak, ...]
    views: tuple[BoardView, ...]
    view_diopters: Numbers
    view_directions: Numbers
    focal_lengths_px: Numbers


@dataclass(frozen=True)
class DioptreFit:
    """What was found.

    Attributes:
        scale, scale_error: a, no unit. offset, offset_error: b, 1/m.
        hysteresis, hysteresis_error: h, 1/m; None, NaN where sweeps went one way only.
        breathing, breathing_error: β, 1 per dioptre.
        residuals_diopters: (P,) D of the board less that of the model, for each peak.
        board_diopters, peak_diopters, directions: (P,) 1/Z, R and s of each peak.
        stations: (P,) number of the station of each peak.
        poses: of each station's board. breathing_residual: rms of relative image size.
        growth: (V, 3) true focus, relative size of the picture and station of every view.
    """

    scale: float
    scale_error: float
    offset: float
    offset_error: float
    hysteresis: float | None
    hysteresis_error: float
    breathing: float
    breathing_error: float
    residuals_diopters: Numbers
    board_diopters: Numbers
    peak_diopters: Numbers
    directions: NDArray[np.int64]
    stations: NDArray[np.int64]
    poses: tuple[BoardPose, ...]
    breathing_residual: float
    growth: Numbers

    def true_diopters(self, reported: Numbers, directions: Numbers) -> Numbers:
        """Focus of reports (N,) reached in directions (N,), 1/m."""
        return np.asarray(self.scale * reported + self.offset
                          - directions * (self.hysteresis or 0.0))


def fit_dioptres(stations: Sequence[Station], board: CalibrationBoard, matrix: Numbers,
                 intrinsics_diopters: float | None = None) -> DioptreFit:
    """Fit the lens to boards at several distances.

    Args:
        stations: at least two distances, each with a peak.
        board: whose corners were seen. matrix: (3, 3) camera matrix of camera_info.
        intrinsics_diopters: reported focus at which camera_info holds; None = focused at
            infinity. Not used where camera_info follows the focus.

    Raises:
        CalibrationError: too few distances or too close together, or a board whose corners fit
            no plane.
    """
    used = [s for s in stations if s.peaks and len(s.views) >= MIN_VIEWS]
    if len(used) < 2:
        raise CalibrationError(
            f"{len(used)} of {len(stations)} board distances have a sharpest focus inside the "
            "sweep: at least two are needed, three to five are good; sweep past the focus on both "
            "sides at each distance")
    peaks = [(index, peak) for index, s in enumerate(used) for peak in s.peaks]
    reported = np.array([peak.reported_diopters for _, peak in peaks])
    directions = np.array([peak.direction for _, peak in peaks])
    where = np.array([index for index, _ in peaks])
    both = len(set(directions.tolist())) == 2
    a, b, h, beta, beta_error = 1.0, 0.0, 0.0, 0.0, np.nan
    line: Fit | None = None
    poses: list[BoardPose] = []
    board_diopters = growth = np.zeros(0)
    for _ in range(ROUNDS):
        focus = [a * s.view_diopters + b - h * s.view_directions for s in used]
        beta, beta_error, growth = _breathing(used, focus)
        at = 0.0 if intrinsics_diopters is None else a * intrinsics_diopters + b
        poses = [_pose(s, f, board, matrix, beta, at) for s, f in zip(used, focus)]
        per_station = [pose.corner_diopters(board.object_m) for pose in poses]
        _check_span(per_station)
        board_diopters = np.array(per_station)[where]
        columns = [reported, np.ones_like(reported)] + ([-directions.astype(float)] if both else [])
        try:
            line = huber_linear(np.stack(columns, -1), board_diopters)
        except ValueError as error:
            raise CalibrationError(f"focus against distance: {error}") from None
        a, b = float(line.parameters[0]), float(line.parameters[1])
        h = float(line.parameters[2]) if both else 0.0
    assert line is not None
    _check_scale(a)
    return DioptreFit(
        a, float(line.errors[0]), b, float(line.errors[1]), h if both else None,
        float(line.errors[2]) if both else np.nan, beta, beta_error, line.residuals,
        board_diopters, reported, directions, where, tuple(poses),
        float(np.sqrt(np.mean((growth[:, 1] / (1 + beta * growth[:, 0]) - 1)**2))), growth)


def _breathing(stations: Sequence[Station], focus: Sequence[Numbers]
               ) -> tuple[float, float, Numbers]:
    """(β, its error, growth (V, 3)) from how the picture of each board grows with the focus.

    Within a station size = γ·(1 + β·D): a line with its own height γ.
    """
    rows, columns, number = [], [], []
    for index, (station, diopters) in enumerate(zip(stations, focus)):
        sizes = _sizes(station)
        rows.append(np.log(sizes))
        columns.append(diopters)
        number.append(np.full(len(sizes), index))
    log_size, depth_d, group = (np.concatenate(part) for part in (rows, columns, number))
    beta, errors = 0.0, np.array([np.nan])
    residual = log_size
    for _ in range(ROUNDS):
        model, slope = np.log1p(beta * depth_d), depth_d / (1 + beta * depth_d)
        fit = huber_linear(_within(slope, group)[:, None], _within(log_size - model, group))
        beta, errors = float(np.clip(beta + fit.parameters[0], -0.1, 0.3)), fit.errors
        residual = log_size - np.log1p(beta * depth_d)
    heights = np.array([np.mean(residual[group == g]) for g in range(len(stations))])
    growth = np.stack([depth_d, np.exp(log_size - heights[group]), group], -1)
    return beta, float(errors[0]), growth


def _within(values: Numbers, group: NDArray[np.int64]) -> Numbers:
    """Values less the mean of their group."""
    means = np.bincount(group, values) / np.bincount(group)
    return np.asarray(values - means[group])


def _sizes(station: Station) -> Numbers:
    """Size of the picture in each view relative to the view with the most corners, (V,)."""
    reference = max(station.views, key=lambda v: len(v.ids))
    place = dict(zip(reference.ids.tolist(), reference.corners_px))
    sizes = []
    for view in station.views:
        shared = [i for i, corner in enumerate(view.ids.tolist()) if corner in place]
        if len(shared) < 3:
            sizes.append(np.nan)
            continue
        here = view.corners_px[shared]
        there = np.array([place[int(view.ids[i])] for i in shared])
        here, there = here - here.mean(0), there - there.mean(0)
        sizes.append(float((here * there).sum() / (there**2).sum()))
    values = np.array(sizes)
    return np.where(np.isfinite(values) & (values > 0), values, np.nanmedian(values))


def _pose(station: Station, focus: Numbers, board: CalibrationBoard, matrix: Numbers, beta: float,
          at_diopters: float) -> BoardPose:
    """Pose of a station's board from all its views, each brought to the fx of `matrix`."""
    centre = matrix[:2, 2]
    lengths = station.focal_lengths_px
    if np.ptp(lengths) > 1e-4 * float(lengths.mean()):  # camera_info follows the focus
        factors = matrix[0, 0] / lengths
    else:
        factors = (1 + beta * at_diopters) / (1 + beta * focus)
    seen: dict[int, list[Numbers]] = {}
    for view, factor in zip(station.views, factors):
        for corner, place in zip(view.ids.tolist(), view.corners_px):
            seen.setdefault(corner, []).append(centre + (place - centre) * factor)
    # Corners seen in single, blurred views would only add their errors.
    most = max(len(places) for places in seen.values())
    ids = np.array(sorted(i for i, places in seen.items() if 3 * len(places) >= most), np.int64)
    corners = np.array([np.median(np.array(seen[int(i)]), 0) for i in ids])
    pose = board.pose(ids, corners, matrix) if len(ids) >= 4 else None
    if pose is None:
        raise CalibrationError(
            f"{station.name}: the {len(ids)} corners of the board fit no plane; check the board's "
            "numbers (squares, sizes), camera_info, and that the board stood still")
    return pose


def _check_span(diopters: Sequence[float]) -> None:
    span = max(diopters) - min(diopters)
    if not span >= MIN_SPAN_DIOPTERS:
        raise CalibrationError(
            f"boards at {', '.join(f'{1 / d:.3g}' for d in diopters)} m span {span:.3f} dioptres: "
            f"at least {MIN_SPAN_DIOPTERS} are needed to tell the scale from the offset; put the "
            "board nearer and farther, such as 0.4, 0.7 and 1.5 m")


def _check_scale(scale: float) -> None:
    if not 0.2 <= scale <= 5.0:
        raise CalibrationError(
            f"dioptre scale = {scale:.3g}: must be 0.2 to 5 (lens.diopter_scale); check the "
            "board's size, or whether the reports are driver steps, which need a table "
            "(lens_state_bridge table.*)")


__all__ = ["DioptreFit", "Station", "fit_dioptres"]
