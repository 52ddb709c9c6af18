"""A small costmap, and clouds for it: what the tests of the costmap model share."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np

from depth_fusion_ros.navigation.costmap import VoxelCostmap

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
