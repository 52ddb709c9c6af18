"""The simulator obeys thin-lens physics: disparity, blur, occlusion and sensor splits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from depth_fusion_ros.networks.evidence import dual_pixel_evidence
from depth_fusion_ros.optics.thin_lens import IDEAL_DUAL_PIXEL_KAPPA
from depth_fusion_ros.simulation import scenes
from depth_fusion_ros.simulation.camera import (
    STRIPS,
    CameraBatch,
    aperture_pattern,
    render_depth,
    render_focus_sweep,
    render_strips,
)
from depth_fusion_ros.simulation.sensor import (
    SensorBatch,
    expose,
    split_weights,
    srgb_decode,
    srgb_encode,
    to_grey,
)
from depth_fusion_ros.simulation.sequence import simulate_sequence
from depth_fusion_ros.simulation.textures import TILE_PX, make_atlas

WIDTH, HEIGHT, FX = 160, 96, 500.0


def wall_scene(depth_m: float, texels_per_px: float = 0.5, slant: float = 0.0,
               seed: int = 0) -> scenes.SceneBatch:
    """One noise-textured wall; 1/Z changes linearly over the image by ±slant/depth."""
    generator = torch.Generator().manual_seed(seed)
    view = scenes.SceneView(torch.tensor([FX]), torch.tensor([depth_m]),
                            torch.tensor([2 * depth_m]), torch.zeros(1, 2), WIDTH, HEIGHT)
    scene = scenes.random_scenes(view, generator, make_atlas(1, generator))
    scene.centre[:, 1:, 2] = -scenes.FAR_AWAY_M
    normal = torch.tensor([[slant * 2 * FX / WIDTH, 0.0, 1.0]])
    scene.centre[:, 0] = torch.tensor([0.0, 0.0, depth_m])
    scene.to_local[:, 0] = scenes.plane_frame(normal)
    noise = torch.randn(TILE_PX, TILE_PX, generator=generator)
    radius = torch.hypot(torch.fft.fftfreq(TILE_PX)[:, None], torch.fft.fftfreq(TILE_PX)[None])
    smooth = torch.fft.ifft2(torch.fft.fft2(noise) * torch.exp(-((radius / 0.12) ** 2))).real
    scene.atlas[:] = (0.5 + 0.18 * smooth / smooth.std()).clamp(0.05, 1)[None, ..., None]
    scene.texels_per_m[:] = texels_per_px * FX / depth_m
    return scene


def camera(blur_gain_px_m: float, focus_m: float) -> CameraBatch:
    one = torch.ones(1)
    return CameraBatch(one * blur_gain_px_m / FX, one / focus_m, one * FX, torch.zeros(1, 2),
                       WIDTH, HEIGHT)


def views(scene: scenes.SceneBatch, rig: CameraBatch, samples: int = 160
          ) -> tuple[torch.Tensor, torch.Tensor]:
    pattern = aperture_pattern(samples, torch.Generator().manual_seed(5))
    strips = render_strips(scene, rig, pattern)
    full = (strips * pattern.area[None, :, None, None, None]).sum(1).permute(0, 3, 1, 2)
    images = expose(to_grey(strips), full, pattern, SensorBatch.ideal(1))
    return images.left.sqrt(), images.right.sqrt()


@pytest.mark.parametrize(("depth_m", "sign"), [(0.55, -1), (0.75, -1), (1.6, 1), (4.0, 1)])
def test_disparity_of_slanted_walls_follows_the_lens_equation(depth_m: float, sign: int) -> None:
    """Within 0.05 px rms of k·(1/g − 1/Z) on textured smooth pixels, right sign on both sides."""
    gain, focus_m = 2.6, 1.0
    scene, rig = wall_scene(depth_m, slant=0.1), camera(gain, focus_m)
    evidence = dual_pixel_evidence(*views(scene, rig))
    truth = IDEAL_DUAL_PIXEL_KAPPA * gain * (1 / focus_m - 1 / render_depth(scene, rig))
    half = torch.nn.functional.avg_pool2d(truth[:, None], 2)[0, 0]
    measured = evidence.disparity_px[0, 1]
    textured = evidence.energy[0, 1] > 2e-4
    inner = torch.zeros_like(textured)
    inner[8:-8, 8:-8] = True
    use = textured & inner
    assert use.float().mean() > 0.3, "the wall must be textured for this test to mean anything"
    error = (measured - half)[use]
    assert float(error.square().mean().sqrt()) < 0.05
    assert (torch.sign(measured[use]) == sign).float().mean() > 0.98


def test_a_wall_in_the_focus_plane_is_sharp_and_without_disparity() -> None:
    scene, rig = wall_scene(1.0), camera(8.0, 1.0)
    left, right = views(scene, rig)
    assert float((left - right).abs().mean()) < 0.01
    disparity = dual_pixel_evidence(left, right).disparity_px[0, 1]
    assert float(disparity[8:-8, 8:-8].abs().mean()) < 0.03


def test_blur_hides_texture_away_from_the_focus_plane() -> None:
    rig = camera(10.0, 1.0)
    contrast = [float(views(wall_scene(z), rig)[0].std()) for z in (1.0, 0.7, 0.5)]
    assert contrast[0] > contrast[1] > contrast[2]


def test_defocused_foreground_edge_is_half_transparent_over_a_sharp_background() -> None:
    """A black card nearer than the focused bright wall: its blurred edge mixes both linearly."""
    scene, rig = wall_scene(1.0), camera(12.0, 1.0)
    scene.atlas[:] = 1.0
    scene.ambient[:] = 1.0
    card = scenes.WALLS
    scene.centre[:, card] = torch.tensor([-1.0, 0.0, 0.5])
    scene.half_size_m[:, card] = 1.0
    scene.to_local[:, card] = torch.eye(3)
    scene.shape[:, card, 0], scene.shape[:, card, 1] = 60.0, 0.0
    scene.tile[:, card] = 0
    scene.ambient[:] = 1.0
    dark = scene.atlas.clone()
    dark[:] = 0.01
    scene = scenes.SceneBatch(**{**scene.__dict__, "atlas": torch.cat([scene.atlas, dark])})
    scene.tile[:, card] = 1
    left, right = views(scene, rig, 256)
    row = ((left**2 + right**2) / 2)[0, 0, HEIGHT // 2]
    # The edge projects to x = (W−1)/2; blur diameter there is 12·|1/1 − 1/0.5| = 12 px.
    centre = (WIDTH - 1) / 2
    assert float(row[int(centre) - 9]) < 0.03
    assert float(row[int(centre) + 10]) > 0.97
    assert float(row[int(centre)] + row[int(centre) + 1]) / 2 == pytest.approx(0.505, abs=0.05)
    assert bool((row[1:] - row[:-1] > -0.02).all()), "a blurred edge is monotone"
    # Nearer than focus: the right view sees more of the background on the right of the card.
    assert float((right - left)[0, 0, HEIGHT // 2].abs().max()) > 0.2


def test_strips_share_the_aperture_and_their_centroids_give_the_ideal_gain() -> None:
    pattern = aperture_pattern(96, torch.Generator().manual_seed(0))
    assert float(pattern.area.sum()) == pytest.approx(1.0, abs=1e-6)
    for strip in range(STRIPS):
        inside = pattern.strip == strip
        assert float(pattern.points[inside, 0].mean()) == pytest.approx(
            float(pattern.centroid[strip]), abs=1e-5)
        assert pattern.jitter_px[inside].mean(0).abs().max() < 1e-6
    _, _, kappa = split_weights(SensorBatch.ideal(1), pattern, 7)
    assert kappa[0].tolist() == pytest.approx([IDEAL_DUAL_PIXEL_KAPPA] * 7, rel=1e-4)


def test_soft_split_lowers_the_gain_and_shades_left_against_right() -> None:
    pattern = aperture_pattern(96, torch.Generator().manual_seed(0))
    soft = replace(SensorBatch.ideal(3), softness=torch.tensor([0.2, 1.0, 2.5]),
                   bias=torch.tensor([[0.0, 0.4]]).repeat(3, 1))
    left, right, kappa = split_weights(soft, pattern, 9)
    centre = kappa[:, 4] / IDEAL_DUAL_PIXEL_KAPPA
    assert 1 > centre[0] > centre[1] > centre[2] > 0.1
    assert torch.allclose(left + right, pattern.area[None, :, None].expand_as(left), atol=1e-6)
    share = right.sum(1)
    assert share[1, 0] < 0.5 < share[1, -1]


def test_soft_split_disparity_follows_its_own_gain() -> None:
    gain, focus_m, depth_m = 6.0, 1.0, 0.8
    scene, rig = wall_scene(depth_m), camera(gain, focus_m)
    pattern = aperture_pattern(160, torch.Generator().manual_seed(5))
    strips = to_grey(render_strips(scene, rig, pattern))
    soft = replace(SensorBatch.ideal(1), softness=torch.tensor([1.1]))
    images = expose(strips, strips.mean(1, keepdim=True).expand(-1, 3, -1, -1), pattern, soft)
    kappa = float(images.kappa[0, 0, 0, WIDTH // 2])
    assert 0.15 < kappa < 0.25
    measured = dual_pixel_evidence(images.left.sqrt(), images.right.sqrt())
    median = float(measured.disparity_px[0, 1, 8:-8, 8:-8].median())
    assert median == pytest.approx(kappa * gain * (1 / focus_m - 1 / depth_m), abs=0.04)


def test_focus_sweep_is_sharpest_at_the_distance_of_the_wall() -> None:
    scene, rig = wall_scene(0.8), camera(8.0, 1.0)
    positions = [0.6, 0.9, 1.25, 1.6, 2.0]
    stack = render_focus_sweep(scene, rig, positions,
                               aperture_pattern(64, torch.Generator().manual_seed(1)),
                               focal_length_m=0.012)
    contrast = to_grey(stack)[0].std((1, 2))
    assert int(contrast.argmax()) == positions.index(1.25)


def test_sensor_noise_has_the_stated_variance_and_clips_at_full_scale() -> None:
    pattern = aperture_pattern(16, torch.Generator().manual_seed(0))
    noisy = replace(SensorBatch.ideal(1), noise_a=torch.tensor([1e-3]),
                    noise_b=torch.tensor([2e-5]))
    flat = torch.full((1, STRIPS, 128, 128), 0.4)
    images = expose(flat, flat[:, :3], pattern, noisy, torch.Generator().manual_seed(3))
    assert float(images.left.var()) == pytest.approx(1e-3 * 0.4 + 2e-5, rel=0.05)
    correlation = np.corrcoef(images.left.flatten().numpy(), images.right.flatten().numpy())[0, 1]
    assert abs(correlation) < 0.03, "noise of the two views is independent"
    bright = expose(flat * 10, flat[:, :3], pattern, noisy, torch.Generator().manual_seed(3))
    assert float(bright.left.max()) == 1.0


def test_a_fixed_pattern_is_shared_by_both_halves_and_by_the_picture() -> None:
    pattern = aperture_pattern(16, torch.Generator().manual_seed(0))
    sensor = replace(SensorBatch.ideal(1), fixed_pattern=torch.tensor([0.02]))
    flat = torch.full((1, STRIPS, 128, 128), 0.4)
    images = expose(flat, flat[:, :3], pattern, sensor, torch.Generator().manual_seed(3))
    left, right = images.left.flatten().numpy(), images.right.flatten().numpy()
    assert left.std() / left.mean() == pytest.approx(0.02, rel=0.05)
    assert np.corrcoef(left, right)[0, 1] > 0.99
    assert np.corrcoef(left, images.rgb[0, 1].flatten().numpy())[0, 1] > 0.95


def test_srgb_round_trip_and_known_value() -> None:
    linear = torch.linspace(0, 1, 101)
    assert torch.allclose(srgb_decode(srgb_encode(linear)), linear, atol=1e-5)
    assert float(srgb_encode(torch.tensor(0.2140))) == pytest.approx(0.5, abs=2e-3)


def test_simulated_sequence_repeats_by_seed_and_stays_consistent() -> None:
    first, again = (list(simulate_sequence(frames=2, width_px=64, height_px=48, seed=11,
                                           frames_per_scene=2)) for _ in range(2))
    other = next(simulate_sequence(frames=1, width_px=64, height_px=48, seed=12))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.left, b.left)
        assert np.array_equal(a.depth_m, b.depth_m)
        assert a.left.dtype == np.uint16
        assert a.rgb.shape == (48, 64, 3)
        assert np.isfinite(a.depth_m).all()
        assert a.intrinsics.fx_px == pytest.approx(a.lens.focal_length_px)
    assert not np.array_equal(first[0].left, other.left)
    assert not np.array_equal(first[0].depth_m, first[1].depth_m), "the camera moves"


def test_unknown_camera_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="robot_12mm"):
        next(simulate_sequence(frames=1, camera="nokia"))
