"""The costmap model does what Nav2 does: cases worked by hand, and geometry that always holds."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_fusion_ros.navigation.costmap import FREE, LETHAL, UNKNOWN, VoxelCostmap
from depth_fusion_ros.navigation.costmap_config import parameter_warnings, read_costmap
from depth_fusion_ros.navigation.costmap_grid import crossed_voxels, without_small_groups

NAN, INF = float("nan"), float("inf")

# 40 x 40 cells of 0.1 m around (0, 0); 10 voxels of 0.2 m from the floor up.
PARAMETERS: dict[str, Any] = {
    "width": 4, "height": 4, "resolution": 0.1, "plugins": ["voxel_layer"],
    "voxel_layer": {
        "plugin": "nav2_costmap_2d::VoxelLayer", "origin_z": 0.0, "z_resolution": 0.2,
        "z_voxels": 10, "max_obstacle_height": 1.8, "observation_sources": "mark clear",
        "mark": {"data_type": "PointCloud2", "marking": True, "clearing": False,
                 "max_obstacle_height": 2.0},
        "clear": {"data_type": "PointCloud2", "marking": False, "clearing": True,
                  "min_obstacle_height": -1.0, "max_obstacle_height": 3.0},
    },
}
SENSOR = (0.05, 0.05, 0.5)  # the middle of a cell, of voxel (2, 20, 20)


def changed(**changes: Any) -> dict[str, Any]:
    """PARAMETERS with changes; `a__b__c=v` sets the parameter a.b.c, v = None deletes it."""
    parameters = deepcopy(PARAMETERS)
    for name, value in changes.items():
        *path, last = name.split("__")
        section = parameters
        for key in path:
            section = section[key]
        if value is None:
            section.pop(last, None)
        else:
            section[last] = value
    return parameters


def costmap(**changes: Any) -> VoxelCostmap:
    return VoxelCostmap.from_parameters(changed(**changes))


def flat(**changes: Any) -> VoxelCostmap:
    """The same sources in an ObstacleLayer."""
    parameters = changed(**changes)
    parameters["voxel_layer"]["plugin"] = "nav2_costmap_2d::ObstacleLayer"
    return VoxelCostmap.from_parameters(parameters)


def pose(x: float = SENSOR[0], y: float = SENSOR[1], z: float = SENSOR[2], yaw_rad: float = 0.0
         ) -> np.ndarray:
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, z], [0, 0, 0, 1.0]])


def see(grid: VoxelCostmap, source: str, *points: tuple[float, float, float], at_s: float = 0.0,
        sensor: np.ndarray | None = None) -> bool:
    """Receive points of the global frame and update."""
    sensor = pose() if sensor is None else sensor
    local = (np.reshape(points, (-1, 3)) - sensor[:3, 3]) @ sensor[:3, :3]
    grid.receive(source, local, sensor, at_s)
    return grid.update(at_s)


def row_of_voxels(grid: VoxelCostmap) -> None:
    """Mark the cells 22 to 39 of row 20, at the height of the sensor."""
    see(grid, "mark", *((0.05 + 0.1 * i, 0.05, 0.5) for i in range(2, 20)))
    grid.receive("mark", np.zeros((0, 3)), pose(), 0.0)  # the newest cloud would mark them again
    assert columns(grid) == list(range(22, 40))


def columns(grid: VoxelCostmap) -> list[int]:
    cells = grid.marked_cells
    assert set(cells[:, 0]) <= {20}
    return cells[:, 1].tolist()


def test_a_point_marks_the_cell_and_the_voxel_it_lies_in() -> None:
    grid = costmap()
    see(grid, "mark", (1.23, -0.47, 0.9))
    assert grid.marked_cells.tolist() == [[15, 32]]
    assert np.argwhere(grid.marked_voxels).tolist() == [[4, 15, 32]]
    assert grid.costs[15, 32] == LETHAL and grid.costs.sum() == LETHAL
    assert grid.costs.shape == (40, 40) and grid.costs.dtype == np.uint8
    assert grid.cell_of(1.23, -0.47) == (15, 32) and grid.cell_of(2.01, 0) is None
    np.testing.assert_allclose(grid.cell_centres_m(grid.marked_cells), [[1.25, -0.45]])


@settings(max_examples=60, deadline=None)
@given(st.floats(-1.9, 1.9), st.floats(-1.9, 1.9), st.floats(0.0, 1.8), st.floats(-3.1, 3.1))
def test_the_marked_cell_contains_the_point(x: float, y: float, z: float, yaw_rad: float) -> None:
    grid = costmap(voxel_layer__mark__obstacle_max_range=9.0)
    local = (np.array([[x, y, z]]) - SENSOR) @ pose(yaw_rad=yaw_rad)[:3, :3]
    sensor = pose(yaw_rad=yaw_rad)
    # The way through the sensor's frame costs a rounding error, which may cross a height limit.
    point = local @ sensor[:3, :3].T + SENSOR
    grid.receive("mark", local, sensor, 0.0)
    grid.update(0.0)
    if not 0 <= point[0, 2] <= 1.8:
        return
    (centre,) = grid.cell_centres_m(grid.marked_cells)
    assert np.abs(centre - [x, y]).max() <= 0.05 + 1e-9
    (voxel,) = np.argwhere(grid.marked_voxels)
    assert abs((voxel[0] + 0.5) * 0.2 - z) <= 0.1 + 1e-9


def test_a_point_under_the_volume_stands_in_its_lowest_voxel() -> None:
    grid = costmap(voxel_layer__origin_z=0.3)
    see(grid, "mark", (1.0, 0.0, 0.1))
    assert np.argwhere(grid.marked_voxels)[:, 0].tolist() == [0]


def test_a_ray_clears_up_to_two_cells_short_of_its_end() -> None:
    grid = costmap()
    row_of_voxels(grid)
    see(grid, "clear", (1.55, 0.05, 0.5))  # ends in cell 35, less 0.2 m: in cell 33
    assert columns(grid) == list(range(34, 40))


def test_a_ray_clears_a_voxel_and_not_its_column() -> None:
    grid = costmap()
    see(grid, "mark", (1.05, 0.05, 0.5), (1.05, 0.05, 0.9))
    see(grid, "mark")
    see(grid, "clear", (1.95, 0.05, 0.5))
    assert np.argwhere(grid.marked_voxels).tolist() == [[4, 20, 30]]
    assert columns(grid) == [30]


def test_a_ray_that_leaves_the_volume_clears_to_its_border() -> None:
    grid = costmap(voxel_layer__clear__max_obstacle_height=9.0)
    row_of_voxels(grid)
    see(grid, "clear", (9.0, 0.05, 0.5))
    assert columns(grid) == []
    see(grid, "mark", *((0.05, 0.05, 0.5 + 0.2 * i) for i in range(7)))
    see(grid, "mark")
    assert columns(grid) == [20]
    see(grid, "clear", (0.05, 0.05, 9.0))
    assert not grid.marked_voxels.any()


def test_the_line_through_the_voxels_is_bresenhams() -> None:
    crossed = crossed_voxels((1, 3, 5), np.zeros(3), np.array([[4.0, 2.0, 0.0]]), 0, 99)
    assert np.argwhere(crossed).tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 2], [0, 2, 3], [0, 2, 4]]


coordinates = st.tuples(st.floats(0, 29.9), st.floats(0, 24.9), st.floats(0, 15.9))


@settings(max_examples=100, deadline=None)
@given(coordinates, coordinates)
def test_a_line_is_unbroken_and_stays_beside_the_ray(
        a: tuple[float, ...], b: tuple[float, ...]) -> None:
    start, end = np.array(a), np.array(b)
    crossed = np.argwhere(crossed_voxels((16, 25, 30), start, end[None], 0, 99))[:, ::-1]
    steps = np.abs(end.astype(int) - start.astype(int)).max()
    assert len(crossed) == steps + 1
    for corner in (start, end):
        assert (crossed == corner.astype(int)).all(axis=1).any()
    ray = end - start
    share = np.clip((crossed + 0.5 - start) @ ray / max(ray @ ray, 1e-12), 0, 1)
    beside = np.abs(crossed + 0.5 - start - share[:, None] * ray).max(axis=1)
    assert beside.max() <= 1.5


@pytest.mark.parametrize("cloud", [
    [], [(NAN, NAN, NAN)], [(INF, 0.05, 0.5), (NAN, 0.05, 0.5)], [(1.5, 0.05, -INF)],
])
def test_clouds_of_nothing_clear_nothing(cloud: list[tuple[float, ...]]) -> None:
    grid = costmap()
    row_of_voxels(grid)
    grid.receive("clear", np.reshape(cloud, (-1, 3)), pose(), 1.0)
    assert grid.update(1.0)
    assert columns(grid) == list(range(22, 40)) and grid.warnings == []


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


@pytest.mark.parametrize("sensor", [pose(z=2.1), pose(z=-0.01), pose(x=-2.1), pose(y=2.3)])
def test_a_sensor_outside_the_volume_clears_nothing_and_says_so(sensor: np.ndarray) -> None:
    grid = costmap()
    row_of_voxels(grid)
    see(grid, "clear", (1.95, 0.05, 0.5), sensor=sensor)
    assert columns(grid) == list(range(22, 40))
    (warning,) = grid.warnings
    assert "voxel_layer.clear" in warning and "outside the volume" in warning
    see(grid, "mark", (-0.15, 0.05, 0.5), sensor=pose(x=-1.95, z=2.1))
    assert columns(grid) == [18, *range(22, 40)], "it still marks"
    see(grid, "clear", (1.95, 0.05, 0.5))
    assert grid.warnings == []


def test_an_update_clears_first_and_then_marks() -> None:
    grid = costmap()
    grid.receive("mark", [[1.0, 0, 0]], pose(), 0.0)
    grid.receive("clear", [[1.9, 0, 0]], pose(), 0.0)
    grid.update(0.0)
    assert columns(grid) == [30]


def test_the_newest_cloud_is_used_until_another_comes() -> None:
    grid = costmap()
    see(grid, "mark", (1.05, 0.05, 0.5))
    for second in (1.0, 100.0):
        see(grid, "clear", (1.95, 0.05, 0.5), at_s=second)
        assert columns(grid) == [30], "the old cloud has marked again"
    see(grid, "mark", at_s=101.0)
    assert columns(grid) == []


def test_persistent_observations_are_used_until_they_are_old() -> None:
    grid = costmap(voxel_layer__mark__observation_persistence=1.0)
    see(grid, "mark", (0.85, 0.05, 0.5), at_s=0.0)
    see(grid, "mark", (1.05, 0.05, 0.5), at_s=0.75)
    for second, kept in ((0.8, [28, 30]), (1.25, [30]), (2.0, [])):
        see(grid, "clear", (1.95, 0.05, 0.5), at_s=second)
        assert columns(grid) == kept


def test_a_late_source_makes_the_layer_not_current() -> None:
    grid = costmap(voxel_layer__mark__expected_update_rate=0.5)
    assert grid.update(0.5) and not grid.update(0.51), "silence counts from the start"
    assert see(grid, "mark", (1.0, 0.0, 0.5), at_s=1.1)
    assert grid.update(1.6)
    assert not grid.update(1.7)
    (warning,) = grid.warnings
    assert "voxel_layer.mark" in warning and "0.60 s" in warning
    assert see(grid, "mark", at_s=2.0), "an empty cloud is a sign of life"
    grid.receive("mark", np.zeros((0, 3)), pose(), 2.0, received_s=2.4)
    assert grid.update(2.8), "arrival counts, not the stamp"


def test_sources_that_do_nothing_and_layers_that_are_off_are_never_late() -> None:
    unused = costmap(voxel_layer__mark__expected_update_rate=0.5, voxel_layer__mark__marking=False)
    off = costmap(voxel_layer__mark__expected_update_rate=0.5, voxel_layer__enabled=False)
    assert unused.update(9.0) and off.update(9.0)
    assert see(off, "mark", (1.0, 0.0, 0.5)) and len(off.marked_cells) == 0


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


def test_a_cell_needs_more_marked_voxels_than_the_threshold() -> None:
    grid = costmap(voxel_layer__mark_threshold=1)
    see(grid, "mark", (1.05, 0.05, 0.5))
    assert columns(grid) == []
    see(grid, "mark", (1.05, 0.05, 0.9))
    assert columns(grid) == [30]
    see(grid, "mark")
    see(grid, "clear", (1.95, 0.05, 0.5))
    assert columns(grid) == []


def test_unknown_space_is_tracked_where_that_is_asked_for() -> None:
    assert costmap(voxel_layer__unknown_threshold=5).costs.max() == FREE
    grid = costmap(track_unknown_space=True, voxel_layer__unknown_threshold=8)
    assert grid.costs.min() == UNKNOWN
    see(grid, "clear", (1.95, 0.05, 0.5))
    assert grid.costs[20, 30] == UNKNOWN, "9 voxels of 10 are still unknown"
    see(grid, "clear", (1.95, 0.05, 0.7), sensor=pose(z=0.7))
    assert grid.costs[20, 30] == FREE


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


def test_a_costmap_may_stand_elsewhere_and_have_several_layers() -> None:
    parameters = changed(plugins=["voxel_layer", "second"], second=PARAMETERS["voxel_layer"])
    grid = VoxelCostmap.from_parameters(parameters, layer="second", centre_m=(10.0, -5.0))
    assert grid.layer.name == "second"
    np.testing.assert_allclose(grid.origin_m, [8, -7, 0])
    see(grid, "mark", (10.05, -4.95, 0.5), sensor=pose(x=9.0, y=-5.0))
    assert grid.marked_cells.tolist() == [[20, 20]]


@pytest.mark.parametrize(("changes", "words"), [
    ({"resolution": None}, ["resolution", "missing"]),
    ({"resolution": 0.0}, ["resolution = 0.0", "more than 0"]),
    ({"resolution": 9.0}, ["resolution = 9.0", "smaller"]),
    ({"width": 4.0}, ["width = 4.0", "integer"]),
    ({"plugins": "voxel_layer"}, ["plugins = 'voxel_layer'", "list"]),
    ({"plugins": ["static_layer"]}, ["static_layer", "no section"]),
    ({"plugins": []}, ["layer = ''", "name one"]),
    ({"voxel_layer__z_voxels": 17}, ["z_voxels = 17", "at most 16"]),
    ({"voxel_layer__z_voxels": 0}, ["z_voxels = 0", "at least 1"]),
    ({"voxel_layer__z_resolution": 1}, ["z_resolution = 1", "decimal point"]),
    ({"voxel_layer__observation_sources": "mark ghost"}, ["voxel_layer.ghost", "no section"]),
    ({"voxel_layer__observation_sources": ["mark"]}, ["observation_sources", "string"]),
    ({"voxel_layer__mark": "PointCloud2"}, ["voxel_layer.mark", "not a section"]),
    ({"voxel_layer__mark__data_type": "Range"}, ["mark.data_type = 'Range'", "LaserScan"]),
    ({"voxel_layer__mark__marking": 1}, ["mark.marking = 1", "true or false"]),
    ({"voxel_layer__mark__max_obstacle_height": 2}, ["max_obstacle_height = 2", "2", "double"]),
    ({"voxel_layer__mark__obstacle_max_range": -1.0}, ["obstacle_max_range = -1.0", "at least 0"]),
    ({"voxel_layer__mark__obstacle_max_range": NAN}, ["obstacle_max_range = nan", "finite"]),
])
def test_bad_parameters_are_refused_by_name_value_and_rule(
        changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as refusal:
        VoxelCostmap.from_parameters(changed(**changes))
    assert all(word in str(refusal.value) for word in words), refusal.value


@pytest.mark.parametrize(("arguments", "words"), [
    (("ghost", np.zeros((1, 3)), pose(), 0.0), "'ghost' is not in"),
    (("mark", np.zeros((4, 5, 3)), pose(), 0.0), r"\(4, 5, 3\) must be \(N, 3\)"),
    (("mark", np.zeros((1, 3)), np.eye(3), 0.0), r"\(3, 3\) must be \(4, 4\)"),
    (("mark", np.zeros((1, 3)), 2 * np.eye(4), 0.0), "must be a rigid transform"),
    (("mark", np.zeros((1, 3)), np.diag([1, 1, -1, 1]), 0.0), "must be a rigid transform"),
    (("mark", np.zeros((1, 3)), np.full((4, 4), NAN), 0.0), "must be a rigid transform"),
])
def test_bad_observations_are_refused(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        costmap().receive(*arguments)


def test_scans_go_to_scan_sources_with_an_angle_for_each_range() -> None:
    with pytest.raises(ValueError, match="takes no scan; use receive"):
        costmap().receive_scan("mark", [1.0], [0.0], (0.1, 8.0), pose(), 0.0)
    with pytest.raises(ValueError, match="each range its angle"):
        scan_costmap().receive_scan("scan", [1.0], [0.0, 0.1], (0.1, 8.0), pose(), 0.0)


def test_defaults_are_those_of_nav2() -> None:
    parameters = changed(voxel_layer__observation_sources="mark", voxel_layer__mark={})
    (layer,) = read_costmap(parameters).layers
    (source,) = layer.sources
    assert (layer.mark_threshold, layer.unknown_threshold) == (0, 15)
    assert layer.min_obstacle_height_m == 0
    assert (source.topic, source.data_type) == ("mark", "LaserScan")
    assert source.marking and not source.clearing and not source.inf_is_valid
    assert (source.min_obstacle_height_m, source.max_obstacle_height_m) == (0, 0)
    assert (source.obstacle_min_range_m, source.obstacle_max_range_m) == (0, 2.5)
    assert (source.raytrace_min_range_m, source.raytrace_max_range_m) == (0, 3)
    assert (source.expected_update_period_s, source.observation_persistence_s) == (0, 0)


@pytest.mark.parametrize(("changes", "words"), [
    ({"mark__max_obstacle_height": None}, "max_obstacle_height = 0.0"),
    ({"clear__min_obstacle_height": 0.1}, "cut the floor on a source that only marks"),
    ({"mark__clearing": True}, "let points/clearing clear"),
    ({"mark__expected_update_rate": None}, "expected_update_rate = 0.0"),
    ({"mark__obstacle_min_range": None}, "obstacle_min_range = 0.0"),
    ({"mark__inf_is_valid": True}, "does nothing for a PointCloud2"),
    ({"mark__obstacle_max_range": 3.5}, "never cleared"),
])
def test_each_trap_has_its_warning(changes: dict[str, Any], words: str) -> None:
    clean = {"mark__topic": "/camera/points/obstacles", "mark__expected_update_rate": 0.5,
             "mark__obstacle_min_range": 0.2}
    in_layer = {f"voxel_layer__{name}": value for name, value in clean.items()}
    assert parameter_warnings(changed(**in_layer)) == []
    trap = in_layer | {f"voxel_layer__{name}": value for name, value in changes.items()}
    (warning,) = parameter_warnings(changed(**trap))
    assert warning.startswith("voxel_layer.") and words in warning
