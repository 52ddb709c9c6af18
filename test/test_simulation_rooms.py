"""Training scenes: the compiled tracer agrees with the tensor one, rooms are what they claim."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from depth_fusion_ros.simulation import fast_tracer, rooms, scenes
from depth_fusion_ros.simulation.camera import (
    CameraBatch,
    aperture_pattern,
    render_depth,
    render_strips,
)
from depth_fusion_ros.simulation.sensor import SensorBatch, expose
from depth_fusion_ros.simulation.textures import make_atlas

WIDTH, HEIGHT, BATCH = 64, 48, 6


@pytest.fixture(scope="module")
def furnished() -> tuple[scenes.SceneBatch, CameraBatch]:
    generator = torch.Generator().manual_seed(5)
    one = torch.ones(BATCH)
    view = scenes.SceneView(300 * one, 0.4 * one, 4 * one, torch.zeros(BATCH, 2), WIDTH, HEIGHT)
    scene = rooms.random_rooms(view, generator, make_atlas(4, generator))
    return scene, CameraBatch(0.012 * one, one, 300 * one, torch.zeros(BATCH, 2), WIDTH, HEIGHT)


@pytest.mark.skipif(not fast_tracer.available(), reason="needs numba")
def test_the_compiled_tracer_renders_what_the_tensor_tracer_renders(
        furnished: tuple[scenes.SceneBatch, CameraBatch]) -> None:
    scene, camera = furnished
    pattern = aperture_pattern(20, torch.Generator().manual_seed(1))
    slow = render_strips(scene, camera, pattern)
    difference = (slow - fast_tracer.render_strips_on_cpu(scene, camera, pattern)).abs()
    # A ray that meets an outline or a texel border within rounding may fall to either side.
    assert float((difference > 1e-3).float().mean()) < 2e-3
    assert float(difference.mean()) < 1e-4 * float(slow.mean())


@pytest.mark.skipif(not fast_tracer.available(), reason="needs numba")
def test_the_compiled_tracer_sees_every_kind_of_primitive_alone() -> None:
    generator = torch.Generator().manual_seed(2)
    one = torch.ones(scenes.PRIMITIVES)
    view = scenes.SceneView(200 * one, 0.5 * one, 3 * one, torch.zeros(len(one), 2), WIDTH, HEIGHT)
    # Without grain: a ray on the border of two texels may fall to either side by rounding.
    wave = torch.sin(2 * torch.pi * torch.arange(256) / 64)
    atlas = 0.5 + 0.2 * (wave[:, None] + wave[None])[None, :, :, None].expand(2, -1, -1, 3)
    scene = scenes.random_scenes(view, generator, atlas.contiguous())
    scene.centre[:, scenes.WALLS:] = torch.tensor([0.0, 0.0, 1.5])
    scene.centre[:, 2:scenes.WALLS] = torch.tensor([0.0, 0.0, 1.5])
    scene.remove(~torch.eye(scenes.PRIMITIVES, dtype=torch.bool))
    camera = CameraBatch(0.02 * one, one, 200 * one, torch.zeros(len(one), 2), WIDTH, HEIGHT)
    pattern = aperture_pattern(12, torch.Generator().manual_seed(1))
    slow = render_strips(scene, camera, pattern)
    fast = fast_tracer.render_strips_on_cpu(scene, camera, pattern)
    off = ((slow - fast).abs() > 1e-3).float().mean((1, 2, 3, 4))
    assert float(off.max()) < 5e-3, f"primitive {int(off.argmax())} differs most"


def test_rooms_reach_over_the_wanted_range_and_leave_no_hole(
        furnished: tuple[scenes.SceneBatch, CameraBatch]) -> None:
    depth = render_depth(*furnished)
    assert float(depth.max()) < 100.0, "a back wall closes every room"
    assert float(depth.min()) > 0.0


def test_the_same_seed_gives_the_same_rooms() -> None:
    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        one = torch.ones(2)
        view = scenes.SceneView(300 * one, one / 2, 3 * one, torch.zeros(2, 2), WIDTH, HEIGHT)
        return rooms.random_rooms(view, generator, torch.rand(2, 256, 256, 3)).to_local

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_a_highlight_adds_light_to_glossy_things_only(
        furnished: tuple[scenes.SceneBatch, CameraBatch]) -> None:
    scene, camera = furnished
    pattern = aperture_pattern(16, torch.Generator().manual_seed(1))
    matt = render_strips(replace(scene, gloss=None), camera, pattern)
    glossy = render_strips(scene, camera, pattern)
    assert bool((glossy >= matt - 1e-5).all())
    assert float((glossy - matt).max()) > 0.05


def test_an_encoded_sensor_quantises_finely_in_the_shadows() -> None:
    pattern = aperture_pattern(16, torch.Generator().manual_seed(0))
    ramp = torch.linspace(0.01, 0.02, 64)[None, None, None, :].expand(1, 8, 4, 64)
    eight_bit = replace(SensorBatch.ideal(1), levels=torch.tensor([255.0]))
    linear = expose(ramp, ramp[:, :3], pattern, eight_bit).left
    encoded = expose(ramp, ramp[:, :3], pattern, replace(
        eight_bit, encoded=torch.tensor([True]))).left
    assert len(encoded.unique()) > 2 * len(linear.unique())
    assert float((encoded - ramp[:, :1]).abs().max()) < 1.5e-3
