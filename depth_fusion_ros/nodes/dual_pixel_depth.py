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

from depth_fusion_ros.estimation.dual_pixel import (
    DualPixelEstimator,
    DualPixelFrame,
    DualPixelOptions,
)
from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.depth_node import DepthNode, Result
from depth_fusion_ros.ros.engine import ConfigureError
from depth_fusion_ros.ros.lens import ANCHORED, LensExpectation, resolve_lens
from depth_fusion_ros.ros.messages import (
    VIEW_ENCODINGS,
    InputError,
    camera_info_to_intrinsics,
    image_to_array,
    image_to_rgb,
    split_views,
)
from depth_fusion_ros.ros.parameter_tables import DUAL_PIXEL
from depth_fusion_ros.ros.qos import InputSubscriptions
from depth_fusion_ros.ros.run import run_node
from depth_fusion_ros.ros.synchronisation import InputSet, SetSynchroniser

LEFT = "dp/left/image_raw"
RIGHT = "dp/right/image_raw"
PACKED = "dp/image_raw"
DP_INFO = "dp/camera_info"
RGB = "rgb/image_rect"
RGB_INFO = "rgb/camera_info"
LENS = "lens_state"
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
        from depth_fusion_ros.estimation.backends import load_backend

        if not values["model.path"]:
            raise ConfigureError(
                "model.path = '': must name a network; set it to a shipped one (difuse_net_s), to "
                "the path of a model card (.json), or to closed_form (no weights needed)"
            )
        backend = load_backend(
            values["model.path"], backend=values["model.backend"], device=values["device"],
            precision=values["model.precision"], sha256=values["model.sha256"],
            threads=values["model.threads"], allow_cpu_fallback=values["allow_cpu_fallback"],
        )
        self.loaded(backend)
        self.estimator = DualPixelEstimator(backend, _options(values))
        if values["model.warmup_iterations"]:
            self.estimator.warm_up(values["model.warmup_width_px"],
                                   values["model.warmup_height_px"],
                                   values["model.warmup_iterations"])

    def unload(self) -> None:
        """Drop the estimator and give its memory back."""
        self.estimator = None
        super().unload()

    def parameters_changed(self, values: Mapping[str, Any]) -> None:
        """Hand new options to the estimator; they hold from the next frame."""
        if self.estimator is not None:
            self.estimator.options = _options(
                values, self.overload.inference_divisor)

    # -- inputs ----------------------------------------------------------------

    def start_inputs(self, deliver: Callable[[Any], None]) -> None:
        """Subscribe to the topics of the configured layout."""
        values = self.values
        openers = (LEFT, RIGHT) if values["dp.layout"] == "pair" else (PACKED,)
        others = (RGB, DP_INFO, RGB_INFO) if values["input.use_rgb"] else (DP_INFO,)
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
        self._lens_wanted = _needs_lens_state(values)
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
        values, messages = self.values, item.messages
        estimator = self.estimator
        assert estimator is not None
        if LEFT in messages:
            left = image_to_array(messages[LEFT], LEFT, VIEW_ENCODINGS)
            right = image_to_array(messages[RIGHT], RIGHT, VIEW_ENCODINGS)
        else:
            packed = image_to_array(messages[PACKED], PACKED, VIEW_ENCODINGS)
            left, right = split_views(packed, values["dp.layout"], PACKED)
        if left.shape != right.shape or left.dtype != right.dtype:
            raise InputError(
                "size_mismatch", RIGHT,
                f"{_shape(right)} against {_shape(left)} on {LEFT}: both views must have one size "
                "and encoding; check the driver",
            )
        height, width = left.shape
        view_intrinsics = camera_info_to_intrinsics(messages[DP_INFO], DP_INFO, width, height)
        if RGB in messages:
            reference, info = messages[RGB], messages[RGB_INFO]
            rgb = image_to_rgb(reference, RGB)
            intrinsics = camera_info_to_intrinsics(info, RGB_INFO, rgb.shape[1], rgb.shape[0])
        else:
            reference, info = messages.get(LEFT) or messages[PACKED], messages[DP_INFO]
            rgb, intrinsics = None, view_intrinsics
        resolved = resolve_lens(messages.get(LENS), values)
        anchor = self.anchor.correction(resolved.scale_state)
        lens = resolved.lens
        if values["anchor.enable"]:
            lens = lens or resolved.nominal
            if lens is not None and anchor is not None:
                resolved = ANCHORED
        self.health.lens(resolved.scale_state, resolved.reason, {
            "focus_diopters": lens.focus_diopters if lens else None,
            "kappa": lens.kappa if lens else None,
            "disparity_gain_px_m": lens.disparity_gain_px_m if lens else None,
        })
        frame = DualPixelFrame(
            left=left, right=right, rgb=rgb, stamp_ns=item.stamp_ns,
            frame_id=reference.header.frame_id, intrinsics=intrinsics, lens=lens,
            scale_state=resolved.scale_state, anchor=anchor,
        )
        convert_ms = (time.perf_counter() - start) * 1e3
        return Result(estimator.estimate(frame), rgb, info, convert_ms)


def _shape(view: Any) -> str:
    return f"{view.shape[1]}x{view.shape[0]} {view.dtype}"


def _needs_lens_state(values: Mapping[str, Any]) -> bool:
    numbers = ("lens.focal_length_m", "lens.f_number", "lens.pixel_pitch_m")
    return (values["lens.focus_source"] == "lens_state"
            or any(values[name] == 0.0 for name in numbers))


def _options(values: Mapping[str, Any], inference_divisor: int = 1) -> DualPixelOptions:
    return DualPixelOptions(
        min_depth_m=values["depth.min_m"],
        max_depth_m=values["depth.max_m"],
        max_sigma_ratio=values["depth.max_sigma_ratio"],
        edge_filter_px=values["depth.edge_filter_px"],
        black_level=values["dp.black_level"],
        white_level=values["dp.white_level"],
        linear_input=values["dp.linear_input"],
        swap_views=values["dp.swap_views"],
        parallax_axis=values["dp.parallax_axis"],
        inference_divisor=inference_divisor,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted."""
    return run_node(DualPixelDepth, arguments)


if __name__ == "__main__":
    sys.exit(main())
