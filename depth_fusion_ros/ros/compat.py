"""The one door for ROS packages that have no PyPI wheel.

    from depth_fusion_ros.ros.compat import SimpleFilter, TimeSynchronizer

message_filters and cv_bridge come from the ROS distribution where they are installed; elsewhere
from `depth_fusion_ros.ros.equivalents`, which has just what we use of them. One contract test
(test/test_ros_compat.py) is run against whichever is there, and against both where both are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.ros import equivalents

try:
    from message_filters import ApproximateTimeSynchronizer, SimpleFilter, TimeSynchronizer

    MESSAGE_FILTERS = "message_filters"
except ImportError:
    from depth_fusion_ros.ros.equivalents import (  # type: ignore[assignment]
        ApproximateTimeSynchronizer,
        SimpleFilter,
        TimeSynchronizer,
    )

    MESSAGE_FILTERS = "depth_fusion_ros"

try:
    from cv_bridge import CvBridge
except ImportError:
    CvBridge = None

EXOTIC_ENCODINGS = equivalents.EXOTIC_ENCODINGS
"""Colour encodings that are converted with a copy: name -> (dtype, channels)."""


def exotic_image_to_rgb(msg: Any) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 RGB of an image in one of `EXOTIC_ENCODINGS`; sizes were checked."""
    if CvBridge is not None:
        try:
            return np.asarray(CvBridge().imgmsg_to_cv2(msg, "rgb8"))
        except Exception:  # cv_bridge breaks with OpenCV 5 (KeyError in its type table)
            pass
    return equivalents.exotic_image_to_rgb(msg)


__all__ = [
    "EXOTIC_ENCODINGS", "MESSAGE_FILTERS", "ApproximateTimeSynchronizer", "SimpleFilter",
    "TimeSynchronizer", "exotic_image_to_rgb",
]
