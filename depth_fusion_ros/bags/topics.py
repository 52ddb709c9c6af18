"""Topic names and recorded QoS of the wire contract, relative to the camera's namespace."""

from __future__ import annotations

from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)

DEFAULT_NAMESPACE = "/camera"
DEFAULT_FRAME_ID = "camera_rgb_optical_frame"

LEFT_IMAGE = "dp/left/image_raw"
RIGHT_IMAGE = "dp/right/image_raw"
DP_CAMERA_INFO = "dp/camera_info"
RGB_IMAGE = "rgb/image_rect"
RGB_CAMERA_INFO = "rgb/camera_info"
SWEEP_IMAGE = "sweep/image_raw"
SWEEP_CAMERA_INFO = "sweep/camera_info"
LENS_STATE = "lens_state"
TRUTH_DEPTH = "ground_truth/depth"
TRUTH_INVERSE_DEPTH = "ground_truth/relative_inverse_depth"
"""Truth without a scale: 32FC1, right up to scale and shift, larger is nearer, NaN unknown."""
TF_STATIC = "/tf_static"

INPUT_TOPICS = {
    DP_CAMERA_INFO: "sensor_msgs/msg/CameraInfo",
    RGB_CAMERA_INFO: "sensor_msgs/msg/CameraInfo",
    LENS_STATE: "depth_fusion_ros/msg/LensState",
    LEFT_IMAGE: "sensor_msgs/msg/Image",
    RIGHT_IMAGE: "sensor_msgs/msg/Image",
    RGB_IMAGE: "sensor_msgs/msg/Image",
}
"""What a depth node needs for one set, in the order in which a set is written: small ones first."""

SWEEP_INPUT_TOPICS = {
    LENS_STATE: "depth_fusion_ros/msg/LensState",
    SWEEP_CAMERA_INFO: "sensor_msgs/msg/CameraInfo",
    SWEEP_IMAGE: "sensor_msgs/msg/Image",
}
"""The same for one slice of a focus sweep."""

_UNSET = QosTime(0, 0)


def resolve(namespace: str, topic: str) -> str:
    """Return the absolute topic name; a name that starts with '/' is returned unchanged."""
    return topic if topic.startswith("/") else f"/{namespace.strip('/')}/{topic}".replace("//", "/")


def recorded_qos(*, depth: int = 10, latched: bool = False) -> Qos:
    """Return reliable, keep-last QoS as rosbag2 stores it; latched = transient local."""
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=depth,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=_UNSET,
        lifespan=_UNSET,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_UNSET,
        avoid_ros_namespace_conventions=False,
    )
