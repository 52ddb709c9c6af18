"""Known distances fix what a lens with wrong dioptres leaves open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth_fusion_ros.estimation.estimate import (
    DepthEstimate,
    Intrinsics,
    Provenance,
    ScaleState,
    SweepFacts,
)
from depth_fusion_ros.estimation.scale_anchor import (
    PER_BIN,
    AnchorFit,
    ScaleAnchor,
    Seen,
    seen_diopters,
)
from depth_fusion_ros.optics.thin_lens import depth_from_disparity

WHOLE = (slice(None), slice(None))


def seen_at(depth_m: float, scale: float, offset: float, sigma: float = 0.005) -> Seen:
    """What a lens says of a surface if 1/Z = scale·r + offset."""
    return Seen((1 / depth_m - offset) / scale, sigma)


def estimate(label: Provenance = Provenance.MEASURED, diopters: float = 1.0) -> DepthEstimate:
    shape = (8, 10)
    blank = np.full(shape, np.nan, np.float32)
    return DepthEstimate(
        blank, blank, np.full(shape, label, np.uint8), blank, blank, 0, "camera",
        Intrinsics(10, 10, 4.5, 3.5, 10, 8), ScaleState.RELATIVE, "closed_form",
        lens_diopters=np.full(shape, diopters, np.float32))


@given(st.floats(0.3, 4.0), st.floats(0.3, 4.0), st.floats(-1.0, 1.0), st.floats(0.5, 2.0))
def test_two_distances_that_differ_fix_scale_and_offset(
    first_m: float, ratio: float, offset: float, scale: float
) -> None:
    second_m = first_m * (1 + ratio)
    anchor = ScaleAnchor()
    for depth_m in (first_m, second_m):
        anchor.observe(seen_at(depth_m, scale, offset), depth_m, 0.001)
    fit = anchor.fit()
    assert fit is not None
    if fit.fixes_scale:
        assert fit.scale == pytest.approx(scale, rel=1e-6)
        assert fit.offset_diopters == pytest.approx(offset, abs=1e-5)
    else:
        assert abs(1 / first_m - 1 / second_m) / scale < 0.35


def test_one_distance_fixes_the_offset_alone() -> None:
    anchor = ScaleAnchor()
    for _ in range(5):
        anchor.observe(seen_at(1.25, 1.0, -0.4), 1.25, 0.01)
    fit = anchor.fit()
    assert fit is not None and not fit.fixes_scale
    assert (fit.scale, fit.observations) == (1.0, 5)
    assert fit.offset_diopters == pytest.approx(-0.4)
    assert 0 < fit.sigma_diopters < 0.01


def test_a_long_stand_before_one_wall_does_not_outvote_the_others() -> None:
    anchor = ScaleAnchor()
    anchor.observe(seen_at(0.5, 1.0, 0.1), 0.5, 0.001)
    for _ in range(1000):
        anchor.observe(seen_at(2.0, 1.0, 0.1), 2.0, 0.001)
    fit = anchor.fit()
    assert fit is not None and fit.observations == 1 + PER_BIN


def test_the_corrected_lens_gives_the_known_distance_with_a_sigma_that_holds_it() -> None:
    anchor = ScaleAnchor()
    random = np.random.default_rng(0)
    for depth_m in (0.5, 0.8, 1.5, 3.0):
        noisy = replace(seen_at(depth_m, 0.8, 0.3, 0.02))
        anchor.observe(Seen(noisy.diopters + 0.02 * random.standard_normal(), 0.02), depth_m, 0.01)
    fit = anchor.fit()
    assert fit is not None and fit.fixes_scale
    gain, focus = fit.corrected(10.0, 1.2)
    disparity = np.array([10.0 * (1.2 - (1 / 1.1 - 0.3) / 0.8)])
    depth, sigma = depth_from_disparity(disparity, np.zeros(1), gain, focus, min_m=0.1, max_m=9.0,
                                        focus_sigma_diopters=fit.sigma_diopters)
    assert abs(depth[0] - 1.1) < 2 * sigma[0] < 0.15


def test_a_scale_that_no_lens_has_is_refused_with_what_to_check() -> None:
    anchor = ScaleAnchor()
    anchor.observe(Seen(1.0, 0.005), 1.0, 0.001)
    anchor.observe(Seen(2.0, 0.005), 2.0, 0.001)  # nearer is farther
    assert anchor.fit() is None
    assert "dp.swap_views" in anchor.refusal and "reset_anchor" in anchor.refusal
    anchor.reset()
    assert anchor.fit() is None and anchor.refusal == ""


@pytest.mark.parametrize(("range_m", "sigma_m"), [
    (0.0, 0.1), (-1.0, 0.1), (float("nan"), 0.1), (float("inf"), 0.1), (1.0, 0.0)])
def test_what_is_no_distance_is_refused(range_m: float, sigma_m: float) -> None:
    with pytest.raises(ValueError, match="REP-117"):
        ScaleAnchor().observe(Seen(1.0, 0.01), range_m, sigma_m)


def test_a_region_is_seen_by_the_median_of_what_was_measured() -> None:
    made = estimate()
    assert made.lens_diopters is not None
    made.lens_diopters[0] = 50.0
    seen = seen_diopters(made, WHOLE)
    assert seen is not None and seen.diopters == 1.0 and 0 < seen.sigma_diopters < 0.01


@pytest.mark.parametrize("label", [Provenance.TEXTURELESS, Provenance.SATURATED,
                                   Provenance.PRIOR_ONLY, Provenance.MOTION_REJECTED])
def test_a_region_that_was_not_measured_anchors_nothing(label: Provenance) -> None:
    assert seen_diopters(estimate(label), WHOLE) is None


def test_what_a_wrong_scale_puts_out_of_range_still_anchors_but_not_beyond_a_sweep() -> None:
    beyond = estimate(Provenance.OUT_OF_RANGE, -0.3)
    seen = seen_diopters(beyond, WHOLE)
    assert seen is not None and seen.diopters == pytest.approx(-0.3)
    assert seen_diopters(replace(beyond, sweep=SweepFacts(0.0, 5, 2.0, 0.5)), WHOLE) is None


def test_a_region_outside_the_image_or_without_a_lens_anchors_nothing() -> None:
    assert seen_diopters(estimate(), (slice(100, 120), slice(0, 5))) is None
    assert seen_diopters(replace(estimate(), lens_diopters=None), WHOLE) is None


def test_a_correction_of_one_and_zero_changes_nothing() -> None:
    assert AnchorFit(1.0, 0.0, 0.01, 1, False).corrected(7.0, 0.5) == (7.0, 0.5)
