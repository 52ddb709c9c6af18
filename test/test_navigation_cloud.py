"""Clouds for RViz and Nav2: exact bytes, one sure point a voxel, rays that clear never too far."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import Provenance
from depth_fusion_ros.navigation.cloud import (
    CloudBytes,
    CloudOptions,
    clearing_points,
    obstacle_points,
    organised_points,
    ray_grid,
)
from depth_fusion_ros.optics.intrinsics import Intrinsics

CAMERA = Intrinsics(90.0, 85.0, 41.3, 29.8, 80, 60)
OPTIONS = CloudOptions()
UNSURE = [Provenance.NONE, Provenance.PRIOR_ONLY, Provenance.SATURATED, Provenance.TEXTURELESS,
          Provenance.OUT_OF_RANGE, Provenance.MOTION_REJECTED]
ODD = np.array([np.nan, np.inf, -np.inf, 0.0, 1e-3, 1e30, -2.0], np.float32)


def plane(depth_m: float, ratio: float = 0.02) -> tuple[NDArray, NDArray, NDArray]:
    """Depth, sigma and labels of a wall that is measured everywhere."""
    depth = np.full((CAMERA.height_px, CAMERA.width_px), depth_m, np.float32)
    return depth, depth * np.float32(ratio), np.full(depth.shape, Provenance.MEASURED, np.uint8)


def points_of(cloud: CloudBytes) -> NDArray[np.float32]:
    points = np.frombuffer(cloud.data, np.float32).reshape(-1, cloud.step_bytes // 4)
    assert len(points) == cloud.count and np.isfinite(points).all()
    return points


def pixels_of(points: NDArray[np.float32], camera: Intrinsics) -> NDArray[np.intp]:
    """Flat index of the pixel that each point lies on; fails where it lies between pixels."""
    column = points[:, 0] / points[:, 2] * camera.fx_px + camera.cx_px
    row = points[:, 1] / points[:, 2] * camera.fy_px + camera.cy_px
    assert np.allclose(column, column.round(), atol=1e-2)
    assert np.allclose(row, row.round(), atol=1e-2)
    return (row.round() * camera.width_px + column.round()).astype(np.intp)


@st.composite
def frames(draw: st.DrawFn) -> tuple[NDArray, NDArray, NDArray, Intrinsics]:
    """Anything an estimator may say, and worse."""
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 30))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([0.3, 3.0, 50.0, 1e5]))
    depth = (random.random((height, width)) * scale).astype(np.float32)
    sigma = depth * random.choice(np.array([0, 0.01, 0.1, 0.14, 0.5], np.float32), depth.shape)
    odd = random.random(depth.shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    depth[odd] = random.choice(ODD, int(odd.sum()))
    unknown = ~np.isfinite(depth) | (random.random(depth.shape) < 0.1)
    sigma[unknown] = random.choice(np.array([np.nan, np.inf], np.float32), int(unknown.sum()))
    labels = random.choice([1, 1, 1, 2, 2, 0, 3, 4, 5, 6, 7], depth.shape).astype(np.uint8)
    focal = draw(st.floats(5.0, 500.0))
    return depth, sigma, labels, Intrinsics(focal, focal * 1.1, width / 2.3, height / 1.9, width,
                                            height)


@st.composite
def some_options(draw: st.DrawFn) -> CloudOptions:
    return CloudOptions(
        voxel_m=draw(st.sampled_from([0.01, 0.05, 1.0])),
        voxel_sigma_scale=draw(st.sampled_from([0.0, 0.2, 10.0])),
        max_bytes=draw(st.sampled_from([64, 200, 1000, 450_000])),
        max_sigma_ratio=draw(st.sampled_from([0.05, 0.15, 1.0])),
        use_prior_only=draw(st.booleans()), clearing_range_m=draw(st.sampled_from([0.5, 4.0])),
        clearing_stride=draw(st.integers(1, 9)))


def qualifying(depth: NDArray, sigma: NDArray, labels: NDArray, options: CloudOptions,
               priors: bool) -> NDArray[np.bool_]:
    allowed = [Provenance.MEASURED, Provenance.FUSED] + [Provenance.PRIOR_ONLY] * priors
    with np.errstate(invalid="ignore", over="ignore"):
        return (np.isin(labels, allowed) & np.isfinite(depth) & (depth > 0) & (depth < 1e6)
                & np.isfinite(sigma) & (sigma <= options.max_sigma_ratio * depth))


# The organised cloud


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


# The obstacle cloud


@given(frames(), some_options())
@settings(max_examples=120, deadline=None)
def test_every_obstacle_is_a_confident_pixel_as_measured(frame, options: CloudOptions):
    depth, sigma, labels, camera = frame
    cloud = obstacle_points(depth, sigma, labels, camera, options)
    points = points_of(cloud)
    pixels = pixels_of(points, camera)
    good = qualifying(depth, sigma, labels, options, options.use_prior_only)
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
    pixels = np.flatnonzero(qualifying(depth, sigma, labels, options, options.use_prior_only))
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


@pytest.mark.parametrize("max_bytes", [64, 1600, 450_000])
def test_a_pole_five_pixels_wide_survives_any_budget(max_bytes: int):
    depth, sigma, labels = plane(6.0)
    depth[:, 30:35], sigma[:, 30:35] = 1.5, 0.03
    cloud = obstacle_points(depth, sigma, labels, CAMERA, replace(OPTIONS, max_bytes=max_bytes))
    points = points_of(cloud)
    assert (points[:, 2] == 1.5).any()
    if max_bytes == 450_000:
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


# The clearing cloud


def clearing_by_hand(depth: NDArray, sigma: NDArray, labels: NDArray, camera: Intrinsics,
                     options: CloudOptions) -> dict[int, float]:
    """Pixel and depth of each ray's end, one square after the other."""
    good = qualifying(depth, sigma, labels, options, priors=False)
    length = ray_grid(camera).length
    with np.errstate(invalid="ignore"):
        near = depth - 2 * sigma
    limit = options.clearing_range_m / length
    stride, found = options.clearing_stride, {}
    for top in range(0, camera.height_px, stride):
        for left in range(0, camera.width_px, stride):
            square = [(row, column)
                      for row in range(top, min(top + stride, camera.height_px))
                      for column in range(left, min(left + stride, camera.width_px))]
            ends, hidden = [], []
            for at in square:
                if good[at] and near[at] > options.min_m:
                    z = min(near[at], limit[at])
                    ends.append((z * length[at], at, z))
                elif depth[at] == np.inf and labels[at] in (1, 2, 6):
                    ends.append((limit[at] * length[at], at, limit[at]))
                elif np.isfinite(depth[at]) or depth[at] == -np.inf:
                    reach = near[at] * length[at]
                    hidden.append(-np.inf if np.isnan(reach) else reach)
            if ends and min(hidden, default=np.inf) >= min(ends)[0]:
                _, (row, column), z = min(ends)
                found[row * camera.width_px + column] = float(z)
    return found


