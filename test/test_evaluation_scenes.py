"""The simulated evaluation set: exact geometry, exact splits, same images for the same seed."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from depth_fusion_ros.networks.evidence import dual_pixel_evidence
from depth_fusion_ros.optics.thin_lens import ThinLens
from depth_fusion_ros.simulation import evaluation_scenes as scenes_module
from depth_fusion_ros.simulation import places
from depth_fusion_ros.simulation.camera import CameraBatch, render_depth
from depth_fusion_ros.simulation.evaluation_places import PLACES, PlaceView, make_place
from depth_fusion_ros.simulation.evaluation_scenes import (
    LENSES,
    MAX_BLUR_PX,
    PRESETS,
    EvaluationScene,
    Preset,
    RenderedScene,
    cached_evaluation_scenes,
    evaluation_scenes,
    render_evaluation_scene,
)
from depth_fusion_ros.simulation.evaluation_textures import FAMILIES, surface_tile
from depth_fusion_ros.simulation.places import SLOTS, Place, look
from depth_fusion_ros.simulation.sensor import GREY_WEIGHTS
from depth_fusion_ros.simulation.textures import TILE_PX

FX, WIDTH, HEIGHT = 100.0, 41, 31
TINY = Preset(scenes=8, width_px=64, height_px=48, aperture_samples=24)


def depth_of(place: Place) -> np.ndarray:
    """Truth of a place seen by a pinhole; the centre pixel looks along the axis."""
    one = torch.ones(1)
    camera = CameraBatch(0.01 * one, one, FX * one, torch.zeros(1, 2), WIDTH, HEIGHT)
    return render_depth(place.scenes()[0], camera, place.tracer())[0].numpy()


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the drawing of textures, which geometry does not depend on."""
    grey = torch.full((TILE_PX, TILE_PX, 3), 0.5)
    monkeypatch.setattr(places, "surface_tile", lambda family, random: grey)


def empty_place(rotation: np.ndarray | None = None) -> Place:
    # Turned by a tenth of a pixel: rays exactly parallel to a box's face miss it.
    return Place(FX, np.random.default_rng(0), look(1e-3, 1e-3) if rotation is None else rotation)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_texture_is_an_albedo_that_repeats_by_seed(family: str) -> None:
    tile, again, other = (surface_tile(family, np.random.default_rng(s)) for s in (1, 1, 2))
    assert tile.shape == (TILE_PX, TILE_PX, 3)
    assert tile.min() >= 0.02
    assert tile.max() <= 0.95
    assert torch.equal(tile, again)
    assert not torch.equal(tile, other)
    assert tile.std() > 0.001


def test_unknown_names_are_refused_with_the_choice() -> None:
    with pytest.raises(ValueError, match="'paisley': use one of voronoi"):
        surface_tile("paisley", np.random.default_rng(0))
    with pytest.raises(ValueError, match="'cave': use one of room"):
        make_place("cave", PlaceView(FX, 0.2, 0.15, 0.5, 3.0), np.random.default_rng(0))


