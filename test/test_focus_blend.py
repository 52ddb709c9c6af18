"""The picture that is sharp everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from wall_sweeps import FOCUS, LEFT_M, RIGHT_M, WIDTH, stack

from depth_fusion_ros.optics.focus_blend import blend_in_focus


def test_the_blend_is_sharper_than_any_slice_and_has_no_seam() -> None:
    slices = np.stack(stack())
    nearest = [int(np.abs(np.array(FOCUS) - 1 / depth).argmin()) for depth in (LEFT_M, RIGHT_M)]
    sharp = np.where((np.arange(WIDTH) < WIDTH // 2)[None, :, None], slices[nearest[0]],
                     slices[nearest[1]]).astype(float)
    error = np.abs(blend_in_focus(slices).astype(float) - sharp).mean((0, 2))
    assert error.mean() < 0.3 * min(np.abs(s.astype(float) - sharp).mean() for s in slices)
    seam = error[WIDTH // 2 - 6:WIDTH // 2 + 6].mean()
    away = np.abs(slices.astype(float) - sharp).mean((0, 1, 3)).max()
    assert seam < 0.5 * away


def test_equal_slices_give_themselves_and_flat_ones_their_mean() -> None:
    image = stack()[2]
    assert np.array_equal(blend_in_focus(np.stack([image] * 3)), image)
    flat = np.stack([np.full((64, 64, 3), level, np.uint8) for level in (100, 110)])
    assert (blend_in_focus(flat) == 105).all()


def test_blank_surfaces_are_averaged_and_so_lose_their_noise() -> None:
    random = np.random.default_rng(0)
    noisy = np.clip(120 + 2 * random.standard_normal((8, 64, 64, 3)), 0, 255).astype(np.uint8)
    assert blend_in_focus(noisy).std() < 0.6 * noisy[0].std()


@pytest.mark.parametrize("wrong", [np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 3)),
                                   np.zeros((0, 8, 8, 3), np.uint8)])
def test_what_is_no_stack_of_slices_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="slices are"):
        blend_in_focus(wrong)