@given(frames(), some_options())
@settings(max_examples=100, deadline=None)
def test_clearing_rays_are_those_found_by_hand(frame, options: CloudOptions):
    depth, sigma, labels, camera = frame
    points = points_of(clearing_points(depth, sigma, labels, camera, options))
    pixels = pixels_of(points, camera)
    assert dict(zip(pixels.tolist(), points[:, 2].tolist())) == pytest.approx(
        clearing_by_hand(depth, sigma, labels, camera, options), rel=1e-5)


@given(frames(), some_options())
@settings(max_examples=100, deadline=None)
def test_no_ray_clears_beyond_two_sigma_before_its_pixel_or_beyond_the_range(
        frame, options: CloudOptions):
    depth, sigma, labels, camera = frame
    cloud = clearing_points(depth, sigma, labels, camera, options)
    points = points_of(cloud)
    pixels = pixels_of(points, camera)
    seen, label = depth.ravel()[pixels], labels.ravel()[pixels]
    measured = np.isfinite(seen)
    with np.errstate(invalid="ignore"):
        safe = (depth - 2 * sigma).ravel()[pixels]
    assert (points[measured, 2] <= safe[measured]).all()
    assert (seen[~measured] == np.inf).all()
    assert np.isin(label[measured], [1, 2]).all() and np.isin(label[~measured], [1, 2, 6]).all()
    reach = np.linalg.norm(points, axis=1)
    assert (reach <= options.clearing_range_m * 1.00001).all()
    assert np.allclose(reach[~measured], options.clearing_range_m, rtol=1e-5)
    squares = -(-camera.width_px // options.clearing_stride) * -(
        -camera.height_px // options.clearing_stride)
    assert len(cloud.data) == 12 * cloud.count <= 12 * squares


def test_a_far_wall_is_cleared_up_to_the_range_with_one_ray_per_square():
    depth, sigma, labels = plane(10.0)
    points = points_of(clearing_points(depth, sigma, labels, CAMERA, OPTIONS))
    assert len(points) == 10 * 8
    assert np.allclose(np.linalg.norm(points, axis=1), 4.0)


def test_background_beside_a_thin_pole_is_not_cleared():
    depth, sigma, labels = plane(6.0)
    depth[:, 33:35], sigma[:, 33:35] = 1.5, 0.03
    points = points_of(clearing_points(depth, sigma, labels, CAMERA, OPTIONS))
    column = points[:, 0] / points[:, 2] * CAMERA.fx_px + CAMERA.cx_px
    beside = (column > 31.5) & (column < 39.5)  # the squares that hold the pole
    assert beside.sum() == 8
    assert (points[beside, 2] <= np.float32(1.44)).all()


@pytest.mark.parametrize("label", UNSURE)
def test_a_nearer_unsure_depth_takes_the_ray_of_its_square_and_a_farther_one_does_not(label):
    depth, sigma, labels = plane(3.0)
    whole = clearing_points(depth, sigma, labels, CAMERA, OPTIONS).count
    labels[10, 10] = label
    for depth_m, lost in ((2.0, 1), (3.5, 0)):
        depth[10, 10] = depth_m
        assert clearing_points(depth, sigma, labels, CAMERA, OPTIONS).count == whole - lost


def test_something_too_near_or_of_unknown_sigma_takes_the_ray_too():
    depth, sigma, labels = plane(3.0)
    whole = clearing_points(depth, sigma, labels, CAMERA, OPTIONS).count
    depth[10, 10], sigma[10, 10] = -np.inf, np.nan
    depth[10, 20], sigma[10, 20] = 0.16, 0.01
    depth[10, 30], sigma[10, 30] = 3.0, np.nan
    depth[10, 50], sigma[10, 50] = np.nan, np.nan  # unknown: neither clears nor forbids
    assert clearing_points(depth, sigma, labels, CAMERA, OPTIONS).count == whole - 3


@pytest.mark.parametrize("label", list(Provenance))
def test_only_infinity_by_evidence_clears(label: Provenance):
    depth, sigma, labels = plane(np.inf)
    sigma[...], labels[...] = np.nan, label
    allowed = (Provenance.MEASURED, Provenance.FUSED, Provenance.OUT_OF_RANGE)
    prior = replace(OPTIONS, use_prior_only=True)
    assert (clearing_points(depth, sigma, labels, CAMERA, prior).count > 0) == (label in allowed)


# All of them


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
