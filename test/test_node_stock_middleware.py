"""Clouds reach who listens as Nav2 does: best effort, the middleware as it comes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest

from depth_fusion_ros.ros.environment import child_environment, ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from ros_helpers import PATIENCE_S, REPORT, Bench

pytestmark = [pytest.mark.ros, pytest.mark.alone]
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
        first = not all(sizes.values())
        sizes[topic][str(stamp.sec * 10**9 + stamp.nanosec)] = len(cloud.data)
        if first and all(sizes.values()):
            print("discovered", flush=True)
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
    """Counted from the first pair that arrives: discovery alone may take three seconds."""
    with Bench(outputs=(REPORT,)) as bench, bench.node(
            "cloud.max_rate_hz:=0.0", "cloud.voxel_m:=0.0115", "cloud.voxel_sigma_scale:=0.0",
            "cloud.max_sigma_ratio:=1.0", "depth.max_sigma_ratio:=1.0", "clearing.stride:=2",
            "cloud.max_incidence_deg:=90.0", "cloud.surer_square_px:=0", "replay.process_all:=true",
            f"cloud.max_bytes:={BUDGET_BYTES}", environment=STOCK):
        listener = subprocess.Popen(
            [sys.executable, "-c", LISTENER, *TOPICS], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env=child_environment(domain_id=bench.domain) | STOCK)
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.extend(listener.stdout or ()), daemon=True)
        reader.start()
        try:
            camera = bench.camera(width_px=640, height_px=480)
            deadline = time.monotonic() + PATIENCE_S
            while "discovered\n" not in said:
                assert time.monotonic() < deadline, "the listener never heard both topics"
                bench.wait_for(REPORT, camera.send())
            stamps = []
            for _ in range(10):
                stamps.append(camera.send())
                bench.wait_for(REPORT, stamps[-1])
            assert listener.stdin is not None
            listener.stdin.write("\n")
            listener.stdin.flush()
            listener.wait(20.0)
            reader.join(5.0)
        finally:
            if listener.poll() is None:
                listener.kill()
    for topic, sizes in json.loads(said[-1]).items():
        assert [stamp for stamp in stamps if str(stamp) not in sizes] == [], topic
        assert max(sizes.values()) <= BUDGET_BYTES
        assert max(sizes.values()) > 300_000, "large enough to be a test"
