r"""`lens_state_bridge`: what a camera driver tells of its lens -> one LensState per image.

    ros2 run depth_fusion_ros lens_state_bridge --ros-args -r __ns:=/camera \
        -p lens.focal_length_m:=0.00474 -p lens.f_number:=1.8 -p lens.pixel_pitch_m:=2.8e-6

Subscribes ``sweep/camera_info`` (light: for the stamps of the images) and, by ``source``,
``/diagnostics`` (camera_ros publishes LensPosition there) or ``actuator`` (std_msgs/Int32, driver
steps). Publishes ``lens_state``. An image whose focus nobody told gets NaN, never a guess.
Parameters: docs/parameters.md.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header, Int32

from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.accounting import ThrottledLog
from depth_fusion_ros.ros.diagnostics import OK, WARN, Diagnostics, Status
from depth_fusion_ros.ros.lens_parameter_tables import (
    LENS_STATE_BRIDGE,
    parse_numbers,
)
from depth_fusion_ros.ros.lens_reports import (
    ACTUATOR,
    DIAGNOSTICS,
    FocusReport,
    FocusTable,
    bridged_state,
    report_from_diagnostics,
)
from depth_fusion_ros.ros.messages import InputError, stamp_to_ns
from depth_fusion_ros.ros.outputs import ns_to_stamp
from depth_fusion_ros.ros.qos import InputSubscriptions, output_qos, overridable
from depth_fusion_ros.ros.run import run_node
from depth_fusion_ros.ros.stamp_join import JoinedImage, StampJoin

INFO, LENS = "sweep/camera_info", "lens_state"
_INPUT_DEPTH, _OUTPUT_DEPTH = 50, 32


class LensStateBridge(Node):
    """See the module's text."""

    def __init__(self, **node_arguments: Any) -> None:
        """Declare parameters and subscribe.

        Raises:
            ParameterError: a value given at start breaks a rule.
        """
        super().__init__(LENS_STATE_BRIDGE.node_name, **node_arguments)
        self.values = LENS_STATE_BRIDGE.declare(self)
        LENS_STATE_BRIDGE.follow(self, self._apply)
        values, source = self.values, self.values["source"]
        self._table = FocusTable(parse_numbers(values["table.steps"]),
                                 parse_numbers(values["table.diopters"]))
        self._join: StampJoin[FocusReport] = StampJoin(
            0 if source == "constant" else values["lens.latency_frames"],
            values["report_timeout_s"])
        self._position = FocusReport(math.nan, problem="no_position_yet")
        self._known = 0
        self._unknown: Counter[str] = Counter()
        self._bad_reports: Counter[str] = Counter()
        self._reports = 0
        self._throttled = ThrottledLog(self.get_logger().warning)
        self._output = self.create_publisher(
            LensState, LENS, output_qos(_OUTPUT_DEPTH), qos_overriding_options=overridable())
        types: dict[str, type] = {INFO: CameraInfo}
        if source == "diagnostics":
            types[DIAGNOSTICS] = DiagnosticArray
        elif source == "table":
            types[ACTUATOR] = Int32
        self._heard = {INFO: self._on_info, DIAGNOSTICS: self._on_diagnostics,
                       ACTUATOR: self._on_actuator}
        self._inputs = InputSubscriptions(
            self, types, lambda topic, message, _: self._heard[topic](message),
            reliability=values["input.reliability"], depth=_INPUT_DEPTH, keep_all=False)
        wall = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(0.05, self._on_tick, clock=wall)
        self.diagnostics = Diagnostics(self, {"lens state": self._status},
                                       values["diagnostics.period_s"])
        self._last_unknown: Counter[str] = Counter()

    def _apply(self, values: dict[str, Any]) -> None:
        self.values = values

    # -- in -------------------------------------------------------------------------------------

    def _on_info(self, info: CameraInfo) -> None:
        stamp_ns = stamp_to_ns(info.header.stamp)
        source = self.values["source"]
        if source == "table":  # steps have no stamp: the last ones belong to this image
            self._join.report(stamp_ns, self._position)
        elif source == "constant":
            self._join.report(stamp_ns, FocusReport(self.values["focus_diopters"]))
        self._join.image(stamp_ns, info.header.frame_id, time.monotonic())
        self._publish_due()

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        try:
            report = report_from_diagnostics(
                array, key=self.values["diagnostics.key"],
                status_name=self.values["diagnostics.status_name"])
        except InputError as error:
            report = self._bad(error)
        if report is not None:
            self._reports += 1
            self._join.report(stamp_to_ns(array.header.stamp), report)
            self._publish_due()

    def _on_actuator(self, message: Int32) -> None:
        self._reports += 1
        try:
            self._position = self._table.report(message.data)
        except InputError as error:
            self._position = self._bad(error, message.data)

    def _bad(self, error: InputError, position: int = 0) -> FocusReport:
        self._bad_reports[error.cause] += 1
        self._throttled.line(error.cause, f"focus unknown: {error}")
        return FocusReport(math.nan, position, problem=error.cause)

    def _on_tick(self) -> None:
        for topic in self._inputs.follow():
            self.get_logger().info(f"{topic}: its publisher is best effort, following it")
        self._publish_due()

    # -- out ------------------------------------------------------------------------------------

    def _publish_due(self) -> None:
        for image in self._join.due(time.monotonic(), wait=True):
            self._output.publish(self._state(image))

    def _state(self, image: JoinedImage[FocusReport]) -> LensState:
        report = image.report
        if report is None:
            cause = "no_report" if image.awaited else "first_images"
            report = FocusReport(math.nan, problem=cause)
            if image.awaited:
                self._throttled.line(cause, "focus unknown: no report came for an image within "
                                     f"report_timeout_s = {self.values['report_timeout_s']:g} s; "
                                     "does the driver publish diagnostics.key for each image?")
        if report.problem:
            self._unknown[report.problem] += 1
        else:
            self._known += 1
        state = bridged_state(report, self.values)
        state.header = Header(stamp=ns_to_stamp(image.stamp_ns), frame_id=image.frame_id)
        return state

    def _status(self) -> Status:
        values: dict[str, Any] = {
            "images": self._join.images, "known": self._known, "reports": self._reports}
        values.update({f"unknown.{cause}": n for cause, n in sorted(self._unknown.items())})
        values.update({f"bad_reports.{cause}": n for cause, n in sorted(self._bad_reports.items())})
        values.update({"duplicates": self._join.duplicates, "restarts": self._join.restarts})
        values |= self._inputs.details()
        new = self._unknown - self._last_unknown
        self._last_unknown = self._unknown.copy()
        if new:
            causes = ", ".join(f"{cause} ({n})" for cause, n in sorted(new.items()))
            return Status(WARN, f"images whose focus is unknown: {causes}", values)
        if not self._join.images:
            return Status(WARN, f"no image on {INFO}: check names and namespace", values)
        return Status(OK, "every image has its focus", values)


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted."""
    return run_node(LensStateBridge, arguments)


if __name__ == "__main__":
    sys.exit(main())
