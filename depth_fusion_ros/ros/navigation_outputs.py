"""The topics that feed navigation: ``points/obstacles``, ``points/clearing`` and ``scan``.

One source marks, another clears (`navigation/cloud.py` says why). Made only where somebody
listens, at most `cloud.max_rate_hz` times a second.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sensor_msgs.msg import LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

from depth_fusion_ros.estimation.estimate import DepthEstimate
from depth_fusion_ros.navigation.cloud import (
    CloudBytes,
    clearing_points,
    is_blind,
    obstacle_points,
)
from depth_fusion_ros.navigation.scan import Scan, level_scan
from depth_fusion_ros.ros.navigation_parameter_rows import (
    cloud_options,
    level_from_optical,
    scan_options,
)
from depth_fusion_ros.ros.transforms import FrameChange, TransformMissing, transform_in_place

OBSTACLES = "points/obstacles"
CLEARING = "points/clearing"
SCAN = "scan"
TYPES: dict[str, type] = {OBSTACLES: PointCloud2, CLEARING: PointCloud2, SCAN: LaserScan}
RATE_SLACK = 0.9
"""Stamps jitter: a frame that comes this share of the period after the last one counts."""

Send = Callable[[str, Callable[[], Any]], None]


def fields(*names: str) -> list[PointField]:
    """float32 fields one after the other."""
    return [PointField(name=name, offset=4 * place, datatype=PointField.FLOAT32, count=1)
            for place, name in enumerate(names)]


_OBSTACLE_FIELDS = fields("x", "y", "z", "sigma")
_CLEARING_FIELDS = fields("x", "y", "z")


class NavigationOutputs:
    """Makes the messages of one node.

    Args:
        frame_change: of `cloud.frame`, or None for clouds in the optical frame.
        warn: gets (key, sentence) when clouds cannot be published.

    Attributes:
        facts: what diagnostics show of the newest clouds.
    """

    def __init__(self, frame_change: FrameChange | None, warn: Callable[[str, str], None]) -> None:
        self._frame_change, self._warn = frame_change, warn
        self._last_ns: int | None = None
        # All keys from the start: diagnostics read them in another thread, and a dict must not
        # grow while it is read.
        self.facts: dict[str, Any] = {
            "without_transform": 0, "blind": 0, "obstacle_points": 0, "obstacle_voxel_m": None,
            "obstacle_points_thinned": 0, "obstacle_points_veil": 0, "obstacle_points_floor": 0,
            "obstacle_points_behind": 0, "clearing_rays": 0, "scan_blind": 0}

    def publish(self, estimate: DepthEstimate, header: Header, values: Mapping[str, Any],
                send: Send, listened: Callable[[str], bool]) -> None:
        """Publish what is enabled and listened to.

        Args:
            estimate: metric. header: of its depth image. values: parameters of the node.
            send: publishes what its second argument makes. listened: whether a topic has a
                subscriber.
        """
        wanted = {topic for topic, name in (
            (OBSTACLES, "cloud.enable_obstacles"), (CLEARING, "cloud.enable_clearing"),
            (SCAN, "scan.enable")) if values[name] and listened(topic)}
        if not wanted or not self._due(estimate.stamp_ns, values["cloud.max_rate_hz"]):
            return
        arrays = (estimate.depth_m, estimate.sigma_m, estimate.provenance, estimate.intrinsics)
        if SCAN in wanted:
            scan = level_scan(*arrays, level_from_optical(values), scan_options(values))
            if values["cloud.silent_when_blind"] and np.isnan(scan.ranges_m).all():
                self.facts["scan_blind"] += 1
                self._warn("scan_blind", "no direction of the scan was measured: it is not "
                           "published, so that the costmap goes stale; see provenance for the "
                           "cause")
            else:
                send(SCAN, lambda: scan_message(
                    scan, Header(stamp=header.stamp, frame_id=values["scan.frame_id"])))
        if wanted <= {SCAN}:
            return
        options = cloud_options(values)
        # Both are needed to know whether anything was seen at all.
        obstacles, rays = obstacle_points(*arrays, options), clearing_points(*arrays, options)
        self.facts.update(obstacle_points=obstacles.count, obstacle_voxel_m=obstacles.voxel_m,
                          obstacle_points_thinned=obstacles.thinned,
                          obstacle_points_veil=obstacles.veil,
                          obstacle_points_floor=obstacles.floor,
                          obstacle_points_behind=obstacles.behind, clearing_rays=rays.count)
        if obstacles.count == 0 and (rays.count == 0 or is_blind(*arrays[:3], options)):
            self.facts["blind"] += 1
            if values["cloud.silent_when_blind"]:
                self._warn("blind", "nothing in the frame was measured well enough to mark: no "
                           "clouds are published, so that the costmap goes stale; see provenance "
                           "for the cause")
                return
        placed = self._placed(header, obstacles, rays)
        if placed is None:
            return
        for topic, cloud, layout in ((OBSTACLES, obstacles, _OBSTACLE_FIELDS),
                                     (CLEARING, rays, _CLEARING_FIELDS)):
            if topic in wanted:
                send(topic, lambda cloud=cloud, layout=layout: cloud_message(  # type: ignore[misc]
                    cloud, layout, placed))

    def close(self) -> None:
        """Let go of tf."""
        if self._frame_change is not None:
            self._frame_change.close()

    def _due(self, stamp_ns: int, rate_hz: float) -> bool:
        last = self._last_ns
        if (rate_hz > 0 and last is not None
                and 0 <= stamp_ns - last < RATE_SLACK * 1e9 / rate_hz):
            return False
        self._last_ns = stamp_ns
        return True

    def _placed(self, header: Header, *clouds: CloudBytes) -> Header | None:
        """Header of the clouds, which are brought into their frame; None = no transform."""
        if self._frame_change is None:
            return header
        try:
            matrix = self._frame_change.matrix(header.frame_id, header.stamp)
        except TransformMissing as error:
            self.facts["without_transform"] += 1
            self._warn("transform", f"clouds are not published: no transform from "
                       f"{header.frame_id} to cloud.frame = {self._frame_change.target_frame}: "
                       f"{error}; publish the robot's tf, or leave cloud.frame empty")
            return None
        for cloud in clouds:
            transform_in_place(cloud.data, cloud.step_bytes, matrix)
        return Header(stamp=header.stamp, frame_id=self._frame_change.target_frame)


def cloud_message(cloud: CloudBytes, layout: list[PointField], header: Header) -> PointCloud2:
    """Unorganised PointCloud2 of finite points."""
    message = PointCloud2(
        header=header, height=1, width=cloud.count, fields=layout, is_bigendian=False,
        point_step=cloud.step_bytes, row_step=cloud.count * cloud.step_bytes, is_dense=True)
    message.data = cloud.data
    return message


def scan_message(scan: Scan, header: Header) -> LaserScan:
    """LaserScan; its ranges are of one moment, as the depth image is."""
    return LaserScan(
        header=header, angle_min=scan.angle_min_rad, angle_max=scan.angle_max_rad,
        angle_increment=scan.angle_increment_rad, range_min=scan.range_min_m,
        range_max=scan.range_max_m, ranges=array("f", scan.ranges_m.tobytes()),
        time_increment=0.0, scan_time=0.0)
