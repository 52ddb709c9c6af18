"""Fits of depth-fusion calibrate-lens on made-up numbers: they find what was put in."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from depth_fusion_ros.optics.calibration_board import BoardError, BoardView, CalibrationBoard
from depth_fusion_ros.optics.calibration_file import CalibrationError
from depth_fusion_ros.optics.dioptre_fit import Station, fit_dioptres
from depth_fusion_ros.optics.focus_response import (
    FocusPeak,
    Trace,
    board_sharpness,
    focus_peaks,
    latency_frames,
    shifted,
)
from depth_fusion_ros.optics.robust_fit import damped_least_squares, huber_linear
from depth_fusion_ros.optics.view_shift import displacement, displacement_along

MATRIX = np.array([[435.0, 0, 159.5], [0, 435.0, 119.5], [0, 0, 1]])
BOARD = CalibrationBoard.charuco()


def staircase(levels: NDArray[np.float64], hold: int, start: int) -> NDArray[np.float64]:
    """Up and down again, each level held."""
    way = [*levels[1:], *levels[-2::-1]]
    return np.array([levels[0]] * start + [level for level in way for _ in range(hold)])


def swept(sharp_at: float, latency: int, hold: int, stuck: float = 0.0, noise: float = 0.0
          ) -> Trace:
    """Trace of a board that is sharp where the lens stands at `sharp_at` (as reported)."""
    reported = staircase(np.linspace(0.2, 3.2, 16), hold, hold + 2)
    steps = np.sign(np.diff(reported, prepend=reported[0]))
    last = np.maximum.accumulate(np.where(steps != 0, np.arange(len(steps)), 0))
    position = reported - stuck * steps[last]
    sharpness = 0.1 + (1 + ((shifted(position, latency) - sharp_at) / 0.5)**2)**-0.7
    random = np.random.default_rng(0)
    return Trace(reported, sharpness * (1 + noise * random.standard_normal(len(reported))))


@given(latency=st.integers(0, 8), extra=st.integers(2, 5), sharp_at=st.floats(0.8, 2.6))
@settings(max_examples=20, deadline=None)
def test_latency_is_found_exactly_whatever_it_is(latency: int, extra: int, sharp_at: float
                                                 ) -> None:
    found = latency_frames([swept(sharp_at, latency, latency + extra, noise=0.002)])
    assert found.frames == latency


def test_a_ramp_without_holds_says_that_latency_is_unknown() -> None:
    reported = np.linspace(0.2, 3.0, 60)
    assert latency_frames([Trace(reported, np.exp(-(reported - 1.5)**2))]).frames is None


@given(sharp_at=st.floats(0.9, 2.5), stuck=st.floats(0.0, 0.08))
@settings(max_examples=30, deadline=None)
def test_the_sharpest_focus_is_found_between_positions_in_both_directions(
        sharp_at: float, stuck: float) -> None:
    peaks = focus_peaks(swept(sharp_at, 2, 5, stuck), 2)
    by_direction = {p.direction: p.reported_diopters for p in peaks}
    assert by_direction[1] == pytest.approx(sharp_at + stuck, abs=0.01)
    assert by_direction[-1] == pytest.approx(sharp_at - stuck, abs=0.01)


def test_a_board_that_is_sharpest_at_an_end_of_the_sweep_has_no_peak() -> None:
    assert focus_peaks(swept(3.6, 0, 4), 0) == []


def seen_at(z_m: float, growth: float) -> BoardView:
    """The board's corners at a distance, in a picture that has grown."""
    middle = BOARD.object_m.mean(0)
    points = BOARD.object_m - middle + (0.0, 0.0, z_m)
    pixels = 435.0 * growth * points[:, :2] / points[:, 2:] + (159.5, 119.5)
    return BoardView(np.arange(len(points)), pixels)


def bench(scale: float, offset: float, stuck: float, beta: float) -> list[Station]:
    """Stations of a camera of known truth, without noise."""
    stations = []
    for z_m in (0.4, 0.6, 0.9, 1.4):
        peaks = tuple(FocusPeak((1 / z_m + way * stuck - offset) / scale, 0.01, way,
                                np.zeros(0), np.zeros(0), np.zeros(0)) for way in (1, -1))
        focus = np.linspace(0.3, 3.0, 12)
        ways = np.tile([1.0, -1.0], 6)
        reports = (focus + ways * stuck - offset) / scale
        stations.append(Station(
            f"{z_m} m", peaks, tuple(seen_at(z_m, 1 + beta * f) for f in focus), reports, ways,
            np.full(12, 435.0)))
    return stations


