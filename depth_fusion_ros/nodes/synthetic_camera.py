r"""`synthetic_camera`: a simulated dual-pixel or focus camera with ground truth.

    ros2 run depth_fusion_ros synthetic_camera --ros-args -r __ns:=/camera -p rate_hz:=10.0

``kind: dual_pixel`` renders ``frames`` frames at start, then publishes them in a loop with new
stamps: ``dp/left/image_raw`` and ``dp/right/image_raw`` (or ``dp/image_raw``, packed),
``dp/camera_info``, ``rgb/image_rect``, ``rgb/camera_info``, ``lens_state``,
``ground_truth/depth``.

``kind: focus`` renders one scene at many focus settings at start, then takes images with the focus
that the parameter ``lens_position_diopters`` asks for; topics: ros/focus_source.py. With
focus_sweep_controller remap ``lens_state`` to ``lens_state_untagged``. Parameters:
docs/parameters.md.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from threading import Event, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.focus_source import FocusSource, focus_topics
from depth_fusion_ros.ros.lens import lens_to_state
from depth_fusion_ros.ros.messages import array_to_image, intrinsics_to_camera_info
from depth_fusion_ros.ros.parameter_tables import SYNTHETIC_CAMERA
from depth_fusion_ros.ros.qos import output_qos, overridable
from depth_fusion_ros.ros.run import run_node
from depth_fusion_ros.simulation.sequence import SimulatedFrame, simulate_sequence

LEFT, RIGHT, PACKED = "dp/left/image_raw", "dp/right/image_raw", "dp/image_raw"
DP_INFO, RGB, RGB_INFO = "dp/camera_info", "rgb/image_rect", "rgb/camera_info"
LENS, TRUTH = "lens_state", "ground_truth/depth"
SETTLE_S = 1.0
_OPTIONAL = {LENS: "publish_lens_state", TRUTH: "publish_ground_truth"}


class SyntheticCamera(Node):
    """Publishes simulated exposures; small messages of a set first, images after them."""

    def __init__(self, **node_arguments: Any) -> None:
        """Declare parameters and start to render.

        Raises:
            ParameterError: a value given at start breaks a rule.
        """
        super().__init__(SYNTHETIC_CAMERA.node_name, **node_arguments)
        self.values = SYNTHETIC_CAMERA.declare(self)
        SYNTHETIC_CAMERA.follow(self, self._apply)
        kinds = _TOPICS[self.values["kind"]](self.values)
        self._outputs = {topic: self.create_publisher(
            kind, topic, output_qos(), qos_overriding_options=overridable())
            for topic, kind in kinds.items()}
        self._sets: list[dict[str, Any]] = []
        self._source: FocusSource | None = None
        self._sent = 0
        self._all_subscribed_s = math.inf
        self._stop = Event()
        self._renderer = Thread(target=self._render, name="render", daemon=True)
        self._renderer.start()
        self._ticks = self.create_timer(1.0 / float(self.values["rate_hz"]), self._publish)

    def destroy_node(self) -> None:
        """Stop rendering before the node's entities go."""
        if hasattr(self, "_stop"):
            self._stop.set()
            self._renderer.join(timeout=10.0)
        super().destroy_node()

    def _render(self) -> None:
        try:
            if self.values["kind"] == "focus":
                self._render_focus()
            else:
                self._render_frames()
        except Exception as error:  # a thread's exception would vanish
            if not self._stop.is_set():
                self.get_logger().fatal(f"cannot render: {error}")

    def _render_focus(self) -> None:
        def progress(done: int, wanted: int) -> bool:
            if done % 8 == 0 or done == wanted:
                self.get_logger().info(f"rendered focus position {done} of {wanted}")
            return self._stop.is_set()

        values = self.values
        source = FocusSource(values, progress)
        self._source = source
        if self.values["lens_position_diopters"] != values["lens_position_diopters"]:
            source.command(self.values["lens_position_diopters"])  # asked for while rendering

    def _render_frames(self) -> None:
        values, sets = self.values, []
        frames = simulate_sequence(
            frames=values["frames"], width_px=values["width_px"],
            height_px=values["height_px"], seed=values["seed"], camera=values["camera"],
            frames_per_scene=values["frames_per_scene"], device=values["device"],
        )
        for frame in frames:
            if self._stop.is_set():
                return
            sets.append(frame_to_messages(
                frame, values["frame_id"], values["layout"], values["encoding"]))
            self.get_logger().info(f"rendered frame {len(sets)} of {values['frames']}")
        self._sets = sets

    def _publish(self) -> None:
        limit = self.values["max_sets"]
        if not (self._sets or self._source) or (limit and self._sent >= limit):
            return
        if self._sent == 0 and self.values["wait_for_subscribers"] and not self._discovered():
            return
        stamp = self.get_clock().now().to_msg()
        if self._source:
            header = Header(stamp=stamp, frame_id=self.values["frame_id"])
            messages = self._source.messages(header)
        else:
            messages = self._sets[self._sent % len(self._sets)]
        for topic, message in messages.items():
            if topic in _OPTIONAL and not self.values[_OPTIONAL[topic]]:
                continue
            message.header.stamp = stamp
            self._outputs[topic].publish(message)
        self._sent += 1
        if limit and self._sent == limit:
            self.get_logger().info(f"{limit} sets sent (max_sets); silent from now on")

    def _discovered(self) -> bool:
        """Whether every topic has had a subscriber for `SETTLE_S`.

        The writer knows of a reader before the reader knows of the writer; what is sent in
        between is lost to a reader without history.
        """
        now = time.monotonic()
        if not all(o.get_subscription_count() for o in self._outputs.values()):
            self._all_subscribed_s = math.inf
            return False
        self._all_subscribed_s = min(self._all_subscribed_s, now)
        return now - self._all_subscribed_s >= SETTLE_S

    def _apply(self, values: dict[str, Any]) -> None:
        if values["rate_hz"] != self.values["rate_hz"]:
            self.destroy_timer(self._ticks)
            self._ticks = self.create_timer(1.0 / values["rate_hz"], self._publish)
        focus_diopters = values["lens_position_diopters"]
        asked = focus_diopters != self.values["lens_position_diopters"]
        self.values = values
        if asked and self._source:
            self._source.command(focus_diopters)


