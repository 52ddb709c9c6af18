"""Calibrate a camera from what was collected on its boards: the one place that knows the order.

    result = calibrate_camera(collected, board)
    camera_file_text(result, "my_camera", "a bag")         # camera_file.py

First the latency, for it says which report belongs to which image; then dioptres and breathing;
then, with the focus known, axis, sign and gain of the dual pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from depth_fusion_ros.evaluation.lens_stations import Collected, PairOnBoard, SweptBoard
from depth_fusion_ros.optics.calibration_board import CalibrationBoard
from depth_fusion_ros.optics.calibration_file import CalibrationError, LensCalibration
from depth_fusion_ros.optics.dioptre_fit import DioptreFit, Station, fit_dioptres
from depth_fusion_ros.optics.focus_response import Latency, focus_peaks, latency_frames, shifted
from depth_fusion_ros.optics.gain_field import Term
from depth_fusion_ros.optics.lens_calibration import Observation, calibrate_flats
from depth_fusion_ros.optics.robust_fit import Numbers, huber_linear
from depth_fusion_ros.optics.thin_lens import blur_gain_px_m

SAME_FOCUS_DIOPTERS = 0.02
"""Dual-pixel sets whose reports differ by less are of one focus."""
AXIS_RATIO = 3.0
"""The parallax of the one axis must exceed that of the other so many times."""
MIN_SHIFT_PX = 0.05
MIN_SPAN_DIOPTERS = 0.15


@dataclass(frozen=True)
class DualPixelFit:
    """Gain of the dual pixels.

    Attributes:
        axis: "x" or "y". swap_views: whether the views are exchanged.
        calibration: k, focus and field at `reported_diopters`; sets: that took part.
        kappa: k over the blur gain of the lens; None where LensState does not describe the lens.
        board_diopters, shift_px: (S,), (S, 2) mean of each set, as recorded (not exchanged).
    """

    axis: str
    swap_views: bool
    reported_diopters: float
    calibration: LensCalibration
    sets: int
    kappa: float | None
    board_diopters: Numbers
    shift_px: Numbers


@dataclass(frozen=True)
class CameraCalibration:
    """What is known of a camera now; None = its part was not recorded.

    Attributes:
        latency, sweep: from focus sweeps. stations: whose peaks took part.
        dual_pixel: from dual-pixel sets.
        scale, offset: of the dioptres; 1 and 0 where neither part tells them.
        reference_diopters: true focus at which camera_info holds.
        notes: sentences on what is missing or doubtful.
        peak_error_diopters: of the place of a sharpest focus, true dioptres; see `lens_errors`.
    """

    board: str
    latency: Latency | None
    sweep: DioptreFit | None
    stations: tuple[SweptBoard, ...]
    dual_pixel: DualPixelFit | None
    scale: float
    offset: float
    reference_diopters: float
    notes: tuple[str, ...]
    peak_error_diopters: float = 0.0


def calibrate_camera(collected: Collected, board: CalibrationBoard, *,
                     intrinsics_diopters: float | None = None,
                     gain_terms: Sequence[Term] | None = None) -> CameraCalibration:
    """Fit everything that the recording can tell.

    Args:
        intrinsics_diopters: reported focus at which camera_info holds; None = infinity.
        gain_terms: powers of the gain field; None = the square along the parallax axis.

    Raises:
        CalibrationError: no board was seen, or neither part suffices; the text says what to do.
    """
    _check_seen(collected, board)
    notes = list(collected.notes)
    latency: Latency | None = None
    sweep: DioptreFit | None = None
    scale, offset, hysteresis, beta = 1.0, 0.0, 0.0, 0.0
    if collected.stations:
        latency, sweep = _sweeps(collected.stations, board, intrinsics_diopters, notes)
        scale, offset, hysteresis = sweep.scale, sweep.offset, sweep.hysteresis or 0.0
        beta = sweep.breathing
    dual: DualPixelFit | None = None
    if collected.pairs:
        at = 0.0 if intrinsics_diopters is None else scale * intrinsics_diopters + offset
        try:
            dual, found = _dual_pixel(collected.pairs, board, beta, at, (scale, offset),
                                      gain_terms)
        except CalibrationError as error:
            if sweep is None:
                raise
            notes.append(f"dual pixels are not calibrated: {error}")
        else:
            if sweep is None:
                scale, offset = _line(found, notes)
            elif (apart := abs(dual.calibration.focus_diopters - scale * dual.reported_diopters
                               - offset)) > max(0.05, 2 * hysteresis):
                notes.append(f"the views are in focus {apart:.2f} D from where the sweeps say: "
                             "check that the lens stood still for the pairs")
    if sweep is None and dual is None:
        raise CalibrationError("no complete sweep and no dual-pixel set on the board: nothing to "
                               "calibrate; " + "; ".join(notes))
    reference = 0.0 if intrinsics_diopters is None else scale * intrinsics_diopters + offset
    return CameraCalibration(board.text, latency, sweep, tuple(collected.stations), dual, scale,
                             offset, reference, tuple(notes))


def _check_seen(collected: Collected, board: CalibrationBoard) -> None:
    total, seen = (collected.images + collected.sets,
                   collected.images_with_board + collected.sets_with_board)
    if total == 0:
        raise CalibrationError("no image with a lens_state of its stamp: needs sweep/image_raw or "
                               "dp/left and dp/right, and lens_state for each; record all of them")
    if seen == 0:
        raise CalibrationError(
            f"the board ({board.text}) is in none of {total} images: it must be seen whole and "
            "sharp in some; check its kind, squares and dictionary (--board, --squares, "
            "--dictionary), light, and that its print is not mirrored")


def _sweeps(swept: Sequence[SweptBoard], board: CalibrationBoard,
            intrinsics_diopters: float | None, notes: list[str]) -> tuple[Latency, DioptreFit]:
    latency = latency_frames([s.trace for s in swept])
    if latency.frames is None:
        notes.append("latency is not measured: the lens must be stepped and each position held "
                     "for at least two images; 0 is assumed, and hysteresis may be latency")
    elif not latency.clear:
        notes.append(f"latency of {latency.frames} images is not clear: its neighbours fit nearly "
                     "as well; hold each position longer")
    lag = latency.frames or 0
    stations = []
    for s in swept:
        lagged = shifted(s.trace.reported_diopters, lag)
        ways = _directions(lagged)
        steady = _steady(lagged)[s.view_images]
        peaks = focus_peaks(s.trace, lag)
        if not peaks:
            notes.append(f"{s.name}: left out, its board is sharpest at an end of the sweep, or "
                         "the sweep has fewer than five positions a way")
        keep = np.flatnonzero(steady)
        stations.append(Station(
            s.name, tuple(peaks), tuple(s.views[i] for i in keep), lagged[s.view_images][keep],
            ways[s.view_images][keep], s.matrices[keep, 0, 0]))
    fit = fit_dioptres(stations, board, swept[0].matrices[0], intrinsics_diopters)
    if fit.hysteresis is None:
        notes.append("hysteresis is not measured: the sweeps go one way only; sweep up and down")
    return latency, fit


def _directions(lagged: Numbers) -> Numbers:
    """+1, −1, or 0 before the first step, of each image."""
    steps = np.sign(np.diff(lagged, prepend=lagged[0]))
    last = np.maximum.accumulate(np.where(steps != 0, np.arange(len(steps)), 0))
    return np.asarray(steps[last], np.float64)


def _steady(lagged: Numbers) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Images not directly after a step, unless every one is."""
    still = np.diff(lagged, prepend=lagged[0]) == 0
    return still if still.sum() >= 4 else np.ones_like(still)


