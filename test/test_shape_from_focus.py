"""Depth from focus without learning, on textures whose blur grows with their defocus."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from depth_fusion_ros.optics.edge_aware_fill import fill_diopters
from depth_fusion_ros.optics.shape_from_focus import (
    MEASURES,
    all_in_focus,
    gaussian_peak,
    modified_laplacian,
    ring_difference,
    shape_from_focus,
)

SIDE_PX = 64
BLUR_PX_PER_DIOPTER = 2.5
EVEN = np.linspace(0.5, 3.0, 9)
GAP = float(EVEN[1] - EVEN[0])
Array = NDArray[Any]

positions = st.floats(0.9, 2.6)
measures = st.sampled_from(sorted(MEASURES))


def texture(seed: int = 0, side_px: int = SIDE_PX) -> Array:
    """(H, W, 3) float32 grey 0.1..0.9, correlated over a pixel or two."""
    noise = np.random.default_rng(seed).standard_normal((side_px, side_px)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 0.8)
    return np.repeat((0.5 + 0.2 * smooth / smooth.std()).clip(0.1, 0.9)[..., None], 3, axis=2)


def sweep(true_diopters: float, focus: Array = EVEN, seed: int = 0) -> Array:
    """Float slices of a flat wall: Gaussian blur, its width proportional to the defocus."""
    sharp = texture(seed)
    return np.stack([cv2.GaussianBlur(sharp, (0, 0), np.hypot(
        0.3, BLUR_PX_PER_DIOPTER * (d - true_diopters))) for d in focus])


def noisy(stack: Array, sigma: float, seed: int = 1) -> Array:
    random = np.random.default_rng(seed)
    return (stack + sigma * random.standard_normal(stack.shape)).astype(np.float32)


def counts(stack: Array) -> Array:
    return (stack * 255).round().clip(0, 255).astype(np.uint8)


@given(measures, positions, st.integers(0, 20))
@settings(max_examples=25, deadline=None)
def test_a_wall_between_two_slices_is_found_between_them(
    measure: str, true_diopters: float, seed: int
) -> None:
    diopters, sigma = shape_from_focus(counts(sweep(true_diopters, seed=seed)), EVEN,
                                       measure=measure)
    assert diopters.dtype == sigma.dtype == np.float32
    assert np.isfinite(diopters).all()
    error = np.abs(diopters - true_diopters)
    assert np.median(error) < 0.15 * GAP
    assert np.quantile(error, 0.95) < 0.4 * GAP
    assert np.mean(error < sigma) > 0.6, "σ is not too small"
    assert np.median(sigma) < GAP


@given(measures, positions, st.floats(0.1, 40.0))
@settings(max_examples=15, deadline=None)
def test_exposure_does_not_change_the_answer(
    measure: str, true_diopters: float, gain: float
) -> None:
    stack = sweep(true_diopters)
    reference = shape_from_focus(stack, EVEN, measure=measure)
    brighter = shape_from_focus(stack * np.float32(gain), EVEN, measure=measure)
    flicker = gain * (1 + 0.2 * np.sin(np.arange(len(EVEN))))[:, None, None, None]
    unsteady = shape_from_focus((stack * flicker).astype(np.float32), EVEN, measure=measure)
    for other in (brighter, unsteady):
        assert other[0] == pytest.approx(reference[0], abs=2e-3)
        assert other[1] == pytest.approx(reference[1], rel=2e-2)


@given(measures, st.permutations(range(len(EVEN))))
@settings(max_examples=15, deadline=None)
def test_slices_may_come_in_any_order(measure: str, order: list[int]) -> None:
    stack = counts(noisy(sweep(1.6), 0.02))
    reference = shape_from_focus(stack, EVEN, measure=measure)
    shuffled = shape_from_focus(stack[order], EVEN[order], measure=measure)
    for a, b in zip(reference, shuffled):
        assert np.array_equal(a, b, equal_nan=True)


@given(measures, positions, st.lists(st.floats(0.15, 0.6), min_size=8, max_size=8))
@settings(max_examples=25, deadline=None)
def test_spacing_may_be_uneven(measure: str, true_diopters: float, gaps: list[float]) -> None:
    focus = 0.4 + np.concatenate([[0.0], np.cumsum(gaps)])
    focus = focus * 2.9 / focus[-1] if focus[-1] < 2.9 else focus
    diopters, _ = shape_from_focus(counts(sweep(true_diopters, focus)), focus, measure=measure)
    after = int(np.searchsorted(focus, true_diopters))
    gap = float(focus[after] - focus[after - 1])
    assert np.median(np.abs(diopters - true_diopters)) < 0.35 * gap


@given(st.lists(st.floats(0.05, 1.0), min_size=4, max_size=4), st.floats(0.02, 0.98),
       st.floats(0.3, 3.0), st.floats(0.01, 100.0))
def test_the_peak_of_a_gaussian_is_exact_at_any_spacing(
    gaps: list[float], share: float, width_diopters: float, height: float
) -> None:
    focus = 0.3 + np.concatenate([[0.0], np.cumsum(gaps)])
    # Nearer to an inner slice than to the first or the last one.
    low, high = (focus[0] + focus[1]) / 2, (focus[-2] + focus[-1]) / 2
    true_diopters = low + share * (high - low)
    sharpness = height * np.exp(-(focus - true_diopters) ** 2 / (2 * width_diopters**2))
    diopters, bend = gaussian_peak(sharpness[:, None, None], focus)
    assert diopters[0, 0] == pytest.approx(true_diopters, abs=1e-6)
    assert bend[0, 0] == pytest.approx(width_diopters**-2, rel=1e-3)


def test_beyond_the_ends_the_last_slice_answers_and_sigma_says_so() -> None:
    for true_diopters, end in ((0.3, 0.5), (3.3, 3.0)):
        diopters, sigma = shape_from_focus(counts(sweep(true_diopters)), EVEN)
        assert np.median(diopters) == pytest.approx(end)
        assert sigma.min() >= GAP / 2


@pytest.mark.parametrize("measure", sorted(MEASURES))
def test_blank_and_noisy_surfaces_are_not_measured(measure: str) -> None:
    blank = np.full((9, SIDE_PX, SIDE_PX, 3), 0.5, np.float32)
    assert np.isnan(shape_from_focus(blank, EVEN, measure=measure)[0]).all()
    assert np.isnan(shape_from_focus(counts(blank), EVEN, measure=measure)[0]).all()
    same = np.repeat(texture()[None], 9, axis=0)
    assert np.isnan(shape_from_focus(same, EVEN, measure=measure)[0]).all(), "nothing changes"
    diopters, sigma = shape_from_focus(counts(noisy(blank, 0.02)), EVEN, measure=measure)
    assert np.isnan(diopters).mean() > 0.9
    assert np.array_equal(np.isnan(diopters), np.isnan(sigma))
    assert not (sigma[np.isfinite(sigma)] < 0.5).any(), "what noise pretends is not believed"


@pytest.mark.parametrize("measure", sorted(MEASURES))
def test_noise_widens_sigma_which_keeps_covering_the_error(measure: str) -> None:
    medians = []
    faint = 0.5 + 0.2 * (sweep(1.7) - 0.5)
    for noise in (0.0, 0.02, 0.04):
        diopters, sigma = shape_from_focus(counts(noisy(faint, noise)), EVEN, measure=measure)
        seen = np.isfinite(diopters)
        assert seen.mean() > 0.5
        assert np.mean(np.abs(diopters - 1.7)[seen] < 2 * sigma[seen]) > 0.9
        medians.append(float(np.median(sigma[seen])))
    assert medians == sorted(medians)
    assert medians[2] > 1.2 * medians[0]


def test_two_depths_side_by_side_are_told_apart() -> None:
    stack = np.concatenate([sweep(0.9, seed=1), sweep(2.4, seed=2)], axis=2)
    diopters, _ = shape_from_focus(counts(stack), EVEN)
    assert np.median(diopters[:, :SIDE_PX - 12]) == pytest.approx(0.9, abs=0.1)
    assert np.median(diopters[:, SIDE_PX + 12:]) == pytest.approx(2.4, abs=0.1)


def test_measures_see_curvature_only_and_their_noise_gain_is_as_stated() -> None:
    ramp = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (40, 1))
    inner = (slice(8, -8),) * 2
    for measure in (modified_laplacian, ring_difference):
        assert measure(ramp)[inner].max() < 1e-10
        assert measure(np.full((40, 40), 0.7, np.float32)).max() < 1e-10
    noise = np.random.default_rng(0).standard_normal((400, 400)).astype(np.float32)
    for measure_of, gain in MEASURES.values():
        assert measure_of(noise).mean() == pytest.approx(gain, rel=0.03)
    step = np.zeros((9, 9), np.float32)
    step[4, 4] = 1
    assert modified_laplacian(step)[4, 4] == 8, "twice (2)²"
    assert modified_laplacian(step, 2)[4, 2] == 1


@pytest.mark.parametrize(("change", "said"), [
    ({"stack": np.zeros((2, 8, 8, 3))}, "N >= 3"),
    ({"stack": np.zeros((3, 8, 8))}, "must be"),
    ({"focus": np.array([1.0, 2.0])}, r"focus_diopters \(2,\)"),
    ({"focus": np.array([1.0, 2.0, 1.0])}, "all different"),
    ({"focus": np.array([1.0, 2.0, np.nan])}, "finite"),
    ({"measure": "tenengrad"}, "'tenengrad': unknown; use one of laplacian, ring"),
])
def test_what_cannot_be_measured_is_refused_with_the_rule(change: dict[str, Any], said: str
                                                         ) -> None:
    given = {"stack": np.zeros((3, 8, 8, 3)), "focus": np.array([1.0, 2.0, 3.0]),
             "measure": "ring", **change}
    with pytest.raises(ValueError, match=said):
        shape_from_focus(given["stack"], given["focus"], measure=given["measure"])


def test_the_sharp_picture_is_put_together_from_the_nearest_slices() -> None:
    stack = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.full((1, 1, 3, 3), 30, np.uint8)
    diopters = np.array([[1.1, 2.9, np.nan]], np.float32)
    picture = all_in_focus(stack, np.array([1.0, 2.0, 3.0]), diopters)
    assert picture[0, :, 0].tolist() == [0, 60, 30]
    assert picture.dtype == np.uint8


def painted(height: int = 40, width: int = 60) -> tuple[Array, Array]:
    """Two surfaces that look different: left 1 dioptre and dark, right 2 dioptres and bright."""
    truth = np.where(np.arange(width) < width // 2, 1.0, 2.0) * np.ones((height, 1))
    picture = np.where(truth < 1.5, 60, 180).astype(np.uint8)[..., None].repeat(3, 2)
    return truth.astype(np.float32), picture


def test_blank_surfaces_are_filled_up_to_their_own_border() -> None:
    truth, picture = painted()
    known = np.zeros(truth.shape, bool)
    known[:, :4] = known[:, -4:] = True
    diopters = np.where(known, truth, np.nan).astype(np.float32)
    sigma = np.where(known, 0.05, np.nan).astype(np.float32)
    filled, sigma_filled = fill_diopters(diopters, sigma, picture)
    assert filled.dtype == sigma_filled.dtype == np.float32
    assert np.abs(filled - truth)[:, :27].max() < 0.1
    assert np.abs(filled - truth)[:, 33:].max() < 0.1
    assert sigma_filled[20, 25] > 1.5 * sigma_filled[20, 1], "a guess is less certain"
    # The scale of a float picture is 0..1: the same answer.
    again, _ = fill_diopters(diopters, sigma, picture.astype(np.float32) / 255)
    assert again == pytest.approx(filled, abs=1e-4)


def test_sure_measurements_outvote_unsure_ones() -> None:
    random = np.random.default_rng(0)
    diopters = np.full((48, 48), 1.0, np.float32)
    sigma = np.full((48, 48), 0.02, np.float32)
    wrong = random.random((48, 48)) < 0.4
    diopters[wrong], sigma[wrong] = 3.0, 0.6
    filled, sigma_filled = fill_diopters(diopters, sigma, np.full((48, 48, 3), 90, np.uint8))
    assert filled == pytest.approx(1.0, abs=0.1)
    assert sigma_filled.max() < 0.3


@given(st.floats(0.2, 5.0), st.floats(0.001, 1.0), st.integers(9, 40), st.integers(9, 40))
@settings(max_examples=20, deadline=None)
def test_one_depth_stays_one_depth_whatever_the_size(
    value: float, sigma_diopters: float, height: int, width: int
) -> None:
    random = np.random.default_rng(height * width)
    diopters = np.full((height, width), value, np.float32)
    diopters[random.random((height, width)) < 0.5] = np.nan
    diopters[0, 0] = value
    picture = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
    filled, sigma = fill_diopters(
        diopters, np.full((height, width), sigma_diopters, np.float32), picture)
    assert filled == pytest.approx(value, rel=1e-5)
    assert (sigma > 0).all() and np.isfinite(sigma).all()


def test_where_nothing_is_known_nothing_is_made_up() -> None:
    nothing = np.full((12, 12), np.nan, np.float32)
    picture = np.zeros((12, 12, 3), np.uint8)
    assert all(np.isnan(image).all() for image in fill_diopters(nothing, nothing, picture))
    with pytest.raises(ValueError, match=r"picture \(12, 12\)"):
        fill_diopters(nothing, nothing, picture[..., 0])


def test_sharpness_is_measured_where_nothing_was_interpolated() -> None:
    random = np.random.default_rng(3)
    fine = (255 * random.random((64, 96, 3))).astype(np.uint8)
    slices = np.stack([cv2.GaussianBlur(fine, (0, 0), 0.5 + 0.6 * abs(d - 1.4))
                       for d in FINE_FOCUS])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5]])
    maps = np.stack([half if d == np.float32(1.4) else np.eye(2, 3) for d in FINE_FOCUS])
    seen = np.stack([cv2.warpAffine(image, matrix, (96, 64), borderMode=cv2.BORDER_REPLICATE,
                                    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
                     for image, matrix in zip(slices, maps)])
    inside = slice(12, -12), slice(12, -12)
    fooled, _ = shape_from_focus(seen, FINE_FOCUS)
    right, _ = shape_from_focus(seen, FINE_FOCUS, unaligned=(slices, maps))
    assert float(np.nanmean(np.abs(right[inside] - 1.4))) < 0.05
    assert float(np.nanmean(np.abs(fooled[inside] - 1.4))) > 0.15


FINE_FOCUS = np.array([0.8, 1.1, 1.4, 1.7, 2.0], np.float32)
