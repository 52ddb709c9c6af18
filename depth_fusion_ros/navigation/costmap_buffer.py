"""Model of Nav2's observation buffer: what is kept of the clouds of one source, in which frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depth_fusion_ros.navigation.costmap_config import SourceConfig

Floats = NDArray[np.float64]

INF_MARGIN_M = 1e-4
"""How far before range_max Nav2 puts +Inf of a scan: at range_max it would be dropped."""


@dataclass(frozen=True)
class Observation:
    """A cloud in the global frame: origin_m (3,) of the sensor, points_m (N, 3), all finite."""

    origin_m: Floats
    points_m: Floats
    stamp_s: float


@dataclass(eq=False)
class ObservationBuffer:
    """The clouds of one source that are in use, the newest first.

    Attributes:
        updated_s: when the newest came, or the layer was activated.
    """

    source: SourceConfig
    updated_s: float
    observations: list[Observation] = field(default_factory=list)

    def add(
        self, points_m: ArrayLike, sensor_pose: ArrayLike, stamp_s: float, received_s: float
    ) -> None:
        """Bring points (N, 3) to the global frame and keep those within the height limits.

        An empty cloud counts too: it replaces the last one and shows that the source lives.

        Raises:
            ValueError: points of another shape, or a pose that is no rigid (4, 4) transform.
        """
        points = np.asarray(points_m, float)
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(
                f"points_m of shape {points.shape} must be (N, 3); reshape an organised cloud")
        pose = _rigid(sensor_pose)
        points = points[np.isfinite(points).all(axis=1)] @ pose[:3, :3].T + pose[:3, 3]
        low_m, high_m = self.source.min_obstacle_height_m, self.source.max_obstacle_height_m
        points = points[(points[:, 2] >= low_m) & (points[:, 2] <= high_m)]
        self.observations.insert(0, Observation(pose[:3, 3].copy(), points, stamp_s))
        self.updated_s = received_s
        self.purge(received_s)

    def purge(self, now_s: float) -> None:
        """Forget the clouds that are no longer used."""
        keep_s = self.source.observation_persistence_s
        if keep_s == 0:
            del self.observations[1:]
        else:
            self.observations = [o for o in self.observations if now_s - o.stamp_s <= keep_s]

    def silent_s(self, now_s: float) -> float | None:
        """Return for how long nothing came, where that is longer than expected; else None."""
        silent_s, period_s = now_s - self.updated_s, self.source.expected_update_period_s
        # Nav2 counts whole nanoseconds.
        return silent_s if period_s > 0 and silent_s > period_s + 1e-9 else None


def scan_points(
    ranges_m: ArrayLike, angles_rad: ArrayLike, range_limits_m: tuple[float, float],
    inf_is_valid: bool,
) -> Floats:
    """Return the points (M, 3) float64 of a scan as Nav2 projects it, in the scan's frame.

    Ranges below range_min or not below range_max are dropped, NaN and ±Inf too. With
    `inf_is_valid`, +Inf becomes a point just before range_max.

    Raises:
        ValueError: ranges and angles are not (N,) both.
    """
    ranges, angles = np.asarray(ranges_m, float), np.asarray(angles_rad, float)
    if ranges.ndim != 1 or ranges.shape != angles.shape:
        raise ValueError(
            f"ranges_m of shape {ranges.shape} and angles_rad of shape {angles.shape} must be "
            "(N,) both; give each range its angle")
    if inf_is_valid:
        ranges = np.where(np.isposinf(ranges), range_limits_m[1] - INF_MARGIN_M, ranges)
    valid = (ranges >= range_limits_m[0]) & (ranges < range_limits_m[1])
    ranges, angles = ranges[valid], angles[valid]
    return np.stack(
        [ranges * np.cos(angles), ranges * np.sin(angles), np.zeros_like(ranges)], axis=1)


def _rigid(sensor_pose: ArrayLike) -> Floats:
    pose = np.asarray(sensor_pose, float)
    if pose.shape != (4, 4):
        raise ValueError(
            f"sensor_pose of shape {pose.shape} must be (4, 4), global from sensor; convert it")
    rotation = pose[:3, :3]
    rigid = (np.isfinite(pose).all() and np.array_equal(pose[3], [0, 0, 0, 1])
             and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4)
             and np.linalg.det(rotation) > 0)
    if not rigid:
        raise ValueError(
            f"sensor_pose = {pose.tolist()} must be a rigid transform with the last row 0 0 0 1; "
            "make its rotation orthonormal")
    return pose
