"""`DepthNode`: the life of a node that turns sets of messages into depth.

A subclass says what is particular to its sensor:

    load(values)              at configure: model and estimator; an exception = FAILURE
    unload()                  at cleanup
    start_inputs(deliver)     at activate: subscribe; hand complete sets to ``deliver``
    stop_inputs()             at deactivate
    housekeeping()            ten times a second, wall time, executor thread
    process(item) -> Result   worker thread: arrays in, `DepthEstimate` out
    versions()                of what computes, for saved frames

The base owns the rest: parameters, lifecycle, mailbox and worker thread (the only thread that
touches the device), publishers, accounts, FrameReport, diagnostics, ``~/enable``,
``~/reset_statistics`` and ``~/save_frame``. Subscriptions only hand over references, so services
stay responsive.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo
from std_srvs.srv import SetBool, Trigger

from depth_fusion_ros.estimation.estimate import DepthEstimate
from depth_fusion_ros.estimation.scale_anchor import AnchorFit
from depth_fusion_ros.ros.accounting import Accounts, ThrottledLog
from depth_fusion_ros.ros.anchor_input import AnchorInput
from depth_fusion_ros.ros.engine import ConfigureError, Engine, fell_back_to_cpu, free_memory
from depth_fusion_ros.ros.frame_saver import FrameSaver
from depth_fusion_ros.ros.health import Health
from depth_fusion_ros.ros.mailbox import BoundedFifo, Mailbox
from depth_fusion_ros.ros.managed_node import ManagedNode
from depth_fusion_ros.ros.navigation_outputs import NavigationOutputs
from depth_fusion_ros.ros.outputs import DepthOutputs, make_report
from depth_fusion_ros.ros.parameters import ParameterTable
from depth_fusion_ros.ros.qos import OUTPUT_DEPTH, REPLAY_OUTPUT_DEPTH
from depth_fusion_ros.ros.transforms import FrameChange

BAG_TIME_AGE_S = 60.0
"""Stamps farther than this from the node's clock are not from a live camera."""


@dataclass(frozen=True)
class Result:
    """What `DepthNode.process` made of one set.

    Attributes:
        estimate: the depth.
        rgb: (H, W, 3) uint8 reference view for coloured points, or None.
        source_info: camera_info of the reference view, or None.
        convert_ms: wall time from messages to arrays.
        inference_divisor: with which it was made. anchor: correction of the dioptres, if any.
    """

    estimate: DepthEstimate
    rgb: NDArray[np.uint8] | None
    source_info: CameraInfo | None
    convert_ms: float
    inference_divisor: int = 1
    anchor: AnchorFit | None = None


