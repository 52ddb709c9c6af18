"""A model in NumPy of Nav2's observation buffer and voxel layer, for tests and evaluation.

It answers what a robot would see: which cells an obstacle cloud marks, which a clearing cloud
clears, and whether the layer still calls itself current. It runs on the YAML that Nav2 runs on.
Kept as in Nav2 (main, a3a97043e, 2026-08), because users fall over it:

* the height limits of a source hold in the global frame, before marking *and* clearing; those of
  the layer hold for marking only; NaN and ±Inf are dropped;
* with observation_persistence 0 the newest cloud is used again at each update, however old;
* an update first clears with all clearing clouds, then marks with all marking ones;
* a ray clears up to 2 cells short of its end, along Bresenham's line through the voxels, and not
  at all where the sensor is outside the volume;
* marks count from obstacle_min_range on, and nearer than obstacle_max_range: a distance in space in
  a VoxelLayer, in the plane in an ObstacleLayer (up to it; rays clear to their last cell there);
* a source that was silent for longer than its expected_update_rate makes the layer not current.

Different from Nav2: the window rolls only where `recentre` is called; cells under the robot's
footprint are not cleared; there is no inflation and no second layer; poses are given, so no cloud
waits for TF or is lost; points are not rounded to float32. In an ObstacleLayer, ranges of marks are
compared in metres and not once more in cells, and a ray that leaves the map is cut where it does: a
cell's difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depth_fusion_ros.navigation.costmap_buffer import Observation, ObservationBuffer, scan_points
from depth_fusion_ros.navigation.costmap_config import (
    CLOUD,
    CostmapConfig,
    LayerConfig,
    SourceConfig,
    parameter_warnings,
    read_costmap,
)
from depth_fusion_ros.navigation.costmap_grid import (
    Bools,
    Floats,
    Ints,
    crossed_voxels,
    shifted,
    without_small_groups,
)

__all__ = ["FREE", "LETHAL", "UNKNOWN", "VoxelCostmap", "parameter_warnings"]

FREE, LETHAL, UNKNOWN = 0, 254, 255
"""Costs of a cell."""


class VoxelCostmap:
    """One voxel (or obstacle) layer of a costmap, and the denoise layer after it.

    Cells are (row, column): rows along y, columns along x of the global frame, from the corner at
    `origin_m`. All times are seconds of one clock.

    Attributes:
        config: what the parameters say. layer: the layer that is modelled.
        origin_m: (3,) float64 x, y, z of the volume's corner, global frame.
        warnings: what Nav2 would have logged at the last update; [] = nothing.
    """

    def __init__(
        self, config: CostmapConfig, *, layer: str = "", centre_m: tuple[float, float] = (0.0, 0.0),
        start_s: float = 0.0,
    ) -> None:
        """As `from_parameters`, from what `read_costmap` returns."""
        self.config = config
        self.layer = _chosen_layer(config, layer)
        size = np.array([config.width_cells, config.height_cells], float) * config.resolution_m
        self.origin_m: Floats = np.append(
            np.array(centre_m, float) - size / 2, self.layer.origin_z_m)
        self._voxel_m = np.array(
            [config.resolution_m, config.resolution_m, self.layer.z_resolution_m])
        shape = (self.layer.z_voxels, config.height_cells, config.width_cells)
        self._marked: Bools = np.zeros(shape, bool)
        self._unknown: Bools = np.ones(shape, bool)
        self._costs: NDArray[np.uint8] = np.full(
            shape[1:], UNKNOWN if config.track_unknown_space else FREE, np.uint8)
        self._buffers = {s.name: ObservationBuffer(s, start_s) for s in self.layer.sources}
        self.warnings: list[str] = []

    @classmethod
    def from_parameters(
        cls, parameters: Mapping[str, Any], *, layer: str = "",
        centre_m: tuple[float, float] = (0.0, 0.0), start_s: float = 0.0,
    ) -> VoxelCostmap:
        """Build the costmap that a Nav2 YAML describes.

        Args:
            parameters: the dict under local_costmap: local_costmap: ros__parameters.
            layer: name of a VoxelLayer or ObstacleLayer in `plugins`; "" = the first of them.
            centre_m: x, y of the map's centre, global frame. A rolling window has the robot
                there; see `recentre`. rolling_window, origin_x and origin_y are not read.
            start_s: when the layer was activated; silence counts from here on.

        Raises:
            ValueError: see `read_costmap`; or there is no such layer.
        """
        return cls(read_costmap(parameters), layer=layer, centre_m=centre_m, start_s=start_s)

    def receive(
        self, source: str, points_m: ArrayLike, sensor_pose: ArrayLike, stamp_s: float,
        *, received_s: float | None = None,
    ) -> None:
        """Put a cloud into the buffer of a source; `update` uses it.

        Args:
            source: its name in observation_sources.
            points_m: (N, 3) x, y, z in the sensor's frame, metres; N may be 0; NaN and ±Inf are
                dropped. Of a LaserScan source: points projected already.
            sensor_pose: (4, 4) rigid transform, global from sensor.
            stamp_s: time of the measurement. received_s: time of arrival, from which silence
                counts; None = stamp_s.

        Raises:
            ValueError: no such source, or an array of another shape or kind.
        """
        self._buffer(source).add(
            points_m, sensor_pose, stamp_s, stamp_s if received_s is None else received_s)

    def receive_scan(
        self, source: str, ranges_m: ArrayLike, angles_rad: ArrayLike,
        range_limits_m: tuple[float, float], sensor_pose: ArrayLike, stamp_s: float,
        *, received_s: float | None = None,
    ) -> None:
        """Project a scan as Nav2 does and put it into the buffer of a LaserScan source.

        Only with inf_is_valid does +Inf clear: as a point 0.1 mm before range_max, which also
        marks if obstacle_max_range reaches so far.

        Args:
            ranges_m, angles_rad: (N,) each; angles from x towards y of the sensor's frame.
            range_limits_m: range_min and range_max of the message.
            source, sensor_pose, stamp_s, received_s: as in `receive`.

        Raises:
            ValueError: as `receive`; or the source takes point clouds.
        """
        config = self._buffer(source).source
        if config.data_type == CLOUD:
            raise ValueError(
                f"{self.layer.name}.{source}.data_type = {CLOUD} takes no scan; use receive")
        points = scan_points(ranges_m, angles_rad, range_limits_m, config.inf_is_valid)
        self.receive(source, points, sensor_pose, stamp_s, received_s=received_s)

    def update(self, now_s: float) -> bool:
        """Clear, then mark, with the clouds in the buffers; `warnings` is written anew.

        Returns:
            Whether the layer is current: every source that marks or clears came in time. Nav2's
            controller stops the robot where it is not. A disabled layer does nothing and is.
        """
        self.warnings = []
        if not self.layer.enabled:
            return True
        used = [b for b in self._buffers.values() if b.source.marking or b.source.clearing]
        current = True
        for buffer in used:
            buffer.purge(now_s)
            silent_s = buffer.silent_s(now_s)
            if silent_s is not None:
                current = False
                self.warnings.append(
                    f"{self.layer.name}.{buffer.source.name} has not been updated for "
                    f"{silent_s:.2f} s; it should be every "
                    f"{buffer.source.expected_update_period_s:.2f} s")
        for buffer in used:
            for observation in buffer.observations if buffer.source.clearing else ():
                self._clear(buffer.source, observation)
        for buffer in used:
            for observation in buffer.observations if buffer.source.marking else ():
                self._mark(buffer.source, observation)
        return current

    def recentre(self, x_m: float, y_m: float) -> tuple[int, int]:
        """Roll the window by whole cells until its centre is less than a cell from this point.

        What leaves the window is forgotten, what enters it is not known, as in Nav2.

        Returns:
            Rows and columns by which it moved, towards +y and +x of the global frame.
        """
        size_m = np.array([self.config.width_cells, self.config.height_cells]) * self._voxel_m[:2]
        corner_m = np.array([x_m, y_m]) - size_m / 2
        # Rounded, or a move by a whole cell is none in floats.
        cells = np.trunc(np.round((corner_m - self.origin_m[:2]) / self._voxel_m[:2], 6))
        columns, rows = (int(cell) for cell in cells)
        if rows or columns:
            self.origin_m[:2] += cells * self._voxel_m[:2]
            unknown = UNKNOWN if self.config.track_unknown_space else FREE
            self._marked = shifted(self._marked, rows, columns, False)
            self._unknown = shifted(self._unknown, rows, columns, True)
            self._costs = shifted(self._costs, rows, columns, unknown)
        return rows, columns

    @property
    def costs(self) -> NDArray[np.uint8]:
        """(H, W) uint8, a copy: FREE, LETHAL, or UNKNOWN where track_unknown_space is true."""
        costs = self._costs.copy()
        if not self.config.track_unknown_space:
            costs[costs == UNKNOWN] = FREE
        if self.layer in self.config.layers[: self.config.denoise_after]:
            lethal = costs == LETHAL
            kept = without_small_groups(
                lethal, self.config.denoise_group_cells, self.config.denoise_connectivity)
            costs[lethal & ~kept] = FREE
        return costs

    @property
    def marked_cells(self) -> Ints:
        """(M, 2) int64 row and column of the lethal cells of `costs`, sorted."""
        return np.argwhere(self.costs == LETHAL).astype(np.int64)

    @property
    def marked_voxels(self) -> Bools:
        """(z_voxels, H, W) bool, a copy: the marked voxels, before denoising."""
        return self._marked.copy()

    def cell_of(self, x_m: float, y_m: float) -> tuple[int, int] | None:
        """Return row and column of the cell with this point of the global frame, None = outside."""
        column, row = np.floor((np.array([x_m, y_m]) - self.origin_m[:2]) / self._voxel_m[:2])
        inside = 0 <= row < self.config.height_cells and 0 <= column < self.config.width_cells
        return (int(row), int(column)) if inside else None

    def cell_centres_m(self, cells: ArrayLike) -> Floats:
        """Return (M, 2) x, y of the centres of cells (M, 2) row, column; global frame."""
        rows_columns = np.asarray(cells, np.int64).reshape(-1, 2)
        centres: Floats = self.origin_m[:2] + (rows_columns[:, ::-1] + 0.5) * self._voxel_m[:2]
        return centres

    def _buffer(self, source: str) -> ObservationBuffer:
        if source not in self._buffers:
            raise ValueError(
                f"source = {source!r} is not in {self.layer.name}.observation_sources, which has "
                f"{', '.join(self._buffers) or 'none'}; use one of them")
        return self._buffers[source]

    def _in_voxels(self, points_m: Floats) -> tuple[Floats, Bools]:
        """Return points (N, 3) in voxels from the corner, and which (N,) are in the volume."""
        voxels = (points_m - self.origin_m) / self._voxel_m
        if not self.layer.is_voxel:
            voxels[:, 2] = 0.5
        return voxels, ((voxels >= 0) & (voxels < self._marked.shape[::-1])).all(axis=1)

    def _mark(self, source: SourceConfig, observation: Observation) -> None:
        layer, points = self.layer, observation.points_m
        offsets = points - observation.origin_m
        if layer.is_voxel:
            distances = np.linalg.norm(offsets, axis=1)
            kept = distances < source.obstacle_max_range_m
        else:
            distances = np.hypot(offsets[:, 0], offsets[:, 1])
            kept = distances <= source.obstacle_max_range_m
            kept &= self._in_voxels(observation.origin_m[None])[1]
        kept &= distances >= source.obstacle_min_range_m
        kept &= points[:, 2] >= layer.min_obstacle_height_m
        kept &= points[:, 2] <= layer.max_obstacle_height_m
        points = points[kept]
        # What is below the volume stands in its lowest voxels.
        points[:, 2] = np.maximum(points[:, 2], layer.origin_z_m)
        voxels, inside = self._in_voxels(points)
        x, y, z = voxels[inside].astype(np.int64).T
        self._marked[z, y, x] = True
        self._unknown[z, y, x] = False
        lethal = self._marked[:, y, x].sum(axis=0) > layer.mark_threshold
        self._costs[y[lethal], x[lethal]] = LETHAL

    def _clear(self, source: SourceConfig, observation: Observation) -> None:
        layer, origin = self.layer, observation.origin_m
        if not len(observation.points_m):
            return
        start, inside = self._in_voxels(origin[None])
        if not inside.all():
            corner = self.origin_m + self._voxel_m * self._marked.shape[::-1]
            self.warnings.append(
                f"{layer.name}.{source.name}: the sensor at {_text(origin)} m is outside the "
                f"volume from {_text(self.origin_m)} to {_text(corner)} m, so nothing is cleared; "
                "change origin_z, z_resolution, z_voxels or the size of the map")
            return
        ends, inside = self._in_voxels(self._ray_ends(observation))
        if not layer.is_voxel:  # the 2-D line runs from cell to cell
            start, ends = np.floor(start), np.floor(ends)
        least, most = (
            int(np.ceil(range_m / self.config.resolution_m))
            for range_m in (source.raytrace_min_range_m, source.raytrace_max_range_m))
        shape = (layer.z_voxels, *self._costs.shape)
        crossed = crossed_voxels(shape, start[0], ends[inside], least, most)
        self._marked &= ~crossed
        self._unknown &= ~crossed
        low = crossed.any(axis=0) & (self._marked.sum(axis=0) <= layer.mark_threshold)
        known = self._unknown.sum(axis=0) <= layer.unknown_threshold
        self._costs[low & known] = FREE
        self._costs[low & ~known] = UNKNOWN

    def _ray_ends(self, observation: Observation) -> Floats:
        """Return where the rays to the points stop clearing: (N, 3), global frame, in the volume.

        Those that graze its border may come out just beyond it, and then do not clear.
        """
        origin = observation.origin_m
        rays = observation.points_m - origin
        axes = 3 if self.layer.is_voxel else 2
        if self.layer.is_voxel:
            length = np.maximum(np.linalg.norm(rays, axis=1), 1e-12)
            rays *= np.maximum(1 - 2 * self.config.resolution_m / length, 0)[:, None]
        low = self.origin_m
        high = low + self._voxel_m * self._marked.shape[::-1]
        # Nav2 keeps 1 cm from the ceiling.
        border = np.where(rays > 0, high - np.array([0.0, 0.0, 0.01]), low)
        ends = origin + rays
        outside = ((ends < low) | (ends > high))[:, :axes]
        shares = np.ones_like(outside, float)
        np.divide((border - origin)[:, :axes], rays[:, :axes], out=shares, where=outside)
        share = np.clip(shares.min(axis=1, initial=1.0), 0, 1)
        share -= np.where(outside.any(axis=1) & (share > 0), 1e-5, 0)
        clipped: Floats = origin + rays * share[:, None]
        return clipped


def _chosen_layer(config: CostmapConfig, name: str) -> LayerConfig:
    for layer in config.layers:
        if name in ("", layer.name):
            return layer
    raise ValueError(
        f"layer = {name!r} is not among the VoxelLayer and ObstacleLayer plugins, which are "
        f"{', '.join(layer.name for layer in config.layers) or 'none'}; name one in plugins")


def _text(point_m: Floats) -> str:
    return "({:.2f}, {:.2f}, {:.2f})".format(*point_m)
