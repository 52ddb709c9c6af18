"""Clouds in a robot's frame, through tf2 where it is installed.

tf2_ros and tf_transformations come with a ROS distribution; there are no PyPI wheels of them, so
without a distribution clouds stay in the optical frame.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.ros.engine import ConfigureError


class TransformMissing(LookupError):
    """tf2 does not know the way at that time; the text is its own."""


class FrameChange:
    """Looks up the way from optical frames to one target frame.

    Raises:
        ConfigureError: tf2_ros or tf_transformations is not installed.
    """

    def __init__(self, node: Any, target_frame: str) -> None:
        try:
            import tf2_ros
            import tf_transformations
        except ImportError as error:
            raise ConfigureError(
                f"cloud.frame = {target_frame!r}: needs {error.name}, which is not installed; "
                "install ros-$ROS_DISTRO-tf2-ros and ros-$ROS_DISTRO-tf-transformations, or leave "
                "cloud.frame empty: Nav2 transforms clouds by itself") from error
        self.target_frame = target_frame
        self._matrix_of = tf_transformations.quaternion_matrix
        self._failures: type[Exception] = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node, spin_thread=False)

    def matrix(self, frame_id: str, stamp: Any) -> NDArray[np.float32]:
        """(4, 4) float32 target from frame, at a stamp (builtin_interfaces/Time).

        Raises:
            TransformMissing: tf2 does not know it (yet).
        """
        from rclpy.time import Time

        try:
            found = self._buffer.lookup_transform(
                self.target_frame, frame_id, Time.from_msg(stamp)).transform
        except self._failures as error:
            raise TransformMissing(str(error)) from error
        q, t = found.rotation, found.translation
        matrix = np.asarray(self._matrix_of((q.x, q.y, q.z, q.w)), np.float32)
        matrix[:3, 3] = t.x, t.y, t.z
        return matrix

    def close(self) -> None:
        """Unsubscribe from tf."""
        self._listener.unregister()


def transform_in_place(data: array[int], step_bytes: int, matrix: NDArray[np.float32]) -> None:
    """Re-express the points of a cloud: x y z are its first three float32 fields.

    Args:
        data: points, changed in place. step_bytes: of one, a multiple of 4. NaN stays NaN.
        matrix: (4, 4) new frame from old frame.
    """
    points = np.frombuffer(data, np.float32).reshape(-1, step_bytes // 4)[:, :3]
    points[...] = points @ matrix[:3, :3].T + matrix[:3, 3]
