"""What pixels themselves show: texture above noise, clipping, flying pixels, provenance labels."""

from __future__ import annotations

import numpy as np
import pytest

from depth_fusion_ros.estimation.estimate import Provenance
from depth_fusion_ros.estimation.postprocess import (
    TEXTURE_ENERGY_MIN,
    flying_pixels,
    label_provenance,
    noise_energy,
    texture_energy,
)


def test_a_mixed_pixel_at_a_depth_edge_is_flying_and_a_slope_is_not() -> None:
    depth = np.ones((9, 12), np.float32)
    depth[:, 6:] = 3.0
    depth[:, 5] = 1.5
    assert flying_pixels(depth, 1)[:, 5].all()
    assert not flying_pixels(depth, 1)[:, [0, 1, 2, 8, 9]].any()
    assert not flying_pixels(depth, 0).any()
    slope = np.linspace(1, 1.5, 60, dtype=np.float32)[None].repeat(9, 0)
    assert not flying_pixels(slope, 1).any()
    depth[0, 0], depth[3, 3] = np.nan, np.inf
    assert not flying_pixels(depth, 1)[[0, 3], [0, 3]].any()


def test_a_blank_wall_that_is_guessed_to_be_far_is_not_seen_to_be_free() -> None:
    depth = np.array([[np.inf, np.inf, np.inf, -np.inf, np.nan]], np.float32)
    energy = np.array([[1.0, 0.0, 1.0, 1.0, 1.0]], np.float32)
    saturated = np.array([[False, False, True, False, False]])
    assert label_provenance(depth, energy, saturated, window_px=1).tolist() == [[
        Provenance.OUT_OF_RANGE, Provenance.TEXTURELESS, Provenance.SATURATED,
        Provenance.OUT_OF_RANGE, Provenance.NONE]]


@pytest.mark.parametrize("cause", ["blank", "clipped"])
def test_far_is_no_free_space_within_the_texture_window_of_a_surface_without_evidence(
        cause: str) -> None:
    depth = np.full((31, 40), np.inf, np.float32)
    depth[:, 38:] = 2.0
    energy, saturated = np.ones_like(depth), np.zeros(depth.shape, np.bool_)
    if cause == "blank":
        energy[:, :10] = 0
    else:
        saturated[:, :10] = True
    label = label_provenance(depth, energy, saturated, window_px=15)
    assert (label[:, 10:17] == Provenance.TEXTURELESS).all()
    assert (label[:, 17:38] == Provenance.OUT_OF_RANGE).all()
    assert (label[:, 38:] == Provenance.MEASURED).all()


def test_the_edge_of_clipping_is_no_texture() -> None:
    view = np.full((48, 96), 0.3, np.float32)
    view[:, :40] = 1.0
    view[:, 80:] += 0.1 * np.sin(np.arange(16)).astype(np.float32)
    energy = texture_energy(view, view, view >= 1)
    assert (energy[:, :72] == 0).all()
    assert (energy[:, 82:] > TEXTURE_ENERGY_MIN).all()
    assert texture_energy(view, view)[:, 40].min() > TEXTURE_ENERGY_MIN


def noisy_wall(sigma: float, texture: float) -> tuple[np.ndarray, np.ndarray]:
    """Both views of a wall of square-root light: its right half has stripes, all of it noise."""
    random = np.random.default_rng(0)
    plain = np.full((96, 160), 0.5, np.float32)
    plain[:, 80:] += texture * np.sin(np.arange(80) * 0.7).astype(np.float32)
    left, right = (plain + sigma * random.standard_normal(plain.shape, np.float32)
                   for _ in range(2))
    return left, right


@pytest.mark.parametrize("sigma", [0.0, 0.005, 0.02])
def test_noise_is_no_texture_and_hides_none(sigma: float) -> None:
    left, right = noisy_wall(sigma, 0.05)
    measured = texture_energy(left, right) - noise_energy(left, right) > TEXTURE_ENERGY_MIN
    assert measured[:, 92:].mean() > 0.98
    assert measured[:, :68].mean() < 0.02


def test_the_noise_of_a_wall_is_told_from_its_stripes() -> None:
    left, right = noisy_wall(0.02, 0.1)
    blank = texture_energy(left, right)[:, :64].mean()
    assert blank < float(noise_energy(left, right)[:, :64].mean()) < 1.6 * blank
