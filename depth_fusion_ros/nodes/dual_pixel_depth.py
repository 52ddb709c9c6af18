r"""`dual_pixel_depth`: dual-pixel pair (+ RGB, lens state) in, metric depth with an error bar out.

    ros2 run depth_fusion_ros dual_pixel_depth --ros-args \
        -r __ns:=/camera -p model.path:=closed_form

Topics, relative: ``dp/left/image_raw``, ``dp/right/image_raw`` (or the packed ``dp/image_raw``),
``dp/camera_info``, ``rgb/image_rect``, ``rgb/camera_info``, ``lens_state``. Outputs:
ros/outputs.py. Parameters: docs/parameters.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from sensor_msgs.msg import CameraInfo, Image

from depth_fusion_ros.estimation.dual_pixel import DualPixelEstimator
from depth_fusion_ros.evaluation import run_record
from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.depth_node import DepthNode, Result
from depth_fusion_ros.ros.dual_pixel_frames import (
    LENS,
    RGB,
    estimator_options,
    make_estimator,
    needs_lens_state,
    open_backend,
    read_set,
    set_topics,
)
from depth_fusion_ros.ros.lens import LensExpectation
from depth_fusion_ros.ros.parameter_tables import DUAL_PIXEL
from depth_fusion_ros.ros.qos import InputSubscriptions
from depth_fusion_ros.ros.run import run_node
from depth_fusion_ros.ros.synchronisation import InputSet, SetSynchroniser

_REPLAY_SETS = 50
_DEPTH_PER_SET = 4  # subscriptions hold more than the joining does: a late wake-up loses no part


class DualPixelDepth(DepthNode):
    """The lifecycle node of the dual-pixel path."""

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__(DUAL_PIXEL, **node_arguments)
        self.estimator: DualPixelEstimator | None = None
        self._inputs: SetSynchroniser | None = None
        self._input_topics: InputSubscriptions | None = None

    # -- model ----------------------------------------------------------------

    def load(self, values: Mapping[str, Any]) -> None:
        """Load the network, with the CPU as fallback where that is allowed, and warm it up."""
        backend = open_backend(values)
        self.loaded(backend)
        self.estimator = make_estimator(backend, values)

    def unload(self) -> None:
        """Drop the estimator and give its memory back."""
        self.estimator = None
        super().unload()

    def parameters_changed(self, values: Mapping[str, Any]) -> None:
        """Hand new options to the estimator; they hold from the next frame."""
        if self.estimator is not None:
            self.estimator.options = estimator_options(values, self.overload.inference_divisor)

    # -- inputs ----------------------------------------------------------------

    def start_inputs(self, deliver: Callable[[Any], None]) -> None:
        """Subscribe to the topics of the configured layout."""
        values = self.values
        openers, others = set_topics(values)
        self._without_lens, self._lens_expected = others, False
        self._lens_expectation = LensExpectation()
        replay = values["replay.process_all"]
        # A burst brings many views before their other parts; every set counts in a replay. Large
        # queues are for equal stamps only: approximate joining gets slow (ros_comm #800).
        patient = replay and values["input.sync_tolerance_s"] == 0.0
        self._inputs = SetSynchroniser(
            openers, others, self.accounts, deliver, self.drop,
            queue_size=_REPLAY_SETS if patient else values["input.queue_size"],
            back_pressure=replay,
            tolerance_s=values["input.sync_tolerance_s"],
            timeout_s=values["input.sync_timeout_s"],
        )
        types: dict[str, type] = {topic: Image for topic in openers}
        types.update({topic: Image if topic == RGB else CameraInfo for topic in others})
        self._lens_wanted = needs_lens_state(values)
        if self._lens_wanted:
            types[LENS] = LensState
        self.health.inputs.details = self._input_details
        self._input_topics = InputSubscriptions(
            self, types, self._on_message,
            reliability=values["input.reliability"],
            depth=_DEPTH_PER_SET * values["input.queue_size"],
            keep_all=values["replay.process_all"],
        )

    def stop_inputs(self) -> None:
        """Unsubscribe; incomplete sets end as inactive."""
        if self._input_topics is not None:
            self._input_topics.destroy()
            self._input_topics = None
        if self._inputs is not None:
            self._inputs.end_all("inactive", "the node was deactivated")
            self._inputs = None

    def housekeeping(self) -> None:
        """End sets that wait for too long and follow the QoS of publishers."""
        assert self._inputs is not None and self._input_topics is not None
        self._inputs.expire()
        for topic in self._input_topics.follow():
            self.get_logger().info(f"{topic}: its publisher is best effort, following it")
        if self._lens_wanted:
            self._expect_lens(self._lens_expectation.expected(
                time.monotonic(), self.count_publishers(LENS)))

    def _on_message(self, topic: str, message: Any, received_ns: int) -> None:
        if self._inputs is None:
            return  # taken from the middleware just before the node was deactivated
        if self._lens_wanted:
            self._lens_expectation.message(time.monotonic())
            if not self._lens_expected:
                self._expect_lens(topic == LENS or self._lens_expectation.expected(
                    time.monotonic(), self.count_publishers(LENS)))
        self._inputs.add(topic, message, received_ns)

    def _expect_lens(self, expected: bool) -> None:
        """Make sets wait for a lens state, as long as there is somebody who publishes it."""
        if expected != self._lens_expected:
            assert self._inputs is not None
            self._lens_expected = expected
            self._inputs.require(self._without_lens + ((LENS,) if expected else ()))

    def _input_details(self) -> dict[str, Any]:
        inputs, subscriptions = self._inputs, self._input_topics
        if inputs is None or subscriptions is None:
            return {}
        details: dict[str, Any] = {"max_skew_ms": inputs.max_skew_ms}
        for topic in inputs.required:
            details[f"messages.{topic}"] = inputs.messages[topic]
            details[f"unsynced.{topic}"] = inputs.unsynced[topic]
        return details | subscriptions.details()

    # -- one set ----------------------------------------------------------------

    def process(self, item: InputSet) -> Result:
        """Worker thread: messages -> arrays -> estimate."""
        start = time.perf_counter()
        estimator = self.estimator
        assert estimator is not None
        read = read_set(item.messages, item.stamp_ns, self.values, self.anchor.correction)
        lens = read.frame.lens
        self.health.lens(read.resolved.scale_state, read.resolved.reason, {
            "focus_diopters": lens.focus_diopters if lens else None,
            "kappa": lens.kappa if lens else None,
            "disparity_gain_px_m": lens.disparity_gain_px_m if lens else None,
        })
        convert_ms = (time.perf_counter() - start) * 1e3
        return Result(estimator.estimate(read.frame), read.rgb, read.info, convert_ms,
                      estimator.options.inference_divisor, read.frame.anchor)

    def versions(self) -> dict[str, str]:
        """Return package → version."""
        return run_record.versions()


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted."""
    return run_node(DualPixelDepth, arguments)


if __name__ == "__main__":
    sys.exit(main())