def _dual_pixel_topics(values: Mapping[str, Any]) -> dict[str, type]:
    views = (LEFT, RIGHT) if values["layout"] == "pair" else (PACKED,)
    return {DP_INFO: CameraInfo, RGB_INFO: CameraInfo, LENS: LensState,
            **dict.fromkeys((*views, RGB, TRUTH), Image)}


_TOPICS = {"dual_pixel": _dual_pixel_topics, "focus": focus_topics}


def frame_to_messages(frame: SimulatedFrame, frame_id: str, layout: str, encoding: str
                      ) -> dict[str, Any]:
    """Return topic -> message of one exposure, stamps unset, in the order of publication.

    Args:
        frame: what the simulator made.
        frame_id: optical frame.
        layout: pair, side_by_side or column_interleaved.
        encoding: mono16 or mono8 for the dual-pixel views.
    """
    header = Header(frame_id=frame_id)
    left: NDArray[Any] = frame.left
    right: NDArray[Any] = frame.right
    if encoding == "mono8":
        left, right = ((view >> 8).astype(np.uint8) for view in (left, right))
    info = intrinsics_to_camera_info(frame.intrinsics, header)
    messages: dict[str, Any] = {
        DP_INFO: info, RGB_INFO: info, LENS: lens_to_state(frame.lens, header),
    }
    if layout == "pair":
        messages[LEFT] = array_to_image(left, encoding, header)
        messages[RIGHT] = array_to_image(right, encoding, header)
    elif layout == "side_by_side":
        messages[PACKED] = array_to_image(np.concatenate([left, right], axis=1), encoding, header)
    else:
        packed = np.stack([left, right], axis=2).reshape(left.shape[0], -1)
        messages[PACKED] = array_to_image(packed, encoding, header)
    messages[RGB] = array_to_image(frame.rgb, "rgb8", header)
    messages[TRUTH] = array_to_image(frame.depth_m, "32FC1", header)
    return messages


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted."""
    return run_node(SyntheticCamera, arguments)


if __name__ == "__main__":
    sys.exit(main())
