"""Thin-lens optics: identities that hold for every lens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth_fusion_ros.optics.intrinsics import Intrinsics
from depth_fusion_ros.optics.thin_lens import (
    IDEAL_DUAL_PIXEL_KAPPA,
    ThinLens,
    breathing_scale,
    depth_from_disparity,
    diopters,
    inverse_depth_from_disparity,
    thin_lens_breathing_per_diopter,
)

lenses = st.builds(
    ThinLens,
    focal_length_m=st.floats(2e-3, 0.08),
    f_number=st.floats(1.2, 11),
    pixel_pitch_m=st.floats(1e-6, 5e-5),
    focus_diopters=st.floats(0.02, 5.0),
    kappa=st.floats(0.05, 0.45),
)
depths_m = st.floats(0.15, 50.0)


@given(lenses)
def test_blur_and_disparity_are_zero_in_the_focus_plane(lens: ThinLens) -> None:
    focus_m = 1 / lens.focus_diopters
    assert lens.signed_coc_px(focus_m) == pytest.approx(0, abs=1e-9 * lens.blur_gain_px_m)
    assert lens.disparity_px(focus_m) == pytest.approx(0, abs=1e-9 * lens.blur_gain_px_m)


@given(lenses, st.floats(1.01, 20))
def test_sign_flips_across_the_focus_plane(lens: ThinLens, factor: float) -> None:
    focus_m = 1 / lens.focus_diopters
    assert lens.signed_coc_px(focus_m * factor) > 0, "beyond the focus plane blur is positive"
    assert lens.signed_coc_px(focus_m / factor) < 0, "nearer than the focus plane it is negative"


@given(lenses, depths_m, depths_m)
def test_blur_is_affine_in_inverse_depth(lens: ThinLens, a_m: float, b_m: float) -> None:
    middle_m = 2 / (diopters(a_m) + diopters(b_m))
    mean = (lens.signed_coc_px(a_m) + lens.signed_coc_px(b_m)) / 2
    assert lens.signed_coc_px(middle_m) == pytest.approx(
        mean, rel=1e-9, abs=1e-8 * lens.blur_gain_px_m)


@given(lenses, depths_m)
def test_blur_equals_the_textbook_thin_lens_formula(lens: ThinLens, depth_m: float) -> None:
    f, g = lens.focal_length_m, 1 / lens.focus_diopters
    textbook_m = f**2 / lens.f_number / (g - f) * (depth_m - g) / depth_m
    assert lens.signed_coc_px(depth_m) == pytest.approx(
        textbook_m / lens.pixel_pitch_m, rel=1e-6, abs=1e-7)


@given(lenses, depths_m)
def test_disparity_is_kappa_times_blur_and_never_exceeds_infinity(
    lens: ThinLens, depth_m: float
) -> None:
    assert lens.disparity_px(depth_m) == pytest.approx(
        lens.kappa * lens.signed_coc_px(depth_m), rel=1e-9, abs=1e-12)
    assert lens.disparity_px(depth_m) < lens.disparity_at_infinity_px
    assert lens.disparity_px(math.inf) == pytest.approx(lens.disparity_at_infinity_px)


@given(lenses, depths_m)
def test_depth_survives_the_round_trip_through_disparity(lens: ThinLens, depth_m: float) -> None:
    disparity = lens.disparity_px(depth_m)
    inverse = inverse_depth_from_disparity(
        disparity, lens.disparity_gain_px_m, lens.focus_diopters)
    assert 1 / inverse == pytest.approx(depth_m, rel=1e-6)
    depth, sigma = depth_from_disparity(
        np.float32([disparity]), np.float32([0.1]), lens.disparity_gain_px_m,
        lens.focus_diopters, min_m=0.1, max_m=100.0)
    # float32 disparity: the error grows with the ratio of 1/g to 1/Z
    assert depth[0] == pytest.approx(depth_m, rel=1e-5 * (1 + depth_m * lens.focus_diopters))
    assert sigma[0] == pytest.approx(
        float(depth[0]) ** 2 * 0.1 / lens.disparity_gain_px_m, rel=1e-4)


@given(lenses, st.floats(0.3, 5.0))
def test_sigma_is_the_first_order_error_of_depth(lens: ThinLens, depth_m: float) -> None:
    step_px = 1e-4 * lens.disparity_gain_px_m / depth_m
    disparity = lens.disparity_px(depth_m)
    moved = 1 / inverse_depth_from_disparity(
        disparity + step_px, lens.disparity_gain_px_m, lens.focus_diopters)
    predicted = depth_m**2 * step_px / lens.disparity_gain_px_m
    assert moved - depth_m == pytest.approx(predicted, rel=1e-3)


def test_range_limits_become_infinities_and_nan_stays_nan() -> None:
    lens = ThinLens(0.012, 2.0, 27.6e-6, 1.0)
    k = lens.disparity_gain_px_m
    wanted_m = np.array([0.1, 0.5, 2.0, 9.0])
    disparity = np.append(lens.disparity_px(wanted_m), [lens.disparity_at_infinity_px * 1.1,
                                                        np.nan]).astype(np.float32)
    depth, sigma = depth_from_disparity(
        disparity, np.full(6, 0.05, np.float32), k, 1.0, min_m=0.2, max_m=8.0)
    assert depth[0] == -np.inf, "nearer than min_m"
    assert depth[1:3] == pytest.approx([0.5, 2.0], rel=1e-5)
    assert depth[3] == np.inf, "farther than max_m"
    assert depth[4] == np.inf, "beyond infinity is far, not negative"
    assert np.isnan(depth[5])
    assert np.isfinite(sigma).tolist() == [False, True, True, False, False, False]


@pytest.mark.parametrize(
    ("field", "value"),
    [("focal_length_m", 0.0), ("f_number", -1.0), ("pixel_pitch_m", math.nan),
     ("kappa", 0.0), ("focus_diopters", -0.1), ("focus_diopters", 100.0)],
)
def test_impossible_lens_is_refused_by_name_and_value(field: str, value: float) -> None:
    good = {"focal_length_m": 0.012, "f_number": 2.0, "pixel_pitch_m": 1e-6,
            "focus_diopters": 1.0, "kappa": 0.4}
    with pytest.raises(ValueError, match=field) as error:
        ThinLens(**{**good, field: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(("gain", "low", "high"), [(0.0, 0.1, 1.0), (1.0, 1.0, 0.5),
                                                   (math.nan, 0.1, 1.0), (1.0, 0.0, 1.0)])
def test_inversion_refuses_impossible_gain_and_range(gain: float, low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"must be|needs"):
        depth_from_disparity(np.zeros(1), np.zeros(1), gain, 1.0, min_m=low, max_m=high)


@given(st.floats(0, 8), st.floats(0, 8), st.floats(0, 0.1))
def test_breathing_scale_is_one_at_the_reference_and_inverts(
    a: float, b: float, beta: float
) -> None:
    assert breathing_scale(a, a, beta) == 1.0
    assert breathing_scale(a, b, beta) * breathing_scale(b, a, beta) == pytest.approx(1.0)


@given(st.floats(2e-3, 0.03), st.floats(0, 2))
def test_thin_lens_breathing_matches_its_image_distance(f_m: float, focus: float) -> None:
    near = ThinLens(f_m, 2.0, 1e-6, focus)
    far = ThinLens(f_m, 2.0, 1e-6, 0.0)
    model = breathing_scale(focus, 0.0, thin_lens_breathing_per_diopter(f_m))
    assert near.focal_length_px / far.focal_length_px == pytest.approx(
        model, rel=2 * (f_m * focus) ** 2 + 1e-9)


def test_impossible_breathing_is_refused() -> None:
    with pytest.raises(ValueError, match="breathing_per_diopter"):
        breathing_scale(6.0, 0.0, -0.2)


def test_ideal_kappa_is_the_half_disc_centroid_gap() -> None:
    x = np.linspace(-1, 1, 200_001)
    chord = np.sqrt(1 - x**2)
    right = (x * chord)[x > 0].sum() / chord[x > 0].sum()
    assert pytest.approx(IDEAL_DUAL_PIXEL_KAPPA, rel=1e-4) == 2 * right / 2


def test_resized_intrinsics_keep_the_viewing_rays_of_the_borders() -> None:
    full = Intrinsics(500, 480, 319.5, 239.5, 640, 480)
    half = full.resized(320, 240)
    for x_full, x_half in ((-0.5, -0.5), (639.5, 319.5)):
        assert (x_full - full.cx_px) / full.fx_px == pytest.approx(
            (x_half - half.cx_px) / half.fx_px)
