"""A peer process for tests of player and collector: not our node, but real DDS at the other end.

    python depth_peer.py count TOPIC...       counts raw messages
    python depth_peer.py depth [--silent N]   answers left images with depth, sigma, report

`depth` drops every 5th set and says so in diagnostics as ``dropped.every_fifth``; `--silent N`
loses the Nth set without a word. It listens for images only once each of its outputs has found a
subscriber: whoever sees it subscribed can lose no answer to a discovery that is still under way.
Both print "ready" when their subscriptions exist, and their state as JSON when a line comes in on
stdin.
"""

from __future__ import annotations

import argparse
import array
import json
import math
import sys
import threading
import time
from contextlib import suppress

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.executors import ExternalShutdownException
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from depth_fusion_ros.msg import FrameReport

QUEUE = 50  # more than any test sends: a stalled reader delays messages, it loses none


def count(node: rclpy.node.Node, topics: list[str]) -> dict:
    state: dict = {"counts": dict.fromkeys(topics, 0), "clock": []}

    def on_message(topic: str) -> None:
        state["counts"][topic] += 1

    for name in topics:
        kind = Clock if name == "/clock" else Image
        node.create_subscription(kind, name, lambda _, t=name: on_message(t), 50, raw=True)
    node.create_subscription(
        Clock, "/clock", lambda m: state["clock"].append(m.clock.sec * 10**9 + m.clock.nanosec), 500
    )
    return state


def answer(node: rclpy.node.Node, silent: int) -> dict:
    state = {"received": 0, "dropped": 0}
    depth = node.create_publisher(Image, "/camera/depth_registered/image_rect", QUEUE)
    sigma = node.create_publisher(Image, "/camera/depth_registered/sigma", QUEUE)
    report = node.create_publisher(FrameReport, "/camera/frame_report", QUEUE)
    diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", QUEUE)

    def on_left(left: Image) -> None:
        state["received"] += 1
        if state["received"] % 5 == 0:
            state["dropped"] += 1
            return
        if state["received"] == silent:
            return
        for publisher, value in ((depth, 2.0), (sigma, 0.1)):
            image = Image(header=left.header, height=left.height, width=left.width)
            image.encoding, image.step = "32FC1", left.width * 4
            values = array.array("f", [value]) * (left.height * left.width)
            image.data = array.array("B", values.tobytes())
            publisher.publish(image)
        frame = FrameReport(header=left.header, stage_names=["wait", "inference"])
        frame.stage_ms, frame.latency_ms = [1.0, 4.0], math.nan
        report.publish(frame)

    def on_timer() -> None:
        values = [KeyValue(key="dropped.every_fifth", value=str(state["dropped"]))]
        values.append(KeyValue(key="rate_hz", value="10"))
        status = DiagnosticStatus(name="depth_peer: inputs", message="peer", values=values)
        diagnostics.publish(DiagnosticArray(status=[status]))

    for publisher in (depth, sigma, report, diagnostics):
        wait_for_subscriber(publisher)
    node.create_subscription(Image, "/camera/dp/left/image_raw", on_left, QUEUE)
    node.create_timer(0.1, on_timer)  # in ROS time: runs only while /clock does
    return state


def wait_for_subscriber(publisher: rclpy.publisher.Publisher, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not publisher.get_subscription_count():
        if time.monotonic() > deadline:
            sys.exit(f"depth_peer: nobody subscribed to {publisher.topic_name}")
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("count", "depth"))
    parser.add_argument("topics", nargs="*")
    parser.add_argument("--silent", type=int, default=0)
    options = parser.parse_args()
    rclpy.init()
    use_sim_time = [Parameter("use_sim_time", value=options.role == "depth")]
    node = rclpy.create_node(f"peer_{options.role}", parameter_overrides=use_sim_time)
    is_count = options.role == "count"
    state = count(node, options.topics) if is_count else answer(node, options.silent)
    print("ready", flush=True)
    spinner = threading.Thread(target=spin, args=(node,), daemon=True)
    spinner.start()
    sys.stdin.readline()
    print(json.dumps(state), flush=True)
    rclpy.try_shutdown()  # ends the spinning thread
    spinner.join()


def spin(node: rclpy.node.Node) -> None:
    with suppress(ExternalShutdownException):
        rclpy.spin(node)


if __name__ == "__main__":
    main()
