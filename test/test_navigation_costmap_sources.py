"""Sources of the costmap model: how long they count, their parameters, and the traps in those."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from costmap_helpers import NAN, changed, columns, costmap, pose, see

from depth_fusion_ros.navigation.costmap import VoxelCostmap
from depth_fusion_ros.navigation.costmap_config import parameter_warnings, read_costmap


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
