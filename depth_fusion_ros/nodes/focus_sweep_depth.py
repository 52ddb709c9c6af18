r"""`focus_sweep_depth`: images of a lens that moves through focus in, metric depth with σ out.

    ros2 run depth_fusion_ros focus_sweep_depth --ros-args \
        -r __ns:=/camera -p model.path:=closed_form

Topics, relative: ``sweep/image_raw``, ``sweep/camera_info``, ``lens_state``. Outputs:
ros/outputs.py, and ``aif/image``. Parameters: docs/parameters.md.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sensor_msgs.msg import CameraInfo, Image

from depth_fusion_ros.estimation.estimate import ScaleState
from depth_fusion_ros.estimation.focus_sweep import FocusSweepEstimator
from depth_fusion_ros.evaluation import run_record
from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.depth_node import DepthNode, Result
from depth_fusion_ros.ros.focus_sweep_frames import (
    make_sweep_estimator,
    open_sweep_backend,
    sweep_estimator_options,
    sweep_frame,
    sweep_options,
)
from depth_fusion_ros.ros.qos import InputSubscriptions
from depth_fusion_ros.ros.run import run_node
from depth_fusion_ros.ros.slice_inputs import IMAGE, INFO, LENS, SliceInputs, SweepItem
from depth_fusion_ros.ros.sweep_parameter_tables import FOCUS_SWEEP

_SUBSCRIPTION_DEPTH = 32
_USED = ("used_complete", "used_incomplete")


class FocusSweepDepth(DepthNode):
    """The lifecycle node of the focus-sweep path."""

    makes_pictures = True

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__(FOCUS_SWEEP, **node_arguments)
        self.estimator: FocusSweepEstimator | None = None
        self._inputs: SliceInputs | None = None
        self._input_topics: InputSubscriptions | None = None
        self._last_message_s = -math.inf

    # -- model ----------------------------------------------------------------

    def load(self, values: Mapping[str, Any]) -> None:
        """Load the network, with the CPU as fallback where that is allowed, and warm it up."""
        backend = open_sweep_backend(values)
        self.loaded(backend)
        self.estimator = make_sweep_estimator(backend, values)

    def unload(self) -> None:
        """Drop the estimator and give its memory back."""
        self.estimator = None
        super().unload()

    def parameters_changed(self, values: Mapping[str, Any]) -> None:
        """Hand new options on; they hold from the next slice and the next sweep."""
        if self.estimator is not None:
            self.estimator.options = sweep_estimator_options(
                values, self.overload.inference_divisor)
        if self._inputs is not None:
            self._inputs.assembler.options = sweep_options(values)

    # -- inputs ----------------------------------------------------------------

    def start_inputs(self, deliver: Callable[[Any], None]) -> None:
        """Subscribe to images, camera_info and lens states."""
        values = self.values
        self._send_on = deliver
        self._inputs = SliceInputs(sweep_options(values), values["model.max_side_px"],
                                   self._slice_dropped)
        self.health.inputs.details = self._input_details
        self._input_topics = InputSubscriptions(
            self, {IMAGE: Image, INFO: CameraInfo, LENS: LensState}, self._on_message,
            reliability=values["input.reliability"], depth=_SUBSCRIPTION_DEPTH,
            keep_all=values["replay.process_all"])

    def _slice_dropped(self, cause: str, sentence: str) -> None:
        self.health.inputs.why_dropped[cause] = sentence
        self.warn_rarely(f"slice {cause}", f"slice dropped ({cause}): {sentence}")

    def stop_inputs(self) -> None:
        """Unsubscribe; the open sweep ends as inactive."""
        if self._input_topics is not None:
            self._input_topics.destroy()
            self._input_topics = None
        inputs, self._inputs = self._inputs, None
        if inputs is not None:
            for _ in inputs.flush("inactive"):
                self.accounts.receive()
                self.drop("inactive", "the node was deactivated")

    def housekeeping(self) -> None:
        """End what waits for too long and follow the QoS of publishers."""
        assert self._inputs is not None and self._input_topics is not None
        for topic in self._input_topics.follow():
            self.get_logger().info(f"{topic}: its publisher is best effort, following it")
        # A replay is held back on purpose: only a silent source can be late.
        patience_s = self.values["sweep.gap_s"] if self.values["replay.process_all"] else 0.0
        if time.monotonic() - self._last_message_s >= patience_s:
            self._pass_on(self._inputs.tick(time.monotonic_ns()))

    def _on_message(self, topic: str, message: Any, received_ns: int) -> None:
        inputs = self._inputs
        if inputs is None:
            return  # taken from the middleware just before the node was deactivated
        if topic == IMAGE:
            done = inputs.add_image(message, received_ns)
        elif topic == INFO:
            done = inputs.add_info(message, received_ns)
        else:
            self.saver.lens_state(message)
            done = inputs.add_lens(message, received_ns, self.values)
        self._pass_on(done)
        self._last_message_s = time.monotonic()  # after back-pressure, if there was any

    def _pass_on(self, items: list[SweepItem]) -> None:
        for item in items:
            self.accounts.receive()
            self._send_on(item)

    def _input_details(self) -> dict[str, Any]:
        inputs, subscriptions = self._inputs, self._input_topics
        if inputs is None or subscriptions is None:
            return {}
        details: dict[str, Any] = {f"messages.{topic}": inputs.messages[topic]
                                   for topic in (IMAGE, INFO, LENS)}
        for key, count in inputs.totals().items():
            details[f"slices.{key}" if key in (*_USED, "received", "pending")
                    else f"slices.dropped.{key}"] = count
        details["restarts"] = inputs.assembler.restarts
        return details | subscriptions.details()

    # -- one sweep ----------------------------------------------------------------

    def process(self, item: SweepItem) -> Result:
        """Worker thread: sweep -> estimate."""
        estimator = self.estimator
        assert estimator is not None
        start = time.perf_counter()
        frame = sweep_frame(item.sweep)
        frame = replace(frame, anchor=self.anchor.correction(frame.scale_state))
        convert_ms = (time.perf_counter() - start) * 1e3
        estimate = estimator.estimate(frame)
        facts = estimate.sweep
        assert facts is not None
        self.health.lens(estimate.scale_state, _REASONS[estimate.scale_state], {
            "focus_diopters": ", ".join(f"{d:.3f}" for d in item.sweep.focus_diopters),
            "coverage_diopters": facts.coverage_diopters,
            "largest_gap_diopters": facts.largest_gap_diopters,
            "missing_slices": item.sweep.missing, "motion_px": facts.motion_px,
            "blur_gain_px_m": facts.blur_gain_px_m,
            "blur_gain_told_px_m": facts.told_blur_gain_px_m})
        if facts.told_blur_gain_px_m and facts.blur_gain_px_m != facts.told_blur_gain_px_m:
            self.warn_rarely("blur_gain", (
                f"the slices blur by {facts.blur_gain_px_m:.2f} px per dioptre, lens_state's "
                f"focal_length_m / f_number and camera_info say {facts.told_blur_gain_px_m:.2f}: "
                "the slices are believed; correct f_number"))
        if facts.reason:
            self.warn_rarely("motion", f"sweep {item.stamp_ns}: {facts.reason}")
        return Result(estimate, estimate.all_in_focus, item.info, convert_ms,
                      estimator.options.inference_divisor, frame.anchor)

    def versions(self) -> dict[str, str]:
        """Return package → version."""
        return run_record.versions()


_REASONS = {
    ScaleState.ANCHORED: "metric: dioptres corrected by anchor/range",
    ScaleState.ABSOLUTE: "metric: calibrated lens state",
    ScaleState.NOMINAL: "metric but nominal: the lens reports its dioptres as not calibrated",
    ScaleState.RELATIVE: "the lens reports its dioptres as not calibrated (focus_calibration): "
                         "calibrate it, or set lens.allow_nominal",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted."""
    return run_node(FocusSweepDepth, arguments)


if __name__ == "__main__":
    sys.exit(main())
