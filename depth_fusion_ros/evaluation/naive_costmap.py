"""The costmap that tutorials set up for a depth camera: one source that marks and clears.

    parameters = naive_parameters(shipped)
    costmap.receive("points", one_per_cube(points, 0.025), pose, stamp_s)
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.navigation.costmap import VoxelCostmap
from depth_fusion_ros.navigation.costmap_config import SourceConfig


def naive_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return Nav2 parameters with one source, ``points``, that marks and clears with all ranges.

    Grid, layer, heights and ranges of marks stay; raytrace ranges are those of the source that
    clears. Its height limits cut the floor, as in Nav2's tutorials, and so do for its rays.
    """
    costmap = VoxelCostmap.from_parameters(parameters)
    marks, clears = sources_of(costmap)
    naive = deepcopy(dict(parameters))
    layer = naive[costmap.layer.name]
    layer["observation_sources"] = "points"
    layer["points"] = {
        **layer[marks.name], "topic": "/camera/points", "clearing": True,
        "raytrace_min_range": clears.raytrace_min_range_m,
        "raytrace_max_range": clears.raytrace_max_range_m}
    return naive


def sources_of(costmap: VoxelCostmap) -> tuple[SourceConfig, SourceConfig]:
    """Return the source that marks and the one that clears; they may be the same."""
    sources = costmap.layer.sources
    marks = [s for s in sources if s.marking]
    clears = [s for s in sources if s.clearing]
    if len(marks) != 1 or len(clears) != 1:
        raise ValueError(
            f"{costmap.layer.name}.observation_sources: {len(marks)} of them mark and "
            f"{len(clears)} clear; one of each is needed, as in config/nav2/voxel_layer.yaml")
    return marks[0], clears[0]


def one_per_cube(points: NDArray[np.float32], edge_m: float) -> NDArray[np.float32]:
    """Return the finite points (N, 3…), of those in one cube of `edge_m` the first only."""
    points = points[np.isfinite(points[:, :3]).all(axis=1)]
    cubes = np.floor(points[:, :3] / edge_m).astype(np.int64) + (1 << 19)
    _, first = np.unique((cubes[:, 0] << 40) + (cubes[:, 1] << 20) + cubes[:, 2],
                         return_index=True)
    return points[np.sort(first)]
