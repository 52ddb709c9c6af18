"""Clouds reach who listens as Nav2 does: best effort, the middleware as it comes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from depth_fusion_ros.ros.environment import child_environment, ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from ros_helpers import REPORT, Bench

pytestmark = pytest.mark.ros
TOPICS = ("/camera/points/obstacles", "/camera/points/clearing")
BUDGET_BYTES = 450_000
"""Of each cloud: two of them exceed the stock segment, which loses most pairs."""
STOCK = {"FASTDDS_DEFAULT_PROFILES_FILE": ""}
LISTENER = """
import json, sys, threading, rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import PointCloud2

sizes = {topic: {} for topic in sys.argv[1:]}
rclpy.init()
node = rclpy.create_node("costmap")

def listen(topic):
    def keep(cloud):
        stamp = cloud.header.stamp
        sizes[topic][str(stamp.sec * 10**9 + stamp.nanosec)] = len(cloud.data)
    node.create_subscription(PointCloud2, topic, keep, qos_profile_sensor_data)

for topic in sizes:
    listen(topic)
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
print("ready", flush=True)
while not stop.is_set():
    rclpy.spin_once(node, timeout_sec=0.05)
print(json.dumps(sizes), flush=True)
"""


def test_best_effort_listeners_get_every_cloud_and_none_is_above_its_budget() -> None:
    """Best effort may lose: one of sixteen runs lost 8 of 10, for a reason that was not found.

    Without the node's own profile every run loses at this size, so both of two would fail.
    """
    lost = ["not run"]
    for _ in range(2):
        if lost:
            lost = lost_clouds()
    assert not lost


def lost_clouds() -> list[str]:
    """Send ten sets through a node; which of its clouds a listener did not get."""
    with Bench(outputs=(REPORT,)) as bench, bench.node(
            "cloud.max_rate_hz:=0.0", "cloud.voxel_m:=0.0115", "cloud.voxel_sigma_scale:=0.0",
            "cloud.max_sigma_ratio:=1.0", "depth.max_sigma_ratio:=1.0", "clearing.stride:=2",
            "replay.process_all:=true", f"cloud.max_bytes:={BUDGET_BYTES}", environment=STOCK):
        listener = subprocess.Popen(
            [sys.executable, "-c", LISTENER, *TOPICS], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env=child_environment(domain_id=bench.domain) | STOCK)
        try:
            assert listener.stdout is not None and listener.stdout.readline().strip() == "ready"
            bench.wait(lambda: all(len(bench.ros.get_subscriptions_info_by_topic(topic)) >= 1
                                   for topic in TOPICS), "the listener")
            camera = bench.camera(width_px=640, height_px=480)
            bench.wait_for(REPORT, camera.send())  # the node's side of the match is behind it
            stamps = []
            for _ in range(10):
                stamps.append(camera.send())
                bench.wait_for(REPORT, stamps[-1])
            out, _ = listener.communicate("\n", timeout=20.0)
        finally:
            if listener.poll() is None:
                listener.kill()
    lost = []
    for topic, sizes in json.loads(out.splitlines()[-1]).items():
        lost += [f"{topic} at {stamp}" for stamp in stamps if str(stamp) not in sizes]
        assert max(sizes.values()) <= BUDGET_BYTES
        assert max(sizes.values()) > 300_000, "large enough to be a test"
    return lost
