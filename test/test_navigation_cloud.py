"""Clouds for RViz and Nav2: exact bytes, points on their rays, nothing from nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cloud_helpers import CAMERA, OPTIONS, frames, plane
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.navigation.cloud import (
    CloudOptions,
    clearing_points,
    obstacle_points,
    organised_points,
    ray_grid,
)


@given(frames(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_an_organised_point_lies_on_its_pixels_ray_or_is_nan(frame, coloured: bool):
    depth, sigma, _, camera = frame
    rgb = np.random.default_rng(1).integers(0, 256, (*depth.shape, 3)).astype(np.uint8)
    data = organised_points(depth, sigma, rgb if coloured else None, camera)
    assert data.typecode == "B" and len(data) == depth.size * 24
    points = np.frombuffer(data, np.float32).reshape(*depth.shape, 6)
    known = np.isfinite(depth) & (depth != 0)
    x = (np.arange(camera.width_px) - camera.cx_px) / camera.fx_px * np.ones(depth.shape)
    y = (np.arange(camera.height_px)[:, None] - camera.cy_px) / camera.fy_px * np.ones(depth.shape)
    assert np.array_equal(points[known][:, 2], depth[known])
    assert np.allclose(points[known][:, 0], x[known] * depth[known], rtol=1e-5)
    assert np.allclose(points[known][:, 1], y[known] * depth[known], rtol=1e-5)
    assert np.array_equal(points[known][:, 4], sigma[known], equal_nan=True)
    assert np.isnan(points[~known][:, [0, 1, 2, 4]]).all()
    rest = np.frombuffer(data, np.uint8).reshape(*depth.shape, 24)
    assert (rest[..., 12:15] == (rgb[..., ::-1] if coloured else 128)).all()
    assert not rest[..., 15].any() and not rest[..., 20:].any()


def test_a_large_organised_cloud_is_whole_and_its_array_can_still_grow():
    camera = CAMERA.resized(641, 479)
    depth = np.linspace(0.2, 8, 641 * 479, dtype=np.float32).reshape(479, 641)
    data = organised_points(depth, depth / 10, None, camera)
    points = np.frombuffer(data, np.float32).reshape(479, 641, 6).copy()
    assert np.array_equal(points[..., 2], depth)
    assert np.array_equal(points[..., 0], ray_grid(camera).x * depth)
    data.append(0)  # no view holds the buffer that a message takes over


def test_views_of_larger_images_are_packed_as_their_copies():
    depth, sigma, _ = plane(2.0)
    depth = np.ascontiguousarray(depth + np.arange(80, dtype=np.float32))
    rgb = np.arange(60 * 80 * 6, dtype=np.uint32).astype(np.uint8).reshape(60, 80, 6)[..., ::-2]
    flipped = organised_points(depth[:, ::-1], sigma, rgb, CAMERA)
    assert flipped == organised_points(depth[:, ::-1].copy(), sigma, rgb.copy(), CAMERA)


def test_rays_of_a_camera_are_made_once():
    assert ray_grid(CAMERA) is ray_grid(replace(CAMERA))
    assert not ray_grid(CAMERA).x.flags.writeable




@pytest.mark.parametrize("value", [np.nan, -np.inf, 0.0])
def test_a_frame_without_depth_gives_empty_clouds(value: float):
    depth, sigma, labels = plane(value)
    for make in (obstacle_points, clearing_points):
        cloud = make(depth, sigma, labels, CAMERA, OPTIONS)
        assert cloud.count == 0 and len(cloud.data) == 0 and cloud.thinned == 0
    points = np.frombuffer(organised_points(depth, sigma, None, CAMERA), np.float32).reshape(-1, 6)
    assert np.isnan(points[:, [0, 1, 2, 4]]).all()


@pytest.mark.parametrize(("change", "told"), [
    ({"voxel_m": 0.0}, "cloud.voxel_m = 0.0: must be from 0.001"),
    ({"voxel_sigma_scale": -1.0}, "cloud.voxel_sigma_scale = -1.0: must be from 0"),
    ({"max_bytes": 63}, "cloud.max_bytes = 63: must be at least 64"),
    ({"max_sigma_ratio": float("nan")}, "cloud.max_sigma_ratio = nan: must be above 0"),
    ({"clearing_max_sigma_ratio": 0.0}, "clearing.max_sigma_ratio = 0.0: must be above 0"),
    ({"min_m": 0.0}, "depth.min_m = 0.0: must be finite and > 0; set depth.min_m"),
    ({"clearing_range_m": 0.1}, "clearing.range_m = 0.1: must be above depth.min_m"),
    ({"clearing_stride": 0}, "clearing.stride = 0: must be at least 1 px; set clearing.stride"),
])
def test_options_out_of_range_are_refused_with_name_value_rule_and_remedy(change, told: str):
    with pytest.raises(ValueError) as refused:
        CloudOptions(**change)
    assert told in str(refused.value) and "; set " in str(refused.value)


def test_images_that_do_not_fit_their_camera_are_refused():
    depth, sigma, labels = plane(2.0)
    with pytest.raises(ValueError, match=r"sigma_m = image of shape \(60, 79\): must be 60 rows"):
        organised_points(depth, sigma[:, 1:], None, CAMERA)
    for make in (obstacle_points, clearing_points):
        with pytest.raises(ValueError, match=r"use Intrinsics\.resized"):
            make(depth, sigma, labels, CAMERA.resized(160, 120), OPTIONS)
    with pytest.raises(ValueError, match=r"camera_info fx, fy = \(0\.0, 85\.0\): must be from 1"):
        organised_points(depth, sigma, None, replace(CAMERA, fx_px=0.0))
