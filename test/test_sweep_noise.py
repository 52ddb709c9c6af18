"""Noise that interpolation takes from slices is put back, and nothing else is changed."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from depth_fusion_ros.estimation.sweep_alignment import align_sweep
from depth_fusion_ros.estimation.sweep_noise import with_noise_put_back

WIDTH_PX, HEIGHT_PX = 160, 120
CENTRE_PX = ((WIDTH_PX - 1) / 2, (HEIGHT_PX - 1) / 2)
SCALES = (1.0, 1.03, 1.08)
Images = NDArray[np.uint8]


def picture(seed: int = 0) -> NDArray[np.float32]:
    """Texture, smooth as a lens leaves it, with a clipped lamp and a black corner."""
    random = np.random.default_rng(seed)
    image = cv2.GaussianBlur(random.uniform(0, 255, (HEIGHT_PX, WIDTH_PX, 3)), (0, 0), 2)
    image = 120 + (image - image.mean())
    image[40:60, 40:70] = 400
    image[:20, :20] = -50
    return np.asarray(image, np.float32)


def sweep(noise: float, light: NDArray[Any] | float = 120.0) -> Images:
    """Slices through a lens that breathes by `SCALES`, each with its own noise."""
    slices = []
    for number, scale in enumerate(SCALES):
        cx, cy = CENTRE_PX
        matrix = np.array([[1 / scale, 0, cx - cx / scale], [0, 1 / scale, cy - cy / scale]])
        whole = np.broadcast_to(np.float32(light), (HEIGHT_PX, WIDTH_PX, 3)).astype(np.float32)
        image = cv2.warpAffine(whole, matrix, (WIDTH_PX, HEIGHT_PX), borderMode=cv2.BORDER_REFLECT,
                               flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP)
        fresh = np.random.default_rng(number).standard_normal(image.shape)
        slices.append(np.clip(np.rint(image + noise * fresh), 0, 255).astype(np.uint8))
    return np.stack(slices)


def resampled(images: Images) -> tuple[Images, NDArray[np.float64]]:
    """Brought to the first slice's size, and the maps."""
    maps = np.zeros((len(images), 2, 3))
    out = images.copy()
    for n, scale in enumerate(SCALES):
        maps[n, 0, 0] = maps[n, 1, 1] = scale
        maps[n, :, 2] = np.asarray(CENTRE_PX) * (1 - scale)
        if scale != 1:
            out[n] = cv2.warpAffine(images[n], maps[n], (WIDTH_PX, HEIGHT_PX),
                                    borderMode=cv2.BORDER_REPLICATE,
                                    flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP)
    return out, maps


def finest(image: Images) -> float:
    """Root mean square of the finest detail, where focus measures look."""
    rough = cv2.Laplacian(image.astype(np.float32), cv2.CV_32F)[75:-8, 8:-8]
    return float(np.sqrt(np.mean(rough**2)))


def test_all_slices_are_as_noisy_as_the_one_that_was_not_resampled() -> None:
    aligned, maps = resampled(sweep(noise=6))
    put_back = with_noise_put_back(aligned, maps)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    before, after = (each[inner].std((1, 2, 3)) for each in (aligned, put_back))
    assert before[1] < 0.93 * before[0] and before[2] < 0.93 * before[0]
    np.testing.assert_allclose(after, 6, rtol=0.04)
    assert finest(aligned[2]) < 0.92 * finest(aligned[0])
    assert finest(put_back[2]) > 0.93 * finest(put_back[0])


def test_texture_does_not_pass_for_noise() -> None:
    aligned, maps = resampled(sweep(0, picture()))
    change = with_noise_put_back(aligned, maps).astype(int) - aligned
    assert np.abs(change).max() <= 1


def test_clipped_pixels_stay_as_they_are() -> None:
    aligned, maps = resampled(sweep(5, picture()))
    put_back = with_noise_put_back(aligned, maps)
    assert not np.array_equal(put_back, aligned)
    assert (put_back[:, 45:55, 48:62] == 255).all()
    np.testing.assert_array_equal(put_back[:, :10, :10][aligned[:, :10, :10] <= 1],
                                  aligned[:, :10, :10][aligned[:, :10, :10] <= 1])


def test_slices_moved_by_whole_pixels_are_not_touched() -> None:
    images = sweep(6)
    maps = np.tile(np.eye(2, 3), (3, 1, 1))
    maps[1:, 0, 2] = (3, -2)
    assert with_noise_put_back(images, maps) is images


def test_the_same_sweep_is_always_the_same() -> None:
    aligned, maps = resampled(sweep(6))
    np.testing.assert_array_equal(with_noise_put_back(aligned, maps),
                                  with_noise_put_back(aligned, maps))


@pytest.mark.parametrize("find_drift", [True, False])
def test_an_aligned_sweep_of_a_breathing_lens_is_evenly_noisy(find_drift: bool) -> None:
    images = sweep(6, picture())
    aligned = align_sweep(images, [0.5, 1.5, 2.5], breathing_per_diopter=0.0, scales=SCALES,
                          centre_px=CENTRE_PX, reference_index=0, find_drift=find_drift)
    plain = resampled(images)[0]
    sides = [finest(stack[2]) / finest(stack[0]) for stack in (plain, aligned.images)]
    assert sides[0] < 0.9 and sides[1] > 0.94
