"""Calibration of dual-pixel lenses: what is put into simulated disparities comes out again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from depth_fusion_ros.estimation.backends import load_backend
from depth_fusion_ros.estimation.dual_pixel import (
    DualPixelEstimator,
    DualPixelFrame,
    DualPixelOptions,
)
from depth_fusion_ros.estimation.estimate import Intrinsics
from depth_fusion_ros.evaluation.real_calibration import calibrate_on_captures, measured_by
from depth_fusion_ros.optics.calibration_file import CalibrationError, LensCalibration
from depth_fusion_ros.optics.gain_field import (
    FieldPolynomial,
    all_terms,
    even_terms,
)
from depth_fusion_ros.optics.lens_calibration import (
    Observation,
    calibrate_flats,
    calibrate_reference,
)
from depth_fusion_ros.optics.thin_lens import ThinLens, depth_from_disparity

WIDTH_PX, HEIGHT_PX = 96, 64
LENS = ThinLens(0.05, 4.0, 36e-3 / WIDTH_PX, 1.0)
CANON_LIKE = FieldPolynomial(((2, 0, -0.9), (4, 0, 0.4)))
CURVED = FieldPolynomial(((2, 0, 0.05), (0, 2, -0.03)))


@dataclass(frozen=True)
class Truth:
    k: float = 1.4
    focus: float = 1.05
    gain: FieldPolynomial | None = None
    curvature: FieldPolynomial | None = None

    def disparity(self, depth_m: float | NDArray[np.float64]) -> NDArray[np.float64]:
        relative = 1 + (self.gain.on_grid(WIDTH_PX, HEIGHT_PX) if self.gain else 0)
        focus = self.focus + (self.curvature.on_grid(WIDTH_PX, HEIGHT_PX) if self.curvature else 0)
        return self.k * relative * (focus - 1 / depth_m) + np.zeros((HEIGHT_PX, WIDTH_PX))


def noisy_flats(truth: Truth, *, depths_m: tuple[float, ...] = (0.6, 1.5), noise_px: float = 0.05,
                outliers: float = 0.0, seed: int = 0) -> list[Observation]:
    """Flats with Gaussian noise and a share of disparities that are anything within ±4 px."""
    random = np.random.default_rng(seed)
    flats = []
    for depth_m in depths_m:
        d = truth.disparity(depth_m) + noise_px * random.standard_normal((HEIGHT_PX, WIDTH_PX))
        wild = random.random(d.shape) < outliers
        d[wild] = random.uniform(-4, 4, wild.sum())
        flats.append(Observation(d, depth_m, name=f"flat {depth_m} m"))
    return flats


@given(k=st.floats(0.3, 20), focus=st.floats(0.3, 3), outliers=st.floats(0, 0.25),
       seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_k_and_focus_of_noisy_flats_with_outliers_are_found(
    k: float, focus: float, outliers: float, seed: int
) -> None:
    found = calibrate_flats(noisy_flats(Truth(k, focus), outliers=outliers, seed=seed))
    # 6144 pixels of 0.05 px each over 1 dioptre: 0.003 px·m is more than three standard errors.
    assert found.gain_px_m == pytest.approx(k, abs=0.006 + 0.002 * k)
    assert found.focus_diopters == pytest.approx(focus, abs=0.01 / k + 0.003)
    assert found.residual_px == pytest.approx(0.05, rel=0.5)
    assert found.gain_field is None and found.focus_field is None


@given(x2=st.floats(-0.7, 0.3), x4=st.floats(-0.2, 0.4), y2=st.floats(-0.2, 0.2),
       bend=st.floats(-0.1, 0.1), seed=st.integers(0, 99))
@settings(max_examples=12, deadline=None)
def test_gain_and_focus_fields_are_found(
    x2: float, x4: float, y2: float, bend: float, seed: int
) -> None:
    truth = Truth(gain=FieldPolynomial(((2, 0, x2), (4, 0, x4), (0, 2, y2))),
                  curvature=FieldPolynomial(((2, 0, bend),)))
    found = calibrate_flats(noisy_flats(truth, outliers=0.1, seed=seed),
                            gain_terms=even_terms(4, 2), focus_terms=((2, 0),))
    lens = found.apply(LENS)
    grid = (WIDTH_PX, HEIGHT_PX)
    wanted = truth.k * (1 + truth.gain.on_grid(*grid))  # type: ignore[union-attr]
    assert np.abs(lens.gain_map_px_m(*grid) / wanted - 1).max() < 0.06
    curvature = truth.curvature.on_grid(*grid)  # type: ignore[union-attr]
    assert np.abs(lens.focus_map_diopters(*grid) - truth.focus - curvature).max() < 0.03


@given(factor=st.floats(0.05, 30))
@settings(max_examples=8, deadline=None)
def test_k_scales_with_the_pixels_and_the_rest_stays(factor: float) -> None:
    flats = noisy_flats(Truth(gain=CANON_LIKE), outliers=0.1)
    scaled = [replace(f, disparity_px=factor * f.disparity_px) for f in flats]
    one = calibrate_flats(flats, gain_terms=even_terms(4, 0))
    other = calibrate_flats(scaled, gain_terms=even_terms(4, 0))
    assert other.gain_px_m == pytest.approx(factor * one.gain_px_m, rel=1e-6)
    assert other.residual_px == pytest.approx(factor * one.residual_px, rel=1e-5)
    assert other.focus_diopters == pytest.approx(one.focus_diopters, rel=1e-6)
    assert other.gain_field is not None and one.gain_field is not None
    assert other.gain_field.to_dict() == pytest.approx(one.gain_field.to_dict(), abs=1e-5)


@given(k=st.floats(0.3, 10), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_exchanged_views_are_refused_and_named(k: float, seed: int) -> None:
    flats = [replace(f, disparity_px=-f.disparity_px)
             for f in noisy_flats(Truth(k, 1.0), outliers=0.1, seed=seed)]
    with pytest.raises(CalibrationError, match=r"exchanged.*dp\.swap_views"):
        calibrate_flats(flats)


def test_two_pixels_of_hand_worked_flats_give_the_textbook_numbers() -> None:
    """At 0.5 m d = −2 px, at 1 m 0 px: k = 2 px / 1 dioptre, focus 1 dioptre."""
    shape = (20, 20)
    found = calibrate_flats([Observation(np.full(shape, -2.0), 0.5),
                             Observation(np.zeros(shape), 1.0)])
    assert found.gain_px_m == pytest.approx(2.0)
    assert found.focus_diopters == pytest.approx(1.0)
    assert found.residual_px == pytest.approx(0, abs=1e-9)
    assert (found.nearest_m, found.farthest_m) == (0.5, 1.0)


def test_the_standard_errors_are_the_scatter_of_repeated_calibrations() -> None:
    found = [calibrate_flats(noisy_flats(Truth(), noise_px=0.3, seed=s)) for s in range(40)]
    for value, error in (("gain_px_m", "gain_std_px_m"), ("focus_diopters", "focus_std_diopters")):
        scatter = np.std([getattr(f, value) for f in found])
        assert np.median([getattr(f, error) for f in found]) == pytest.approx(scatter, rel=0.3)


def test_correlated_errors_make_larger_standard_errors_than_independent_ones() -> None:
    random = np.random.default_rng(0)
    flats = noisy_flats(Truth(), noise_px=0.0)
    fine = [replace(f, disparity_px=f.disparity_px
                    + 0.1 * random.standard_normal((HEIGHT_PX, WIDTH_PX))) for f in flats]
    coarse = [replace(f, disparity_px=f.disparity_px + 0.1 * np.kron(
        random.standard_normal((HEIGHT_PX // 8, WIDTH_PX // 8)), np.ones((8, 8)))) for f in flats]
    assert (calibrate_flats(coarse).gain_std_px_m
            > 4 * calibrate_flats(fine).gain_std_px_m)


def test_pixels_with_a_large_sigma_or_not_valid_hardly_count() -> None:
    flats = noisy_flats(Truth())
    half = np.zeros((HEIGHT_PX, WIDTH_PX), bool)
    half[:, : WIDTH_PX // 2] = True
    spoilt = [replace(f, disparity_px=np.where(half, f.disparity_px, f.disparity_px + 0.4))
              for f in flats]
    unsure = [replace(f, sigma_px=np.where(half, 0.05, 50.0)) for f in spoilt]
    masked = [replace(f, valid=half) for f in spoilt]
    for kind in (unsure, masked):
        assert calibrate_flats(kind).focus_diopters == pytest.approx(1.05, abs=0.01)
    assert abs(calibrate_flats(spoilt).focus_diopters - 1.05) > 0.1, "the control"


def test_a_reference_depth_map_with_holes_and_displaced_edges_gives_k_and_focus() -> None:
    random = np.random.default_rng(1)
    steps = np.repeat([4.0, 0.6, 2.0, 1.0, 3.0, 0.8], WIDTH_PX // 6)
    depth = np.tile(steps, (HEIGHT_PX, 1))
    d = Truth().disparity(depth) + 0.05 * random.standard_normal(depth.shape)
    seen = np.roll(depth, 3, axis=1)  # the second device stands beside the camera
    seen[:8], seen[8:10], seen[10:12] = np.nan, np.inf, 0.0
    found = calibrate_reference(Observation(d, seen))
    assert found.gain_px_m == pytest.approx(1.4, rel=0.03)
    assert found.focus_diopters == pytest.approx(1.05, abs=0.02)
    assert found.outlier_share > 0.1, "of 96 columns 15 lie beside a displaced edge"


@pytest.mark.parametrize(
    ("flats", "named"),
    [(noisy_flats(Truth(), depths_m=(1.0,)), "at least two"),
     (noisy_flats(Truth(), depths_m=(1.0, 1.1)), r"span 0\.091 dioptres"),
     ([replace(f, valid=np.zeros((HEIGHT_PX, WIDTH_PX), bool)) for f in noisy_flats(Truth())],
      "flat 0.6 m: 0 pixels"),
     ([*noisy_flats(Truth()), Observation(np.zeros((8, 8)), 1.0)], "one size"),
     ([replace(f, sigma_px=np.ones((2, 2))) for f in noisy_flats(Truth())], "sigma_px has shape"),
     (noisy_flats(Truth(1.4, -0.5)), r"focus = -0\.[45]")],
)
def test_impossible_calibrations_are_refused_with_number_and_remedy(
    flats: list[Observation], named: str
) -> None:
    with pytest.raises(CalibrationError, match=named):
        calibrate_flats(flats)


def test_terms_that_the_textured_places_do_not_determine_are_refused() -> None:
    stripe = np.zeros((HEIGHT_PX, WIDTH_PX), bool)
    stripe[:, 47:49] = True  # only the centre column: nothing is known of x², x⁴
    flats = [replace(f, valid=stripe) for f in
             noisy_flats(Truth(), depths_m=(0.5, 0.8, 1.5, 3.0))]
    stripe[:, 40:56] = True
    with pytest.raises(CalibrationError, match=r"condition|gain field falls"):
        calibrate_flats(flats, gain_terms=all_terms(6))


def test_metres_follow_the_fields_pixel_by_pixel() -> None:
    lens = replace(LENS, kappa=0.1, gain_field=CANON_LIKE, focus_field=CURVED)
    depth = np.tile(np.linspace(0.4, 3.0, WIDTH_PX), (HEIGHT_PX, 1))
    k = lens.gain_map_px_m(WIDTH_PX, HEIGHT_PX)
    focus = lens.focus_map_diopters(WIDTH_PX, HEIGHT_PX)
    found, sigma = depth_from_disparity(k * (focus - 1 / depth), np.full_like(depth, 0.05), k,
                                        focus, min_m=0.1, max_m=10)
    assert np.allclose(found, depth, rtol=1e-3)
    assert np.allclose(sigma, depth**2 * 0.05 / k, rtol=1e-2)
    assert sigma[0, 0] / depth[0, 0]**2 > 1.5 * sigma[0, 48] / depth[0, 48]**2, "k falls off"


def test_the_error_of_the_lens_adds_in_squares_to_that_of_the_disparity() -> None:
    """σ_d/k = 0.03 D and σ_F = 0.04 D make 0.05 D; σ_k/k = 10 % of 1 D adds 0.1 D to 0.112 D."""
    disparity, sigma = np.full(1, -1.0), np.full(1, 0.03)  # k 1, focus 1 D: 1/Z = 2 D
    limits = {"min_m": 0.1, "max_m": 10.0}
    _, plain = depth_from_disparity(disparity, sigma, 1.0, 1.0, **limits)
    _, focus = depth_from_disparity(disparity, sigma, 1.0, 1.0, focus_sigma_diopters=0.04, **limits)
    _, both = depth_from_disparity(disparity, sigma, 1.0, 1.0, focus_sigma_diopters=0.04,
                                   gain_sigma_ratio=0.1, **limits)
    assert plain[0] == pytest.approx(0.25 * 0.03)
    assert focus[0] == pytest.approx(0.25 * 0.05)
    assert both[0] == pytest.approx(0.25 * math.hypot(0.05, 0.1))
    with pytest.raises(ValueError, match="focus_sigma_diopters"):
        replace(LENS, focus_sigma_diopters=-0.1)


def test_a_calibration_survives_its_file_and_makes_the_lens_it_was_made_of(tmp_path: Path) -> None:
    truth = Truth(gain=CANON_LIKE, curvature=CURVED)
    found = calibrate_flats(noisy_flats(truth), gain_terms=even_terms(4, 0),
                            focus_terms=even_terms(2, 2), source="two flats", date="2026-01-02")
    read = LensCalibration.from_yaml(found.to_yaml(tmp_path / "lens.yaml"))
    assert read.source == "two flats" and read.date == "2026-01-02"
    lens, again = found.apply(LENS), read.apply(LENS)
    assert lens.disparity_gain_px_m == pytest.approx(found.gain_px_m)
    assert np.allclose(lens.gain_map_px_m(9, 9), again.gain_map_px_m(9, 9), rtol=1e-5)
    assert found.coverage == pytest.approx(1.0), "both flats fill the image"
    parameters = read.camera_parameters(LENS)
    assert parameters["lens.kappa"] == pytest.approx(lens.kappa, rel=1e-4)
    assert lens.gain_field is not None
    stored = FieldPolynomial.from_dict(yaml.safe_load(str(parameters["lens.gain_field"])))
    np.testing.assert_allclose(stored.on_grid(9, 5), lens.gain_field.on_grid(9, 5), atol=1e-5)


def test_half_the_width_has_half_the_k() -> None:
    calibration = LensCalibration(1.4, 1.0, 768, 512, gain_field=CANON_LIKE, residual_px=0.05)
    half = calibration.at_width(384)
    assert (half.gain_px_m, half.residual_px) == (pytest.approx(0.7), pytest.approx(0.025))
    assert (half.width_px, half.height_px, half.gain_field) == (384, 256, CANON_LIKE)
    coarse = replace(LENS, pixel_pitch_m=2 * LENS.pixel_pitch_m)
    assert half.apply(coarse).kappa == pytest.approx(calibration.apply(LENS).kappa), "κ has no px"


def test_the_focus_repeatability_enters_sigma_of_the_applied_lens() -> None:
    calibration = LensCalibration(1.4, 1.0, 768, 512, gain_std_px_m=0.014, focus_std_diopters=0.03)
    lens = calibration.apply(LENS, focus_repeatability_diopters=0.04)
    assert lens.focus_sigma_diopters == pytest.approx(0.05)
    assert lens.gain_sigma_ratio == pytest.approx(0.01)
    assert LensCalibration(1.4, 1.0, 8, 8).apply(LENS).focus_sigma_diopters == 0, "unknown = exact"


@pytest.mark.parametrize(("text", "named"), [
    ("[", "cannot be read"), ("other: {}", "no section lens_calibration"),
    ("lens_calibration: {gain_px_m: 1.0}", "missing"),
    ("lens_calibration: {gain_px_m: -1, focus_diopters: 1, width_px: 8, height_px: 8}", "swap"),
    ("lens_calibration: {gain_px_m: a, focus_diopters: 1, width_px: 8, height_px: 8}", "number"),
    ("lens_calibration: {gain_px_m: 1, focus_diopters: 1, width_px: 8, height_px: 8, "
     "gain_field: {q: 1}}", "gain_field"),
    ("lens_calibration: {gain_px_m: 1, focus_diopters: 1, width_px: 8, height_px: 8, "
     "gain: 1}", "unknown")])
def test_a_broken_calibration_file_is_refused_by_file_and_name(
    tmp_path: Path, text: str, named: str
) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=named) as error:
        LensCalibration.from_yaml(path)
    assert str(path) in str(error.value)


@dataclass(frozen=True)
class Capture:
    """A capture of known depth, as the benchmark has them."""

    name: str
    frame: DualPixelFrame
    depth_m: NDArray[np.float32]
    textured: NDArray[np.bool_]


def textured_capture(truth: Truth, depth_m: NDArray[np.float64], lens: ThinLens, seed: int
                     ) -> Capture:
    """A random smooth texture, displaced by half the true disparity in either view."""
    random = np.random.default_rng(seed)
    height, width = depth_m.shape
    x = np.arange(width, dtype=np.float64)
    waves = [(random.uniform(0.15, 0.5), random.uniform(0, 6.3, height)) for _ in range(12)]
    wide = Truth(truth.k, truth.focus, truth.gain)
    relative = 1 + (wide.gain.on_grid(width, height) if wide.gain else 0)
    d = truth.k * relative * (truth.focus - 1 / depth_m)

    def view(shift: NDArray[np.float64]) -> NDArray[np.float32]:
        total = sum(np.sin(w * (x + shift) + phase[:, None]) for w, phase in waves)
        return (0.5 + 0.04 * np.asarray(total)).astype(np.float32)

    intrinsics = Intrinsics(width, width, width / 2, height / 2, width, height)
    frame = DualPixelFrame(view(d / 2), view(-d / 2), None, 0, "", intrinsics, lens)
    return Capture(f"capture {seed}", frame, depth_m.astype(np.float32),
                   np.ones(depth_m.shape, bool))


def test_an_estimator_calibrates_a_lens_with_its_own_disparities() -> None:
    """Views are made by displacing a texture: no noise, so what remains is the matcher's."""
    lens = ThinLens(0.05, 4.0, 36e-3 / 256, 1.0)
    truth = Truth(k=1.5, focus=1.05, gain=FieldPolynomial(((2, 0, -0.4),)))
    measure = measured_by(
        DualPixelEstimator(load_backend("closed_form", threads=1), DualPixelOptions()))
    flats = [textured_capture(truth, np.full((64, 256), z), lens, n)
             for n, z in enumerate((0.6, 1.5))]
    found = calibrate_on_captures(flats, measure, gain_terms=((2, 0),))
    assert found.source == "capture 0, capture 1"
    assert found.gain_px_m == pytest.approx(1.5, rel=0.05)
    assert found.focus_diopters == pytest.approx(1.05, abs=0.03)
    assert found.gain_field is not None
    assert found.gain_field.to_dict()["x2"] == pytest.approx(-0.4, abs=0.08)

    steps = np.tile(np.repeat([0.6, 1.5], 128), (64, 1))
    scene = textured_capture(replace(truth, gain=None), steps, lens, 7)
    reference = calibrate_on_captures([scene], measure, gain_terms=(), flat=False)
    assert reference.gain_px_m == pytest.approx(1.5, rel=0.06)
    with pytest.raises(CalibrationError, match="lens state"):
        calibrate_on_captures([replace(scene, frame=replace(scene.frame, lens=None))], measure)
