"""The obstacle cloud: one sure point a voxel, as measured, within its budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cloud_helpers import (
    CAMERA,
    OPTIONS,
    UNSURE,
    frames,
    pixels_of,
    plane,
    points_of,
    qualifying,
    some_options,
)
from hypothesis import given, settings

from depth_fusion_ros.estimation.estimate import Provenance
from depth_fusion_ros.navigation.cloud import CloudOptions, obstacle_points, ray_grid


@given(frames(), some_options())
@settings(max_examples=120, deadline=None)
def test_every_obstacle_is_a_confident_pixel_as_measured(frame, options: CloudOptions):
    depth, sigma, labels, camera = frame
    cloud = obstacle_points(depth, sigma, labels, camera, options)
    points = points_of(cloud)
    pixels = pixels_of(points, camera)
    good = qualifying(depth, sigma, labels, options.max_sigma_ratio, options.use_prior_only)
    assert good.ravel()[pixels].all()
    assert np.array_equal(points[:, 2], depth.ravel()[pixels])
    assert np.array_equal(points[:, 3], sigma.ravel()[pixels])
    assert (np.diff(pixels) > 0).all(), "in order, none twice"
    assert cloud.count + cloud.thinned == np.count_nonzero(good)
    assert len(cloud.data) == 16 * cloud.count <= options.max_bytes
    assert (cloud.count > 0) == good.any(), "thinning never empties a cloud"


@given(frames(), some_options())
@settings(max_examples=80, deadline=None)
def test_each_voxel_keeps_exactly_its_nearest_point(frame, options: CloudOptions):
    depth, sigma, labels, camera = frame
    cloud = obstacle_points(depth, sigma, labels, camera, options)
    kept = set(pixels_of(points_of(cloud), camera).tolist())
    pixels = np.flatnonzero(qualifying(depth, sigma, labels, options.max_sigma_ratio,
                                       options.use_prior_only))
    points = ray_grid(camera).points(pixels, depth.ravel()[pixels]).T
    ratio = options.voxel_sigma_scale * sigma.ravel()[pixels] / options.voxel_m
    least = round(np.log2(cloud.voxel_m / options.voxel_m))
    nearest: dict[tuple[int, ...], tuple[float, int]] = {}
    for pixel, point, wanted in zip(pixels, points, ratio):
        level = max(least, min(int(np.floor(np.log2(max(wanted, 1.0)))), 18))
        cell = np.clip(np.floor(point / np.float32(options.voxel_m)), -2**18, 2**18 - 1)
        voxel = (level, *(int(part) >> level for part in cell))
        found = float(point[0]**2 + point[1]**2 + point[2]**2), int(pixel)
        nearest[voxel] = min(nearest.get(voxel, found), found)
    assert kept == {pixel for _, pixel in nearest.values()}


def test_sure_points_keep_detail_where_unsure_ones_are_thinned():
    depth, _, labels = plane(2.0)
    fine = obstacle_points(depth, depth * np.float32(0.01), labels, CAMERA, OPTIONS)
    options = replace(OPTIONS, voxel_sigma_scale=1.0)
    coarse = obstacle_points(depth, depth * np.float32(0.14), labels, CAMERA, options)
    assert fine.voxel_m == coarse.voxel_m == 0.05
    assert 10 * coarse.count < fine.count  # edges of 0.2 m against 0.05 m
    sigma = depth * np.float32(0.14)
    sigma[:, :40] = 0.02
    both = points_of(obstacle_points(depth, sigma, labels, CAMERA, options))
    left = points_of(obstacle_points(depth, np.where(sigma < 0.1, sigma, np.nan), labels, CAMERA,
                                     options))
    assert np.array_equal(both[both[:, 3] < 0.1], left), "unsure neighbours change nothing"


@pytest.mark.parametrize("max_bytes", [64, 1600, 235_000])
def test_a_pole_five_pixels_wide_survives_any_budget(max_bytes: int):
    depth, sigma, labels = plane(6.0)
    depth[:, 30:35], sigma[:, 30:35] = 1.5, 0.03
    cloud = obstacle_points(depth, sigma, labels, CAMERA, replace(OPTIONS, max_bytes=max_bytes))
    points = points_of(cloud)
    assert (points[:, 2] == 1.5).any()
    if max_bytes == 235_000:
        heights = np.sort(points[points[:, 2] == 1.5][:, 1])
        assert np.diff(heights).max() < 0.1, "from top to bottom, without a gap of two voxels"


def test_over_budget_the_voxel_doubles_and_says_so():
    depth, sigma, labels = plane(4.0)
    free = obstacle_points(depth, sigma, labels, CAMERA, OPTIONS)
    tight = obstacle_points(depth, sigma, labels, CAMERA, replace(OPTIONS, max_bytes=1000))
    assert (free.voxel_m, free.thinned) == (0.05, depth.size - free.count)
    assert tight.voxel_m in (0.2, 0.4, 0.8) and tight.count < 63
    assert 4 * tight.count > 62, "not thinned twice as far as needed"


@pytest.mark.parametrize("label", UNSURE)
def test_unsure_labels_make_no_obstacle(label: Provenance):
    depth, sigma, labels = plane(2.0)
    labels[...] = label
    assert obstacle_points(depth, sigma, labels, CAMERA, OPTIONS).count == 0
    asked = obstacle_points(depth, sigma, labels, CAMERA, replace(OPTIONS, use_prior_only=True))
    assert (asked.count > 0) == (label == Provenance.PRIOR_ONLY)


@pytest.mark.parametrize("sigma_m", [np.nan, np.inf, -0.1, 0.4])
def test_a_depth_without_a_good_sigma_makes_no_obstacle(sigma_m: float):
    depth, sigma, labels = plane(2.0)
    assert obstacle_points(depth, np.full_like(sigma, sigma_m), labels, CAMERA, OPTIONS).count == 0
