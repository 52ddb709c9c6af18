"""The table of bad inputs: what is done to a good set, and what the node makes of it.

`pytest -k bad_input -v` reads as that table.
"""

from __future__ import annotations

import array
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo

from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.messages import array_to_image

LEFT, RIGHT, PACKED = "dp/left/image_raw", "dp/right/image_raw", "dp/image_raw"
DP_INFO, RGB, RGB_INFO = "dp/camera_info", "rgb/image_rect", "rgb/camera_info"
LENS_STATE = "lens_state"
SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class BadInput:
    """One row.

    Attributes:
        name: what is wrong, for people.
        outcome: ``dropped.<cause>`` or the topic that gets the result instead.
        damage: changes the messages of a good set in place.
        stamp: turns the stamp of the newest good set and the time now into this set's stamp.
        fresh: the node is deactivated and activated first, so that it knows no newest stamp.
    """

    name: str
    outcome: str
    damage: Callable[[dict[str, Any]], Any] = lambda messages: None
    stamp: Callable[[int, int], int] = lambda newest_ns, now_ns: now_ns
    fresh: bool = False

    def __str__(self) -> str:
        return f"{self.name} -> {self.outcome}"


def field(topic: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    """Set fields of one message."""

    def damage(messages: dict[str, Any]) -> None:
        for name, value in changes.items():
            setattr(messages[topic], name, value)

    return damage


def without(topic: str) -> Callable[[dict[str, Any]], None]:
    """Leave a message out."""
    return lambda messages: messages.pop(topic)


def pixels(make: Callable[[Any], Any], encoding: str, *topics: str
           ) -> Callable[[dict[str, Any]], None]:
    """Replace the image on topics by ``make((height, width))``."""

    def damage(messages: dict[str, Any]) -> None:
        for topic in topics:
            old = messages[topic]
            made = np.ascontiguousarray(make((old.height, old.width)))
            messages[topic] = array_to_image(made, encoding, old.header)

    return damage


def zeroed_info(*topics: str) -> Callable[[dict[str, Any]], None]:
    """Publish a camera_info as uncalibrated drivers do: sizes, but K and P all zero."""

    def damage(messages: dict[str, Any]) -> None:
        for topic in topics:
            old = messages[topic]
            messages[topic] = CameraInfo(header=old.header, width=old.width, height=old.height)

    return damage


def absurd_info(*topics: str) -> Callable[[dict[str, Any]], None]:
    """Publish a camera_info in millimetres instead of pixels: no camera has such rays."""

    def damage(messages: dict[str, Any]) -> None:
        for topic in topics:
            info = deepcopy(messages[topic])
            info.p[0] = info.p[5] = info.k[0] = info.k[4] = 0.5
            messages[topic] = info

    return damage


def _nan_hole(shape: tuple[int, int]) -> Any:
    image = np.random.default_rng(0).random(shape, np.float32) * 50000
    image[5:9, 5:9] = np.nan
    return image


def _halved(shape: tuple[int, int]) -> Any:
    return np.ones((shape[0], shape[1] // 2), np.uint16)


BAD_INPUTS = (
    BadInput("encoding yuv422 on the left view", "dropped.bad_encoding",
             field(LEFT, encoding="yuv422")),
    BadInput("empty encoding on the rgb view", "dropped.bad_encoding", field(RGB, encoding="")),
    BadInput("bgr8 on a dual-pixel view", "dropped.bad_encoding", field(RIGHT, encoding="bgr8")),
    BadInput("step smaller than a row", "dropped.bad_step", field(LEFT, step=10)),
    BadInput("step 0 on the rgb view", "dropped.bad_step", field(RGB, step=0)),
    BadInput("data cut in half", "dropped.truncated_data",
             lambda m: setattr(m[RIGHT], "data", m[RIGHT].data[: len(m[RIGHT].data) // 2])),
    BadInput("no data at all", "dropped.truncated_data", field(LEFT, data=array.array("B"))),
    BadInput("height 4294967295", "dropped.truncated_data", field(LEFT, height=2**32 - 1)),
    BadInput("zero size", "dropped.zero_size",
             field(LEFT, width=0, height=0, step=0, data=array.array("B"))),
    BadInput("right half as wide as left", "dropped.size_mismatch",
             pixels(_halved, "mono16", RIGHT)),
    BadInput("left mono16 with right mono8", "dropped.size_mismatch",
             pixels(lambda s: np.ones(s, np.uint8), "mono8", RIGHT)),
    BadInput("NaN in both views", "dropped.nan_image", pixels(_nan_hole, "32FC1", LEFT, RIGHT)),
    BadInput("all pixels equal", "dropped.constant_image",
             pixels(lambda s: np.full(s, 1000, np.uint16), "mono16", LEFT, RIGHT)),
    BadInput("stamp one second before the newest", "dropped.stamp_backwards",
             stamp=lambda newest_ns, now_ns: newest_ns - SECOND_NS),
    BadInput("stamp of the newest set again", "dropped.repeated_stamp",
             stamp=lambda newest_ns, now_ns: newest_ns),
    BadInput("stamp with negative seconds", "dropped.bad_stamp",
             stamp=lambda newest_ns, now_ns: -5 * SECOND_NS),
    BadInput("left view missing", "dropped.missing_left", without(LEFT)),
    BadInput("right view missing", "dropped.missing_right", without(RIGHT)),
    BadInput("rgb view missing", "dropped.missing_rgb", without(RGB)),
    BadInput("rgb camera_info missing", "dropped.missing_camera_info", without(RGB_INFO)),
    BadInput("dp camera_info missing", "dropped.missing_camera_info", without(DP_INFO)),
    BadInput("lens state missing from a lens that reports", "dropped.missing_lens_state",
             without(LENS_STATE)),
    BadInput("rgb camera_info all zeros", "dropped.camera_info_zero", zeroed_info(RGB_INFO)),
    BadInput("dp camera_info all zeros", "dropped.camera_info_zero", zeroed_info(DP_INFO)),
    BadInput("camera_info of another size", "dropped.camera_info_size",
             field(RGB_INFO, width=640, height=480)),
    BadInput("rgb camera_info with a focal length of half a pixel", "dropped.camera_info_absurd",
             absurd_info(RGB_INFO)),
    BadInput("f-number -2", "dropped.lens_state_invalid", field(LENS_STATE, f_number=-2.0)),
    BadInput("focus infinite in dioptres", "dropped.lens_state_invalid",
             field(LENS_STATE, focus_diopters=float("inf"))),
    BadInput("focus nan (unknown)", "relative/inverse_depth",
             field(LENS_STATE, focus_diopters=float("nan"))),
    BadInput("focal length 0 (unknown)", "relative/inverse_depth",
             field(LENS_STATE, focal_length_m=0.0)),
    BadInput("lens uncalibrated", "relative/inverse_depth",
             field(LENS_STATE, focus_calibration=LensState.CALIBRATION_UNCALIBRATED)),
    BadInput("a minute old", "dropped.stale",
             stamp=lambda newest_ns, now_ns: now_ns - 60 * SECOND_NS, fresh=True),
)
"""Layout pair."""

PACKED_BAD_INPUTS = (
    BadInput("side_by_side with odd width", "dropped.odd_width",
             pixels(lambda s: np.ones((s[0], s[1] - 1), np.uint16), "mono16", PACKED)),
    BadInput("side_by_side with truncated data", "dropped.truncated_data",
             field(PACKED, data=array.array("B", bytes(100)))),
    BadInput("side_by_side with an rgb8 image", "dropped.bad_encoding",
             field(PACKED, encoding="rgb8")),
)
