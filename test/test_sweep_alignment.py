"""Focus breathing and drift of sweeps: synthetic motion comes out again, whatever the blur."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from depth_fusion_ros.estimation.sweep_alignment import (
    align_sweep,
    compensate_breathing,
    estimate_drift_px,
)

WIDTH_PX, HEIGHT_PX, MARGIN_PX = 320, 224, 140
CENTRE_PX = (163.0, 109.5)
Image = NDArray[np.uint8]


def texture(seed: int) -> NDArray[np.float32]:
    """Rectangles of all sizes on a canvas larger than the view."""
    random = np.random.default_rng(seed)
    canvas = np.full((HEIGHT_PX + 2 * MARGIN_PX, WIDTH_PX + 2 * MARGIN_PX), 120, np.float32)
    for _ in range(260):
        x, y = (int(v) for v in random.integers(0, (canvas.shape[1], canvas.shape[0])))
        w, h = (int(v) for v in random.integers(4, 70, 2))
        cv2.rectangle(canvas, (x, y), (x + w, y + h), float(random.uniform(30, 200)), -1)
    return canvas


def view(canvas: NDArray[Any], *, drift_px: tuple[float, float] = (0, 0),
         scale: float = 1.0, gain: float = 1.0, seed: int = 0) -> Image:
    """What is at p of the reference is at c + scale·(p + drift − c); with photon noise."""
    cx, cy = CENTRE_PX
    dx, dy = (d - MARGIN_PX for d in drift_px)
    matrix = np.array([[scale, 0, scale * (dx - cx) + cx], [0, scale, scale * (dy - cy) + cy]])
    image = cv2.warpAffine(canvas, matrix, (WIDTH_PX, HEIGHT_PX), flags=cv2.INTER_CUBIC)
    noise = np.random.default_rng(seed).standard_normal((HEIGHT_PX, WIDTH_PX, 3))
    return np.clip(gain * image[..., None] + 2 * noise, 0, 255).astype(np.uint8)


def refocused(canvas: NDArray[np.float32], focus_diopters: float) -> NDArray[np.float32]:
    """The canvas as two walls, left at 1 D and right at 3 D, each blurred by its defocus."""
    walls = [cv2.GaussianBlur(canvas, (0, 0), 0.4 + 1.2 * abs(focus_diopters - wall))
             for wall in (1.0, 3.0)]
    right = np.arange(canvas.shape[1]) > canvas.shape[1] / 2
    return np.where(right, walls[1], walls[0]).astype(np.float32)


def drifting_sweep(count: int, per_slice_px: tuple[float, float], *, beta: float = 0.0,
                   gains: tuple[float, ...] = (1.0,)
                   ) -> tuple[list[Image], list[float], NDArray[np.float64]]:
    """Images, focus and drift relative to the middle slice."""
    canvas = texture(count)
    focus = [float(f) for f in np.linspace(0, 4, count)]
    drift = (np.arange(count) - count // 2)[:, None] * np.array(per_slice_px)
    middle = 1 + beta * focus[count // 2]
    images = [view(refocused(canvas, f), drift_px=(d[0], d[1]), scale=(1 + beta * f) / middle,
                   gain=gains[i % len(gains)], seed=i)
              for i, (f, d) in enumerate(zip(focus, drift))]
    return images, focus, drift


# -- breathing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", [0, 2, -1])
def test_breathing_of_4_percent_per_dioptre_leaves_less_than_half_a_pixel(reference: int) -> None:
    focus, beta = [0.0, 1.0, 2.5, 4.0], 0.04
    points = [(x, y) for x in range(60, 280, 40) for y in range(50, 190, 35)]
    images = []
    for f in focus:
        scale = (1 + beta * f) / (1 + beta * focus[reference])
        y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
        dots = sum(np.exp(-((x - CENTRE_PX[0] - scale * (px - CENTRE_PX[0])) ** 2
                            + (y - CENTRE_PX[1] - scale * (py - CENTRE_PX[1])) ** 2) / 8)
                   for px, py in points)
        images.append(np.repeat((250 * dots).astype(np.uint8)[..., None], 3, 2))
    aligned, valid = compensate_breathing(images, focus, beta, reference, CENTRE_PX)
    errors = []
    for image in aligned:
        for px, py in points:
            window = image[py - 8:py + 9, px - 8:px + 9, 0].astype(float)
            at = np.arange(-8, 9)
            errors.append(np.hypot((window.sum(0) * at).sum(), (window.sum(1) * at).sum())
                          / window.sum())
    assert all(valid[py - 8:py + 9, px - 8:px + 9].all() for px, py in points)
    assert max(errors) < 0.5, "the aim"
    assert max(errors) < 0.1, "what it reaches"


def test_pixels_without_a_source_are_marked_and_repeat_the_border() -> None:
    images = [np.full((60, 80, 3), 200, np.uint8)] * 2
    aligned, valid = compensate_breathing(images, [0.0, 5.0], 0.04, 1, (39.5, 29.5))
    assert valid.all(), "the reference shows less than the other slice"
    aligned, valid = compensate_breathing(images, [0.0, 5.0], 0.04, 0, (39.5, 29.5))
    # 80 px of the slice at 5 D are 80 / 1.2 px of the reference
    assert valid[30].sum() == pytest.approx(80 / 1.2, abs=1)
    assert valid[:, 40].sum() == pytest.approx(60 / 1.2, abs=1)
    assert (aligned == 200).all()


def test_without_breathing_the_slices_are_untouched() -> None:
    images = [view(texture(1), seed=i) for i in range(2)]
    aligned, valid = compensate_breathing(images, [0.0, 3.0], 0.0, 0, CENTRE_PX)
    assert np.array_equal(aligned, images)
    assert valid.all()


# -- drift --------------------------------------------------------------------------------------


@pytest.mark.parametrize("drift_px", [(0.0, 0.0), (0.4, -0.3), (-7.3, 3.6), (24.0, 31.5)])
def test_drift_between_differently_blurred_and_exposed_images_is_found(
    drift_px: tuple[float, float],
) -> None:
    canvas = texture(2)
    reference = view(cv2.GaussianBlur(canvas, (0, 0), 0.5))
    other = view(cv2.GaussianBlur(canvas, (0, 0), 3.0), drift_px=drift_px, gain=0.7, seed=1)
    dx, dy, response = estimate_drift_px(reference, other)
    assert (dx, dy) == pytest.approx(drift_px, abs=0.25)
    assert 0.4 < response <= 1


def test_drift_of_a_large_image_is_in_its_own_pixels() -> None:
    canvas = cv2.resize(texture(3), None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    reference = canvas[100:1300, 100:1700].astype(np.uint8)
    other = canvas[94:1294, 111:1711].astype(np.uint8)
    assert estimate_drift_px(reference, other)[:2] == pytest.approx((-11, 6), abs=0.5)


def test_images_of_different_scenes_have_no_drift() -> None:
    dx, dy, response = estimate_drift_px(view(texture(4)), view(texture(5)))
    assert np.isnan([dx, dy]).all()
    assert response < 0.4


@pytest.mark.parametrize("blank", ["constant", "noise"])
def test_the_drift_of_a_blank_image_is_unknown(blank: str) -> None:
    random = np.random.default_rng(0)
    level = np.full((HEIGHT_PX, WIDTH_PX, 3), 90.0)
    images = [(level + (4 * random.standard_normal(level.shape) if blank == "noise" else 0)
               ).astype(np.uint8) for _ in range(3)]
    assert np.isnan(estimate_drift_px(images[0], view(texture(6)))[:2]).all()
    assert np.isnan(estimate_drift_px(images[0], images[1])[:2]).all()
    aligned = align_sweep(images, [0, 1, 2], breathing_per_diopter=0.01, centre_px=CENTRE_PX)
    assert "drift unknown for slices 0, 2" in aligned.reason
    assert not aligned.rejected
    assert np.isnan(aligned.motion_px)


# -- sweeps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, 10])
@pytest.mark.parametrize("gains", [(1.0,), (1.0, 0.7, 0.85)], ids=["steady", "exposure"])
def test_a_drift_of_one_pixel_per_slice_is_undone_whatever_the_blur(
    count: int, gains: tuple[float, ...]
) -> None:
    images, focus, drift = drifting_sweep(count, (0.8, -0.6), beta=0.04, gains=gains)
    aligned = align_sweep(images, focus, breathing_per_diopter=0.04, centre_px=CENTRE_PX)
    assert np.linalg.norm(aligned.drift_px - drift, axis=1).max() < 0.3
    assert aligned.motion_px == pytest.approx(count - 1, abs=0.3)
    assert not aligned.rejected
    assert ("motion.warn_px" in aligned.reason) == (count - 1 >= 2)
    # the aligned slices are what a camera without drift and breathing would have seen
    canvas = texture(count)
    valid = aligned.valid_mask
    assert 0.7 < valid.mean() < 1
    for i, f in enumerate(focus):
        wanted = view(refocused(canvas, f), gain=gains[i % len(gains)]).astype(float)
        difference = np.abs(aligned.images[i].astype(float) - wanted)[valid].mean()
        before = np.abs(images[i].astype(float) - wanted)[valid].mean()
        assert difference < 6
        assert abs(i - count // 2) < 2 or difference < 0.7 * before


def test_a_sweep_that_stands_still_gives_no_reason_and_keeps_its_pixels() -> None:
    images, focus, _ = drifting_sweep(5, (0, 0))
    aligned = align_sweep(images, focus, breathing_per_diopter=0, centre_px=CENTRE_PX)
    assert (aligned.reason, aligned.rejected, aligned.reference_index) == ("", False, 2)
    assert aligned.motion_px < 0.3
    assert np.array_equal(aligned.images[2], images[2])


def test_a_drift_of_fifteen_pixels_per_slice_is_rejected_with_the_remedy() -> None:
    images, focus, _ = drifting_sweep(5, (15, 0))
    aligned = align_sweep(images, focus, breathing_per_diopter=0, centre_px=CENTRE_PX)
    assert aligned.rejected
    assert "motion.reject_px = 12" in aligned.reason
    assert aligned.motion_px == pytest.approx(60, abs=1)
    assert np.array_equal(aligned.images, images), "not moved"


def test_a_blank_slice_is_passed_over_by_the_chain() -> None:
    images, focus, drift = drifting_sweep(5, (1, 0))
    images[3] = np.full_like(images[3], 80)
    aligned = align_sweep(images, focus, breathing_per_diopter=0, centre_px=CENTRE_PX)
    assert np.isnan(aligned.drift_px[3]).all()
    assert aligned.drift_px[4] == pytest.approx(drift[4], abs=0.3)
    assert "drift unknown for slices 3:" in aligned.reason
    assert np.array_equal(aligned.images[3], images[3])


def test_slices_that_do_not_fit_together_are_refused_with_the_rule() -> None:
    image = view(texture(1))
    with pytest.raises(ValueError, match="one size"):
        align_sweep([image, image[:100]], [0, 1], breathing_per_diopter=0, centre_px=CENTRE_PX)
    with pytest.raises(ValueError, match="one for each"):
        compensate_breathing([image, image], [0.0], 0.0, 0, CENTRE_PX)
    with pytest.raises(ValueError, match="must be one of 2 slices"):
        compensate_breathing([image, image], [0.0, 1.0], 0.0, 2, CENTRE_PX)
    with pytest.raises(ValueError, match="breathing_per_diopter"):
        compensate_breathing([image, image], [0.0, 8.0], -0.2, 0, CENTRE_PX)
    with pytest.raises(ValueError, match="one shape"):
        estimate_drift_px(image, image[:100])


def test_a_drift_of_whole_pixels_is_undone_without_touching_a_count() -> None:
    noise = np.random.default_rng(11).standard_normal(texture(11).shape)
    scene = np.clip(texture(11) + 2 * noise, 0, 255).astype(np.uint8)[..., None].repeat(3, 2)
    images = [scene[:HEIGHT_PX, dx:dx + WIDTH_PX] for dx in (0, 2, 4)]
    aligned = align_sweep(images, [0.5, 1.0, 1.5], breathing_per_diopter=0.0, centre_px=CENTRE_PX,
                          reference_index=0)
    assert np.array_equal(aligned.maps[:, 0, 2], [0, -2, -4])
    for image in aligned.images[1:]:
        assert np.array_equal(image[aligned.valid_mask], images[0][aligned.valid_mask])
