"""What a depth node publishes for navigation, over real DDS: clouds that mark and clear, a scan."""

from __future__ import annotations

import time

import numpy as np
import pytest

from depth_fusion_ros.ros.environment import ros_problem

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

from ros_helpers import DEPTH, FRAME_ID, REPORT, Bench

from depth_fusion_ros.estimation.estimate import Provenance
from depth_fusion_ros.ros.messages import image_to_array

pytestmark = pytest.mark.ros
OBSTACLES, CLEARING, SCAN = "points/obstacles", "points/clearing", "scan"
PROVENANCE = "depth_registered/provenance"


def points_of(cloud):
    return np.frombuffer(cloud.data, np.float32).reshape(-1, cloud.point_step // 4)


@pytest.fixture(scope="module")
def active():
    """An active node without a limit of the rate, and its camera."""
    with Bench() as bench, bench.node("cloud.max_rate_hz:=0.0", "cloud.max_sigma_ratio:=1.0",
                                      "depth.max_sigma_ratio:=1.0"):
        camera = bench.camera()
        bench.wait_for(OBSTACLES, camera.send())
        yield bench, camera


def test_both_clouds_have_stamp_and_frame_of_the_depth_and_only_finite_points(active):
    bench, camera = active
    stamp_ns = camera.send()
    for topic, names in ((OBSTACLES, ["x", "y", "z", "sigma"]), (CLEARING, ["x", "y", "z"])):
        cloud = bench.wait_for(topic, stamp_ns)
        assert cloud.header.frame_id == FRAME_ID
        assert [field.name for field in cloud.fields] == names
        assert (cloud.height, cloud.is_dense, cloud.point_step) == (1, True, 4 * len(names))
        assert cloud.width > 0 and len(cloud.data) == cloud.row_step == cloud.width * 4 * len(names)
        assert np.isfinite(points_of(cloud)).all()


def test_an_obstacle_point_is_a_measured_pixel_of_the_depth_image(active):
    bench, camera = active
    stamp_ns = camera.send()
    depth = image_to_array(bench.wait_for(DEPTH, stamp_ns), DEPTH, ("32FC1",))
    label = image_to_array(bench.wait_for(PROVENANCE, stamp_ns), PROVENANCE, ("mono8",))
    points = points_of(bench.wait_for(OBSTACLES, stamp_ns))
    k = camera.intrinsics
    columns = np.rint(points[:, 0] / points[:, 2] * k.fx_px + k.cx_px).astype(int)
    rows = np.rint(points[:, 1] / points[:, 2] * k.fy_px + k.cy_px).astype(int)
    assert np.array_equal(depth[rows, columns], points[:, 2])
    assert (label[rows, columns] == Provenance.MEASURED).all()


def test_a_clearing_ray_ends_before_what_was_measured(active):
    bench, camera = active
    stamp_ns = camera.send()
    depth = image_to_array(bench.wait_for(DEPTH, stamp_ns), DEPTH, ("32FC1",))
    points = points_of(bench.wait_for(CLEARING, stamp_ns))
    k = camera.intrinsics
    columns = np.rint(points[:, 0] / points[:, 2] * k.fx_px + k.cx_px).astype(int)
    rows = np.rint(points[:, 1] / points[:, 2] * k.fy_px + k.cy_px).astype(int)
    assert (points[:, 2] < depth[rows, columns]).all()


def test_the_scan_is_published_once_it_is_switched_on(active):
    bench, camera = active
    bench.wait_for(DEPTH, camera.send())
    assert not bench.received[SCAN]
    assert bench.set_parameters(scan__enable=True)[0]
    scan = bench.wait_for(SCAN, camera.send())
    assert scan.header.frame_id == "camera_link"
    width = (scan.angle_max - scan.angle_min) / scan.angle_increment + 1
    assert len(scan.ranges) == pytest.approx(width, abs=0.01)
    assert bench.set_parameters(scan__enable=False)[0]


def test_what_the_clouds_hold_is_in_the_diagnostics(active):
    bench, camera = active
    bench.wait_for(OBSTACLES, camera.send())
    bench.counters()
    values = bench.diagnostics["depth quality"][2]
    assert int(values["clouds.obstacle_points"]) > 0 and int(values["clouds.clearing_rays"]) > 0


def test_a_range_that_clears_nothing_is_refused_with_its_remedy(active):
    bench, _ = active
    good, reason = bench.set_parameters(clearing__range_m=0.6, depth__min_m=0.7)
    assert not good and "clearing.range_m" in reason and "depth.min_m" in reason


def test_clouds_come_at_most_so_often_by_their_stamps():
    with Bench() as bench, bench.node("cloud.max_rate_hz:=10.0", "depth.max_sigma_ratio:=1.0",
                                      "cloud.max_sigma_ratio:=1.0", "replay.process_all:=true"):
        camera = bench.camera()
        start_ns = time.time_ns()
        stamps = [camera.send(start_ns + n * 25_000_000) for n in range(9)]
        for stamp_ns in stamps:
            bench.wait_for(REPORT, stamp_ns)
        bench.wait_for(OBSTACLES, stamps[-1])
        assert len(bench.received[DEPTH]) == 9
        assert len(bench.received[OBSTACLES]) == len(bench.received[CLEARING]) == 3


def test_a_frame_in_which_nothing_was_measured_gives_no_clouds_and_no_scan():
    """So that a costmap goes stale and stops the robot."""
    with Bench() as bench, bench.node("cloud.max_rate_hz:=0.0", "depth.max_sigma_ratio:=0.01",
                                      "scan.enable:=true"):
        camera = bench.camera()
        for _ in range(3):
            stamp_ns = camera.send()
            depth = image_to_array(bench.wait_for(DEPTH, stamp_ns), DEPTH, ("32FC1",))
            assert not np.isfinite(depth).any()
            bench.wait_for(REPORT, stamp_ns)
        assert not any(bench.received[topic] for topic in (OBSTACLES, CLEARING, SCAN))
        bench.counters()
        values = bench.diagnostics["depth quality"][2]
        assert min(int(values[name]) for name in ("clouds.blind", "clouds.scan_blind")) >= 3
        assert bench.set_parameters(cloud__silent_when_blind=False)[0]
        stamp_ns = camera.send()
        assert bench.wait_for(OBSTACLES, stamp_ns).width == 0
        assert bench.wait_for(CLEARING, stamp_ns).width == 0
        assert np.isnan(bench.wait_for(SCAN, stamp_ns).ranges).all()


def test_a_frame_that_is_too_vague_to_mark_does_not_clear_either():
    with Bench() as bench, bench.node("cloud.max_rate_hz:=0.0", "depth.max_sigma_ratio:=1.0",
                                      "cloud.max_sigma_ratio:=0.01",
                                      "clearing.max_sigma_ratio:=1.0"):
        camera = bench.camera()
        stamp_ns = camera.send()
        depth = image_to_array(bench.wait_for(DEPTH, stamp_ns), DEPTH, ("32FC1",))
        assert np.isfinite(depth).any()
        bench.wait_for(REPORT, stamp_ns)
        bench.counters()
        values = bench.diagnostics["depth quality"][2]
        assert int(values["clouds.clearing_rays"]) > 0 and int(values["clouds.blind"]) == 1
        assert not bench.received[OBSTACLES] and not bench.received[CLEARING]


def test_a_robot_frame_is_refused_where_tf2_is_not_installed():
    pytest.importorskip("rclpy")
    try:
        import tf2_ros  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("tf2_ros is installed here")
    with Bench() as bench, bench.node("cloud.frame:=base_link", wait_active=False):
        bench.wait(lambda: bench.diagnostics.get("model", (b"", "", {}))[0] == b"\x02", "an error")
        message = bench.diagnostics["model"][1]
        assert "cloud.frame = 'base_link'" in message and "tf2_ros" in message
        assert "leave cloud.frame empty" in message
        assert bench.state() == "unconfigured"
