"""The Nav2 files in config/nav2 are what Nav2 takes, avoid its traps, and mark and clear a box."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from depth_fusion_ros.navigation.costmap import VoxelCostmap, parameter_warnings

FOLDER = Path(__file__).resolve().parents[1] / "config" / "nav2"
FILES = ("collision_monitor", "obstacle_scan", "stvl", "voxel_layer")
CAMERA_M = (0.0, 0.0, 0.3)

# Nav2 tutorials' way: one source, and the floor cut on it.
NAIVE = """
local_costmap:
  local_costmap:
    ros__parameters:
      width: 6
      height: 6
      resolution: 0.05
      plugins: [voxel_layer]
      voxel_layer:
        plugin: "nav2_costmap_2d::VoxelLayer"
        z_voxels: 16
        z_resolution: 0.125
        observation_sources: depth
        depth:
          topic: /camera/points/obstacles
          data_type: PointCloud2
          marking: true
          clearing: true
          min_obstacle_height: 0.2
          max_obstacle_height: 2.0
"""


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def costmap_parameters(document: dict[str, Any]) -> dict[str, Any]:
    return document["local_costmap"]["local_costmap"]["ros__parameters"]


def leaves(section: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def seen(box: bool, wall_m: float = 3.4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Look at a floor and a wall, with or without a box 1.5 m away, 0.4 m wide and 0.5 m high.

    Returns the pose (global from optical), the points of obstacles, and the ends of all rays, both
    (N, 3) in the optical frame.
    """
    pose = np.array([[0, 0, 1, CAMERA_M[0]], [-1, 0, 0, CAMERA_M[1]], [0, -1, 0, CAMERA_M[2]],
                     [0, 0, 0, 1.0]])
    v, u = np.mgrid[:48, :64]
    rays = np.stack([(u - 31.5) / 87, (v - 23.5) / 87, np.ones(u.shape)], axis=-1).reshape(-1, 3)
    down = rays[:, 1]
    depth = np.minimum(wall_m, np.divide(CAMERA_M[2], down, out=np.full(len(rays), 99.0),
                                         where=down > 0))
    if box:
        front = rays * 1.5
        depth[(np.abs(front[:, 0]) < 0.2) & (front[:, 1] > CAMERA_M[2] - 0.5)
              & (depth > 1.5)] = 1.5
    ends = rays * depth[:, None]
    return pose, ends[CAMERA_M[2] - ends[:, 1] > 0.02], ends


def shipped() -> VoxelCostmap:
    return VoxelCostmap.from_parameters(costmap_parameters(read("voxel_layer")))


def look(grid: VoxelCostmap, box: bool, at_s: float) -> bool:
    pose, obstacles, ends = seen(box)
    grid.receive("df_mark", obstacles, pose, at_s)
    grid.receive("df_clear", ends, pose, at_s)
    return grid.update(at_s)


def test_these_are_all_the_files() -> None:
    assert tuple(sorted(path.stem for path in FOLDER.glob("*"))) == FILES


@pytest.mark.parametrize("name", FILES)
def test_doubles_are_written_as_doubles(name: str) -> None:
    doubles = ("_height", "_range", "_rate", "_frequency", "_timeout", "_radius", "_factor", "_m",
               "_decay", "_acceleration", "_persistence", "_angle", "min_z", "max_z", "_tolerance",
               "resolution", "origin_z", "_size")
    integers = ("minimal_group_size",)
    for path, value in leaves(read(name)):
        if path.endswith(doubles) and not path.endswith(integers):
            assert not isinstance(value, int) or isinstance(value, bool), f"{path} = {value}"


@pytest.mark.parametrize("name", ["voxel_layer", "obstacle_scan"])
def test_the_model_reads_the_file_and_finds_no_trap(name: str) -> None:
    parameters = costmap_parameters(read(name))
    VoxelCostmap.from_parameters(parameters)
    assert parameter_warnings(parameters) == []


@pytest.mark.parametrize(("name", "layer"), [
    ("voxel_layer", "voxel_layer"), ("stvl", "stvl_layer")])
def test_one_cloud_marks_and_another_clears(name: str, layer: str) -> None:
    parameters = costmap_parameters(read(name))
    section = parameters[layer]
    assert parameters["plugins"] == [layer, "denoise_layer", "inflation_layer"]
    assert parameters["denoise_layer"]["minimal_group_size"] == 2
    assert section["observation_sources"] == "df_mark df_clear"
    mark, clear = section["df_mark"], section["df_clear"]
    assert (mark["topic"], mark["marking"], mark["clearing"]) == (
        "/camera/points/obstacles", True, False)
    assert (clear["topic"], clear["marking"], clear["clearing"]) == (
        "/camera/points/clearing", False, True)
    assert mark["min_obstacle_height"] > 0 > clear["min_obstacle_height"]
    assert min(mark["max_obstacle_height"], clear["max_obstacle_height"]) >= 1.8
    assert mark["expected_update_rate"] == 0.5


def test_stvl_clears_by_its_frustum_and_never_waits_for_the_clearing_source() -> None:
    section = costmap_parameters(read("stvl"))["stvl_layer"]
    mark, clear = section["df_mark"], section["df_clear"]
    assert section["plugin"] == "spatio_temporal_voxel_layer/SpatioTemporalVoxelLayer"
    assert section["voxel_decay"] > 0 and clear["decay_acceleration"] > 0
    assert clear["expected_update_rate"] == 0.0, "STVL does not count it as updated"
    assert clear["max_z"] > mark["obstacle_range"]
    # 320 x 240 px with fx = 435 px: the frustum is within the view.
    assert clear["horizontal_fov_angle"] < 2 * np.arctan(160 / 435)
    assert clear["vertical_fov_angle"] < 2 * np.arctan(120 / 435)


