"""dual_pixel_depth without lens, with other QoS, under overload, in replays and bag time."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_helpers import DEPTH, FRAME_ID, LENS_STATE, RELATIVE, REPORT, Bench, balanced
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from depth_fusion_ros.msg import FrameReport
from depth_fusion_ros.ros.messages import image_to_array, stamp_to_ns
from depth_fusion_ros.ros.outputs import ns_to_stamp

pytestmark = [pytest.mark.ros, pytest.mark.alone]


def test_without_any_lens_only_relative_depth_is_published_and_diagnostics_say_why():
    with Bench() as bench, bench.node():
        camera = bench.camera(lens=False)
        stamps = [camera.send()]
        bench.wait_for(RELATIVE, stamps[0])
        stamps.append(camera.send())
        relative = image_to_array(bench.wait_for(RELATIVE, stamps[1]), RELATIVE, ("32FC1",))
        assert np.isfinite(relative).any()
        report = bench.wait_for(REPORT, stamps[1])
        assert report.scale_state == FrameReport.SCALE_RELATIVE
        bench.counters()
        for topic in (DEPTH, "depth_registered/sigma", "depth_registered/image_raw", "points"):
            assert not bench.received[topic], topic
        level, message, _ = bench.diagnostics["lens"]
        assert level == b"\x01"
        assert LENS_STATE in message and "lens.focus_source" in message


def test_lens_parameters_alone_make_metric_depth_without_rgb():
    with Bench() as bench, bench.node(
        "lens.focus_source:=constant", "lens.focus_diopters:=1.25", "lens.focal_length_m:=0.012",
        "lens.f_number:=2.0", "lens.pixel_pitch_m:=27.6e-6", "input.use_rgb:=false",
    ):
        camera = bench.camera(lens=False, rgb=False)
        stamp_ns = camera.send()
        assert bench.wait_for(DEPTH, stamp_ns).header.frame_id == FRAME_ID
        assert bench.wait_for(REPORT, stamp_ns).scale_state == FrameReport.SCALE_ABSOLUTE


def test_a_best_effort_camera_is_followed():
    with Bench() as bench, bench.node():
        camera = bench.camera(reliable=False)
        bench.wait(lambda: camera.send() and time.sleep(0.1) is None and bench.received[DEPTH],
                   "depth from a best-effort camera")


def test_a_reliable_only_node_names_the_best_effort_publisher_it_cannot_hear():
    with Bench() as bench, bench.node("input.reliability:=reliable"):
        bench.ros.create_publisher(
            Image, "dp/left/image_raw",
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
        bench.wait(lambda: "incompatible_publishers.dp/left/image_raw" in bench.diagnostics.get(
            "inputs", (0, 0, {}))[2], "the incompatible publisher")
        assert "input.reliability" in bench.diagnostics["inputs"][1]


def test_overload_drops_the_oldest_keeps_latency_bounded_and_loses_no_count():
    with Bench(outputs=(DEPTH, REPORT)) as bench, bench.node():
        camera = bench.camera(width_px=320, height_px=240)
        bench.wait_for(REPORT, camera.send())
        camera.send()
        sent = 2
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            camera.send()
            sent += 1
            time.sleep(0.005)
        last_ns = camera.send()
        sent += 1
        bench.wait_for(REPORT, last_ns)
        bench.wait(lambda: bench.counters_now().get("pending") == 0, "no set pending")
        counters = bench.counters()
        assert balanced(counters)
        lost = {key: int(n) for key, n in bench.diagnostics["inputs"][2].items()
                if key.startswith("lost.")}
        assert sent - max(lost.values(), default=0) <= counters["received"] <= sent
        assert counters["dropped.busy"] > 0
        if not lost:  # on a machine that stood still for 0.1 s the middleware's queue overflows
            assert set(counters) <= {"received", "estimated", "pending", "dropped.busy"}
        reports = bench.received[REPORT]
        assert reports[-1].dropped_busy == counters["dropped.busy"]
        assert [r.sequence for r in reports] == list(range(len(reports)))
        processing = [r.latency_ms - dict(zip(r.stage_names, r.stage_ms))["wait"] for r in reports]
        assert max(r.latency_ms for r in reports) < 3 * max(processing) + 50.0


def test_process_all_estimates_every_set_in_order_although_it_is_too_slow():
    with Bench(outputs=(DEPTH, REPORT)) as bench, bench.node(
            "replay.process_all:=true", "input.max_age_s:=0.001") as process:
        camera = bench.camera()
        stamps = []
        for _ in range(25):
            stamps.append(camera.send())
            time.sleep(0.004)
        bench.wait_for(DEPTH, stamps[-1])
        assert [stamp_to_ns(m.header.stamp) for m in bench.received[DEPTH]] == stamps
        for _ in range(20):
            camera.send()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0, f"ended by an interrupt, full queue: {process.log[-25:]}"


def test_bag_time_is_neither_stale_nor_reported_as_latency():
    bag_ns = 1_000 * 1_000_000_000
    with Bench() as bench, bench.node("use_sim_time:=true", "input.max_age_s:=0.5"):
        clock = bench.ros.create_publisher(Clock, "/clock", 10)
        camera = bench.camera()
        bench.wait(clock.get_subscription_count, "the node's /clock subscription")
        time.sleep(0.2)
        for step in range(3):
            stamp_ns = bag_ns + step * 100_000_000
            clock.publish(Clock(clock=ns_to_stamp(stamp_ns)))
            time.sleep(0.05)
            camera.send(stamp_ns)
            report = bench.wait_for(REPORT, stamp_ns)
            assert 0.0 < report.latency_ms < 60_000.0, "wall time, whatever the bag says"
        clock.publish(Clock(clock=ns_to_stamp(bag_ns + 10**9)))
        time.sleep(0.05)
        camera.send(bag_ns + 300_000_000)
        bench.wait(lambda: bench.counters_now().get("dropped.stale") == 1, "stale by bag time")
        assert bench.diagnostics["inference"][2]["live_latency_p50_ms"] == "n/a"
        assert not bench.received["dual_pixel_depth/debug/pipeline_latency_ms"]