def _dual_pixel(pairs: Sequence[PairOnBoard], board: CalibrationBoard, beta: float,
                at_diopters: float, line: tuple[float, float], gain_terms: Sequence[Term] | None
                ) -> tuple[DualPixelFit, list[tuple[float, float]]]:
    """The gain at the focus of which there are most sets, and (report, focus) of all."""
    planes, diopters = [], []
    for pair in pairs:
        focus = line[0] * pair.reported_diopters + line[1]
        matrix = pair.matrix.copy()
        matrix[[0, 1], [0, 1]] *= (1 + beta * focus) / (1 + beta * at_diopters)
        pose = board.pose(pair.view.ids, pair.view.corners_px, matrix)
        height, width = pair.inside.shape
        planes.append(None if pose is None else pose.plane_diopters(width, height, matrix))
        diopters.append(np.nan if pose is None else pose.corner_diopters(
            board.object_m[pair.view.ids]))
    known = [i for i, plane in enumerate(planes) if plane is not None]
    board_diopters = np.array(diopters)[known]
    shift_px = np.array([pairs[i].shift_px for i in known]).reshape(-1, 2)
    groups = _groups([pairs[i].reported_diopters for i in known])
    slopes = _slopes(groups, board_diopters, shift_px)
    axis_number = int(np.argmax(np.abs(slopes)))
    axis, other = "xy"[axis_number], abs(float(slopes[1 - axis_number]))
    slope = float(slopes[axis_number])
    span = float(np.ptp(board_diopters))
    if not abs(slope) > AXIS_RATIO * other or not abs(slope) * span > MIN_SHIFT_PX:
        raise CalibrationError(
            f"the views move by {slopes[0]:.3f} px along x and {slopes[1]:.3f} px along y for a "
            f"dioptre of distance: one axis must move {AXIS_RATIO:g} times the other and "
            f"{MIN_SHIFT_PX} px in all; put the board nearer and farther, and check that the views "
            "are those of one exposure")
    swap = slope > 0  # d = k·(F − D) falls with the dioptres of the board
    terms = ([(2, 0) if axis == "x" else (0, 2)] if gain_terms is None else list(gain_terms))
    fits = []
    for group in groups:
        if float(np.ptp(board_diopters[group])) < MIN_SPAN_DIOPTERS:
            continue
        observations = []
        for place in group:
            pair, plane = pairs[known[place]], planes[known[place]]
            assert plane is not None
            observations.append(Observation(
                (-1 if swap else 1) * pair.shifts[axis], 1 / plane,
                pair.sigmas[axis], pair.inside & (plane > 0),
                f"dual-pixel set at {1 / board_diopters[place]:.2f} m"))
        report = float(np.mean([pairs[known[p]].reported_diopters for p in group]))
        fits.append((len(group), report, calibrate_flats(
            observations, gain_terms=terms, source="calibration board")))
    if not fits:
        raise CalibrationError(
            f"dual-pixel sets at {len(groups)} focus setting(s), none with boards that span "
            f"{MIN_SPAN_DIOPTERS} dioptres: two or more distances at one focus are needed")
    sets, report, calibration = max(fits, key=lambda f: f[0])
    found = [(r, c.focus_diopters) for _, r, c in fits]
    at = line[0] * report + line[1] if beta or line != (1.0, 0.0) else calibration.focus_diopters
    kappa = _kappa(pairs[known[groups[0][0]]], calibration.gain_px_m, at, axis)
    return DualPixelFit(axis, swap, report, calibration, sets, kappa, board_diopters,
                        shift_px), found


