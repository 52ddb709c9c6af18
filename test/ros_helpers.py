"""Node tests over real DDS: the node in its own process, this process is camera and listener.

    with Bench() as bench, bench.node("model.path:=closed_form") as node:
        camera = bench.camera()
        stamp_ns = camera.send()
        depth = bench.wait_for("depth_registered/image_rect", stamp_ns)

Importing this module needs rclpy and our messages: call `require_ros()` of the importing test
first. Every Bench has a ROS domain of its own.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2
from std_msgs.msg import Float64
from std_srvs.srv import SetBool, Trigger

from depth_fusion_ros.msg import FrameReport
from depth_fusion_ros.optics.thin_lens import ThinLens
from depth_fusion_ros.ros.environment import (
    child_environment,
    ensure_ros_environment,
    free_domain_id,
)
from depth_fusion_ros.ros.messages import stamp_to_ns

if TYPE_CHECKING:
    from ros_camera import Camera

NAMESPACE = "/camera"
NODE = f"{NAMESPACE}/dual_pixel_depth"
FRAME_ID = "camera_rgb_optical_frame"
LENS = ThinLens(0.012, 2.0, 27.6e-6, 1.25)
LEFT, RIGHT, PACKED = "dp/left/image_raw", "dp/right/image_raw", "dp/image_raw"
DP_INFO, RGB, RGB_INFO = "dp/camera_info", "rgb/image_rect", "rgb/camera_info"
LENS_STATE = "lens_state"
DEPTH = "depth_registered/image_rect"
REPORT = "frame_report"
RELATIVE = "relative/inverse_depth"
OUTPUTS = {
    DEPTH: Image, "depth_registered/camera_info": CameraInfo, "depth_registered/image_raw": Image,
    "depth_registered/sigma": Image, "depth_registered/provenance": Image,
    "depth_registered/preview": Image, "points": PointCloud2, RELATIVE: Image,
    REPORT: FrameReport, "dual_pixel_depth/debug/processing_time_ms": Float64,
    "dual_pixel_depth/debug/pipeline_latency_ms": Float64, "aif/image": Image,
    "points/obstacles": PointCloud2, "points/clearing": PointCloud2, "scan": LaserScan,
}
DEPTH_NODES = ("dual_pixel_depth", "focus_sweep_depth")
PATIENCE_S = 30.0  # machines under load; nothing waits for it when all is well


class Bench:
    """A ROS domain with listeners on all outputs and a thread that spins them."""

    def __init__(self, outputs: tuple[str, ...] = tuple(OUTPUTS)) -> None:
        self.domain = free_domain_id()
        ensure_ros_environment(domain_id=self.domain)
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.ros = rclpy.create_node("bench", namespace=NAMESPACE, context=self.context)
        self.received: dict[str, list[Any]] = defaultdict(list)
        self.diagnostics: dict[str, tuple[bytes, str, dict[str, str]]] = {}
        self.diagnostics_count = 0
        self.node_name = NODE
        for topic in outputs:
            self.ros.create_subscription(OUTPUTS[topic], topic, self.listen(topic), 50)
        self.ros.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        executor = SingleThreadedExecutor(context=self.context)
        executor.add_node(self.ros)
        self._executor = executor
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()  # in this order: a context that goes first crashes the waiter
        self._thread.join(10.0)
        self.ros.destroy_node()
        rclpy.shutdown(context=self.context)

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self._executor.spin()

    def listen(self, topic: str) -> Callable[[Any], None]:
        """Return a subscription callback that appends to ``received[topic]``."""

        def listen(message: Any) -> None:
            self.received[topic].append(message)

        return listen

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            values = {item.key: item.value for item in status.values}
            self.diagnostics[status.name.split(": ")[-1]] = (
                status.level, status.message, values)
        self.diagnostics_count += 1

    # -- waiting ----------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
        """Return the first true value of ``condition``; fail with ``what`` after the timeout."""
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"waited {timeout_s} s for {what}; diagnostics: {self.diagnostics}")
            time.sleep(0.005)
        return value

    def wait_for(self, topic: str, stamp_ns: int, timeout_s: float = PATIENCE_S) -> Any:
        """Return the message with this stamp."""
        return self.wait(lambda: self.find(topic, stamp_ns), f"{topic} at {stamp_ns}", timeout_s)

    def find(self, topic: str, stamp_ns: int) -> Any:
        """Return the message with this stamp, or None."""
        found = [m for m in self.received[topic] if stamp_to_ns(m.header.stamp) == stamp_ns]
        return found[0] if found else None

    def counters(self) -> dict[str, int]:
        """Return received, estimated, pending and dropped.<cause>, read after this call."""
        seen = self.diagnostics_count
        self.wait(lambda: self.diagnostics_count >= seen + 2, "diagnostics")
        return self.counters_now()

    def counters_now(self) -> dict[str, int]:
        """Return the counters as last published."""
        values = self.diagnostics.get("inputs", (b"", "", {}))[2]
        return {key: int(value) for key, value in values.items()
                if key in ("received", "estimated", "pending") or key.startswith("dropped.")}

    # -- the node ---------------------------------------------------------------------------------

    @contextmanager
    def node(self, *parameters: str, wait_active: bool = True, module: str = "dual_pixel_depth",
             model: str = "closed_form", remap: tuple[str, ...] = (),
             environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
        """Run a node of ours in a process of its own, with ``name:=value`` parameters.

        ``environment``: variables of that process beside the usual ones.
        """
        command = [sys.executable, "-m", f"depth_fusion_ros.nodes.{module}", "--ros-args",
                   "-r", f"__ns:={NAMESPACE}"]
        self.node_name = f"{NAMESPACE}/{module}"
        if module in DEPTH_NODES:
            parameters = (f"model.path:={model}", "diagnostics.period_s:=0.1",
                          "model.warmup_iterations:=1", "model.warmup_width_px:=96",
                          "model.warmup_height_px:=64", "model.threads:=1",
                          "input.max_age_s:=30.0", "transport.self_test:=false",
                          "budget.allow_degrade:=false", *parameters)
        for parameter in parameters:
            command += ["-p", parameter]
        for rule in remap:
            command += ["-r", rule]
        variables = child_environment(domain_id=self.domain)
        variables |= {"OMP_NUM_THREADS": "1"} | (environment or {})
        process = subprocess.Popen(command, env=variables, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        log: list[str] = []
        reader = threading.Thread(target=lambda: log.extend(process.stdout), daemon=True)
        reader.start()
        process.log = log  # type: ignore[attr-defined]
        try:
            if wait_active:
                self.wait(lambda: self.state() == "active", f"active, log: {log}")
            yield process
        finally:
            end(process)
            reader.join(5)
            self.diagnostics.clear()

    def call(self, kind: type, name: str, request: Any, timeout_s: float = PATIENCE_S) -> Any:
        """Call a service of the node and return the response."""
        client = self.ros.create_client(kind, name)
        try:
            if not client.wait_for_service(timeout_s):
                raise AssertionError(f"no service {name}")
            future = client.call_async(request)
            deadline = time.monotonic() + timeout_s
            while not future.done():
                if time.monotonic() > deadline:
                    raise AssertionError(f"no answer from {name}")
                time.sleep(0.005)
            return future.result()
        finally:
            self.ros.destroy_client(client)

    def meet(self) -> None:
        """Return when the node knows every publisher and subscription that the bench has made.

        Matching is not symmetric: that the bench has found the node says nothing of the reverse,
        and a node that has not found a listener yet sends it nothing. Middleware announces the
        endpoints of a process in the order of their making, so that a node that answers a client
        made last has heard of all before it.
        """
        self.call(GetParameters, f"{self.node_name}/get_parameters",
                  GetParameters.Request(names=["use_sim_time"]))

    def state(self) -> str:
        """Return the lifecycle state's label."""
        answer = self.call(GetState, f"{self.node_name}/get_state", GetState.Request())
        return answer.current_state.label

    def change(self, transition: int) -> bool:
        """Trigger a lifecycle transition; True = success."""
        request = ChangeState.Request()
        request.transition.id = transition
        return self.call(ChangeState, f"{self.node_name}/change_state", request).success

    def set_parameters(self, **values: Any) -> tuple[bool, str]:
        """Set a set of parameters atomically (``__`` for dots)."""
        request = SetParametersAtomically.Request(parameters=[
            Parameter(name.replace("__", "."), value=value).to_parameter_msg()
            for name, value in values.items()])
        result = self.call(SetParametersAtomically,
                           f"{self.node_name}/set_parameters_atomically", request)
        return result.result.successful, result.result.reason

    def parameter(self, name: str) -> Any:
        """Return a parameter of the node."""
        answer = self.call(GetParameters, f"{self.node_name}/get_parameters",
                           GetParameters.Request(names=[name]))
        return Parameter.from_parameter_msg(
            type("P", (), {"name": name, "value": answer.values[0]})()).value

    def enable(self, on: bool) -> None:
        """Call ~/enable."""
        assert self.call(SetBool, f"{self.node_name}/enable", SetBool.Request(data=on)).success

    def reset_statistics(self) -> None:
        """Call ~/reset_statistics."""
        assert self.call(Trigger, f"{self.node_name}/reset_statistics", Trigger.Request()).success

    def camera(self, **arguments: Any) -> Camera:
        """Return a camera whose publishers the node's subscriptions have found."""
        from ros_camera import Camera  # which imports this module

        return Camera(self, **arguments)


def end(process: subprocess.Popen[str]) -> None:
    """Stop a process in order: one that is killed leaves its shared memory behind, 16 MB a node."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def balanced(counters: dict[str, int]) -> bool:
    """Tell whether every set received is estimated, dropped with a cause, or pending."""
    drops = sum(n for key, n in counters.items() if key.startswith("dropped."))
    return counters["received"] == counters["estimated"] + drops + counters["pending"]