@pytest.mark.usefixtures("plain")
def test_every_kind_of_surface_lies_where_it_was_put() -> None:
    centre = (HEIGHT // 2, WIDTH // 2)
    place = empty_place()
    place.plane((0, 0, 3.0), (0, 0, -1), "plaster")
    assert depth_of(place) == pytest.approx(3.0, abs=0.002)
    place.panel((0, 0, 2.5), (1, 0, 0), (0, 1, 0), (0.11, 0.06), "text")
    seen = np.isclose(depth_of(place), 2.5, atol=2e-3)
    # 0.11 m at 2.5 m and fx = 100 px is 4.4 px to each side, 0.06 m is 2.4 px
    assert np.argwhere(seen).min(0).tolist() == [centre[0] - 2, centre[1] - 4]
    assert np.argwhere(seen).max(0).tolist() == [centre[0] + 2, centre[1] + 4]
    place.box((0, 0, 2.3), (0.1, 0.1, 0.2), 0.0, "bricks")
    assert depth_of(place)[centre] == pytest.approx(2.1, abs=0.002)
    place.rod((-1, 0, 2.0), (1, 0, 2.0), 0.15, "weave")
    assert depth_of(place)[centre] == pytest.approx(1.85, abs=0.002)
    place.ball((0, 0, 1.5), (0.1, 0.1, 0.3), "marble")
    assert depth_of(place)[centre] == pytest.approx(1.2, abs=0.002)


@pytest.mark.usefixtures("plain")
def test_a_panel_may_have_a_hole() -> None:
    place = empty_place()
    place.plane((0, 0, 3.0), (0, 0, -1), "plaster")
    place.panel((0, 0, 2.0), (1, 0, 0), (0, 1, 0), (0.2, 0.2), "text", hole=0.5)
    depth = depth_of(place)
    assert depth[HEIGHT // 2, WIDTH // 2] == pytest.approx(3.0, abs=0.002)
    assert depth[HEIGHT // 2, WIDTH // 2 + 7] == pytest.approx(2.0, abs=0.002)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("kind", ["box", "rod", "ball", "panel"])
def test_no_surface_is_lost_where_a_place_needs_more_than_one_batch_holds(kind: str) -> None:
    place = empty_place()
    place.plane((0, 0, 5.0), (0, 0, -1), "gradient")
    expected = []
    count = 2 * max(SLOTS.values()) + 1
    for index in range(count):
        z = 2.0 + 0.1 * index
        x = 0.04 * (index - count // 2) * z  # four pixels apart
        if kind == "box":
            place.box((x, 0, z + 0.02), (0.02, 0.5, 0.02), 0, "text")
        elif kind == "rod":
            place.rod((x, -0.5, z + 0.02), (x, 0.5, z + 0.02), 0.02, "text")
        elif kind == "ball":
            place.ball((x, 0, z + 0.02), (0.02, 0.5, 0.02), "text")
        else:
            place.panel((x, 0, z), (1, 0, 0), (0, 1, 0), (0.02, 0.5), "text")
        expected.append(z)
    assert len(place.scenes()) >= 3
    seen = depth_of(place)[HEIGHT // 2]
    for index, z in enumerate(expected):
        assert seen[WIDTH // 2 + 4 * (index - count // 2)] == pytest.approx(z, abs=0.002)


@pytest.mark.usefixtures("plain")
def test_a_camera_that_looks_down_and_aside_sees_what_lies_there() -> None:
    yaw, pitch = 0.3, 0.2
    point = np.array([math.sin(yaw) * math.cos(pitch), math.sin(pitch),
                      math.cos(yaw) * math.cos(pitch)])
    assert look(yaw, pitch) @ point == pytest.approx([0, 0, 1])
    place = empty_place(look(yaw, pitch))
    place.ball(4 * point, (0.1, 0.1, 0.1), "bricks")
    place.plane((0, 0, 9.0), (0, 0, -1), "bricks")
    assert depth_of(place)[HEIGHT // 2, WIDTH // 2] == pytest.approx(3.9, abs=0.001)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("kind", PLACES)
def test_every_kind_of_place_closes_the_view_within_its_depths(kind: str) -> None:
    view = PlaceView(FX, WIDTH / 2 / FX, HEIGHT / 2 / FX, 0.5, 3.0)
    for seed in range(4):
        depth = depth_of(make_place(kind, view, np.random.default_rng(seed)))
        assert depth.max() < 2.0 * view.far_m, "a ray escaped, or hit something far behind"
        assert depth.min() > 0.4 * view.near_m
        assert depth.max() > 1.3 * depth.min()


@pytest.mark.usefixtures("plain")
def test_the_preset_spreads_lenses_over_places_and_keeps_blur_in_bounds() -> None:
    found = list(evaluation_scenes(PRESETS["eval"]))
    assert len(found) == 24
    lenses = defaultdict(set)
    for scene in found:
        lenses[scene.kind].add(scene.lens_name)
        nearest = depth_of_scene(scene).min()
        assert abs(scene.lens.signed_coc_px(nearest)) < 1.5 * MAX_BLUR_PX
    assert set(lenses) == set(PLACES)
    assert all(len(names) == 3 for names in lenses.values())
    assert {s.lens_name for s in found} == {lens.name for lens in LENSES}


def depth_of_scene(scene: EvaluationScene) -> np.ndarray:
    """Truth at an eighth of the resolution."""
    lens, preset = scene.lens, scene.preset
    camera = CameraBatch(
        torch.tensor([0.001]), torch.tensor([1.0]), torch.tensor([lens.focal_length_px / 8]),
        torch.zeros(1, 2), preset.width_px // 8, preset.height_px // 8)
    return render_depth(scene.place.scenes()[0], camera, scene.place.tracer())[0].numpy()


def test_a_scene_depends_on_the_seed_and_its_number_alone() -> None:
    all_of_them = list(evaluation_scenes(TINY))
    fewer = list(evaluation_scenes(replace(TINY, scenes=4)))
    other = next(evaluation_scenes(replace(TINY, seed=5)))
    first, again = (render_evaluation_scene(s) for s in (all_of_them[3], fewer[3]))
    assert np.array_equal(first.left, again.left)
    assert np.array_equal(first.depth_m, again.depth_m)
    assert first.meta["lens"] == again.meta["lens"]
    assert other.lens != all_of_them[0].lens


@pytest.fixture(scope="module")
def wall() -> tuple[EvaluationScene, RenderedScene]:
    """One textured wall at 2 m, 16 mm lens focused at 1 m."""
    lens = ThinLens(0.016, 2.0, 27.6e-6, 1.0)
    preset = Preset(scenes=1, width_px=120, height_px=80, aperture_samples=120)
    place = Place(lens.focal_length_px, np.random.default_rng(4))
    place.plane((0, 0, 2.0), (0, 0, -1), "voronoi", texels_per_px=0.5)
    scene = EvaluationScene(0, "wall", "robot_16mm", lens, place, 0.3, 0.0, 0.6, preset)
    return scene, render_evaluation_scene(scene)


def test_the_views_are_shifted_as_the_lens_says_for_both_splits(
    wall: tuple[EvaluationScene, RenderedScene]
) -> None:
    scene, images = wall
    assert images.depth_m == pytest.approx(2.0)
    assert images.meta["kappa_ideal"] == pytest.approx(4 / (3 * math.pi), rel=0.01)
    # w_R = (1 + tanh(u/s))/2 with s = θ0·2N = 1.2: about half the ideal gap
    assert 0.3 < images.meta["kappa_soft"] / images.meta["kappa_ideal"] < 0.6
    for left, right, kappa in ((images.left, images.right, images.meta["kappa_ideal"]),
                               (images.left_soft, images.right_soft, images.meta["kappa_soft"])):
        expected = replace(scene.lens, kappa=kappa).disparity_px(2.0)
        # Coarse structure shifts by the centroids' gap; fine structure by more, as the two views'
        # kernels differ in shape as well.
        views = (torch.from_numpy(cv2.GaussianBlur(v, (0, 0), 3))[None, None]
                 for v in (left, right))
        found = dual_pixel_evidence(*views).disparity_px[0, 2, 10:-10, 14:-14].median()
        assert float(found) == pytest.approx(expected, rel=0.06)


def test_left_and_right_together_are_the_full_aperture(
    wall: tuple[EvaluationScene, RenderedScene]
) -> None:
    _, images = wall
    grey = images.full @ np.array(GREY_WEIGHTS, np.float32)
    assert (images.left + images.right) / 2 == pytest.approx(grey, abs=2e-5)
    assert (images.left_soft + images.right_soft) / 2 == pytest.approx(grey, abs=2e-5)
    assert np.quantile(grey, 0.99) == pytest.approx(0.6, abs=0.002)


def test_the_noise_of_rendering_is_known_without_rendering_twice(
    wall: tuple[EvaluationScene, RenderedScene]
) -> None:
    scene, images = wall
    other = render_evaluation_scene(replace(scene, index=scene.index + 1))  # other rays only
    measured = np.std(other.left - images.left) / math.sqrt(2)
    assert images.meta["render_sigma_ideal"] == pytest.approx(measured, rel=0.4)
    assert images.meta["render_sigma_soft"] < images.meta["render_sigma_ideal"], (
        "a soft split sees more of the aperture")


def test_rendered_scenes_are_kept_and_those_of_another_recipe_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = Preset(scenes=2, width_px=40, height_px=32, aperture_samples=16)
    calls: list[tuple[int, int]] = []
    first = list(cached_evaluation_scenes(preset, tmp_path, lambda *n: calls.append(n)))
    assert calls == [(1, 2), (2, 2)]
    rendered = []
    original = scenes_module.render_evaluation_scene
    monkeypatch.setattr(scenes_module, "render_evaluation_scene",
                        lambda scene: rendered.append(scene.index) or original(scene))
    kept = list(cached_evaluation_scenes(preset, tmp_path))
    assert rendered == []
    for one, other in zip(first, kept, strict=True):
        assert one.meta == other.meta
        for name in ("depth_m", "full", "left", "right", "left_soft", "right_soft"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
    list(cached_evaluation_scenes(replace(preset, recipe=preset.recipe + 1), tmp_path))
    assert rendered == [0, 1]
