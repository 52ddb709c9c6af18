"""Vague points just behind a surer one do not mark: they may be the same surface."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cloud_helpers import CAMERA, OPTIONS, frames, plane, points_of
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.navigation.cloud import obstacle_points
from depth_fusion_ros.navigation.floor import Floor
from depth_fusion_ros.navigation.surer import SIGMAS, VAGUER, behind_surer

SQUARE_PX = 16
SHAPE = (60, 80)


def behind(*points: tuple[int, int, float, float], square_px: int = SQUARE_PX) -> list[bool]:
    """Whether each of the points (row, column, depth in m, σ in m) is behind a surer one."""
    rows, columns, depth, sigma = zip(*points)
    pixels = np.array(rows) * SHAPE[1] + np.array(columns)
    order = np.argsort(pixels)
    found = behind_surer(pixels[order], np.float32(depth)[order], np.float32(sigma)[order], SHAPE,
                         square_px)
    return list(found[np.argsort(order)])


SURE = (20, 20, 1.0, 0.03)


def test_a_vague_point_up_to_two_sigma_behind_a_surer_one_is_left_out() -> None:
    # 1/1.12 is 0.107 dioptres less than 1/1.0; σ of 0.1 m there is 0.080 dioptres.
    assert behind(SURE, (20, 25, 1.12, 0.1)) == [False, True]


def test_a_point_farther_behind_than_two_sigma_is_another_surface() -> None:
    assert behind(SURE, (20, 25, 1.5, 0.1)) == [False, False]


def test_a_point_before_a_surer_one_always_marks() -> None:
    assert behind(SURE, (20, 25, 0.97, 0.2)) == [False, False]


def test_points_that_are_equally_sure_all_mark() -> None:
    assert behind(SURE, (20, 25, 1.02, 0.031)) == [False, False]


def test_a_surer_point_speaks_for_its_square_and_those_around_alone() -> None:
    far = 3 * SQUARE_PX
    assert behind(SURE, (20, far, 1.12, 0.1)) == [False, False]
    assert behind(SURE, (20, 2 * SQUARE_PX + 15, 1.12, 0.1), square_px=24) == [False, True]


def test_squares_at_the_edges_of_the_image_have_no_neighbours_across_it() -> None:
    left, right = (30, 0, 1.0, 0.03), (29, SHAPE[1] - 1, 1.12, 0.1)
    assert behind(left, right) == [False, False]


def test_the_surest_of_a_square_is_asked_whatever_the_order() -> None:
    vague = (20, 25, 1.12, 0.1)
    others = [(21, 21 + i, 1.05, 0.2) for i in range(3)]
    assert behind(*others, SURE, vague)[-1]
    assert behind(vague, SURE, *others)[0]


def test_zero_lets_all_mark_and_no_points_are_no_error() -> None:
    assert behind(SURE, (20, 25, 1.12, 0.1), square_px=0) == [False, False]
    assert not behind_surer(np.zeros(0, np.intp), np.zeros(0, np.float32),
                            np.zeros(0, np.float32), SHAPE, SQUARE_PX).size


def test_the_smear_of_a_box_does_not_mark_the_open_space_behind_it() -> None:
    depth, sigma, labels = plane(1.2)
    sigma[:] = 0.05
    depth[::7, ::5], sigma[::7, ::5] = 1.38, 0.16
    steep = replace(OPTIONS, max_incidence_deg=90.0)  # or these pixels were veils
    cloud = obstacle_points(depth, sigma, labels, CAMERA, steep)
    assert points_of(cloud)[:, 2].max() < 1.25
    assert cloud.behind == np.count_nonzero(depth > 1.3)
    naive = obstacle_points(depth, sigma, labels, CAMERA, replace(steep, surer_square_px=0))
    assert points_of(naive)[:, 2].max() > 1.35


def test_floor_that_does_not_mark_speaks_for_nothing_that_stands_behind_it() -> None:
    """A box on the floor, vaguer than the floor before it, is marked."""
    height_m = 0.4
    depth, sigma, labels = plane(1.3)
    rows = np.arange(depth.shape[0])[:, None]
    slope = (rows - CAMERA.cy_px) / CAMERA.fy_px
    floor_m = np.where(slope > 0, height_m / np.maximum(slope, 1e-6), 99.0)
    is_floor = np.broadcast_to(floor_m < 1.25, depth.shape)
    assert 0 < is_floor.sum() < depth.size
    depth[is_floor] = np.broadcast_to(floor_m, depth.shape)[is_floor]
    sigma[:] = 0.15
    sigma[is_floor] = 0.01
    options = replace(OPTIONS, floor=Floor(camera_height_m=height_m), max_incidence_deg=90.0)
    cloud = obstacle_points(depth, sigma, labels, CAMERA, options)
    assert cloud.floor > 0 and cloud.behind == 0
    assert (np.abs(points_of(cloud)[:, 2] - 1.3) < 1e-3).any()


@settings(max_examples=60, deadline=None)
@given(frames(), st.integers(1, 40))
def test_what_is_left_out_has_a_nearer_surer_mark_beside_it(
        frame: tuple[np.ndarray, ...], square_px: int) -> None:
    depth, sigma = frame[:2]
    pixels = np.flatnonzero((depth > 0.05) & np.isfinite(depth) & (sigma > 0) & np.isfinite(sigma))
    z, s = depth.ravel()[pixels], sigma.ravel()[pixels]
    found = behind_surer(pixels, z, s, depth.shape, square_px)
    with np.errstate(over="ignore"):
        q, sq = 1 / z, s / z / z
    v, u = np.divmod(pixels, depth.shape[1])
    for i in np.flatnonzero(found):
        beside = (abs(v - v[i]) < 2 * square_px) & (abs(u - u[i]) < 2 * square_px)
        gap = (q - q[i]) / sq[i]
        surer = beside & (gap >= 0) & (gap <= SIGMAS * 1.001) & (sq <= VAGUER * sq[i] * 1.001)
        assert (surer & ~found).any()


def test_one_that_is_left_out_itself_speaks_for_none() -> None:
    """Else a chain of ever vaguer points would lose things far behind the one that marks."""
    first, second, third = (20, 10, 1.0, 0.02), (20, 26, 1.05, 0.05), (20, 42, 1.2, 0.1)
    assert behind(second, third) == [False, True]
    assert behind(first, second, third) == [False, True, False]


@pytest.mark.parametrize("bad", [-1, 1001])
def test_an_option_out_of_range_is_refused_by_name(bad: int) -> None:
    with pytest.raises(ValueError, match=f"cloud.surer_square_px = {bad}"):
        replace(OPTIONS, surer_square_px=bad)
