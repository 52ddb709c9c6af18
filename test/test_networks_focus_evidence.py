"""Closed-form evidence of a focus sweep in torch, and the choice between it and the softmax."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from depth_fusion_ros.networks.focus_evidence import (
    NOISE_GAIN,
    WINDOWS_CELLS,
    focus_evidence,
    noise_level,
    ring_energy,
)
from depth_fusion_ros.networks.focus_volume import FocusVolume, FocusVolumeConfig
from depth_fusion_ros.optics.shape_from_focus import shape_from_focus

FOCUS = np.linspace(0.5, 3.0, 9, dtype=np.float32)
GAP = float(FOCUS[1] - FOCUS[0])
MIDDLE = slice(8, -8)


def wall(true_diopters: float, seed: int = 0, noise: float = 0.002, side_px: int = 96) -> Tensor:
    """Grey slices (1, N, H, W) of a flat textured wall, blurred in proportion to the defocus."""
    random = np.random.default_rng(seed)
    fine = cv2.GaussianBlur(random.standard_normal((side_px, side_px)), (0, 0), 0.8)
    sharp = (0.5 + 0.15 * fine / fine.std()).astype(np.float32)
    slices = [cv2.GaussianBlur(sharp, (0, 0), np.hypot(0.3, 2.5 * (d - true_diopters)))
              for d in FOCUS]
    stack = np.stack(slices) + noise * random.standard_normal((len(FOCUS), side_px, side_px))
    return torch.from_numpy(stack.astype(np.float32))[None]


def positions(focus: np.ndarray = FOCUS) -> Tensor:
    return torch.from_numpy(focus)[None]


@given(st.floats(0.9, 2.6), st.integers(0, 20))
@settings(max_examples=15, deadline=None)
def test_a_wall_between_two_slices_is_found_between_them(truth: float, seed: int) -> None:
    found = focus_evidence(wall(truth, seed), positions()).diopters[0, 1, MIDDLE, MIDDLE]
    assert float((found - truth).abs().median()) < GAP / 8


def test_it_is_the_estimator_of_shape_from_focus_on_a_coarser_grid() -> None:
    grey = wall(1.63)
    colour = grey[0, ..., None].expand(-1, -1, -1, 3).numpy() * 255
    theirs, _ = shape_from_focus(colour, FOCUS)
    ours = focus_evidence(grey, positions()).diopters[0, 1].numpy()
    theirs = cv2.resize(theirs, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert float(np.median(np.abs(ours - theirs)[MIDDLE, MIDDLE])) < GAP / 20


def test_two_thirds_of_the_errors_stay_within_the_claimed_sigma() -> None:
    evidence = focus_evidence(wall(1.63, noise=0.01), positions())
    error = (evidence.diopters - 1.63).abs()[..., MIDDLE, MIDDLE]
    sigma = evidence.sigma_diopters[..., MIDDLE, MIDDLE]
    for index in range(len(WINDOWS_CELLS)):
        assert float((error[:, index] < sigma[:, index]).float().mean()) > 0.68


def test_a_brighter_slice_is_not_taken_for_a_sharper_one() -> None:
    grey = wall(1.63)
    flicker = grey * torch.tensor([1, 1.3, 0.8, 1, 1, 1.2, 1.4, 0.7, 1])[None, :, None, None]
    plain, uneven = (focus_evidence(g, positions()).diopters[0, 1] for g in (grey, flicker))
    assert float((plain - uneven).abs().median()) < GAP / 20


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_blank_sweep_says_nothing_and_its_sigma_is_the_whole_range(level: float) -> None:
    evidence = focus_evidence(torch.full((1, 9, 32, 32), level), positions())
    assert not bool(evidence.known.any()) and float(evidence.moments.abs().max()) == 0
    assert torch.allclose(evidence.sigma_diopters, torch.tensor(2.5))
    assert torch.allclose(evidence.diopters, torch.tensor(float(FOCUS.mean())))
    assert bool(torch.isfinite(evidence.relative).all())


def test_noise_alone_is_mostly_not_taken_for_focus() -> None:
    noise = 0.5 + 0.02 * torch.randn(1, 9, 96, 96, generator=torch.Generator().manual_seed(0))
    evidence = focus_evidence(noise, positions())
    assert float(evidence.known.float().mean()) < 0.3
    assert float(evidence.moments[:, 0].mean()) < 1e-3


@pytest.mark.parametrize("sigma", [0.005, 0.02, 0.05])
def test_the_level_of_the_noise_is_found_beside_the_texture(sigma: float) -> None:
    assert float(noise_level(wall(2.9, noise=sigma))) == pytest.approx(sigma, rel=0.25)


def test_the_ring_energy_of_white_noise_is_its_gain() -> None:
    noise = torch.randn(1, 1, 400, 400, generator=torch.Generator().manual_seed(0))
    assert float(ring_energy(noise)[..., 4:-4, 4:-4].mean()) == pytest.approx(NOISE_GAIN, rel=0.03)


def test_two_slices_give_the_sharper_one() -> None:
    grey = wall(0.9)[:, [2, 6]]
    found = focus_evidence(grey, positions(FOCUS[[2, 6]])).diopters[0, 1, MIDDLE, MIDDLE]
    assert float(found.median()) == pytest.approx(float(FOCUS[2]))


def test_doubled_positions_give_finite_numbers() -> None:
    focus = FOCUS.copy()
    focus[4] = focus[3]
    evidence = focus_evidence(wall(1.3), positions(focus))
    for values in (evidence.diopters, evidence.sigma_diopters, evidence.moments):
        assert bool(torch.isfinite(values).all())


def test_samples_of_a_batch_do_not_touch_one_another() -> None:
    one, other = wall(1.2), wall(2.2, noise=0.03)
    both = focus_evidence(torch.cat([one, other]), positions().expand(2, -1))
    alone = focus_evidence(other, positions())
    assert torch.allclose(both.diopters[1], alone.diopters[0], atol=1e-5)


def test_an_untrained_volume_starts_at_the_peaks() -> None:
    torch.manual_seed(0)
    colour = wall(1.63)[:, :, None].expand(-1, -1, 3, -1, -1)
    with torch.inference_mode():
        chosen, plain = (FocusVolume(FocusVolumeConfig(evidence=use, defocus=False)).eval()
                         .forward_full(colour, positions()) for use in (True, False))
    errors = [float((o.diopters - 1.63).abs()[..., 16:-16, 16:-16].median())
              for o in (chosen, plain)]
    assert errors[0] < GAP / 2 and errors[0] < errors[1] / 2


def test_a_blank_sweep_goes_through_the_volume_with_a_wide_sigma() -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        output = FocusVolume().eval().forward_full(torch.full((1, 9, 3, 32, 32), 0.5), positions())
    assert bool(torch.isfinite(output.diopters).all())
    assert float(output.sigma_diopters.min()) > 0.15
