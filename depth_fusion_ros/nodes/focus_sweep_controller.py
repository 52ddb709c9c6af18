r"""`focus_sweep_controller`: drives a camera's lens through focus sweeps and tags the slices.

    ros2 run depth_fusion_ros focus_sweep_controller --ros-args -r __ns:=/camera \
        -p camera.node:=camera -p camera.parameter:=LensPosition

Sets a parameter of the camera's node, waits until the lens has settled, and says in ``lens_state``
which image is the slice of which position (sweep_id, sweep_index, sweep_size); all other images
get sweep_id 0. It hears the images by ``sweep/camera_info`` and, where somebody knows the focus,
``lens_state_untagged`` (the camera's own report, remapped); where nobody does, the focus is what
was commanded. ``~/run_sweep`` (std_srvs/Trigger) takes a sweep now. When a lens counts as settled:
estimation/sweep_control.py. Parameters: docs/parameters.md.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from depth_fusion_ros.estimation.sweep_control import SweepControl
from depth_fusion_ros.estimation.sweep_plan import LensReport
from depth_fusion_ros.msg import LensState
from depth_fusion_ros.ros.accounting import ThrottledLog
from depth_fusion_ros.ros.diagnostics import ERROR, OK, WARN, Diagnostics, Status
from depth_fusion_ros.ros.lens_parameter_tables import (
    FOCUS_SWEEP_CONTROLLER,
    sweep_plan,
)
from depth_fusion_ros.ros.lens_reports import commanded_state
from depth_fusion_ros.ros.managed_node import ManagedNode
from depth_fusion_ros.ros.messages import stamp_to_ns
from depth_fusion_ros.ros.outputs import ns_to_stamp
from depth_fusion_ros.ros.parameter_command import ParameterCommand
from depth_fusion_ros.ros.qos import InputSubscriptions, output_qos, overridable
from depth_fusion_ros.ros.run import run_node
from depth_fusion_ros.ros.stamp_join import JoinedImage, StampJoin

INFO, UNTAGGED, LENS = "sweep/camera_info", "lens_state_untagged", "lens_state"
RETRY_S = 1.0
"""Between two continuous sweeps after a command failed."""
_INPUT_DEPTH, _OUTPUT_DEPTH = 50, 32
_MOVING = {LensState.MOTION_MOVING: True, LensState.MOTION_STATIONARY: False}


class FocusSweepController(ManagedNode):
    """See the module's text."""

    _active = False

    def __init__(self, **node_arguments: Any) -> None:
        """Declare parameters and, with ``autostart``, configure and activate.

        Raises:
            ParameterError: a value given at start breaks a rule.
        """
        super().__init__(FOCUS_SWEEP_CONTROLLER.node_name, **node_arguments)
        self.values = FOCUS_SWEEP_CONTROLLER.declare(self)
        self._throttled = ThrottledLog(self.get_logger().warning)
        self._control = SweepControl(sweep_plan(self.values), self._on_end)
        self._join: StampJoin[LensState] = StampJoin()
        self._inputs: InputSubscriptions | None = None
        self._output: Any = None
        self._command = ParameterCommand(
            self, self.values["camera.node"], self.values["camera.parameter"],
            self.values["camera.timeout_s"],
            lambda cause, sentence: self._throttled.line(cause, f"command failed: {sentence}"))
        FOCUS_SWEEP_CONTROLLER.follow(self, self._apply)
        self._expected = False
        self._heard_since_end = False
        self._retry_at_s = -math.inf
        self._absent_since_s: float | None = None
        self._reports_missing = 0
        self._last_trouble = (0, 0, 0)
        self.create_service(Trigger, "~/run_sweep", self._on_run_sweep)
        wall = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(0.05, self._on_tick, clock=wall)
        self.diagnostics = Diagnostics(self, {"sweep": self._status},
                                       self.values["diagnostics.period_s"])
        if self.values["autostart"]:
            self.start_itself(wall)

    # -- lifecycle --------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Make the publisher."""
        self._output = self.create_lifecycle_publisher(
            LensState, LENS, output_qos(_OUTPUT_DEPTH), qos_overriding_options=overridable())
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe; sweeps begin."""
        values = self.values
        self._join = StampJoin(0, values["report_timeout_s"])
        self._heard_since_end, self._absent_since_s = False, None
        topics: dict[str, type] = {INFO: CameraInfo}
        if values["lens.report"] != "none":
            topics[UNTAGGED] = LensState
        self._expected = values["lens.report"] == "topic"
        self._inputs = InputSubscriptions(
            self, topics, lambda topic, message, _: self._on_message(topic, message),
            reliability=values["input.reliability"], depth=_INPUT_DEPTH, keep_all=False)
        answer = super().on_activate(state)
        self._active = True
        return answer

    def halt(self) -> None:
        """Abort the sweep and unsubscribe; the lens stays where it is."""
        self._active = False
        self._control.abort("deactivated", time.monotonic())
        self._command.cancel()
        if self._inputs is not None:
            self._inputs.destroy()
            self._inputs = None

    def release(self) -> None:
        """Remove the publisher."""
        if self._output is not None:
            self.destroy_lifecycle_publisher(self._output)
            self._output = None

    def _apply(self, values: dict[str, Any]) -> None:
        self.values = values
        self._control.plan = sweep_plan(values)

    # -- images -----------------------------------------------------------------------------------

    def _on_message(self, topic: str, message: Any) -> None:
        if not self._active:
            return  # taken from the middleware just before the node was deactivated
        stamp_ns = stamp_to_ns(message.header.stamp)
        if topic == UNTAGGED:
            self._expected = True
            self._join.report(stamp_ns, message)
        else:
            self._join.image(stamp_ns, message.header.frame_id, time.monotonic())
        self._advance()

    def _on_tick(self) -> None:
        if not self._active or self._inputs is None:
            return
        for topic in self._inputs.follow():
            self.get_logger().info(f"{topic}: its publisher is best effort, following it")
        if self.values["lens.report"] == "auto":
            self._expected = self.count_publishers(UNTAGGED) > 0
        self._advance()

    def _advance(self) -> None:
        """Publish the states of the images that are due, and do what follows from them."""
        now_s = time.monotonic()
        for image in self._join.due(now_s, wait=self._expected):
            self._heard_since_end = True
            self._output.publish(self._state(image, now_s))
            self._send(now_s)
        self._control.tick(now_s)
        self._command.tick(now_s)
        if self._may_start(now_s):
            self._control.start(now_s)
        self._send(now_s)

    def _state(self, image: JoinedImage[LensState], now_s: float) -> LensState:
        """State of one image, tagged if it is a slice."""
        control, state, tag = self._control, image.report, None
        if state is not None:
            tag = control.frame(LensReport(
                state.focus_diopters, state.focus_origin == LensState.ORIGIN_ENCODER,
                _MOVING.get(state.lens_motion)), now_s)
        else:
            focus_diopters = math.nan
            if self._expected:
                control.skip(now_s)
                self._reports_missing += 1
                self._throttled.line("report", f"no message on {UNTAGGED} for an image within "
                                     f"report_timeout_s = {self.values['report_timeout_s']:g} s: "
                                     "its focus is unknown")
            else:
                focus_diopters = control.accepted_diopters
                tag = control.frame(None, now_s)
            state = commanded_state(focus_diopters, self.values)
            state.header = Header(stamp=ns_to_stamp(image.stamp_ns), frame_id=image.frame_id)
        state.sweep_id, state.sweep_index, state.sweep_size = (
            (tag.sweep_id, tag.index, tag.size) if tag else (0, 0, 0))
        return state

    # -- sweeps -----------------------------------------------------------------------------------

    def _may_start(self, now_s: float) -> bool:
        if self._control.running or self.values["sweep.trigger"] != "continuous":
            return False
        if not self._command.ready:
            since_s = self._absent_since_s = (
                now_s if self._absent_since_s is None else self._absent_since_s)
            if now_s - since_s > self.values["camera.timeout_s"]:
                self._absent_since_s = now_s
                self._command.fail("no_service", self._command.absence)
            return False
        self._absent_since_s = None
        return (self._heard_since_end and now_s >= self._retry_at_s
                and now_s - self._control.ended_s >= self.values["sweep.pause_s"])

    def _send(self, now_s: float) -> None:
        diopters = self._control.take_command()
        if diopters is not None:
            self._command.send(diopters, now_s, self._on_answer)

    def _on_answer(self, accepted: bool) -> None:
        now_s = time.monotonic()
        if accepted:
            self._control.accepted(now_s)
        else:
            self._control.refused(now_s)

    def _on_end(self, sweep_id: int, cause: str) -> None:
        self._command.cancel()
        if not cause:
            return
        self._heard_since_end = False
        if cause == "command_failed":
            self._retry_at_s = time.monotonic() + RETRY_S
        hint = {"stalled": f": no image on {INFO} for sweep.timeout_s = "
                           f"{self.values['sweep.timeout_s']:g} s; it goes on when they return",
                "never_settled": ": the lens keeps moving; is its autofocus off?",
                "focus_unknown": f": {UNTAGGED} does not tell the focus of the images"}
        self._throttled.line(cause, f"sweep {sweep_id} aborted ({cause}){hint.get(cause, '')}")

    def _on_run_sweep(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = False
        place = self._control.place
        if not self._active:
            response.message = "the controller is not active: activate it first"
        elif place is not None:
            response.message = (f"sweep {place.sweep_id} is being taken (slice {place.index + 1} "
                                f"of {place.size}): wait for its end")
        elif not self._command.ready:
            self._command.fail("no_service", self._command.absence)
            response.message = self._command.absence
        else:
            sweep_id = self._control.start(time.monotonic())
            self._send(time.monotonic())
            response.success = True
            response.message = f"sweep {sweep_id}"
        return response

    def _status(self) -> Status:
        control, place = self._control, self._control.place
        values: dict[str, Any] = {
            "sweeps_started": control.started, "sweeps_finished": control.finished,
            "sweeps_aborted": sum(control.aborted.values()),
            "position_diopters": control.target_diopters if place else None,
            "slice": f"{place.index + 1} of {place.size}" if place else None,
            "images": self._join.images, "reports_missing": self._reports_missing,
            "commands": self._command.sent, "corrections": control.corrected,
            "off_target": control.off_target,
            "command_failures": sum(self._command.failures.values())}
        values.update({f"aborted.{cause}": n for cause, n in sorted(control.aborted.items())})
        values.update({f"command_failures.{cause}": n
                       for cause, n in sorted(self._command.failures.items())})
        trouble = (sum(control.aborted.values()) - control.aborted["deactivated"],
                   sum(self._command.failures.values()), control.off_target)
        before, self._last_trouble = self._last_trouble, trouble
        if not self._active:
            return Status(OK, "not active", values)
        if trouble > before:
            level = ERROR if not control.finished else WARN
            return Status(level, "since the last message: sweeps aborted, commands failed or "
                          "positions not reached; see the counters", values)
        return Status(OK, "taking a sweep" if place else "waiting", values)


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted."""
    return run_node(FocusSweepController, arguments)


if __name__ == "__main__":
    sys.exit(main())
