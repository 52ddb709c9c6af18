"""The clearing cloud: rays that never clear too far."""

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
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import Provenance
from depth_fusion_ros.navigation.cloud import CloudOptions, clearing_points, ray_grid
from depth_fusion_ros.optics.intrinsics import Intrinsics


def clearing_by_hand(depth: NDArray, sigma: NDArray, labels: NDArray, camera: Intrinsics,
                     options: CloudOptions) -> dict[int, float]:
    """Pixel and depth of each ray's end, one square after the other."""
    good = qualifying(depth, sigma, labels, options.clearing_max_sigma_ratio, priors=False)
    length = ray_grid(camera).length
    with np.errstate(invalid="ignore"):
        near = depth - 2 * sigma
    limit = options.clearing_range_m / length
    stride, found = options.clearing_stride, {}
    while -(-camera.height_px // stride) * -(-camera.width_px // stride) * 12 > options.max_bytes:
        stride += 1
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
    assert len(cloud.data) == 12 * cloud.count <= min(12 * squares, options.max_bytes)


def test_a_far_wall_is_cleared_up_to_the_range_with_one_ray_per_square():
    depth, sigma, labels = plane(10.0)
    points = points_of(clearing_points(depth, sigma, labels, CAMERA, OPTIONS))
    assert len(points) == 10 * 8
    assert np.allclose(np.linalg.norm(points, axis=1), 4.0)


def test_over_budget_the_squares_grow_no_more_than_needed():
    depth, sigma, labels = plane(10.0)
    for stride, max_bytes, count in ((1, 12 * 80 * 60, 80 * 60), (1, 12 * 80 * 60 - 1, 40 * 30),
                                     (1, 12 * 100, 10 * 8), (40, 64, 4)):  # 7 px: 12 x 9 squares
        options = replace(OPTIONS, clearing_stride=stride, max_bytes=max_bytes)
        assert clearing_points(depth, sigma, labels, CAMERA, options).count == count


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
