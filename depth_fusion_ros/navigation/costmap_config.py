"""The parameters of a Nav2 costmap as its YAML has them, checked; and the traps in them.

What is read is the dict under ``local_costmap: local_costmap: ros__parameters:``. Names, types and
defaults are Nav2's, so a file that is refused here would not do on a robot either: ROS 2 takes no
integer where a parameter is a double, Nav2 has 16 bits for the voxels of a column.

Sources: Nav2's configuration guide (costmap_2d, voxel layer, obstacle layer, denoise layer) and its
behaviour at version a3a97043e (2026-08).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CostmapConfig", "LayerConfig", "SourceConfig", "parameter_warnings", "read_costmap"]

MAX_Z_VOXELS = 16
VOXEL_LAYER, OBSTACLE_LAYER = "nav2_costmap_2d::VoxelLayer", "nav2_costmap_2d::ObstacleLayer"
DENOISE_LAYER = "nav2_costmap_2d::DenoiseLayer"
CLOUD, SCAN = "PointCloud2", "LaserScan"


@dataclass(frozen=True)
class SourceConfig:
    """One observation source of a layer.

    Attributes:
        data_type: "PointCloud2" or "LaserScan". inf_is_valid: +Inf of a LaserScan is free space.
        min_obstacle_height_m, max_obstacle_height_m: points outside are dropped before marking and
            clearing alike; z in the global frame.
        obstacle_min_range_m, obstacle_max_range_m: distance from the sensor of points that mark.
        raytrace_min_range_m, raytrace_max_range_m: the part of a ray that clears.
        expected_update_period_s: Nav2's `expected_update_rate`, which is a period; 0 = any.
        observation_persistence_s: age up to which clouds are used again; 0 = the newest only.
    """

    name: str
    topic: str
    data_type: str
    marking: bool
    clearing: bool
    inf_is_valid: bool
    min_obstacle_height_m: float
    max_obstacle_height_m: float
    obstacle_min_range_m: float
    obstacle_max_range_m: float
    raytrace_min_range_m: float
    raytrace_max_range_m: float
    expected_update_period_s: float
    observation_persistence_s: float


@dataclass(frozen=True)
class LayerConfig:
    """A voxel layer, or an obstacle layer (`is_voxel` false: one voxel high, z plays no part).

    Attributes:
        min_obstacle_height_m, max_obstacle_height_m: points outside do not mark; they still clear.
        origin_z_m, z_resolution_m, z_voxels: the columns of voxels; z in the global frame.
        mark_threshold: a cell is lethal with more marked voxels than this.
        unknown_threshold: a cleared cell is unknown with more unknown voxels than this.
    """

    name: str
    is_voxel: bool
    enabled: bool
    min_obstacle_height_m: float
    max_obstacle_height_m: float
    origin_z_m: float
    z_resolution_m: float
    z_voxels: int
    mark_threshold: int
    unknown_threshold: int
    sources: tuple[SourceConfig, ...]


@dataclass(frozen=True)
class CostmapConfig:
    """Size of the costmap, and those of its plugins that are modelled.

    Attributes:
        width_cells, height_cells: cells along x and along y.
        layers: voxel and obstacle layers in the order of `plugins`.
        denoise_after: number of `layers` that stand before the denoise layer; 0 = it sees none.
        denoise_group_cells: smaller groups of lethal cells are removed; 1 = none are.
        denoise_connectivity: neighbours of a cell, 4 or 8.
    """

    width_cells: int
    height_cells: int
    resolution_m: float
    track_unknown_space: bool
    layers: tuple[LayerConfig, ...]
    denoise_after: int
    denoise_group_cells: int
    denoise_connectivity: int


class _Section:
    """A section of the YAML that hands out values of the type ROS 2 declares them with."""

    def __init__(self, values: Any, name: str) -> None:
        if not isinstance(values, Mapping):
            raise ValueError(
                f"{name or 'the parameters'}: {values!r} is not a section of names and values; "
                "give the dict under ros__parameters")
        self.values, self.name = values, name

    def section(self, key: str, listed_in: str) -> _Section:
        if key not in self.values:
            raise ValueError(
                f"{self.label(key)} is named in {listed_in} but has no section; write one, or "
                "take the name out of the list")
        return _Section(self.values[key], self.label(key))

    def label(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def required(self, key: str) -> Any:
        if key not in self.values:
            raise ValueError(f"{self.label(key)} is missing; it is needed, so write it")
        return self.values[key]

    def double(
        self, key: str, default: float | None = None, *, least: float = -math.inf,
        positive: bool = False,
    ) -> float:
        value = self.required(key) if default is None else self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, float):
            raise ValueError(
                f"{self.label(key)} = {value!r} must be a double; ROS 2 takes no other type there, "
                "so write it with a decimal point, as in 3.0")
        if not math.isfinite(value) or value < least or (positive and value <= 0):
            rule = "more than 0" if positive else f"finite and at least {least:g}"
            raise ValueError(f"{self.label(key)} = {value!r} must be {rule}; correct it")
        return value

    def integer(
        self, key: str, default: int | None = None, *, least: int = 0, most: int | None = None
    ) -> int:
        value = self.required(key) if default is None else self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(
                f"{self.label(key)} = {value!r} must be an integer; ROS 2 takes no other type "
                "there, so write it without a decimal point")
        if value < least or (most is not None and value > most):
            upper = "" if most is None else f" and at most {most}"
            raise ValueError(
                f"{self.label(key)} = {value} must be at least {least}{upper}; correct it")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise ValueError(f"{self.label(key)} = {value!r} must be true or false; write one")
        return value

    def string(self, key: str, default: str | None = None) -> str:
        value = self.required(key) if default is None else self.values.get(key, default)
        if not isinstance(value, str):
            raise ValueError(f"{self.label(key)} = {value!r} must be a string; write it in quotes")
        return value


def read_costmap(parameters: Mapping[str, Any]) -> CostmapConfig:
    """Read the dict that a Nav2 YAML has under ros__parameters of a costmap.

    Where Nav2 would go on with a default that nobody means, this refuses: `width`, `height`,
    `resolution` and `plugins` must be there, and so must the section of every source.

    Raises:
        ValueError: a sentence that names the parameter, its value, the rule and the remedy.
    """
    section = _Section(parameters, "")
    resolution_m = section.double("resolution", positive=True)
    cells = {
        # 3 / 0.05 may be 59.999...: whole cells are meant.
        side: math.floor(section.integer(side, least=1) / resolution_m + 1e-9)
        for side in ("width", "height")
    }
    if min(cells.values()) < 1:
        raise ValueError(
            f"resolution = {resolution_m} is more than width = {parameters['width']} or height = "
            f"{parameters['height']}, both m; a costmap needs a cell, so make it smaller")
    plugins = section.required("plugins")
    if not isinstance(plugins, list) or not all(isinstance(name, str) for name in plugins):
        raise ValueError(f"plugins = {plugins!r} must be a list of names, as in [voxel_layer]")
    layers: list[LayerConfig] = []
    denoise_after, group_cells, connectivity = 0, 1, 8
    for name in plugins:
        plugin = section.section(name, "plugins")
        kind = plugin.string("plugin")
        if kind in (VOXEL_LAYER, OBSTACLE_LAYER):
            layers.append(_layer(plugin, name, kind == VOXEL_LAYER))
        elif kind == DENOISE_LAYER and plugin.boolean("enabled", True):
            denoise_after = len(layers)
            group_cells = max(plugin.integer("minimal_group_size", 2), 1)
            connectivity = 4 if plugin.integer("group_connectivity_type", 8) == 4 else 8
    return CostmapConfig(
        cells["width"], cells["height"], resolution_m,
        section.boolean("track_unknown_space", False), tuple(layers), denoise_after, group_cells,
        connectivity)


def _layer(section: _Section, name: str, is_voxel: bool) -> LayerConfig:
    sources = section.string("observation_sources", "").split()
    return LayerConfig(
        name=name,
        is_voxel=is_voxel,
        enabled=section.boolean("enabled", True),
        min_obstacle_height_m=section.double("min_obstacle_height", 0.0),
        max_obstacle_height_m=section.double("max_obstacle_height", 2.0),
        origin_z_m=section.double("origin_z", 0.0) if is_voxel else 0.0,
        z_resolution_m=section.double("z_resolution", 0.2, positive=True) if is_voxel else 1.0,
        z_voxels=section.integer("z_voxels", 10, least=1, most=MAX_Z_VOXELS) if is_voxel else 1,
        mark_threshold=section.integer("mark_threshold", 0) if is_voxel else 0,
        unknown_threshold=section.integer("unknown_threshold", 15) if is_voxel else 1,
        sources=tuple(
            _source(section.section(source, f"{name}.observation_sources"), source)
            for source in sources),
    )


def _source(section: _Section, name: str) -> SourceConfig:
    data_type = section.string("data_type", SCAN)
    if data_type not in (CLOUD, SCAN):
        raise ValueError(
            f"{section.label('data_type')} = {data_type!r} must be {CLOUD} or {SCAN}; Nav2 reads "
            "no other message, so choose one")
    return SourceConfig(
        name=name,
        topic=section.string("topic", name),
        data_type=data_type,
        marking=section.boolean("marking", True),
        clearing=section.boolean("clearing", False),
        inf_is_valid=section.boolean("inf_is_valid", False),
        min_obstacle_height_m=section.double("min_obstacle_height", 0.0),
        max_obstacle_height_m=section.double("max_obstacle_height", 0.0),
        obstacle_min_range_m=section.double("obstacle_min_range", 0.0, least=0.0),
        obstacle_max_range_m=section.double("obstacle_max_range", 2.5, least=0.0),
        raytrace_min_range_m=section.double("raytrace_min_range", 0.0, least=0.0),
        raytrace_max_range_m=section.double("raytrace_max_range", 3.0, least=0.0),
        expected_update_period_s=section.double("expected_update_rate", 0.0, least=0.0),
        observation_persistence_s=section.double("observation_persistence", 0.0, least=0.0),
    )


def parameter_warnings(parameters: Mapping[str, Any]) -> list[str]:
    """Name the classical traps of depth cameras in a costmap that Nav2 would accept as it is.

    Voxel and obstacle layers are looked at, other plugins are not. Each sentence names the
    parameter, its value, what comes of it and what to do; [] = none found.

    Raises:
        ValueError: Nav2 would not accept it; see `read_costmap`.
    """
    layers = read_costmap(parameters).layers
    return [
        f"{layer.name}.{source.name}: {text}"
        for layer in layers for source in layer.sources for text in _traps(layer, source)
    ]


def _traps(layer: LayerConfig, source: SourceConfig) -> Iterator[str]:
    if source.max_obstacle_height_m == 0:
        yield ("max_obstacle_height = 0.0, which is Nav2's default, drops every point above the "
               "floor; set it, for example to 2.0")
    if source.clearing and source.min_obstacle_height_m > 0:
        yield (f"min_obstacle_height = {source.min_obstacle_height_m} drops the rays that end on "
               "the floor before they clear; cut the floor on a source that only marks")
    if source.clearing and source.marking and source.topic.endswith("points/obstacles"):
        yield (f"marking and clearing = true on {source.topic}, whose points are obstacles only, "
               "so that nothing is cleared where an obstacle has gone; let points/clearing clear")
    if source.marking and source.expected_update_period_s == 0:
        yield ("expected_update_rate = 0.0 lets the robot drive on when depth stops coming; it is "
               "a period in seconds, set it, for example to 0.5")
    if source.marking and source.obstacle_min_range_m == 0:
        yield ("obstacle_min_range = 0.0 marks points at the camera itself, (0, 0, 0) for example; "
               "set it to the camera's nearest depth, for example to 0.2")
    if source.inf_is_valid and source.data_type == CLOUD:
        yield ("inf_is_valid = true does nothing for a PointCloud2, whose +Inf is dropped; use "
               "points/clearing, or a LaserScan")
    reach_m = max((s.raytrace_max_range_m for s in layer.sources if s.clearing), default=None)
    if source.marking and reach_m is not None and reach_m < source.obstacle_max_range_m:
        yield (f"obstacle_max_range = {source.obstacle_max_range_m} is beyond the longest "
               f"raytrace_max_range of the layer, {reach_m}: what is marked between them is never "
               "cleared; raise the latter")
