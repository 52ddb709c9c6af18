"""Heights, ranges, small groups and scans of the costmap model: what of a cloud counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from costmap_helpers import INF, NAN, columns, costmap, flat, pose, row_of_voxels, see
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.navigation.costmap import VoxelCostmap
from depth_fusion_ros.navigation.costmap_grid import without_small_groups


def test_the_default_max_obstacle_height_drops_all_that_is_above_the_floor() -> None:
    grid = costmap(voxel_layer__mark__max_obstacle_height=None)
    see(grid, "mark", (1.0, 0.0, 0.01), (1.0, 1.0, 0.5))
    assert len(grid.marked_cells) == 0
    see(grid, "mark", (1.0, 0.0, 0.0))
    assert len(grid.marked_cells) == 1
    grid = costmap(voxel_layer__clear__max_obstacle_height=None)
    row_of_voxels(grid)
    see(grid, "clear", (1.95, 0.05, 0.5))
    assert columns(grid) == list(range(22, 40))


def test_heights_are_filtered_before_clearing() -> None:
    floor = (1.95, 0.05, 0.0)
    for least_m, cleared in ((0.2, False), (-1.0, True)):
        grid = costmap(voxel_layer__clear__min_obstacle_height=least_m)
        see(grid, "mark", (0.35, 0.05, 0.42))
        see(grid, "mark")
        see(grid, "clear", floor)
        assert (len(grid.marked_cells) == 0) is cleared


def test_the_layers_height_limit_is_for_marks_only() -> None:
    grid = costmap(voxel_layer__clear__marking=True, voxel_layer__max_obstacle_height=0.55)
    row_of_voxels(grid)
    see(grid, "clear", (1.05, 0.05, 0.56))
    assert columns(grid) == list(range(29, 40)), "the ray to a point above the limit clears"
    see(grid, "clear", (1.05, 1.05, 0.56))
    assert columns(grid) == list(range(29, 40)), "the point does not mark"


def test_obstacle_ranges_are_measured_in_space_by_a_voxel_layer() -> None:
    ranges = {"voxel_layer__mark__obstacle_min_range": 0.5,
              "voxel_layer__mark__obstacle_max_range": 1.5}
    near, far = (0.55 - 1e-6, 0.05, 0.5), (1.55, 0.05, 0.5)
    high = (1.5, 0.05, 1.5)  # 1.45 m away in the plane, 1.76 m in space
    inside = [(0.55 + 1e-6, 0.05, 0.5), (1.55 - 1e-6, 0.05, 0.5)]
    grid = costmap(**ranges)
    see(grid, "mark", near, far, high)
    assert len(grid.marked_cells) == 0
    see(grid, "mark", *inside)
    assert columns(grid) == [25, 35]
    grid = flat(**ranges)
    see(grid, "mark", near, high)
    assert columns(grid) == [35]


def test_raytrace_ranges_bound_what_a_ray_clears() -> None:
    grid = costmap(voxel_layer__clear__raytrace_min_range=0.5,
                   voxel_layer__clear__raytrace_max_range=1.0)
    row_of_voxels(grid)
    see(grid, "clear", (1.95, 0.05, 0.5))
    # Ends in cell 37, 17 cells on; from 5 cells on, 10/17 of the remaining 12: 7 steps.
    assert columns(grid) == [22, 23, 24, *range(33, 40)]
    row_of_voxels(grid := costmap(voxel_layer__clear__raytrace_min_range=1.8))
    see(grid, "clear", (1.95, 0.05, 0.5))
    assert columns(grid) == list(range(22, 40)), "it ends before the least range"


def with_denoise(first: bool = False, **denoise: Any) -> dict[str, Any]:
    plugins = ["denoise", "voxel_layer"] if first else ["voxel_layer", "denoise"]
    return {"plugins": plugins, "denoise": {"plugin": "nav2_costmap_2d::DenoiseLayer", **denoise}}


@pytest.mark.parametrize(("denoise", "kept"), [
    (with_denoise(), 5), (with_denoise(minimal_group_size=1), 6),
    (with_denoise(minimal_group_size=3), 3), (with_denoise(minimal_group_size=4), 0),
    (with_denoise(group_connectivity_type=4), 3), (with_denoise(enabled=False), 6),
    (with_denoise(first=True), 6),
])
def test_denoising_removes_small_groups(denoise: dict[str, Any], kept: int) -> None:
    grid = costmap(**denoise)
    single, diagonal = [(1.05, 1.05, 0.5)], [(1.05, -1.05, 0.5), (1.15, -0.95, 0.5)]
    corner = [(-1.05, 0.05, 0.5), (-0.95, 0.05, 0.5), (-0.95, 0.15, 0.5)]
    see(grid, "mark", *single, *diagonal, *corner)
    assert len(grid.marked_cells) == kept
    assert grid.marked_voxels.sum() == 6, "the layer itself keeps them"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.sampled_from([4, 8]))
def test_groups_are_removed_whole_or_kept_whole(seed: int, least: int, connectivity: int) -> None:
    label = pytest.importorskip("scipy.ndimage").label
    lethal = np.random.default_rng(seed).random((12, 15)) < 0.3
    groups, _ = label(lethal, np.ones((3, 3)) if connectivity == 8 else None)
    expected = lethal & (np.bincount(groups.ravel())[groups] >= least)
    np.testing.assert_array_equal(without_small_groups(lethal, least, connectivity), expected)


def scan_costmap(**changes: Any) -> VoxelCostmap:
    scan = {"data_type": "LaserScan", "marking": True, "clearing": True, "inf_is_valid": True,
            "max_obstacle_height": 2.0, "obstacle_max_range": 1.2, **changes}
    grid = flat(voxel_layer__observation_sources="mark scan", voxel_layer__scan=scan)
    row_of_voxels(grid)
    return grid


def scan(grid: VoxelCostmap, range_m: float, range_max_m: float = 8.0) -> list[int]:
    grid.receive_scan("scan", [range_m, NAN], [0.0, 1.0], (0.1, range_max_m), pose(), 0.0)
    grid.update(0.0)
    return columns(grid)


def test_only_infinity_that_is_valid_clears() -> None:
    everything = list(range(22, 40))
    assert scan(scan_costmap(), INF) == []
    assert scan(scan_costmap(inf_is_valid=False), INF) == everything
    assert all(scan(scan_costmap(), value) == everything for value in (NAN, -INF, 0.05, 8.0))


def test_a_beam_clears_up_to_what_it_hits_and_marks_that() -> None:
    assert scan(scan_costmap(), 1.0) == list(range(30, 40))
    assert scan(scan_costmap(marking=False), 1.0) == list(range(31, 40))


def test_infinity_builds_a_wall_where_marks_reach_range_max() -> None:
    assert scan(scan_costmap(), INF, range_max_m=1.15) == list(range(31, 40))
    assert scan(scan_costmap(obstacle_max_range=1.1), INF, range_max_m=1.15) == list(range(32, 40))


def test_scans_go_to_scan_sources_with_an_angle_for_each_range() -> None:
    with pytest.raises(ValueError, match="takes no scan; use receive"):
        costmap().receive_scan("mark", [1.0], [0.0], (0.1, 8.0), pose(), 0.0)
    with pytest.raises(ValueError, match="each range its angle"):
        scan_costmap().receive_scan("scan", [1.0], [0.0, 0.1], (0.1, 8.0), pose(), 0.0)