@given(scale=st.floats(0.5, 2.0), offset=st.floats(-1.5, 0.5), stuck=st.floats(0.0, 0.1),
       beta=st.floats(-0.02, 0.06))
@settings(max_examples=8, deadline=None)
def test_dioptres_hysteresis_and_breathing_are_found_together(
        scale: float, offset: float, stuck: float, beta: float) -> None:
    fit = fit_dioptres(bench(scale, offset, stuck, beta), BOARD, MATRIX)
    assert fit.scale == pytest.approx(scale, rel=0.005)
    assert fit.offset == pytest.approx(offset, abs=0.01)
    assert fit.hysteresis == pytest.approx(stuck, abs=0.003)
    assert fit.breathing == pytest.approx(beta, abs=0.0005)


def test_a_board_exactly_square_to_the_axis_has_a_pose() -> None:
    fit = fit_dioptres(bench(1.0, 0.4375, 0.0, 0.03125), BOARD, MATRIX)  # IPPE gives NaN here
    assert fit.scale == pytest.approx(1.0, rel=1e-4)


def test_intrinsics_made_at_another_focus_are_told_so() -> None:
    stations = bench(1.2, -0.2, 0.0, 0.04)
    at_near = 1 + 0.04 * 2.0  # camera_info made where the true focus was 2 D
    matrix = MATRIX * [[at_near, 1, 1], [1, at_near, 1], [1, 1, 1]]
    told = fit_dioptres(stations, BOARD, matrix, (2.0 + 0.2) / 1.2)
    untold = fit_dioptres(stations, BOARD, matrix)
    assert told.scale == pytest.approx(1.2, rel=0.005)
    assert abs(untold.scale / 1.2 - 1) > 0.03


def test_one_distance_is_refused_in_a_sentence_that_says_what_to_do() -> None:
    with pytest.raises(CalibrationError, match=r"1 of 1 board distances.*at least two"):
        fit_dioptres(bench(1, 0, 0, 0)[:1], BOARD, MATRIX)


def test_distances_too_close_together_are_refused() -> None:
    stations = bench(1, 0, 0, 0)
    with pytest.raises(CalibrationError, match=r"span 0.000 dioptres.*nearer and farther"):
        fit_dioptres([stations[0], stations[0]], BOARD, MATRIX)


def speckle(random: np.random.Generator, size: tuple[int, int] = (140, 180)) -> NDArray[np.float32]:
    return cv2.GaussianBlur(random.random(size).astype(np.float32), (0, 0), 2) + np.float32(0.2)


def moved(image: NDArray[np.float32], x_px: float, y_px: float) -> NDArray[np.float32]:
    """Shifted by phases: exact at any fraction of a pixel."""
    u = np.fft.fftfreq(image.shape[1])[None]
    v = np.fft.fftfreq(image.shape[0])[:, None]
    phase = np.exp(-2j * np.pi * (u * x_px + v * y_px))
    return np.fft.ifft2(np.fft.fft2(image) * phase).real.astype(np.float32)


@given(shift=st.floats(-3, 3), axis=st.sampled_from("xy"))
@settings(max_examples=8, deadline=None)
def test_displacement_is_exact_to_hundredths_of_a_pixel_along_either_axis(
        shift: float, axis: str) -> None:
    image = speckle(np.random.default_rng(3))
    half = (shift / 2, 0.0) if axis == "x" else (0.0, shift / 2)
    left, right = moved(image, -half[0], -half[1]), moved(image, *half)
    middle = (slice(30, -30), slice(30, -30))
    along, sigma = displacement_along(left, right, axis)
    assert np.isfinite(sigma[middle]).mean() > 0.9
    assert np.median(along[middle]) == pytest.approx(shift, abs=0.02)
    x, y, _ = displacement(left, right)
    other = y if axis == "x" else x
    assert abs(float(np.median(other[middle]))) < 0.01


