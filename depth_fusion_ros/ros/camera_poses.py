"""Where the camera of a bag is: in a frame of its tf, or level above a floor that is not recorded.

    poses = CameraPoses(bag, values)
    poses.at(stamp_ns, "camera_rgb_optical_frame")   # (4, 4), or None where tf has a gap
    poses.frame                                       # "odom", or what is assumed
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.transforms import BagTransforms
from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.ros.navigation_parameter_rows import level_from_optical

FIXED_FRAMES = ("odom", "map", "world", "base_footprint", "base_link")
"""Frames whose z = 0 may be the floor (REP-105), the best for a local costmap first. In the last
two the robot stands still: where it drove, what is seen moves past it."""
ASSUMED_HEIGHT_M = 0.3
"""Of a camera that nothing is known of: that of the robot which voxel_layer.yaml is written for."""


class CameraPoses:
    """Poses of one bag's camera in one frame: x, y level, z up, z = 0 the floor.

    Args:
        bag: open. values: parameters of the node: height, pitch and roll of a camera that tf does
            not place.
    """

    def __init__(self, bag: BagReader, values: Mapping[str, Any]) -> None:
        self._transforms = BagTransforms.read(bag)
        height_m = values["floor.camera_height_m"]
        self._level = np.eye(4)
        self._level[:3, :3] = level_from_optical(values)
        self._level[2, 3] = height_m or ASSUMED_HEIGHT_M
        self._said = (f"level, camera at rest {height_m or ASSUMED_HEIGHT_M:g} m above the floor"
                      + ("" if height_m else " (assumed; set floor.camera_height_m)"))
        self._fixed: dict[str, str] = {}
        self._frames: list[str] = []

    @property
    def frame(self) -> str:
        """The frame of the poses given so far, in words; "" before the first."""
        return ", ".join(self._frames)

    def at(self, wanted_ns: int, frame_id: str) -> NDArray[np.float64] | None:
        """(4, 4) fixed ← optical frame at a time; None where tf has none for that time."""
        optical = frame_id.lstrip("/")
        if optical not in self._fixed:
            self._fixed[optical] = self._chosen(optical)
            self._frames.append(self._fixed[optical] or self._said)
        fixed = self._fixed[optical]
        if not fixed:
            return self._level.copy()
        try:
            return self._transforms.matrix(fixed, optical, wanted_ns)
        except BagError:
            return None

    def _chosen(self, optical: str) -> str:
        """The best of the camera's ancestors, with a robot's prefix or without; "" = none."""
        above = self._transforms.ancestors(optical)
        for name in FIXED_FRAMES:
            for frame in above:
                if frame.rsplit("/", 1)[-1] == name:
                    return frame
        return ""
