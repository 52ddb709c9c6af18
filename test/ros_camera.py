"""The dual-pixel camera of node tests: publishes good sets, or damaged ones, over real DDS."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from ros_helpers import (
    DP_INFO,
    FRAME_ID,
    LEFT,
    LENS,
    LENS_STATE,
    PACKED,
    RGB,
    RGB_INFO,
    RIGHT,
    Bench,
)
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from depth_fusion_ros.estimation.estimate import Intrinsics
from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.lens import lens_to_state
from depth_fusion_ros.ros.messages import array_to_image, intrinsics_to_camera_info
from depth_fusion_ros.ros.outputs import ns_to_stamp


class Camera:
    """Publishes sets of a textured scene whose two views are displaced."""

    def __init__(self, bench: Bench, *, width_px: int = 96, height_px: int = 64,
                 layout: str = "pair", lens: bool = True, rgb: bool = True, reliable: bool = True,
                 disparity_px: float = 1.0) -> None:
        self._bench = bench
        self.layout = layout
        self.intrinsics = Intrinsics(120.0, 120.0, (width_px - 1) / 2, (height_px - 1) / 2,
                                     width_px, height_px)
        self.left, self.right, self.rgb = textured_views(width_px, height_px, disparity_px)
        views = (LEFT, RIGHT) if layout == "pair" else (PACKED,)
        types: dict[str, type] = dict.fromkeys(views, Image)
        types[DP_INFO] = CameraInfo
        if rgb:
            types[RGB], types[RGB_INFO] = Image, CameraInfo
        if lens:
            types[LENS_STATE] = LensState
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=100,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT)
        self.publishers = {topic: bench.ros.create_publisher(kind, topic, profile)
                           for topic, kind in types.items()}
        bench.wait(lambda: all(p.get_subscription_count() for p in self.publishers.values()),
                   "subscriptions of the node")
        bench.meet()

    def close(self) -> None:
        """Remove the publishers."""
        for publisher in self.publishers.values():
            self._bench.ros.destroy_publisher(publisher)

    def messages(self, stamp_ns: int) -> dict[str, Any]:
        """Return a good set, to be sent or damaged."""
        header = Header(stamp=ns_to_stamp(stamp_ns), frame_id=FRAME_ID)
        info = intrinsics_to_camera_info(self.intrinsics, header)
        made: dict[str, Any] = {DP_INFO: info, RGB_INFO: info,
                                LENS_STATE: lens_to_state(LENS, header),
                                RGB: array_to_image(self.rgb, "rgb8", header)}
        if self.layout == "pair":
            made[LEFT] = array_to_image(self.left, "mono16", header)
            made[RIGHT] = array_to_image(self.right, "mono16", header)
        elif self.layout == "side_by_side":
            packed = np.concatenate([self.left, self.right], axis=1)
            made[PACKED] = array_to_image(packed, "mono16", header)
        else:
            packed = np.stack([self.left, self.right], axis=2).reshape(self.left.shape[0], -1)
            made[PACKED] = array_to_image(packed, "mono16", header)
        return {topic: made[topic] for topic in self.publishers}

    def send(self, stamp_ns: int | None = None, damage: Callable[[dict[str, Any]], Any]
             | None = None) -> int:
        """Publish one set, stamped now unless told otherwise, and return its stamp."""
        stamp_ns = time.time_ns() if stamp_ns is None else stamp_ns
        messages = self.messages(stamp_ns)
        if damage is not None:
            damage(messages)
        for topic, message in messages.items():
            self.publishers[topic].publish(message)
        return stamp_ns


def textured_views(width_px: int, height_px: int, disparity_px: float) -> tuple[Any, Any, Any]:
    """Return left, right (uint16) and rgb (uint8) of smooth noise displaced by a disparity."""
    chance = np.random.default_rng(1)
    noise = chance.normal(size=(height_px, width_px))
    spectrum = np.fft.fft2(noise)
    fy, fx = np.fft.fftfreq(height_px)[:, None], np.fft.fftfreq(width_px)[None]
    spectrum *= np.exp(-((fx**2 + fy**2) / 0.12**2))

    def view(shift_px: float) -> Any:
        moved = np.fft.ifft2(spectrum * np.exp(-2j * np.pi * fx * shift_px)).real
        return 0.5 + 0.12 * moved / moved.std()

    left, right, centre = (np.clip(view(s), 0.02, 0.98)
                           for s in (-disparity_px / 2, disparity_px / 2, 0.0))
    as_counts = [(v * 50000).astype(np.uint16) for v in (left, right)]
    rgb = np.repeat((centre ** (1 / 2.2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    return as_counts[0], as_counts[1], rgb
