"""The Cramér–Rao bound of disparity: by hand, and reached by the best estimator there is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from depth_fusion_ros.evaluation.disparity_bound import (
    BOUND_WINDOW_PX,
    disparity_bound_px,
    distance_to_bound,
)

SIDE = BOUND_WINDOW_PX


def test_a_ramp_by_hand() -> None:
    # slope 0.01/px, 15x15 pixels, variance 1e-4 + 3e-4: 1/sqrt(225 · 1e-4 / 4e-4)
    ramp = np.tile(0.01 * np.arange(41), (41, 1))
    bound = disparity_bound_px(ramp, ramp, noise_a=0.0, noise_b=2e-4)
    assert bound[20, 20] == pytest.approx(1 / math.sqrt(225 * 1e-4 / 4e-4), rel=1e-5)
    # in the corner the window holds 8x8 pixels; two columns there lie next to the border
    assert bound[0, 0] > bound[20, 20] * 15 / 8


def test_shot_noise_read_noise_and_render_noise_add_up() -> None:
    ramp = np.tile(0.2 + 0.01 * np.arange(31), (31, 1))
    one = disparity_bound_px(ramp, ramp, noise_a=0.0, noise_b=1e-6, extra_sigma=0.002)
    assert disparity_bound_px(ramp, ramp, noise_a=0.0, noise_b=5e-6) == pytest.approx(one)
    shot = disparity_bound_px(ramp, ramp, noise_a=1e-3, noise_b=0.0)[15, 15]
    # variance 2·1e-3·x around x = 0.35: nearly that of its mean
    flat = disparity_bound_px(ramp, ramp, noise_a=0.0, noise_b=1e-3 * 0.35)[15, 15]
    assert shot == pytest.approx(flat, rel=0.03)


def test_no_gradient_along_x_means_no_bound() -> None:
    stripes = np.tile(np.sin(np.arange(40))[:, None], (1, 40)) * 0.3 + 0.5
    assert np.isinf(disparity_bound_px(stripes, stripes, noise_a=0, noise_b=1e-6)).all()


def test_noise_of_zero_and_even_windows_are_refused() -> None:
    image = np.zeros((20, 20))
    with pytest.raises(ValueError, match="variance > 0"):
        disparity_bound_px(image, image, noise_a=1e-3, noise_b=0.0)
    with pytest.raises(ValueError, match="must be odd"):
        disparity_bound_px(image, image, noise_a=0, noise_b=1, window_px=14)
    with pytest.raises(ValueError, match="of one size"):
        disparity_bound_px(image, image[:-1], noise_a=0, noise_b=1)


def test_the_distance_is_one_for_errors_of_the_bound_and_scales_with_them() -> None:
    random = np.random.default_rng(0)
    bound = random.uniform(0.01, 0.3, 40_000)
    error = bound * random.standard_normal(bound.size)
    assert distance_to_bound(error, bound) == pytest.approx(1.0, abs=0.02)
    assert distance_to_bound(-3 * error, bound) == pytest.approx(3.0, abs=0.06)
    error[:100], bound[100:200] = np.nan, np.inf
    assert distance_to_bound(error, bound) == pytest.approx(1.0, abs=0.02)
    assert math.isnan(distance_to_bound(error[:100], bound[:100]))


@pytest.mark.parametrize("disparity_px", [0.0, 0.7])
def test_the_maximum_likelihood_shift_of_an_unknown_patch_reaches_the_bound(
    disparity_px: float
) -> None:
    """15 rows of periodic texture, seen shifted by ± d/2 with unequal shot noise, 3000 times.

    The window is one period, so the maximum-likelihood shift is the peak of the cross-correlation
    of the rows, found through the Fourier transform to any fraction of a pixel.
    """
    random = np.random.default_rng(1)
    harmonics = np.arange(1, 4)
    amplitude = random.uniform(0.02, 0.06, (SIDE, 3)) / harmonics
    phase = random.uniform(0, 2 * math.pi, (SIDE, 3))
    noise_a, noise_b = 2e-4, 2e-6

    def patch(shift_px: float, width: int) -> np.ndarray:
        x = np.arange(width) + shift_px
        angle = 2 * math.pi * harmonics[:, None] * x / SIDE + phase[..., None]
        return 0.4 + (amplitude[..., None] * np.cos(angle)).sum(1)

    left, right = (patch(sign * disparity_px / 2, 3 * SIDE) for sign in (1, -1))
    bound = disparity_bound_px(left, right, noise_a=noise_a, noise_b=noise_b)
    predicted = float(bound[SIDE // 2, SIDE + SIDE // 2])

    views = []
    for view in (left, right):
        clean = view[:, SIDE:2 * SIDE]
        sigma = np.sqrt(noise_a * clean + noise_b)
        views.append(np.fft.rfft(clean + sigma * random.standard_normal((3000, SIDE, SIDE))))
    omega = 2 * math.pi * np.arange(SIDE // 2 + 1) / SIDE
    cross = (np.conj(views[1]) * views[0]).sum(1)  # peak of Re Σ C·exp(−iωd): x_right − x_left = d
    shift = np.zeros((3000, 1))
    for _ in range(15):
        turned = cross * np.exp(-1j * omega * shift)
        slope = (omega * turned.imag).sum(1, keepdims=True)
        curvature = (omega**2 * turned.real).sum(1, keepdims=True)
        shift += slope / curvature
    assert shift.mean() == pytest.approx(disparity_px, abs=0.2 * predicted)
    assert shift.std() == pytest.approx(predicted, rel=0.15)
    assert distance_to_bound(shift[:, 0] - disparity_px, np.full(3000, predicted)) == (
        pytest.approx(1.0, abs=0.15))