class DepthNode(ManagedNode):
    """Base of the depth nodes; see the module's text."""

    makes_pictures = False
    """Whether estimates have an all-in-focus image, which is then published on ``aif/image``."""
    _complete = False  # True once __init__ is through: rclpy destroys half-made nodes too

    def __init__(self, table: ParameterTable, **node_arguments: Any) -> None:
        """Declare parameters, start diagnostics, and with ``autostart`` configure and activate.

        Raises:
            ParameterError: a value given at start breaks a rule.
        """
        super().__init__(table.node_name, **node_arguments)
        self.table = table
        self.values: dict[str, Any] = table.declare(self)
        self.accounts = Accounts()
        self.health = Health(self)
        self.anchor = AnchorInput(self)
        self.health.anchor_facts = self.anchor.facts
        self.overload = self.health.overload
        self.saver = FrameSaver(self)
        self.enabled = True
        self.outputs: DepthOutputs | None = None
        self._mailbox: BoundedFifo[Any] | None = None
        self._worker: Thread | None = None
        self._last_published_ns = 0
        self._throttled = ThrottledLog(self.get_logger().warning)
        table.follow(self, self._apply)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self.create_service(Trigger, "~/reset_statistics", self._on_reset_statistics)
        self._wall_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(0.1, self._on_housekeeping, clock=self._wall_clock)
        self._complete = True
        if self.values["autostart"]:
            self.start_itself(self._wall_clock)

    # -- what a subclass says ----------------------------------------------------------------

    def load(self, values: Mapping[str, Any]) -> None:
        """Make the estimator. An exception makes configure fail with its text."""
        raise NotImplementedError

    def unload(self) -> None:
        """Free the estimator and its memory; a subclass drops its own first."""
        self.health.no_engine()
        free_memory()

    def loaded(self, engine: Engine) -> None:
        """Tell diagnostics and log which engine runs; a subclass calls it when it has one.

        Raises:
            ConfigureError: it runs on the CPU although that is not allowed.
        """
        self.saver.loaded(engine)
        self.health.engine(engine, fell_back_to_cpu(engine, self.values))
        self.get_logger().info(
            f"model {self.health.diagnostics.hardware_id}, backend {engine.backend_name}")

    def parameters_changed(self, values: Mapping[str, Any]) -> None:
        """Apply values that passed validation, and `overload`; called in either thread."""

    def start_inputs(self, deliver: Callable[[Any], None]) -> None:
        """Subscribe; call ``deliver`` with each complete set."""
        raise NotImplementedError

    def stop_inputs(self) -> None:
        """Unsubscribe and account for sets that are incomplete."""

    def housekeeping(self) -> None:
        """Run what must happen although no message comes."""

    def process(self, item: Any) -> Result:
        """Turn one set into depth. An exception with ``.cause`` is a drop of that cause."""
        raise NotImplementedError

    def versions(self) -> dict[str, str]:
        """Return package → version, for saved frames."""
        raise NotImplementedError

    # -- lifecycle ----------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and make the publishers; FAILURE with a sentence where that fails."""
        frame = self.values["cloud.frame"]
        try:
            self.load(self.values)
            change = FrameChange(self, frame) if frame else None
        except Exception as error:  # whatever it is: the node lives and can be configured again
            self.health.configure_error = f"{error}" or type(error).__name__
            self.get_logger().error(f"cannot configure: {self.health.configure_error}")
            if not isinstance(error, (ConfigureError, ValueError, OSError)):
                self.get_logger().error(traceback.format_exc())
            self.unload()
            return TransitionCallbackReturn.FAILURE
        self.health.configure_error = ""
        replay = bool(self.values.get("replay.process_all"))
        navigation = NavigationOutputs(change, self.warn_rarely)
        self.health.cloud_facts = navigation.facts
        self.outputs = DepthOutputs(
            self, navigation, REPLAY_OUTPUT_DEPTH if replay else OUTPUT_DEPTH,
            with_picture=self.makes_pictures)
        self.health.transport.publishers = self.outputs.publishers
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe; counters start from zero."""
        self.accounts.reset()
        self.health.reset()
        self.overload.reset()
        self.parameters_changed(self.values)
        depth = self.values.get("input.queue_size", 5)
        fifo = bool(self.values.get("replay.process_all"))
        self._mailbox = BoundedFifo(depth) if fifo else Mailbox()
        self._worker = Thread(target=self._work, args=(self._mailbox,), name="depth", daemon=True)
        answer = super().on_activate(state)
        self._worker.start()
        self.start_inputs(self._deliver)
        self.anchor.start()
        self.health.transport.start()
        self.health.active = True
        self.get_logger().info("active")
        return answer

    def destroy_node(self) -> None:
        """Stop the worker before the node's entities go."""
        if self._complete:
            self.halt()
            self.unload()
        super().destroy_node()

    def halt(self) -> None:
        """Unsubscribe and finish the frame in work; the model stays loaded."""
        self.health.active = False
        if self._mailbox is None or self._worker is None:
            return
        self.stop_inputs()
        self.anchor.stop()
        mailbox, self._mailbox = self._mailbox, None  # ends the worker's loop
        for _ in mailbox.close():
            self.accounts.drop("inactive")
        self._worker.join(timeout=30.0)
        self._worker = None

    def release(self) -> None:
        """Free the publishers and the model."""
        self.health.transport.publishers = ()
        self.saver.forget()
        if self.outputs is not None:
            self.outputs.destroy()
            self.outputs = None
        self.unload()

    # -- from set to depth ----------------------------------------------------------------

    def _deliver(self, item: Any) -> None:
        """Executor thread: hand a complete set to the worker."""
        if not self.enabled:
            self.accounts.drop("disabled")
            return
        if self.overload.leaves_out():
            self.accounts.drop("overload")
            return
        assert self._mailbox is not None
        left_over = self._mailbox.put(item)
        if left_over is not None:
            self.accounts.drop("inactive" if left_over is item else "busy")

    def drop(self, cause: str, sentence: str) -> None:
        """Count a set that ends without depth and say why, at most once in five seconds a cause."""
        self.accounts.drop(cause)
        self.health.inputs.why_dropped[cause] = (sentence.splitlines() or [""])[-1]
        self.warn_rarely(cause, f"dropped ({cause}): {sentence}")

    def warn_rarely(self, key: str, text: str) -> None:
        """Log a warning, at most once in five seconds for a key."""
        self._throttled.line(key, text)

    def age_s(self, stamp_ns: int) -> float | None:
        """Age of a stamp by the node's clock; None while that clock has not started."""
        now_ns = self.get_clock().now().nanoseconds
        return (now_ns - stamp_ns) * 1e-9 if now_ns else None

    def _work(self, mailbox: BoundedFifo[Any]) -> None:
        while mailbox is self._mailbox and self.context.ok():
            item = mailbox.get(timeout_s=0.5)
            if item is None:
                continue
            try:
                self._process(item)
            except Exception as error:
                if not self.context.ok():
                    break  # interrupted: publishers are gone
                cause = getattr(error, "cause", "")
                self.drop(cause or "internal_error",
                          str(error) if cause else traceback.format_exc().strip())
        for _ in mailbox.close():  # an executor thread that waits for room must not wait for ever
            self.accounts.drop("inactive")

    def _process(self, item: Any) -> None:
        start_ns = time.time_ns()
        limit_s = self.values["input.max_age_s"]
        age_s = self.age_s(item.stamp_ns)
        if (age_s is not None and 0.0 < limit_s < age_s
                and not self.values["replay.process_all"]):
            self.drop("stale", f"age = {age_s:.3f} s by this node's clock: must be at most "
                      f"input.max_age_s = {limit_s:g} s; compare the clocks, for bags play with "
                      "--clock and set use_sim_time, or raise input.max_age_s")
            return
        result = self.saver.watched(self.process, item)
        estimate = result.estimate
        assert self.outputs is not None
        timing = self.outputs.publish(estimate, result.rgb, result.source_info,
                                      self.overload.eased(self.values))
        self.anchor.observe(estimate)
        latency_ms = (timing.depth_published_ns - item.last_received_ns) * 1e-6
        stage_ms = {
            "join": (item.last_received_ns - item.first_received_ns) * 1e-6,
            "wait": (start_ns - item.last_received_ns) * 1e-6,
            "convert": result.convert_ms,
            **estimate.stage_ms,
            "messages": timing.messages_ms,
            "publish": timing.publish_ms,
        }
        sequence = self.accounts.estimate()
        report = make_report(
            estimate, sequence=sequence, stage_ms=stage_ms, latency_ms=latency_ms,
            totals=self.accounts.totals(), gpu_mem_mb=self.health.gpu_memory_mb(),
            degrade_level=max(self.overload.in_force, default=0),
        )
        self.outputs.publish_report(report)
        if change := self.overload.frame(latency_ms, self.values):
            self.get_logger().warning(change)
            self.parameters_changed(self.values)
        age_s = self.age_s(estimate.stamp_ns)
        live = not self._bag_time() and age_s is not None and abs(age_s) < BAG_TIME_AGE_S
        cyclic_ms = (timing.depth_published_ns - self._last_published_ns) * 1e-6
        self.outputs.publish_times(
            processing=(timing.depth_published_ns - start_ns) * 1e-6,
            latency=age_s * 1e3 if live and age_s is not None else None,
            cyclic=cyclic_ms if self._last_published_ns else None,
        )
        self._last_published_ns = timing.depth_published_ns
        self.health.frame(report, age_s * 1e3 if live and age_s is not None else math.nan)

    def _bag_time(self) -> bool:
        return bool(self.get_parameter("use_sim_time").value)

    # -- callbacks ----------------------------------------------------------------

    def _apply(self, values: dict[str, Any]) -> None:
        self.values = values
        self.parameters_changed(values)

    def _on_housekeeping(self) -> None:
        if self.health.active:
            self.housekeeping()

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.enabled = request.data
        response.success = True
        response.message = "estimating" if self.enabled else "paused; sets count as disabled"
        return response

    def _on_reset_statistics(self, _: Trigger.Request, response: Trigger.Response
                             ) -> Trigger.Response:
        self.accounts.reset()
        self.health.reset()
        response.success, response.message = True, "counters and percentiles are cleared"
        return response


__all__ = ["DepthNode", "Result"]