def test_mirrored_half_discs_are_displaced_by_the_gap_of_their_centroids() -> None:
    fine, radius = 8, 2.0
    print_ = np.kron((np.random.default_rng(0).random((7, 9)) > 0.5), np.ones((160, 160)))
    y, x = np.mgrid[-20:21, -20:21].astype(np.float32)
    half = ((x**2 + y**2 <= (radius * fine)**2) & (x > 0)).astype(np.float32)
    half /= half.sum()
    gap = 2 * float((half * x).sum()) / fine

    def blurred(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
        wide = cv2.filter2D(print_.astype(np.float32) + 0.1, -1, kernel[::-1, ::-1].copy())
        return cv2.resize(wide, None, fx=1 / fine, fy=1 / fine, interpolation=cv2.INTER_AREA)

    shift, sigma = displacement_along(blurred(half[:, ::-1].copy()), blurred(half), "x")
    middle = (slice(25, -25), slice(25, -25))
    sure = np.isfinite(sigma[middle])
    assert np.median(shift[middle][sure]) == pytest.approx(gap, rel=0.01)


@pytest.mark.parametrize("board", [BOARD, CalibrationBoard.apriltag((2, 2), 0.08, 0.02),
                                   CalibrationBoard.apriltag((1, 1), 0.16)])
def test_a_board_is_found_and_its_distance_measured(board: CalibrationBoard) -> None:
    pixels_per_m, z_m = 2 * board.texels_per_m, 0.6
    print_ = board.picture(pixels_per_m)
    scale = 435.0 / z_m / pixels_per_m
    size = np.array(board.size_m) * pixels_per_m
    place = np.array([[scale, 0, 159.5 - scale * size[0] / 2 + 3.3],
                      [0, scale, 119.5 - scale * size[1] / 2]])
    image = cv2.warpAffine(print_, place, (320, 240), borderValue=255, flags=cv2.INTER_AREA)
    view = board.detect(cv2.GaussianBlur(image, (0, 0), 0.8))
    assert view is not None
    pose = board.pose(view.ids, view.corners_px, MATRIX)
    assert pose is not None
    assert 1 / pose.corner_diopters(board.object_m) == pytest.approx(z_m, rel=0.01)
    assert pose.plane_diopters(320, 240, MATRIX)[120, 160] == pytest.approx(1 / z_m, rel=0.02)


def test_an_empty_picture_shows_no_board() -> None:
    assert BOARD.detect(np.full((120, 160), 90, np.uint8)) is None


@pytest.mark.parametrize("make", [
    lambda: CalibrationBoard.charuco((2, 4)),
    lambda: CalibrationBoard.charuco(square_m=0.03, marker_m=0.04),
    lambda: CalibrationBoard.charuco(dictionary="DICT_OF_NOBODY"),
    lambda: CalibrationBoard.apriltag((1, 1), -0.1)])
def test_boards_that_cannot_be_are_refused(make: object) -> None:
    with pytest.raises(BoardError, match=r"needs|not known"):
        make()  # type: ignore[operator]


def test_sharpness_does_not_change_with_the_size_of_the_picture() -> None:
    fine = np.kron(np.random.default_rng(1).random((12, 16)) > 0.5, np.ones((10, 10)))
    window = np.zeros((120, 160), np.float32)
    window[20:-20, 20:-20] = 1
    blurred = cv2.GaussianBlur(fine.astype(np.float32) + 0.2, (0, 0), 2.0)
    grown = cv2.resize(blurred, None, fx=1.1, fy=1.1, interpolation=cv2.INTER_CUBIC)
    wide = cv2.resize(window, (176, 132), interpolation=cv2.INTER_NEAREST)
    assert board_sharpness(grown, wide, 1.1) == pytest.approx(board_sharpness(blurred, window),
                                                              rel=0.02)


def test_a_line_forgets_an_outlier() -> None:
    x = np.linspace(0, 1, 12)
    y = 2 * x + 1
    y[4] += 5
    fit = huber_linear(np.stack([x, np.ones_like(x)], -1), y)
    np.testing.assert_allclose(fit.parameters, (2, 1), atol=0.05)


def test_damped_least_squares_finds_a_curve() -> None:
    x = np.linspace(-1, 1, 30)
    truth = np.array([0.3, -0.7])
    fit = damped_least_squares(
        lambda p: np.exp(p[0] * x) + p[1] * x - np.exp(truth[0] * x) - truth[1] * x, np.ones(2))
    np.testing.assert_allclose(fit.parameters, truth, atol=1e-6)