def _groups(reports: Sequence[float]) -> list[list[int]]:
    """Numbers of the sets of each focus."""
    order = np.argsort(reports)
    groups: list[list[int]] = []
    for index in order.tolist():
        if groups and reports[index] - reports[groups[-1][-1]] < SAME_FOCUS_DIOPTERS:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _slopes(groups: Sequence[Sequence[int]], diopters: Numbers, shift_px: Numbers) -> Numbers:
    """Px per dioptre of the board along x and y, each focus with a height of its own."""
    used = [list(g) for g in groups if np.ptp(diopters[list(g)]) >= MIN_SPAN_DIOPTERS]
    if not used:
        raise CalibrationError(
            f"dual-pixel sets with boards that span {float(np.ptp(diopters)):.2f} dioptres at "
            f"{len(groups)} focus setting(s): at least two distances {MIN_SPAN_DIOPTERS} D apart "
            "at one focus are needed; move the board and leave the lens")
    rows = np.concatenate(used)
    number = np.concatenate([np.full(len(g), i) for i, g in enumerate(used)])
    design = np.concatenate([diopters[rows][:, None], np.eye(len(used))[number]], 1)
    return np.array([huber_linear(design, shift_px[rows, i]).parameters[0] for i in range(2)])


def _kappa(pair: PairOnBoard, gain_px_m: float, focus_diopters: float, axis: str) -> float | None:
    optics = pair.optics
    pitch_m = optics.pitch_x_m if axis == "x" else optics.pitch_y_m
    if min(optics.focal_length_m, optics.f_number, pitch_m) <= 0:
        return None
    return gain_px_m / blur_gain_px_m(optics.focal_length_m, optics.f_number, pitch_m,
                                      max(focus_diopters, 0.0))


def _line(found: Sequence[tuple[float, float]], notes: list[str]) -> tuple[float, float]:
    """Scale and offset from the focus that dual pixels found at one or more reports."""
    reports, focus = (np.array(column) for column in zip(*found))
    if np.ptp(reports) < MIN_SPAN_DIOPTERS:
        notes.append("dioptre scale is not measured: there are no sweeps and the pairs have one "
                     "focus; 1 is assumed, the offset is that of this focus")
        return 1.0, float(np.mean(focus - reports))
    notes.append("dioptre scale and offset come from the pairs alone: there are no sweeps")
    fit = huber_linear(np.stack([reports, np.ones_like(reports)], -1), focus)
    return float(fit.parameters[0]), float(fit.parameters[1])


__all__ = ["CameraCalibration", "DualPixelFit", "calibrate_camera"]