def test_the_collision_monitor_stops_when_depth_stops() -> None:
    section = read("collision_monitor")["collision_monitor"]["ros__parameters"]
    assert section["source_timeout"] == 0.5
    (source,) = section["observation_sources"]
    assert section[source]["type"] == "pointcloud"
    assert section[source]["topic"] == "/camera/points/obstacles"
    assert 0 < section[source]["min_height"] < section[source]["max_height"]
    assert section[source]["min_range"] > 0
    (polygon,) = section["polygons"]
    assert section[polygon]["action_type"] == "stop"
    corners = np.array(yaml.safe_load(section[polygon]["points"]))
    assert corners.shape == (4, 2)
    # It reaches beyond where the camera at the robot's front is blind, by the way it takes to stop.
    assert corners[:, 0].max() >= 0.22 + 0.15 + 0.15
    assert np.ptp(corners[:, 1]) > 2 * 0.22, "as wide as the robot"


@pytest.mark.parametrize("height_m", [0.0, 0.1, 0.5, 1.0, 1.9])
def test_cameras_of_ordinary_height_are_inside_the_volume(height_m: float) -> None:
    grid = shipped()
    pose = seen(box=False)[0]
    pose[2, 3] = height_m
    grid.receive("df_clear", [[0.0, 0.0, 1.0]], pose, 0.0)
    grid.receive("df_mark", np.zeros((0, 3)), pose, 0.0)
    assert grid.update(0.0) and grid.warnings == []


def test_a_box_is_marked_where_it_stands_and_cleared_when_it_has_gone() -> None:
    grid = shipped()
    assert look(grid, box=True, at_s=0.0)
    centres = grid.cell_centres_m(grid.marked_cells)
    box = centres[centres[:, 0] < 2.5]
    assert len(box) >= 7 and np.abs(box[:, 0] - 1.5).max() <= 0.05
    assert np.abs(box[:, 1]).max() <= 0.225, "and the floor around it is free"
    assert look(grid, box=False, at_s=0.1)
    centres = grid.cell_centres_m(grid.marked_cells)
    assert not (centres[:, 0] < 2.5).any(), "one update was enough"
    assert look(grid, box=True, at_s=0.2)
    assert (grid.cell_centres_m(grid.marked_cells)[:, 0] < 2.5).sum() == len(box)


def test_the_box_stays_while_nothing_is_known() -> None:
    grid = shipped()
    look(grid, box=True, at_s=0.0)
    marked = grid.costs
    pose, _, ends = seen(box=False)
    grid.receive("df_mark", np.zeros((0, 3)), pose, 0.1)
    grid.receive("df_clear", np.full_like(ends, np.nan), pose, 0.1)
    assert grid.update(0.1)
    np.testing.assert_array_equal(grid.costs, marked)


def test_old_depth_is_not_current() -> None:
    grid = shipped()
    assert look(grid, box=True, at_s=1.0) and grid.update(1.5)
    assert not grid.update(1.6)
    assert {warning.split()[0] for warning in grid.warnings} == {
        "voxel_layer.df_mark", "voxel_layer.df_clear"}


def test_the_scan_marks_a_box_and_clears_it_with_infinity() -> None:
    grid = VoxelCostmap.from_parameters(costmap_parameters(read("obstacle_scan")))
    pose = np.eye(4)
    pose[2, 3] = 0.3
    angles = np.linspace(-0.35, 0.35, 128)
    box = np.where(np.abs(angles) < 0.13, 1.5 / np.cos(angles), np.inf)
    for ranges, marks in ((box, True), (np.full(128, np.nan), True), (np.full(128, np.inf), False)):
        grid.receive_scan("df_scan", ranges, angles, (0.15, 8.0), pose, 0.0)
        assert grid.update(0.0) and grid.warnings == []
        centres = grid.cell_centres_m(grid.marked_cells)
        assert (len(centres) >= 7) is marks
        assert not marks or np.abs(centres[:, 0] - 1.5).max() <= 0.05


def test_the_naive_file_gets_its_warnings_and_keeps_ghosts() -> None:
    parameters = costmap_parameters(yaml.safe_load(NAIVE))
    warnings = parameter_warnings(parameters)
    for words in ("cut the floor on a source that only marks", "let points/clearing clear",
                  "expected_update_rate = 0.0", "obstacle_min_range = 0.0"):
        assert sum(words in warning for warning in warnings) == 1
    assert len(warnings) == 4
    grid = VoxelCostmap.from_parameters(parameters)
    pose, obstacles, _ = seen(box=True)
    grid.receive("depth", obstacles, pose, 0.0)
    grid.update(0.0)
    before = len(grid.marked_cells)
    grid.receive("depth", np.zeros((0, 3)), pose, 0.1)  # the corridor is empty now
    assert grid.update(0.1) and len(grid.marked_cells) == before > 0


def test_without_its_max_obstacle_height_the_shipped_file_is_blind() -> None:
    parameters = costmap_parameters(read("voxel_layer"))
    del parameters["voxel_layer"]["df_mark"]["max_obstacle_height"]
    (warning,) = parameter_warnings(parameters)
    assert "voxel_layer.df_mark: max_obstacle_height = 0.0" in warning
    grid = VoxelCostmap.from_parameters(parameters)
    look(grid, box=True, at_s=0.0)
    assert len(grid.marked_cells) == 0
