"""Points on the ramp that a network draws from a thing back to its background do not mark."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from cloud_helpers import CAMERA, OPTIONS, frames, pixels_of, plane, points_of, qualifying
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.navigation.cloud import clearing_points, obstacle_points
from depth_fusion_ros.navigation.cloud_options import CloudOptions
from depth_fusion_ros.navigation.rays import ray_grid
from depth_fusion_ros.navigation.veil import is_veil

ALL = replace(OPTIONS, max_incidence_deg=90.0)


def box_before_a_wall(ramp_px: int) -> tuple[np.ndarray, ...]:
    """A box at 1 m, 20 px wide, before a wall at 3 m, with a ramp on its right side."""
    depth, sigma, labels = plane(3.0)
    depth[20:40, 20:40] = 1.0
    steps = np.arange(1, ramp_px + 1) / (ramp_px + 1)
    depth[20:40, 40:40 + ramp_px] = 1 + 2 * steps
    return depth, sigma, labels


@pytest.mark.parametrize("ramp_px", [1, 3, 8])
def test_nothing_on_the_ramp_behind_an_edge_marks(ramp_px: int) -> None:
    frame = box_before_a_wall(ramp_px)
    depth = frame[0]
    marks = points_of(obstacle_points(*frame, CAMERA, OPTIONS))[:, 2]
    between = (marks > 1.01) & (marks < 2.99)
    assert not between.any() and (marks < 1.01).any() and (marks > 2.99).any()
    naive = points_of(obstacle_points(*frame, CAMERA, ALL))[:, 2]
    assert ((naive > 1.01) & (naive < 2.99)).any()
    cloud = obstacle_points(*frame, CAMERA, OPTIONS)
    assert cloud.veil == np.count_nonzero((depth > 1.01) & (depth < 2.99))


def test_sharp_edges_keep_every_pixel() -> None:
    assert not is_veil(box_before_a_wall(0)[0], CAMERA, 80.0).any()


@pytest.mark.parametrize("width_px", [1, 2, 5])
def test_a_thin_thing_is_no_veil(width_px: int) -> None:
    depth = np.full((60, 80), 3.0, np.float32)
    depth[:, 40:40 + width_px] = 1.5
    assert not is_veil(depth, CAMERA, 80.0).any()
    assert not is_veil(depth.T.copy(), replace(CAMERA, width_px=60, height_px=80), 80.0).any()


def test_what_lies_between_the_unknown_and_the_far_is_a_veil() -> None:
    """A thing without depth of its own, and the ramp from it to the wall."""
    depth = np.full((60, 80), 3.0, np.float32)
    depth[:, 30:40], depth[:, 40], depth[:, 41] = np.nan, 2.0, 2.6
    veil = is_veil(depth, CAMERA, 80.0)
    assert veil[:, 40:42].all() and veil.sum() == 120


@given(st.floats(-88, 88), st.floats(46, 89))
def test_a_slanted_wall_is_a_veil_from_the_angle_that_is_said(slant_deg: float, limit_deg: float
                                                              ) -> None:
    """A plane through (0, 0, 1) whose normal is turned away from the axis; near the axis."""
    camera = replace(CAMERA, fx_px=20000.0, fy_px=20000.0)
    x = ray_grid(camera).x
    depth = (1 / (1 - x * math.tan(math.radians(slant_deg)))).astype(np.float32)
    depth = np.broadcast_to(depth, (60, 80))
    if abs(abs(slant_deg) - limit_deg) > 1:
        assert is_veil(depth, camera, limit_deg).any() == (abs(slant_deg) > limit_deg)


@given(frames(), st.floats(45, 90))
@settings(max_examples=60, deadline=None)
def test_what_is_level_with_a_neighbour_of_each_axis_marks(frame, limit_deg: float) -> None:
    depth, sigma, labels, camera = frame
    options = CloudOptions(max_incidence_deg=limit_deg, max_bytes=10**7, voxel_m=0.001,
                           voxel_sigma_scale=0.0, max_sigma_ratio=1.0, surer_square_px=0)
    veil = is_veil(depth, camera, limit_deg)
    good = qualifying(depth, sigma, labels, 1.0, priors=False)
    cloud = obstacle_points(depth, sigma, labels, camera, options)
    kept = pixels_of(points_of(cloud), camera)
    assert not veil.ravel()[kept].any()
    assert cloud.count + cloud.thinned == np.count_nonzero(good & ~veil)
    assert cloud.veil == np.count_nonzero(good & veil)
    for row, column in np.argwhere(veil):
        assert any(_alone(line, at, focal, limit_deg) for line, at, focal in (
            (depth[row], column, camera.fx_px), (depth[:, column], row, camera.fy_px)))


def _alone(line: np.ndarray, at: int, focal_px: float, limit_deg: float) -> bool:
    own = float(line[at])
    beside = [float(line[i]) for i in (at - 1, at + 1) if 0 <= i < len(line)]
    known = [z for z in beside if math.isfinite(z - own)]
    steep = math.tan(math.radians(limit_deg)) / focal_px * (1 - 1e-5)
    return bool(known) and all(abs(z - own) > steep * min(z, own) for z in known) and not (
        len(known) == 2 and min(known) > own)


def test_veils_clear_as_before() -> None:
    frame = box_before_a_wall(8)
    assert clearing_points(*frame, CAMERA, OPTIONS).data == (
        clearing_points(*frame, CAMERA, ALL).data)
    assert clearing_points(*frame, CAMERA, OPTIONS).count > 0


@pytest.mark.parametrize("degrees", [44.0, 91.0, math.nan])
def test_an_angle_that_is_none_is_refused(degrees: float) -> None:
    with pytest.raises(ValueError, match=r"cloud\.max_incidence_deg = .*from 45 to 90"):
        CloudOptions(max_incidence_deg=degrees)
